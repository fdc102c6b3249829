//! How the volumes are.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::page::Page;
use crate::host::Host;
use crate::host::brakes::status::{Freed, TriggerState};
use crate::volume::{Ailment, Condition, State, Volume};
use purge_collect::Counters;

/// The figures of every volume.
pub(super) fn render(page: &mut Page, host: &Host) {
    let watched = host.volumes();
    let volumes: Vec<Looked<'_>> = watched.iter().map(|v| Looked::at(v)).collect();
    states(page, &volumes, host);
    blind(page, host);
    triggers(page, host);
    ailing(page, host);
    stuck(page, host);
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

    fn counters(&self) -> &Counters {
        &self.volume.watched.counters
    }

    /// Volume names need no escaping: the configuration allows letters, digits, `-`, `_` and `.` only.
    fn label(&self) -> String {
        format!("volume={:?}", self.volume.config.name)
    }
}

/// Name, type, help, value.
type Metric = (&'static str, &'static str, &'static str, Value);
type Value = fn(&Looked<'_>) -> f64;

const fn gauge(name: &'static str, help: &'static str, value: Value) -> Metric {
    (name, "gauge", help, value)
}

/// What only grows.
const fn counter(name: &'static str, help: &'static str, value: Value) -> Metric {
    (name, "counter", help, value)
}

const VOLUME_METRICS: [Metric; 27] = [
    gauge("files", "Regular files in the index.", |v| v.files as f64),
    gauge("directories", "Directories in the index.", |v| {
        v.directories as f64
    }),
    gauge("apparent_bytes", "Sum of the files' sizes.", |v| v.bytes as f64),
    gauge(
        "unreadable_entries",
        "Entries that the last scan could not read.",
        |v| v.condition.unreadable as f64,
    ),
    counter("events_read_total", "Events read from the kernel.", |v| {
        count(&v.counters().events)
    }),
    counter(
        "events_folded_total",
        "Accesses of files whose recorded use was as late already.",
        |v| count(&v.counters().folded),
    ),
    counter(
        "events_ignored_total",
        "Accesses by those whose reads do not count.",
        |v| count(&v.counters().ignored),
    ),
    counter(
        "events_taken_back_total",
        "Accesses that were metadata changes.",
        |v| count(&v.counters().taken_back),
    ),
    counter(
        "events_lost_total",
        "Times that the kernel dropped events: each is a gap.",
        |v| count(&v.counters().lost),
    ),
    gauge(
        "nfs_held_files",
        "Files that clients of the kernel's NFS server have open or hold delegations of.",
        |v| count(&v.volume.keeping.nfs_held),
    ),
    gauge("queue_events", "Accesses that wait in the kernel's queue.", |v| {
        v.volume.queued() as f64
    }),
    gauge(
        "ignore_marks",
        "Files whose further uses are hidden in this precision window.",
        |v| v.condition.precision.marks as f64,
    ),
    gauge(
        "precision_window_seconds",
        "Length of a precision window; 0: every use is recorded by itself.",
        |v| f64::from(v.condition.precision.window_seconds),
    ),
    counter(
        "flushes_total",
        "Write-backs of the index that reached the disk.",
        |v| count(&v.volume.keeping.flushes),
    ),
    counter(
        "flush_failures_total",
        "Write-backs of the index that did not.",
        |v| count(&v.volume.keeping.flushes_failed),
    ),
    counter(
        "flush_seconds_total",
        "What the write-backs took together.",
        |v| seconds(&v.volume.keeping.flush_micros),
    ),
    gauge("flush_max_seconds", "What the longest write-back took.", |v| {
        seconds(&v.volume.keeping.flush_micros_max)
    }),
    gauge(
        "journal_bytes",
        "Uses that wait for a write-back or a checkpoint.",
        |v| v.volume.watched.journal.bytes() as f64,
    ),
    counter("checkpoints_total", "Checkpoints of the clocks.", |v| {
        count(&v.volume.keeping.checkpoints)
    }),
    gauge("checkpoint_bytes", "The last checkpoint.", |v| {
        count(&v.volume.keeping.checkpoint_bytes)
    }),
    counter(
        "scans_total",
        "Scans of the whole volume that were finished.",
        |v| count(&v.volume.keeping.scans),
    ),
    counter(
        "scan_failures_total",
        "Scans of the whole volume that ended with an error.",
        |v| count(&v.volume.keeping.work.scans_failed),
    ),
    gauge(
        "scan_running",
        "Whether a scan of the whole volume is running.",
        |v| f64::from(u8::from(v.condition.scan.is_some())),
    ),
    gauge(
        "gaps_remembered",
        "Stretches that were not observed, as `status` shows them.",
        |v| v.condition.gaps.len() as f64,
    ),
    gauge(
        "last_gap_end_timestamp_seconds",
        "End of the last gap that counts as a use of every file; 0: none.",
        |v| v.condition.gap_end.map_or(0.0, |at| f64::from(at.0)),
    ),
    gauge(
        "coverage_since_timestamp_seconds",
        "Since when the volume is observed.",
        |v| f64::from(v.condition.coverage_since.0),
    ),
    gauge("events_per_second", "Events over the last ten seconds.", |v| {
        v.condition.rate
    }),
];

fn count(counter: &AtomicU64) -> f64 {
    counter.load(Relaxed) as f64
}

/// A counter of microseconds.
fn seconds(micros: &AtomicU64) -> f64 {
    count(micros) / 1e6
}

/// What the collector of each volume cannot see.
fn blind(page: &mut Page, host: &Host) {
    let mut rows = Vec::new();
    for volume in host.volumes() {
        let profile = volume.profile();
        for spot in profile.blind {
            let labels = format!("volume={:?},blind={:?}", volume.config.name, spot.word());
            rows.push((labels, 1));
        }
    }
    let help = "1: the collector of the volume does not see this; the handbook says what each word means.";
    page.metric("collector_blind", "gauge", help, rows);
}

/// What is wrong with each volume: one row for everything that can be.
fn ailing(page: &mut Page, host: &Host) {
    let mut rows = Vec::new();
    for volume in &host.volumes() {
        let wrong: Vec<&str> = volume.ailments().iter().map(|(what, _)| what.check()).collect();
        for check in Ailment::CHECKS {
            let labels = format!("volume={:?},check={check:?}", volume.config.name);
            rows.push((labels, u8::from(wrong.contains(&check))));
        }
    }
    let help = "1: this part of the volume does not work; doctor says what to do.";
    page.metric("trouble", "gauge", help, rows);
}

/// What lies in the trash, and what of that cannot be freed.
fn stuck(page: &mut Page, host: &Host) {
    let watched = host.volumes();
    let volumes = watched.iter().map(|v| &v.config.name);
    let all: Vec<_> = volumes
        .map(|name| {
            let totals = host.trash.stuck_in(name).map(|s| s.totals).unwrap_or_default();
            let failed = u8::from(host.applier.run_failure(name).is_some());
            (format!("volume={name:?}"), totals, failed)
        })
        .collect();
    let things = all
        .iter()
        .map(|(label, t, _)| (label.clone(), t.all_files().saturating_add(t.directories)));
    let help = "Files and directories in the trash that cannot be freed.";
    page.metric("trash_stuck", "gauge", help, things);
    let bytes = all.iter().map(|(label, t, _)| (label.clone(), t.bytes));
    let help = "Bytes in the trash that cannot be freed.";
    page.metric("trash_stuck_bytes", "gauge", help, bytes);
    let failed = all.iter().map(|(label, _, failed)| (label.clone(), *failed));
    let lying = host.trash.trash_by_volume();
    let lying = |name: &String| lying.get(name).copied().unwrap_or_default();
    let volumes = || watched.iter().map(|v| &v.config.name);
    let help = "Files in the trash, those in directories that went as a whole included.";
    let files = volumes().map(|name| (format!("volume={name:?}"), lying(name).all_files()));
    page.metric("trash_files", "gauge", help, files);
    let help = "Bytes in the trash, apparent size.";
    let bytes = volumes().map(|name| (format!("volume={name:?}"), lying(name).bytes));
    page.metric("trash_bytes", "gauge", help, bytes);
    let help = "1: the last run failed as a whole; status says why.";
    page.metric("last_run_failed", "gauge", help, failed);
}

/// Watermarks and quotas that ought to delete and do not.
fn triggers(page: &mut Page, host: &Host) {
    let mut all = Vec::new();
    let watched = host.volumes();
    for volume in &watched {
        let name = &volume.config.name;
        all.extend(host.brakes.triggers(name).into_iter().map(|t| (name, t)));
    }
    let mut state = |metric: &str, help: &str, wanted: TriggerState| {
        let rows = all.iter().map(|(volume, t)| {
            let labels = format!("volume={volume:?},trigger={:?}", t.name);
            (labels, u8::from(t.state == wanted))
        });
        page.metric(metric, "gauge", help, rows);
    };
    state(
        "trigger_stopped",
        "1: what it deleted did not come free, and it has stopped.",
        TriggerState::Stopped,
    );
    state(
        "trigger_waiting",
        "1: it ought to delete and may not; status says why.",
        TriggerState::Waiting,
    );
    for (metric, help, value) in FREED_METRICS {
        let rows = all.iter().filter_map(|(volume, t)| {
            let labels = format!("volume={volume:?},trigger={:?}", t.name);
            Some((labels, value(&t.measured?)))
        });
        page.metric(metric, "gauge", help, rows);
    }
}

type FreedMetric = (&'static str, &'static str, fn(&Freed) -> u64);

const FREED_METRICS: [FreedMetric; 2] = [
    (
        "trigger_promised_bytes",
        "What was to come free of what was deleted, when that was measured last.",
        |m| m.promised_bytes,
    ),
    (
        "trigger_freed_bytes",
        "What did come free, when that was measured last.",
        |m| m.freed_bytes,
    ),
];

fn states(page: &mut Page, volumes: &[Looked<'_>], host: &Host) {
    let watched = volumes.iter().map(|v| {
        let is = match v.condition.state {
            State::Scanning => "scanning",
            State::Tracking => "tracking",
            State::Degraded(_) => "degraded",
        };
        (v.label(), is)
    });
    let absent = host.absent();
    let absent = absent
        .iter()
        .map(|v| (format!("volume={:?}", v.config.name), "degraded"));
    let rows = watched.chain(absent).flat_map(|(label, is)| {
        ["scanning", "tracking", "degraded"]
            .map(|state| (format!("{label},state=\"{state}\""), u8::from(state == is)))
    });
    page.metric(
        "volume_state",
        "gauge",
        "1 for the state that the volume is in.",
        rows,
    );
}
