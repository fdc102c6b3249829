//! What a volume's work came to since the agent started, for metrics: how long its phases took, what became of plans and of the trash,
//! and what rules took. Pure but for atomics and locks that are held for moments.
//!
//! - [`phases`] histograms of durations
//! - [`rules`]  what was taken by which rule

pub mod phases;
pub mod rules;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::phases::Phase;
use self::phases::Phases;
use self::rules::ByRule;

/// The work of one volume.
#[derive(Debug, Default)]
pub struct Work {
    /// How long scans, plans and runs took.
    pub phases: Phases,
    /// Scans of the whole volume that ended with an error.
    pub scans_failed: AtomicU64,
    /// Plans that were asked for.
    pub plans: Outcomes,
    /// Shares of the trash whose time was over.
    pub freed: Outcomes,
    /// What was taken, by rule.
    pub by_rule: ByRule,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// A safety limit, or a volume in doubt, was against it.
    Refused,
    /// With an error.
    Failed,
}

/// How often something ended in which way.
#[derive(Debug, Default)]
pub struct Outcomes {
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    /// Once more.
    pub fn count(&self, outcome: Outcome) {
        self.of(outcome).fetch_add(1, Relaxed);
    }

    /// How often so far.
    pub fn counted(&self, outcome: Outcome) -> u64 {
        self.of(outcome).load(Relaxed)
    }

    fn of(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Done => &self.done,
            Outcome::Refused => &self.refused,
            Outcome::Failed => &self.failed,
        }
    }
}
