//! From an evaluation to removed files: saved plans, holds, and the run that applies a plan.
//!
//! ```text
//!   Evaluation --plans--> saved plan --apply--> Leased --guard--> Verified --> trash --> unlink
//!                                       |                  |
//!                                     holds              runs: what became of each candidate
//! ```
//! - [`candidate`] what a plan says of one entry, and how it is stored (pure)
//! - [`plans`]     saved plans
//! - [`holds`]     paths that stay, whatever the rules say
//! - [`guard`]     compares a candidate with the live file and the live index, and takes it away
//! - [`tree`]      the same for directories that go as a whole
//! - [`trash`]     where things lie between being taken away and their end
//! - [`apply`]     one run: workers over the candidates of a plan
//! - [`runs`]      past and current runs
//! - [`id`]        names for plans, runs and holds
//!
//! What may never happen: something is removed that is not a [`guard::Verified`] candidate of a saved plan.

pub mod apply;
pub mod candidate;
pub mod guard;
pub mod holds;
pub mod id;
pub mod plans;
pub mod runs;
pub mod trash;
pub mod tree;
