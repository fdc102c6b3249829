//! What became of a plan's candidates: the value. Pure.

use purge_model::{Seconds, Totals};

use crate::fate::Skip;

/// A run of a plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Its name.
    pub id: String,
    /// The plan that it applies.
    pub plan: String,
    /// The volume's name.
    pub volume: String,
    /// How far it is, or how it ended.
    pub state: RunState,
    /// When it began.
    pub started: Seconds,
    /// When it ended; none: it has not.
    pub finished: Option<Seconds>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Who asked for it, as it stands in records: "uid 0", "schedule", "quota NAME".
    pub by: String,
    /// The rules of its plan that take something, or the quota or watermark that asked for it. Empty in records of older agents.
    pub rules: Vec<String>,
    /// What was removed.
    pub deleted: Totals,
    /// What was moved to the trash.
    pub trashed: Totals,
    /// What was copied, or found copied, before it was to be taken: what was used meanwhile is here as well, and left alone.
    pub archived: Totals,
    /// What was left alone, by the reason.
    pub skipped: Skipped,
    /// Files in directories that were left alone, by the same reasons. While it goes on, those in directories that it has not come to are
    /// `unreached`. Nothing in records of older agents.
    pub skipped_inside: Skipped,
    /// The first failures; `failed_total` counts all.
    pub failed: Vec<Failure>,
    /// How many candidates failed.
    pub failed_total: u64,
    /// Whose candidates failed.
    pub failed_by_owner: Vec<OwnerFailures>,
    /// Why it failed as a whole, or stopped early.
    pub error: Option<String>,
    /// Until when what was trashed can be restored (the last of it, where rules differ); none: it had no grace.
    pub trash_until: Option<Seconds>,
    /// What was put back since.
    pub restored: Totals,
    /// When the last of what was trashed was freed.
    pub trash_freed: Option<Seconds>,
    /// What could not be freed then, and lies in the trash still.
    pub trash_stuck: Option<Totals>,
    /// What of it lies in the trash, as counted last; none: what was moved there, without what was put back.
    pub in_trash: Option<Totals>,
    /// Which processes had a lock on a directory, so that the run left what is below it alone, in words.
    pub locked_by: Vec<String>,
}

impl Run {
    /// What of it lies in the trash.
    pub fn left_in_trash(&self) -> Totals {
        match self.trash_freed {
            Some(_) => Totals::default(),
            None => {
                let not_back = || self.trashed.minus(self.restored);
                self.in_trash.unwrap_or_else(not_back)
            }
        }
    }
}

/// How far a run is, or how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunState {
    /// It goes on.
    #[default]
    Running,
    /// It came to its end.
    Completed,
    /// Some candidates failed.
    Partial,
    /// A client ended it.
    Cancelled,
    /// It failed as a whole.
    Failed,
}

impl RunState {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A candidate that failed, or something that could not be put back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// Its path on the host.
    pub path: Vec<u8>,
    /// Why.
    pub error: String,
}

/// How many of an owner's candidates failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerFailures {
    /// The owner.
    pub uid: u32,
    /// Their name; empty while the run goes on.
    pub owner: String,
    /// How many.
    pub failed: u64,
}

/// Candidates that were left alone, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// In the order of [`Skip::ALL`].
    pub(super) by_reason: [u64; Skip::ALL.len()],
    /// The run did not come to them: it was cancelled, or stopped.
    pub unreached: u64,
}

/// How many reasons there are to leave a candidate alone, with the one that the run did not come to it.
pub const REASONS: usize = Skip::ALL.len() + 1;

impl Skipped {
    /// This number was not reached.
    pub fn not_reached(unreached: u64) -> Self {
        Self {
            unreached,
            ..Self::default()
        }
    }

    /// How many were left alone for this reason.
    pub fn count(&self, why: Skip) -> u64 {
        let all = Skip::ALL.into_iter().zip(self.by_reason);
        all.filter(|(reason, _)| *reason == why).map(|(_, n)| n).sum()
    }

    /// Counts more that were left alone for this reason.
    pub fn add(&mut self, why: Skip, more: u64) {
        let place = Skip::ALL.iter().position(|reason| *reason == why);
        if let Some(count) = place.and_then(|place| self.by_reason.get_mut(place)) {
            *count = count.saturating_add(more);
        }
    }

    /// All counts, each with the name of its reason; those that were not reached come last, as "cancelled".
    pub fn by_reason(&self) -> [(&'static str, u64); REASONS] {
        let mut all = [("cancelled", self.unreached); REASONS];
        for (slot, (why, count)) in all.iter_mut().zip(Skip::ALL.into_iter().zip(self.by_reason)) {
            *slot = (why.name(), count);
        }
        all
    }

    /// How many were left alone in all.
    pub fn total(&self) -> u64 {
        self.by_reason()
            .into_iter()
            .fold(0, |sum, (_, n)| sum.saturating_add(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        for (n, why) in Skip::ALL.into_iter().enumerate() {
            let mut skipped = Skipped::default();
            skipped.add(why, 1);
            assert_eq!((skipped.total(), skipped.count(why)), (1, 1), "{why:?}");
            assert_eq!(skipped.by_reason().get(n), Some(&(why.name(), 1)));
        }
        let unreached = Skipped {
            unreached: 7,
            ..Skipped::default()
        };
        assert_eq!(unreached.by_reason().last(), Some(&("cancelled", 7)));
    }
}
