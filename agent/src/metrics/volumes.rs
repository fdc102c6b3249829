//! How the volumes are.

use std::sync::atomic::Ordering::Relaxed;

use super::page::Page;
use crate::host::Host;
use crate::volume::{Condition, State, Volume};

/// The figures of every volume.
pub(super) fn render(page: &mut Page, host: &Host) {
    let volumes: Vec<Looked<'_>> = host.volumes().iter().map(|v| Looked::at(v)).collect();
    states(page, &volumes);
    for (name, kind, help, value) in VOLUME_METRICS {
        page.metric(name, kind, help, volumes.iter().map(|v| (v.label(), value(v))));
    }
}

/// One look at a volume.
struct Looked<'a> {
    volume: &'a Volume,
    condition: Condition,
    files: u64,
    directories: u64,
    bytes: u64,
}

impl<'a> Looked<'a> {
    fn at(volume: &'a Volume) -> Self {
        let totals = volume.watched.index.read().totals();
        Self {
            volume,
            condition: volume.condition(),
            files: totals.files,
            directories: totals.directories,
            bytes: totals.bytes,
        }
    }

    /// Volume names need no escaping: the configuration allows letters, digits, `-`, `_` and `.` only.
    fn label(&self) -> String {
        format!("volume={:?}", self.volume.config.name)
    }
}

type Value = fn(&Looked<'_>) -> f64;

/// Name, type, help, value.
const VOLUME_METRICS: [(&str, &str, &str, Value); 27] = [
    ("files", "gauge", "Regular files in the index.", |v| {
        v.files as f64
    }),
    ("directories", "gauge", "Directories in the index.", |v| {
        v.directories as f64
    }),
    ("apparent_bytes", "gauge", "Sum of the files' sizes.", |v| {
        v.bytes as f64
    }),
    (
        "unreadable_entries",
        "gauge",
        "Entries that the last scan could not read.",
        |v| v.condition.unreadable as f64,
    ),
    (
        "events_read_total",
        "counter",
        "Events read from the kernel.",
        |v| v.volume.watched.counters.events.load(Relaxed) as f64,
    ),
    (
        "events_folded_total",
        "counter",
        "Accesses of files whose recorded use was as late already.",
        |v| v.volume.watched.counters.folded.load(Relaxed) as f64,
    ),
    (
        "events_ignored_total",
        "counter",
        "Accesses by those whose reads do not count.",
        |v| v.volume.watched.counters.ignored.load(Relaxed) as f64,
    ),
    (
        "events_taken_back_total",
        "counter",
        "Accesses that were metadata changes.",
        |v| v.volume.watched.counters.taken_back.load(Relaxed) as f64,
    ),
    (
        "events_lost_total",
        "counter",
        "Times that the kernel dropped events: each is a gap.",
        |v| v.volume.watched.counters.lost.load(Relaxed) as f64,
    ),
    (
        "nfs_held_files",
        "gauge",
        "Files that clients of the kernel's NFS server have open or hold delegations of.",
        |v| v.volume.keeping.nfs_held.load(Relaxed) as f64,
    ),
    (
        "queue_events",
        "gauge",
        "Accesses that wait in the kernel's queue.",
        |v| v.volume.queued() as f64,
    ),
    (
        "ignore_marks",
        "gauge",
        "Files whose further uses are hidden in this precision window.",
        |v| v.condition.precision.marks as f64,
    ),
    (
        "precision_window_seconds",
        "gauge",
        "Length of a precision window; 0: every use is recorded by itself.",
        |v| f64::from(v.condition.precision.window_seconds),
    ),
    (
        "flushes_total",
        "counter",
        "Write-backs of the index that reached the disk.",
        |v| v.volume.keeping.flushes.load(Relaxed) as f64,
    ),
    (
        "flush_failures_total",
        "counter",
        "Write-backs of the index that did not.",
        |v| v.volume.keeping.flushes_failed.load(Relaxed) as f64,
    ),
    (
        "flush_seconds_total",
        "counter",
        "What the write-backs took together.",
        |v| seconds(v.volume.keeping.flush_micros.load(Relaxed)),
    ),
    (
        "flush_max_seconds",
        "gauge",
        "What the longest write-back took.",
        |v| seconds(v.volume.keeping.flush_micros_max.load(Relaxed)),
    ),
    (
        "journal_bytes",
        "gauge",
        "Uses that wait for a write-back or a checkpoint.",
        |v| v.volume.watched.journal.bytes() as f64,
    ),
    (
        "checkpoints_total",
        "counter",
        "Checkpoints of the clocks.",
        |v| v.volume.keeping.checkpoints.load(Relaxed) as f64,
    ),
    ("checkpoint_bytes", "gauge", "The last checkpoint.", |v| {
        v.volume.keeping.checkpoint_bytes.load(Relaxed) as f64
    }),
    (
        "scans_total",
        "counter",
        "Scans of the whole volume that were finished.",
        |v| v.volume.keeping.scans.load(Relaxed) as f64,
    ),
    (
        "scan_failures_total",
        "counter",
        "Scans of the whole volume that ended with an error.",
        |v| v.volume.keeping.work.scans_failed.load(Relaxed) as f64,
    ),
    (
        "scan_running",
        "gauge",
        "Whether a scan of the whole volume is running.",
        |v| f64::from(u8::from(v.condition.scan.is_some())),
    ),
    (
        "gaps_remembered",
        "gauge",
        "Stretches that were not observed, as `status` shows them.",
        |v| v.condition.gaps.len() as f64,
    ),
    (
        "last_gap_end_timestamp_seconds",
        "gauge",
        "End of the last gap that counts as a use of every file; 0: none.",
        |v| v.condition.gap_end.map_or(0.0, |at| f64::from(at.0)),
    ),
    (
        "coverage_since_timestamp_seconds",
        "gauge",
        "Since when the volume is observed.",
        |v| f64::from(v.condition.coverage_since.0),
    ),
    (
        "events_per_second",
        "gauge",
        "Events over the last ten seconds.",
        |v| v.condition.rate,
    ),
];

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn states(page: &mut Page, volumes: &[Looked<'_>]) {
    let rows = volumes.iter().flat_map(|v| {
        let is = match v.condition.state {
            State::Scanning => "scanning",
            State::Tracking => "tracking",
            State::Degraded(_) => "degraded",
        };
        ["scanning", "tracking", "degraded"]
            .map(|state| (format!("{},state=\"{state}\"", v.label()), u8::from(state == is)))
    });
    page.metric(
        "volume_state",
        "gauge",
        "1 for the state that the volume is in.",
        rows,
    );
}
