//! How a volume is: what works, what does not, and what is reported of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Volume;
use super::coverage::{Cause, Gap, VolumeRecord};
use purge_base::clock;
use purge_collect::error::{CollectError, Unknown};
use purge_collect::precision::{Precision, Windows};
use purge_model::Seconds;
use purge_scan::Progress;
use purge_sys::failure::{Defect, Failure};

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A scan is running and the index is not whole yet.
    Scanning,
    /// Everything is seen.
    Tracking,
    /// Something is wrong, in words.
    Degraded(String),
}

/// What changes while the volume is watched.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) record: VolumeRecord,
    pub(super) scan: Option<(Arc<Progress>, Instant)>,
    /// A scan of the whole volume has finished since the start.
    pub(super) whole: bool,
    pub(super) unreadable: u64,
    /// Subvolumes of btrfs that are not covered.
    pub(super) subvolumes: u64,
    /// What is wrong, by what it concerns.
    pub(super) collector_trouble: Option<Trouble>,
    /// The kernel does not tell of what the agent itself does.
    pub(super) deaf: Option<String>,
    pub(super) index_trouble: Option<Defect>,
    pub(super) scan_trouble: Option<String>,
    /// What a scan waits for.
    pub(super) unanswered: Option<String>,
    pub(super) journal_trouble: Option<Defect>,
    pub(super) checkpoint_trouble: Option<Defect>,
    /// The file system is not mounted any more.
    pub(super) away: Option<String>,
    /// Something else lies at its path.
    pub(super) hidden: Option<String>,
    /// The store says that its content makes no sense.
    pub(super) damage: Option<String>,
    /// Another agent removes what is in the volume.
    pub(super) second: Option<String>,
    /// The record must be saved at once.
    pub(super) urgent: bool,
    /// Names may have changed unseen: a scan must look.
    pub(super) missed_names: bool,
    pub(super) rates: VecDeque<u64>,
}

impl Health {
    /// Nothing is known yet but the record.
    pub(super) fn new(record: VolumeRecord) -> Self {
        Self {
            record,
            scan: None,
            whole: false,
            unreadable: 0,
            subvolumes: 0,
            collector_trouble: None,
            deaf: None,
            index_trouble: None,
            scan_trouble: None,
            unanswered: None,
            journal_trouble: None,
            checkpoint_trouble: None,
            away: None,
            hidden: None,
            damage: None,
            second: None,
            urgent: false,
            missed_names: false,
            rates: VecDeque::new(),
        }
    }

    /// Takes over what an error of the collector leaves unknown: what it was not told is a gap.
    pub(super) fn hear(&mut self, error: &CollectError, volume: &str) {
        let now = clock::now();
        match error.leaves_unknown() {
            Unknown::Uses => {
                // What was dropped is unknown: everything counts as used now.
                self.record.add_gap(now, now, cause(error), 0, true);
                (self.urgent, self.missed_names) = (true, true);
                tracing::error!(%volume, %error, "events were lost: every file counts as used now");
            }
            Unknown::Names(since) => {
                // Every use was recorded, so none counts for the others: only where files lie is not known.
                self.record.add_gap(since, now, Cause::Names, u64::MAX, false);
                (self.urgent, self.missed_names) = (true, true);
                tracing::warn!(%volume, %error, "names were not followed");
            }
            Unknown::WhileItLasts => self.note_trouble(error, volume, now),
        }
    }

    /// The collector goes on trying; when it works again, the time between is a gap.
    fn note_trouble(&mut self, error: &CollectError, volume: &str, now: Seconds) {
        let words = error.to_string();
        if let CollectError::Store(error) = error
            && error.is_damage()
        {
            self.damage.get_or_insert_with(|| words.clone());
        }
        let known = self.collector_trouble.get_or_insert_with(|| Trouble {
            words: String::new(),
            since: now,
            last: Instant::now(),
        });
        known.last = Instant::now();
        if known.words != words {
            tracing::error!(%volume, %error, "events cannot be recorded");
            known.words = words;
        }
    }

    pub(super) fn ailments(&self) -> Vec<(Ailment, String)> {
        let collector = self.collector_trouble.as_ref().map(|t| t.words.clone());
        let of_disk = |defect: &Option<Defect>| defect.clone().map(|d| (d.failure, d.words));
        let (index, journal) = (of_disk(&self.index_trouble), of_disk(&self.journal_trouble));
        let checkpoint = of_disk(&self.checkpoint_trouble);
        let all = [
            (self.away.clone()).map(|words| (Ailment::Away, words)),
            (self.hidden.clone()).map(|words| (Ailment::Away, words)),
            (self.damage.clone()).map(|words| (Ailment::Damage, words)),
            (self.second.clone()).map(|words| (Ailment::Second, words)),
            (self.deaf.clone()).map(|words| (Ailment::Collector, words)),
            collector.map(|words| (Ailment::Collector, words)),
            index.map(|(failure, words)| (Ailment::Index(failure), words)),
            journal.map(|(failure, words)| (Ailment::Journal(failure), words)),
            checkpoint.map(|(failure, words)| (Ailment::Checkpoint(failure), words)),
            (self.unanswered.clone()).map(|words| (Ailment::Scan, words)),
            (self.scan_trouble.clone()).map(|words| (Ailment::Scan, words)),
        ];
        all.into_iter().flatten().collect()
    }
}

/// What a gap is called that such an error leaves.
fn cause(error: &CollectError) -> Cause {
    match error {
        CollectError::Overflow => Cause::Overflow,
        CollectError::Backlog(_) => Cause::Backlog,
        _ => Cause::Collector,
    }
}

/// What can be wrong with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ailment {
    /// It is not mounted any more, or something else lies at its path.
    Away,
    /// Its file system takes no changes, or does not answer.
    FileSystem(Failure),
    /// The state directory is away, or takes no changes.
    State(Failure),
    /// The index makes no sense.
    Damage,
    /// Another agent watches it as well.
    Second,
    /// Accesses are not read.
    Collector,
    /// The index cannot be written.
    Index(Failure),
    /// The journal cannot be written.
    Journal(Failure),
    /// The checkpoint cannot be written.
    Checkpoint(Failure),
    /// The scan has not seen everything.
    Scan,
}

impl Ailment {
    /// What is concerned, in a word: one of [`Ailment::CHECKS`].
    pub fn check(self) -> &'static str {
        match self {
            Self::Away => "mount",
            Self::FileSystem(_) => "filesystem",
            Self::State(_) => "state",
            Self::Damage | Self::Index(_) => "index",
            Self::Second => "agents",
            Self::Collector => "collector",
            Self::Journal(_) => "journal",
            Self::Checkpoint(_) => "checkpoint",
            Self::Scan => "scan",
        }
    }

    /// All that can be concerned.
    pub const CHECKS: [&str; 9] = [
        "mount",
        "filesystem",
        "state",
        "index",
        "agents",
        "collector",
        "journal",
        "checkpoint",
        "scan",
    ];

    /// What to do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::Away => "mount it again (systemctl status, dmesg): what happened meanwhile counts as use",
            Self::Damage => {
                "nothing: it is set aside and made again from the file system, the journal and the checkpoint"
            }
            Self::Second => {
                "one agent for each volume: stop the other one, or remove the volume from its configuration; this one takes over some minutes later"
            }
            Self::Collector => {
                "it is tried again by itself; if it goes on, see the log (journalctl -u purge-agent) and the kernel's (dmesg)"
            }
            Self::FileSystem(failure) => failure.cure_of_volume(),
            // Uses that are not in the journal are lost if the agent is killed now; until the checkpoint is written, a damaged index costs more
            // history.
            Self::State(failure)
            | Self::Index(failure)
            | Self::Journal(failure)
            | Self::Checkpoint(failure) => failure.cure_of_state(),
            Self::Scan => {
                "see what cannot be read (journalctl -u purge-agent), repair it, and ask again: purgectl rescan"
            }
        }
    }
}

/// Something that does not work for now.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) words: String,
    pub(super) since: Seconds,
    pub(super) last: Instant,
}

/// A look at a volume, for status.
#[derive(Debug, Clone)]
pub struct Condition {
    /// How it is.
    pub state: State,
    /// Since when everything was observed, but for the gaps.
    pub coverage_since: Seconds,
    /// The last stretches that were not.
    pub gaps: Vec<Gap>,
    /// How many there have been.
    pub gaps_total: u64,
    /// End of the last gap that counts as a use of every file.
    pub gap_end: Option<Seconds>,
    /// The last stretches that were not, and do not count: from and to.
    pub forgiven: Vec<(Seconds, Seconds)>,
    /// The running scan: entries, directories, unreadable, seconds.
    pub scan: Option<(u64, u64, u64, f64)>,
    /// Entries that the last scan could not read.
    pub unreadable: u64,
    /// Subvolumes of btrfs below it, as of the last scan: what is in them is not covered.
    pub subvolumes: u64,
    /// Events a second.
    pub rate: f64,
    /// Repeated uses that cost nothing.
    pub precision: Precision,
}

impl Volume {
    /// Everything that is wrong with it, the worst first.
    pub fn ailments(&self) -> Vec<(Ailment, String)> {
        let known = self.health.lock().ailments();
        self.with_defects(known)
    }

    /// What is wrong with the disks under it comes first: the rest may follow from that. A volume that is away has no file system.
    fn with_defects(&self, mut known: Vec<(Ailment, String)>) -> Vec<(Ailment, String)> {
        let is_away = known.iter().any(|(what, _)| *what == Ailment::Away);
        let file_system = self.file_system.defect().filter(|_| !is_away);
        let state = self.home.state.defect();
        let defects = [
            file_system.map(|d| (Ailment::FileSystem(d.failure), d.words)),
            state.map(|d| (Ailment::State(d.failure), d.words)),
        ];
        known.splice(
            usize::from(is_away)..usize::from(is_away),
            defects.into_iter().flatten(),
        );
        known
    }

    /// What is wrong with its file system now, asked for so long at most.
    pub fn file_system_now(&self, at_most: Duration) -> Option<Defect> {
        self.file_system.look_now(at_most)
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        let health = self.health.lock();
        let state = match self.with_defects(health.ailments()).into_iter().next() {
            Some((_, reason)) => State::Degraded(format!("{reason} (purgectl doctor says what to do)")),
            None if !health.whole => State::Scanning,
            None => State::Tracking,
        };
        let scan = health.scan.as_ref().map(|(p, began)| {
            let numbers = (
                p.entries.load(Relaxed),
                p.directories.load(Relaxed),
                p.unreadable.load(Relaxed),
            );
            (numbers.0, numbers.1, numbers.2, began.elapsed().as_secs_f64())
        });
        let seconds = health.rates.len().saturating_sub(1).max(1) as f64;
        let (first, last) = (health.rates.front().copied(), health.rates.back().copied());
        let seen = last.unwrap_or(0).saturating_sub(first.unwrap_or(0));
        Condition {
            state,
            coverage_since: Seconds(health.record.coverage_since),
            gaps: health.record.gaps.clone(),
            gaps_total: health.record.gaps_total,
            gap_end: health.record.counted_until(),
            forgiven: health.record.forgiven(),
            scan,
            unreadable: health.unreadable,
            subvolumes: health.subvolumes,
            rate: seen as f64 / seconds,
            precision: self.source.windows().map(Windows::precision).unwrap_or_default(),
        }
    }
}
