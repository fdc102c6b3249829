//! When quotas and watermarks are looked at next.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use purge_base::clock;
use purge_model::Seconds;

/// A volume's space is looked at this often.
pub const WATERMARKS_EVERY: Duration = Duration::from_secs(60);
/// Sums of owners and directories are made this often: a pass over the index.
pub const QUOTAS_EVERY: Duration = Duration::from_secs(600);

/// When they are looked at next, in seconds since 1970; 0: that is not known yet.
#[derive(Debug, Default)]
pub struct Looks {
    quotas: AtomicI64,
    watermarks: AtomicI64,
}

impl Looks {
    /// Quotas are looked at after this time.
    pub fn quotas_in(&self, time: Duration) {
        self.quotas.store(after(time), Relaxed);
    }

    /// The same for watermarks.
    pub fn watermarks_in(&self, time: Duration) {
        self.watermarks.store(after(time), Relaxed);
    }

    pub(in crate::host) fn quotas(&self) -> Option<Seconds> {
        known(self.quotas.load(Relaxed))
    }

    pub(in crate::host) fn watermarks(&self) -> Option<Seconds> {
        known(self.watermarks.load(Relaxed))
    }
}

fn after(time: Duration) -> i64 {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
    clock::wall().unix().saturating_add(seconds)
}

fn known(at: i64) -> Option<Seconds> {
    (at > 0).then(|| Seconds::from_unix(at))
}
