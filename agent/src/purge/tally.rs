//! Counts what became of a run's candidates: each of them in exactly one place. Pure.

use purge_proto::v1;

use super::candidate::Candidate;
use super::ledger::Code;
use super::runs::FAILURES_NAMED_MAX;
use crate::policy::evaluate::Shape;

/// Counts one candidate.
pub fn count(run: &mut v1::Run, candidate: &Candidate, code: Code) {
    match code {
        Code::Deleted => add(run.deleted.get_or_insert_default(), candidate),
        Code::Trashed => add(run.trashed.get_or_insert_default(), candidate),
        Code::Failed => run.failed_total = run.failed_total.saturating_add(1),
        Code::Accessed
        | Code::Changed
        | Code::Held
        | Code::Gone
        | Code::Hardlinked
        | Code::Open
        | Code::Locked => {
            let skipped = run.skipped.get_or_insert_default();
            let counter = match code {
                Code::Accessed => &mut skipped.accessed,
                Code::Held => &mut skipped.held,
                Code::Gone => &mut skipped.gone,
                Code::Hardlinked => &mut skipped.hardlinked,
                Code::Open => &mut skipped.open,
                Code::Locked => &mut skipped.locked,
                _ => &mut skipped.changed,
            };
            *counter = counter.saturating_add(1);
        }
    }
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

fn add(totals: &mut v1::Totals, candidate: &Candidate) {
    totals.bytes = totals.bytes.saturating_add(candidate.size);
    match candidate.shape {
        Shape::File => totals.files = totals.files.saturating_add(1),
        Shape::Tree | Shape::EmptyDirectory => totals.directories = totals.directories.saturating_add(1),
    }
}
