//! Counts what became of a run's candidates: each of them in exactly one place. Pure.

use crate::candidate::Candidate;
use crate::fate::Code;
use crate::runs::{FAILURES_NAMED_MAX, Failure, OwnerFailures, Run, Skipped};
use purge_model::Totals;
use purge_policy::evaluate::Shape;

/// A run's record counts at most this many owners of failures; of the others `failed_total` tells.
pub const OWNERS_MAX: usize = 100;
/// The reason of a stop names at most this many errors.
const ERRORS_NAMED_MAX: usize = 3;
/// And at most this many owners.
const OWNERS_NAMED_MAX: usize = 5;

/// Counts one candidate.
pub fn count(run: &mut Run, candidate: &Candidate, code: Code) {
    if candidate.shape == Shape::Tree {
        count_inside(&mut run.skipped_inside, candidate.files, code);
    }
    match code {
        Code::Deleted => add(&mut run.deleted, candidate),
        Code::Trashed => add(&mut run.trashed, candidate),
        Code::Skipped(why) => run.skipped.add(why, 1),
        Code::Failed => {
            one_more(&mut run.failed_total);
            count_owner(&mut run.failed_by_owner, candidate.uid);
        }
    }
}

/// Counts a copy of a candidate: it is in the store, also where the candidate stays.
pub fn archived(run: &mut Run, candidate: &Candidate) {
    if candidate.shape == Shape::File {
        add(&mut run.archived, candidate);
    }
}

/// Counts the files of a directory that is a candidate: until then they were not reached.
fn count_inside(skipped: &mut Skipped, files: u64, code: Code) {
    skipped.unreached = skipped.unreached.saturating_sub(files);
    if let Code::Skipped(why) = code {
        skipped.add(why, files);
    }
}

/// Counts candidates that the run has not come to.
pub fn count_unreached(run: &mut Run, candidates: u64) {
    run.skipped.unreached = run.skipped.unreached.saturating_add(candidates);
}

/// Names a failure, as long as there are not too many.
pub fn name_failure(run: &mut Run, path: Vec<u8>, error: String) {
    if run.failed.len() < FAILURES_NAMED_MAX {
        run.failed.push(Failure { path, error });
    }
}

/// Failures that tell of a fault of the system. Only these end a run, if there are too many.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How many.
    pub total: u64,
    owners: Vec<OwnerFailures>,
    errors: Vec<String>,
}

impl Faults {
    /// Counts one.
    pub fn count(&mut self, uid: u32, error: &str) {
        one_more(&mut self.total);
        count_owner(&mut self.owners, uid);
        if self.errors.len() < ERRORS_NAMED_MAX && !self.errors.iter().any(|e| e == error) {
            self.errors.push(error.into());
        }
    }

    /// Whose files they were, and what the errors say: "812 of alice, 3 of bob: Input/output error (os error 5)".
    pub fn describe(&self, name_of: impl Fn(u32) -> String) -> String {
        let mut owners: Vec<&OwnerFailures> = self.owners.iter().collect();
        owners.sort_by_key(|owner| std::cmp::Reverse(owner.failed));
        let (named, others) = owners.split_at(owners.len().min(OWNERS_NAMED_MAX));
        let counted = named
            .iter()
            .fold(0u64, |sum, owner| sum.saturating_add(owner.failed));
        let mut words: Vec<String> = named
            .iter()
            .map(|owner| format!("{} of {}", owner.failed, name_of(owner.uid)))
            .collect();
        if !others.is_empty() || counted < self.total {
            words.push(format!("{} of others", self.total.saturating_sub(counted)));
        }
        format!("{}: {}", words.join(", "), self.errors.join("; "))
    }
}

/// Orders the owners of failures by how many they have, and names them.
pub fn name_owners(run: &mut Run, name_of: impl Fn(u32) -> String) {
    run.failed_by_owner
        .sort_by_key(|owner| std::cmp::Reverse(owner.failed));
    for owner in &mut run.failed_by_owner {
        owner.owner = name_of(owner.uid);
    }
}

fn count_owner(owners: &mut Vec<OwnerFailures>, uid: u32) {
    if let Some(owner) = owners.iter_mut().find(|owner| owner.uid == uid) {
        one_more(&mut owner.failed);
    } else if owners.len() < OWNERS_MAX {
        owners.push(OwnerFailures {
            uid,
            owner: String::new(),
            failed: 1,
        });
    }
}

fn one_more(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

fn add(totals: &mut Totals, candidate: &Candidate) {
    match candidate.shape {
        Shape::Tree => totals.add_directory(candidate.files, candidate.size),
        Shape::File | Shape::EmptyDirectory | Shape::Link(_) => totals.add(candidate.kind(), candidate.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fate::Skip;

    #[test]
    fn files_in_a_directory_are_not_reached_until_it_is_counted() {
        let mut inside = Skipped::not_reached(12);
        count_inside(&mut inside, 4, Code::Deleted);
        count_inside(&mut inside, 5, Code::Skipped(Skip::Held));
        assert_eq!((inside.count(Skip::Held), inside.unreached), (5, 3));
        count_inside(&mut inside, 9, Code::Failed);
        assert_eq!((inside.total(), inside.unreached), (5, 0));
    }

    #[test]
    fn a_stop_says_whose_files_failed_and_why() {
        let mut faults = Faults::default();
        for (uid, times) in [(7, 2), (5, 30), (1, 1), (2, 1), (3, 1), (4, 1)] {
            for _ in 0..times {
                faults.count(uid, "Input/output error");
            }
        }
        let named = faults.describe(|uid| format!("u{uid}"));
        assert_eq!(
            named,
            "30 of u5, 2 of u7, 1 of u1, 1 of u2, 1 of u3, 1 of others: Input/output error"
        );
        // However many owners there are, and however many errors.
        for uid in 0..1000 {
            faults.count(uid, &format!("error {uid}"));
        }
        assert_eq!(
            (faults.total, faults.owners.len(), faults.errors.len()),
            (1036, OWNERS_MAX, 3)
        );
    }
}
