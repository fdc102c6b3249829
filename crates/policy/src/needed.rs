//! What quotas and watermarks share: which files they may take, the choice of as many as are needed, and the reasons. Pure.
//!
//! What may go at all is a file rule's evaluation with `min_age` as its TTL: the named rule's scope and exclusions,
//! holds and gaps count as they always do. A limit decides how many of these files go, never which files may.

use super::evaluation::{Evaluation, add_owner};
use super::limits::{fitting, sort};
use super::pick::Pick;
use crate::rule::{Rule, Symlinks, Target};
use purge_index::Index;
use purge_model::Seconds;

/// Something that goes by more than one rule's word: which, and why, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stands where a rule's name stands.
    pub name: String,
    /// For a person.
    pub because: String,
}

/// What a quota or a watermark would take. A pick's `rule` is a position in `reasons`.
#[derive(Debug, Clone, PartialEq)]
pub struct Triggered {
    /// What goes and what stays.
    pub evaluation: Evaluation,
    /// At least one.
    pub reasons: Vec<Reason>,
    /// What does not count, for a person.
    pub left_out: Vec<String>,
}

/// What must become free: (bytes, files) for a watermark, (bytes, byte-days) for a quota.
pub type Need = (u128, u128);

/// What may go at all, before any sum is looked at: `rule`'s scope, and nothing used within `min_age`.
pub(crate) fn eligible(rule: &Rule, min_age: u64) -> Rule {
    let mut rule = rule.clone();
    rule.target = Target::File;
    rule.ttl = Some(min_age.max(1));
    // A rule may look at other clocks alone; a file in use stays here in any case.
    rule.clocks.access = true;
    rule.remove_empty_dirs = false;
    rule.symlinks = Symlinks::Keep;
    (rule.max_files, rule.max_bytes) = (0, 0);
    rule
}

/// What goes and what stays of `picks`, which are in order: the first that bring it nearer go, until `need` is met. `gain` is asked
/// only while something is needed.
pub fn choose(
    picks: Vec<Pick>,
    mut need: Need,
    mut gain: impl FnMut(&Pick) -> Need,
) -> (Vec<Pick>, Vec<Pick>) {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for pick in picks {
        if need == (0, 0) {
            left.push(pick);
            continue;
        }
        let brings = gain(&pick);
        let helps = need.0.min(brings.0) > 0 || need.1.min(brings.1) > 0;
        if helps {
            need = (need.0.saturating_sub(brings.0), need.1.saturating_sub(brings.1));
            taken.push(pick);
        } else {
            left.push(pick);
        }
    }
    (taken, left)
}

/// The rule's own limits over all that was chosen, and the counts.
pub(crate) fn settle(
    index: &Index,
    evaluation: &mut Evaluation,
    rule: &Rule,
    now: Seconds,
    (mut taken, left): (Vec<Pick>, Vec<Pick>),
) {
    let count = |picks: &[Pick]| {
        picks
            .iter()
            .fold(0, |sum: u64, p| sum.saturating_add(p.files.into()))
    };
    let kept = &mut evaluation.kept;
    kept.not_needed = kept.not_needed.saturating_add(count(&left));
    if rule.max_files > 0 || rule.max_bytes > 0 {
        sort(&mut taken, rule.sequence, now);
        let beyond = taken.split_off(fitting(&taken, rule));
        kept.limit = kept.limit.saturating_add(count(&beyond));
    }
    evaluation.by_owner.clear();
    for pick in &taken {
        if let Some((attributes, _)) = index.get(pick.ino) {
            add_owner(&mut evaluation.by_owner, attributes.uid, pick.portion());
        }
    }
    evaluation.picks = taken;
}
