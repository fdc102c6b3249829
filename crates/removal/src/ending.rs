//! How a run ends.

use purge_proto::v1;

use super::runs::{LiveRun, Progress};
use super::{holds, tally};
use purge_base::accounts::{know_user_names, user_name};
use purge_base::clock;

/// Why a run ends before its last candidate.
#[derive(Debug, Clone)]
pub enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// More candidates failed for faults of the system than the rule allows; the record says already whose and why.
    TooManyErrors,
    /// It cannot go on.
    Broken(String),
}

/// Why a run failed as a whole; none: it did not. Also one of which nothing was taken because each candidate failed.
pub fn failure_of(run: &v1::Run) -> Option<String> {
    let taken = |t: &Option<v1::Totals>| t.map_or(0, |t| t.files.saturating_add(t.directories));
    let nothing_went = taken(&run.deleted) == 0 && taken(&run.trashed) == 0 && run.failed_total > 0;
    let why = match run.error.is_empty() {
        true => run.failed.first().map(|f| f.error.clone()).unwrap_or_default(),
        false => run.error.clone(),
    };
    match run.state() {
        v1::RunState::Failed => Some(why),
        v1::RunState::Partial if !run.error.is_empty() || nothing_went => Some(why),
        _ => None,
    }
}

/// Names the owners of failures in a run's record.
pub fn name_owners(run: &mut v1::Run) {
    know_user_names(run.failed_by_owner.iter().map(|owner| owner.uid));
    tally::name_owners(run, user_name);
}

/// Ends a run and returns its record. What it has not come to is counted as such.
pub fn end(mut progress: Progress, stop: Option<Stop>, live: &LiveRun) -> v1::Run {
    let run = &mut progress.run;
    // Also those of a chunk that could not be read: nobody touched them.
    let unreached = progress.total.saturating_sub(progress.done);
    tally::count_unreached(run, unreached);
    progress.done = progress.total;
    run.deleted.get_or_insert_default();
    name_owners(run);
    run.finished_at = Some(holds::timestamp(clock::now()));
    let state = match stop {
        Some(Stop::Broken(why)) => {
            run.error = why;
            v1::RunState::Failed
        }
        Some(Stop::TooManyErrors) => v1::RunState::Partial,
        Some(Stop::Cancelled) => v1::RunState::Cancelled,
        None if run.skipped.is_some_and(|s| s.cancelled > 0) => v1::RunState::Cancelled,
        None if run.failed_total > 0 => v1::RunState::Partial,
        None => v1::RunState::Completed,
    };
    run.set_state(state);
    let run = progress.run.clone();
    live.publish(progress);
    run
}
