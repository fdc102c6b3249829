//! What ordinary users may know: what is theirs.
//!
//! That something is another's, and that it is not there, is answered with the same words, after the same work. So nothing is learnt of
//! what lies in a directory that its owner keeps closed.

use super::questions::{Answer, Questions, known};
use crate::host::HostError;
use crate::host::place::Place;
use crate::host::user::{User, hidden, not_theirs};
use purge_policy::explain::Subject;
use purge_sys::stat::Located;

impl Questions {
    /// [`Questions::explain`] of what a user owns, and of its holds their own: of others' only that there is one.
    ///
    /// # Errors
    /// When nothing of theirs lies there, or it is not in the index.
    pub fn explain_own(&self, path: &[u8], user: User<'_>) -> Result<Answer, HostError> {
        let place = self
            .ground
            .locate("path", path)
            .or_else(|e| hidden(e, path, user.uid))?;
        let (_, known) = theirs(&place, user)?;
        // The index knows the owner of the very inode that is explained, also if another file lies at the path by now.
        let known = known.filter(|s| s.attributes.uid == user.uid);
        let subject = known.ok_or_else(|| not_theirs(&place.path(), user.uid))?;
        let mut answer = self.told_of(place, subject, false)?;
        let count = answer.holds.len();
        answer.holds.retain(|h| h.by == user.name);
        answer.is_held_by_another = answer.holds.len() < count;
        Ok(answer)
    }
}

/// What lies at a place and what the index knows of it, if it is theirs, and in no directory that they cannot enter.
pub(in crate::host) fn theirs(
    place: &Place,
    user: User<'_>,
) -> Result<(Located, Option<Subject>), HostError> {
    let uid = user.uid;
    place.volume.sync_soon();
    let (found, is_there) = place.look_evenly((uid, user.gids))?;
    // Asked in any case: how long it takes does not tell whose it is.
    let known = known(place, &found);
    match is_there && found.stat.uid == uid {
        true => Ok((found, known)),
        false => Err(not_theirs(&place.path(), uid)),
    }
}
