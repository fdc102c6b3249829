//! A loop that shows that it goes round.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the rounds of a loop.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// One more round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn beats(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
