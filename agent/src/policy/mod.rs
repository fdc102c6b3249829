//! What may go, and why. Pure: (index, rules, now) -> [`evaluate::Evaluation`]; no clock, no file system, no async.
//!
//! - [`last_use`] a file's last use from the clocks a rule believes
//! - [`scope`]    globs, owners and sizes of a rule
//! - [`schedule`] when a rule's plans are made
//! - [`evaluate`] files, whole directories and empty directories against the rules
//! - [`units`]    directory rules: the newest use of anything below
//! - [`explain`]  the same verdicts for one path, in words
//!
//! What may never happen: a candidate that the index does not know to be expired.

pub mod evaluate;
pub mod explain;
pub mod last_use;
pub mod schedule;
pub mod scope;
pub mod units;
