//! The statistics of a job.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

/// Counted while it goes on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub symlinks: AtomicU64,
    pub others: AtomicU64,
    pub bytes: AtomicU64,
    pub unreadable: AtomicU64,
    pub expired: AtomicU64,
    pub expired_bytes: AtomicU64,
    pub removed: AtomicU64,
    pub removed_bytes: AtomicU64,
    pub removed_dirs: AtomicU64,
    pub failed: AtomicU64,
    pub skipped: Skips,
}

/// Candidates that stayed, by reason.
#[derive(Debug, Default)]
pub(super) struct Skips([AtomicU64; Skip::ALL.len()]);

/// Why a candidate stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    Accessed,
    Changed,
    Open,
    Locked,
    Gone,
    Hardlinked,
    Mounted,
    Protected,
}

impl Skip {
    pub const ALL: [Self; 8] = [
        Self::Accessed,
        Self::Changed,
        Self::Open,
        Self::Locked,
        Self::Gone,
        Self::Hardlinked,
        Self::Mounted,
        Self::Protected,
    ];

    /// In the contract's words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accessed => "accessed",
            Self::Changed => "changed",
            Self::Open => "open",
            Self::Locked => "locked",
            Self::Gone => "gone",
            Self::Hardlinked => "hardlinked",
            Self::Mounted => "mounted",
            Self::Protected => "protected",
        }
    }
}

impl Skips {
    pub fn count(&self, why: Skip) {
        if let Some(counter) = self.0.get(why as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn of(&self, why: Skip) -> u64 {
        self.0.get(why as usize).map_or(0, get)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(get).sum()
    }
}

/// What a counter says.
pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

/// Adds one.
pub(super) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// How long the parts of a job took, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub scan: f64,
    pub purge: f64,
    pub whole: f64,
}

/// How much was done in a second.
pub(super) fn rate(count: u64, seconds: f64) -> u64 {
    match seconds > 0.0 {
        true => (count as f64 / seconds).round() as u64,
        false => 0,
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl Tally {
    /// Everything, for programs.
    pub fn statistics(&self, times: Times) -> Value {
        let skipped: serde_json::Map<String, Value> = Skip::ALL
            .into_iter()
            .map(|why| (why.word().to_owned(), self.skipped.of(why).into()))
            .collect();
        json!({
            "files_scanned": get(&self.files),
            "directories_scanned": get(&self.directories),
            "symlinks_kept": get(&self.symlinks),
            "others_kept": get(&self.others),
            "bytes_scanned": get(&self.bytes),
            "unreadable": get(&self.unreadable),
            "files_to_purge": get(&self.expired),
            "bytes_to_purge": get(&self.expired_bytes),
            "files_purged": get(&self.removed),
            "bytes_purged": get(&self.removed_bytes),
            "empty_dirs_removed": get(&self.removed_dirs),
            "skipped": skipped,
            "errors": get(&self.failed),
            "scan_seconds": rounded(times.scan),
            "scan_files_per_second": rate(get(&self.files), times.scan),
            "purge_seconds": rounded(times.purge),
            "purge_files_per_second": rate(get(&self.removed), times.purge),
            "seconds": rounded(times.whole),
        })
    }
}
