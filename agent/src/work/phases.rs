//! How long the phases of the agent's work take: one histogram each, as Prometheus counts them. Pure but for its locks.

use parking_lot::Mutex;

/// Upper bounds of the buckets, in seconds: from an evaluation of a small index to a slow scan of a large volume.
pub const BOUNDS: [f64; 9] = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0];

/// A kind of work that takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A walk over the whole volume, as fast as it goes.
    Scan,
    /// A slow walk that compares index and volume.
    Sweep,
    /// Finding what has expired.
    Evaluate,
    /// Writing a plan down.
    Save,
    /// A run.
    Apply,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Scan, Self::Sweep, Self::Evaluate, Self::Save, Self::Apply];

    /// In metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Sweep => "sweep",
            Self::Evaluate => "evaluate",
            Self::Save => "save",
            Self::Apply => "apply",
        }
    }
}

/// How often something took how long.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// How often it took no longer than each of [`BOUNDS`], those of lower bounds included.
    pub within: [u64; BOUNDS.len()],
    /// How often in all.
    pub count: u64,
    /// Seconds, together.
    pub sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        for (count, bound) in self.within.iter_mut().zip(BOUNDS) {
            *count = count.saturating_add(u64::from(seconds <= bound));
        }
        self.count = self.count.saturating_add(1);
        self.sum += seconds;
    }
}

/// The phases of one volume.
#[derive(Debug, Default)]
pub struct Phases(Mutex<[Histogram; Phase::ALL.len()]>);

impl Phases {
    /// A phase has ended, after this number of seconds.
    pub fn observe(&self, phase: Phase, seconds: f64) {
        let mut all = self.0.lock();
        if let Some((_, histogram)) = Phase::ALL.iter().zip(all.iter_mut()).find(|(p, _)| **p == phase) {
            histogram.observe(seconds);
        }
    }

    /// What was counted so far.
    pub fn counted(&self) -> Vec<(Phase, Histogram)> {
        Phase::ALL
            .into_iter()
            .zip(self.0.lock().iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_everything_below_their_bound() {
        let phases = Phases::default();
        for seconds in [0.005, 0.01, 5.0, 1e9] {
            phases.observe(Phase::Save, seconds);
        }
        for (phase, histogram) in phases.counted() {
            let expected = match phase {
                Phase::Save => Histogram {
                    within: [2, 2, 2, 3, 3, 3, 3, 3, 3],
                    count: 4,
                    sum: 0.015 + 5.0 + 1e9,
                },
                _ => Histogram::default(),
            };
            assert_eq!(histogram.within, expected.within, "{phase:?}");
            assert_eq!(histogram.count, expected.count, "{phase:?}");
            assert!((histogram.sum - expected.sum).abs() < 1e-6, "{phase:?}");
        }
        assert!(BOUNDS.is_sorted());
    }
}
