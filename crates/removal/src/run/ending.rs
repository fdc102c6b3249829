//! How a run ends.

use crate::run::tally;
use crate::runs::{LiveRun, Progress, Run, RunState};
use purge_base::accounts::{know_user_names, user_name};
use purge_base::clock;
use purge_model::Totals;

/// Why a run ends before its last candidate.
#[derive(Debug, Clone)]
pub enum Stop {
    /// A client asked for it.
    Cancelled,
    /// More candidates failed for faults of the system than the rule allows; the record says already whose and why.
    TooManyErrors,
    /// It cannot go on.
    Broken(String),
}

/// Why a run failed as a whole; none: it did not. Also one of which nothing was taken because each candidate failed.
pub fn failure_of(run: &Run) -> Option<String> {
    let taken = |t: Totals| t.files.saturating_add(t.directories);
    let nothing_went = taken(run.deleted) == 0 && taken(run.trashed) == 0 && run.failed_total > 0;
    let why = || {
        let first = || run.failed.first().map(|f| f.error.clone());
        run.error.clone().or_else(first).unwrap_or_default()
    };
    match run.state {
        RunState::Failed => Some(why()),
        RunState::Partial if run.error.is_some() || nothing_went => Some(why()),
        _ => None,
    }
}

/// Names the owners of failures in a run's record.
pub fn name_owners(run: &mut Run) {
    know_user_names(run.failed_by_owner.iter().map(|owner| owner.uid));
    tally::name_owners(run, user_name);
}

/// Ends a run and returns its record. What it has not come to is counted as such.
pub fn end(mut progress: Progress, stop: Option<Stop>, live: &LiveRun) -> Run {
    let run = &mut progress.run;
    // Also those of a chunk that could not be read: the run did not touch them.
    let unreached = progress.total.saturating_sub(progress.done);
    tally::count_unreached(run, unreached);
    progress.done = progress.total;
    name_owners(run);
    run.finished = Some(clock::now());
    run.state = match stop {
        Some(Stop::Broken(why)) => {
            run.error = Some(why);
            RunState::Failed
        }
        Some(Stop::TooManyErrors) => RunState::Partial,
        Some(Stop::Cancelled) => RunState::Cancelled,
        None if run.skipped.unreached > 0 => RunState::Cancelled,
        None if run.failed_total > 0 => RunState::Partial,
        None => RunState::Completed,
    };
    let run = progress.run.clone();
    live.publish(progress);
    run
}
