//! The client that waits for an answer: work that only it needs ends when it has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A client that waits. Clones are the same client.
#[derive(Debug, Clone, Default)]
pub struct Client(Arc<AtomicBool>);

impl Client {
    /// It waits no longer.
    pub fn leave(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it waits no longer.
    pub fn has_left(&self) -> bool {
        self.0.load(Relaxed)
    }
}
