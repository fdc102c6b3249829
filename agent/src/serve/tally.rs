//! How many of something each client has: calls, connections.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts by client. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

/// One that counts until it is dropped.
#[derive(Debug)]
pub struct Counted {
    who: String,
    tally: Tally,
}

impl Tally {
    /// Counts one more for a client; none if it has `max` already.
    pub fn count(&self, who: &str, max: usize) -> Option<Counted> {
        let mut counts = self.counts.lock();
        let count = counts.entry(who.to_owned()).or_default();
        if *count >= max {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Counted {
            who: who.to_owned(),
            tally: self.clone(),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.tally.counts.lock();
        if let Some(count) = counts.get_mut(&self.who) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_counts_no_more_and_leaves_nothing() {
        let tally = Tally::default();
        let held: Vec<_> = (0..5).filter_map(|_| tally.count("a", 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(tally.count("b", 3).is_some());
        drop(held);
        assert!(tally.counts.lock().is_empty());
    }
}
