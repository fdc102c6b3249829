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

/// Bytes of the answers of a step, or a little more.
pub const STEP_BYTES: usize = if cfg!(test) { 400 } else { 48 << 10 };

/// What a step of a question came to. Between two steps nothing of the index is held.
#[derive(Debug)]
pub enum Step<T> {
    /// Some more answers.
    Items(Vec<T>),
    /// None yet.
    Working,
    /// That was all.
    Done,
}

#[cfg(test)]
mod deep_tests;
