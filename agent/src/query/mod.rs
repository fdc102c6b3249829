//! Questions to the index that are no plans. The index is let go of now and then, so that events are not kept waiting.
//!
//! - [`find`]  entries that match
//! - [`usage`] who uses how much, and how old it is
//! - [`snapshot`] the same, taken out of the index at one moment
//! - [`rows`]  its rows, a few or millions

pub mod find;
pub mod rows;
pub mod snapshot;
pub mod usage;

/// Pages that are read before the index is let go.
const PAGES_AT_ONCE: usize = 2048;

#[cfg(test)]
mod deep_tests;
