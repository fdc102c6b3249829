//! Runs: plans that are applied.
//!
//! - `purges` begins runs
//! - `tidy`   removes plans, holds and records of runs that are over

pub(super) mod purges;
mod tidy;
