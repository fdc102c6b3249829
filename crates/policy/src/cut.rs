//! Files of some owners that go no further than there is room for. Pure.

use rustc_hash::FxHashSet;

use super::evaluation::{Evaluation, add_owner};
use super::kept::Stays;
use super::portion::Portion;
use purge_index::Index;

/// Leaves of some owners' files, in their order, those that there is room for. What others have does not take the place of the rest.
pub fn cut(
    index: &Index,
    evaluation: &mut Evaluation,
    owners: &FxHashSet<u32>,
    has_room_for: impl Fn(Portion) -> bool,
) {
    let (mut goes, mut stays) = (Portion::default(), Portion::default());
    evaluation.by_owner.retain(|uid, _| !owners.contains(uid));
    let by_owner = &mut evaluation.by_owner;
    evaluation.picks.retain(|pick| {
        let uid = index.get(pick.ino).map(|(entry, _)| entry.uid);
        let Some(uid) = uid.filter(|uid| owners.contains(uid)) else {
            return true;
        };
        let more = goes.plus(pick.portion());
        let fits = has_room_for(more);
        if fits {
            goes = more;
            add_owner(by_owner, uid, pick.portion());
        } else {
            stays = stays.plus(pick.portion());
        }
        fits
    });
    evaluation.kept.count(Stays::Limit, stays.files);
}
