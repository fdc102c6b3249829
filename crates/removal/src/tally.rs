//! Counts what became of a run's candidates: each of them in exactly one place. Pure.

use purge_proto::v1;

use super::candidate::Candidate;
use super::guard::Skip;
use super::ledger::Code;
use super::runs::FAILURES_NAMED_MAX;
use purge_policy::evaluate::Shape;

/// So many owners of failures a run's record counts; of the others `failed_total` tells.
pub const OWNERS_MAX: usize = 100;
/// So many errors the reason of a stop names.
const ERRORS_NAMED_MAX: usize = 3;
/// And so many owners.
const OWNERS_NAMED_MAX: usize = 5;

/// Counts one candidate.
pub fn count(run: &mut v1::Run, candidate: &Candidate, code: Code) {
    match code {
        Code::Deleted => add(run.deleted.get_or_insert_default(), candidate),
        Code::Trashed => add(run.trashed.get_or_insert_default(), candidate),
        Code::Skipped(why) => one_more(counter(run.skipped.get_or_insert_default(), why)),
        Code::Failed => {
            one_more(&mut run.failed_total);
            count_owner(&mut run.failed_by_owner, candidate.uid);
        }
    }
}

fn counter(skipped: &mut v1::Skipped, why: Skip) -> &mut u64 {
    match why {
        Skip::Accessed => &mut skipped.accessed,
        Skip::Changed => &mut skipped.changed,
        Skip::Held => &mut skipped.held,
        Skip::Gone => &mut skipped.gone,
        Skip::Hardlinked => &mut skipped.hardlinked,
        Skip::Open => &mut skipped.open,
        Skip::Locked => &mut skipped.locked,
        Skip::Leased => &mut skipped.leased,
        Skip::Deep => &mut skipped.deep,
        Skip::Quota => &mut skipped.quota,
        Skip::Mounted => &mut skipped.mounted,
        Skip::Protected => &mut skipped.protected,
        Skip::ManyNames => &mut skipped.many_names,
    }
}

/// How many reasons there are to leave a candidate alone, with the one that the run did not come to it.
pub const REASONS: usize = Skip::ALL.len() + 1;

/// What was left alone, by the reason.
pub fn by_reason(skipped: &v1::Skipped) -> [(&'static str, u64); REASONS] {
    let mut skipped = *skipped;
    let mut all = [("cancelled", skipped.cancelled); REASONS];
    for (slot, why) in all.iter_mut().zip(Skip::ALL) {
        *slot = (why.name(), *counter(&mut skipped, why));
    }
    all
}

/// Counts candidates that the run has not come to.
pub fn count_unreached(run: &mut v1::Run, candidates: u64) {
    let skipped = run.skipped.get_or_insert_default();
    skipped.cancelled = skipped.cancelled.saturating_add(candidates);
}

/// Names a failure, as long as there are not too many.
pub fn name_failure(run: &mut v1::Run, path: Vec<u8>, error: String) {
    if run.failed.len() < FAILURES_NAMED_MAX {
        run.failed.push(v1::Failure { path, error });
    }
}

/// Failures that tell of a fault of the system. Only these end a run, if there are too many.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How many.
    pub total: u64,
    owners: Vec<v1::OwnerFailures>,
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
        let mut owners: Vec<&v1::OwnerFailures> = self.owners.iter().collect();
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
pub fn name_owners(run: &mut v1::Run, name_of: impl Fn(u32) -> String) {
    run.failed_by_owner
        .sort_by_key(|owner| std::cmp::Reverse(owner.failed));
    for owner in &mut run.failed_by_owner {
        owner.owner = name_of(owner.uid);
    }
}

fn count_owner(owners: &mut Vec<v1::OwnerFailures>, uid: u32) {
    if let Some(owner) = owners.iter_mut().find(|owner| owner.uid == uid) {
        one_more(&mut owner.failed);
    } else if owners.len() < OWNERS_MAX {
        owners.push(v1::OwnerFailures {
            uid,
            owner: String::new(),
            failed: 1,
        });
    }
}

fn one_more(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

fn add(totals: &mut v1::Totals, candidate: &Candidate) {
    totals.bytes = totals.bytes.saturating_add(candidate.size);
    match candidate.shape {
        Shape::File => one_more(&mut totals.files),
        Shape::Tree | Shape::EmptyDirectory => one_more(&mut totals.directories),
        Shape::Link(_) => one_more(&mut totals.links),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        for (n, why) in Skip::ALL.into_iter().enumerate() {
            let mut skipped = v1::Skipped::default();
            one_more(counter(&mut skipped, why));
            let all = by_reason(&skipped);
            assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), 1, "{why:?}");
            assert_eq!(all.get(n), Some(&(why.name(), 1)));
        }
        let unreached = v1::Skipped {
            cancelled: 7,
            ..v1::Skipped::default()
        };
        assert_eq!(by_reason(&unreached).last(), Some(&("cancelled", 7)));
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
