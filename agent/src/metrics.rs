//! What the agent counts, in Prometheus' text format. Names follow its conventions: base units, `_total` for counters.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::host::Host;
use crate::purge::counts::{FATES, RunCounts, STATES};
use crate::volume::{Condition, State, Volume};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a host.
pub fn render(host: &Host) -> String {
    let mut page = Page::default();
    page.metric(
        "info",
        "gauge",
        "The agent's version.",
        [(format!("version={:?}", env!("CARGO_PKG_VERSION")), 1)],
    );
    page.single(
        "uptime_seconds",
        "gauge",
        "Since the agent started.",
        host.uptime().as_secs(),
    );
    page.single(
        "resident_bytes",
        "gauge",
        "Memory of the agent.",
        crate::sys::memory::resident_bytes(),
    );
    page.single("index_bytes", "gauge", "The index on disk.", host.index_bytes());
    notices(&mut page, host);
    let volumes: Vec<Looked<'_>> = host.volumes().iter().map(|v| Looked::at(v)).collect();
    states(&mut page, &volumes);
    for (name, kind, help, value) in VOLUME_METRICS {
        page.metric(name, kind, help, volumes.iter().map(|v| (v.label(), value(v))));
    }
    runs(&mut page, host);
    page.text
}

/// What runs came to since the agent started.
fn runs(page: &mut Page, host: &Host) {
    let names = host.volumes().iter().map(|v| v.config.name.as_str());
    let counts: Vec<(&str, RunCounts)> = names.map(|name| (name, host.runs.counts.of(name))).collect();
    let labelled = |label: &'static str, names: Vec<&'static str>, of: fn(&RunCounts) -> &[u64]| {
        let rows = counts.iter().flat_map(|(volume, counts)| {
            let row =
                |(name, value): (&&str, &u64)| (format!("volume={volume:?},{label}=\"{name}\""), *value);
            names.iter().zip(of(counts)).map(row).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    };
    let states = STATES.map(|(name, _)| name).to_vec();
    let rows = labelled("state", states, |c| &c.runs);
    page.metric("runs_total", "counter", "Runs that have ended.", rows);
    let rows = labelled("fate", FATES.to_vec(), |c| &c.candidates);
    let help = "Files and directories of plans, by what became of them.";
    page.metric("run_candidates_total", "counter", help, rows);
    let rows = labelled("fate", vec!["deleted", "trashed"], |c| &c.bytes);
    page.metric(
        "run_bytes_total",
        "counter",
        "What was taken, apparent size.",
        rows,
    );
    let label = |volume: &str| format!("volume={volume:?}");
    let rows = counts.iter().map(|(v, c)| (label(v), c.seconds));
    page.metric(
        "run_seconds_total",
        "counter",
        "What the runs took together.",
        rows,
    );
    let rows = counts.iter().map(|(v, c)| (label(v), c.last_end));
    let help = "When the last run ended; 0: none since the start.";
    page.metric("last_run_end_timestamp_seconds", "gauge", help, rows);
}

/// By sink. What was sent or given up long ago is forgotten, so these are no counters.
fn notices(page: &mut Page, host: &Host) {
    let counts = host.notifier.counts();
    for (position, state) in ["waiting", "sent", "failed"].into_iter().enumerate() {
        let help = match state {
            "waiting" => "Notices that no sink has taken yet.",
            "sent" => "Notices that were sent, of those that are remembered.",
            _ => "Notices that were given up, of those that are remembered.",
        };
        let values = counts.iter().map(|(sink, by_state)| {
            let value = by_state.get(position).copied().unwrap_or(0);
            (format!("sink={sink:?}"), value)
        });
        page.metric(&format!("notices_{state}"), "gauge", help, values);
    }
}

/// Whether every volume is well; if not, why.
///
/// # Errors
/// A line for each volume that is degraded.
pub fn health(host: &Host) -> Result<(), String> {
    let mut why = String::new();
    for volume in host.volumes() {
        if let State::Degraded(reason) = volume.condition().state {
            let _ = writeln!(why, "volume {}: {reason}", volume.config.name);
        }
    }
    if why.is_empty() { Ok(()) } else { Err(why) }
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
const VOLUME_METRICS: [(&str, &str, &str, Value); 26] = [
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

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.text, "purge_agent_{name} {value}");
    }

    fn metric<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        rows: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in rows {
            let _ = writeln!(self.text, "purge_agent_{name}{{{labels}}} {value}");
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.text,
            "# HELP purge_agent_{name} {help}\n# TYPE purge_agent_{name} {kind}"
        );
    }
}
