//! One run: a plan that is applied, and runs that a killed process left.
//!
//! - [`apply`]   workers over the candidates of a plan
//! - [`surroundings`] what a run needs from the volume
//! - [`parts`]   hands out the candidates
//! - [`pace`]    how many together, and how many in a second
//! - [`ledger`]  what a run has begun and decided, for the case that it is killed
//! - [`tally`]   counts fates (pure)
//! - [`ending`]  what its record says in the end
//! - [`recover`] closes runs that ended with their process

pub mod apply;
pub mod ending;
pub mod ledger;
pub mod pace;
pub mod parts;
pub mod recover;
pub mod surroundings;
pub mod tally;
