//! Runs: plans that are applied in the background.
//!
//! - `runs` begins runs, and gives them what they need of a volume; `archiving`: and of the stores to which they copy
//! - `tidy` removes plans, holds and records of runs that are over

mod archiving;
mod runs;
mod tidy;

use std::sync::Arc;

pub use self::runs::Manner;
use super::Ground;
use super::judge::Judge;
use super::trash::TrashKeeper;
use purge_notify::sender::Notifier;
use purge_removal::audit::Audit;
use purge_removal::holds::Holds;
use purge_removal::plans::Plans;
use purge_removal::runs::Runs;

/// Applies plans.
#[derive(Debug)]
pub struct Applier {
    ground: Arc<Ground>,
    judge: Arc<Judge>,
    plans: Plans,
    runs: Arc<Runs>,
    holds: Arc<Holds>,
    audit: Arc<Audit>,
    /// Counts what owners lose.
    notifier: Arc<Notifier>,
    /// Makes room for a run.
    trash: Arc<TrashKeeper>,
}

impl Applier {
    pub(super) fn new(
        (ground, judge, trash): (Arc<Ground>, Arc<Judge>, Arc<TrashKeeper>),
        (plans, runs, holds): (Plans, Arc<Runs>, Arc<Holds>),
        (audit, notifier): (Arc<Audit>, Arc<Notifier>),
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            judge,
            plans,
            runs,
            holds,
            audit,
            notifier,
            trash,
        })
    }
}
