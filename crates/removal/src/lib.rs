//! From an evaluation to removed files: saved plans, holds, and the run that applies a plan.
//!
//! ```text
//!   Evaluation --plans--> saved plan --run--> batch --take::guard--> Verified --take--> trash --> unlink
//!                                      |         |                              |
//!                                    holds     run::ledger: what was begun,   trash::restore
//!                                              decided and told               (or after a crash: run::recover)
//! ```
//! From the bottom up, each uses what stands above it:
//!
//! - [`fate`]       what became of a candidate, and why one is left alone (pure)
//! - [`candidate`]  what a plan says of one entry, and how it is stored (pure)
//! - `stored`       what stored records have in common
//! - [`protection`] whether leases are given, or a grace must protect
//! - [`refusal`]    what an error of the kernel means for a candidate (pure)
//! - [`copying`]    what a run has copied before it takes it
//! - [`holds`]      paths that stay, regardless of the rules
//! - [`runs`]       records of past and current runs
//! - [`plans`]      saved plans
//! - [`audit`]      a line for each thing that was deleted, trashed, restored or left alone
//! - [`trash`]      where things lie between being taken away and their end
//! - [`take`]       takes candidates away
//! - [`taken`]      records of what each run took, for those who look for it
//! - [`run`]        one run: workers over the candidates of a plan
//!
//! What may never happen: something is removed that is not a [`take::guard::Verified`] candidate of a saved plan.

pub mod audit;
pub mod candidate;
pub mod copying;
pub mod fate;
pub mod holds;
pub mod plans;
pub mod protection;
pub mod refusal;
pub mod run;
pub mod runs;
mod stored;
pub mod take;
pub mod taken;
pub mod trash;
