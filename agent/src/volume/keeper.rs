//! The keeper's thread: writes the index back, takes checkpoints, and mends what can be mended while the agent runs.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use prost::Message;

use super::coverage::Cause;
use super::{RATE_SECONDS, Volume, identity, opening};
use crate::clock::Step;
use crate::collect::nfsd;
use crate::index::aside;
use crate::index::checkpoint::{self, Head, Writer};
use crate::index::journal::BYTES_WANT_CHECKPOINT;
use crate::index::{Batch, Record, StoreError};
use crate::model::Seconds;
use crate::query::usage::{RECOUNT_EVERY, recount};
use crate::scan::Extent;

/// How often the keeper looks whether something is to be done.
const TICK: Duration = Duration::from_secs(1);
/// How often the store is told that the agent is still watching; a crash makes its gap longer by this at most.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// After writing back more rows than this, what that took is given back to the system.
const ROWS_TO_TRIM: usize = 4000;
/// A collector that made no error for so long works again.
const WELL_AFTER: Duration = Duration::from_secs(3);
/// A store or a scan that failed is tried again after this.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How often both clocks are looked at.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked what clients of the kernel's NFS server hold.
const NFS_EVERY: Duration = Duration::from_secs(15);
/// A look that took long is not taken again before so many times as long.
const NFS_REST: u32 = 20;
/// Pages that go into a checkpoint while the index is held.
const PAGES_AT_ONCE: usize = 2048;
/// A store that must be writable takes a file of so many bytes.
const PROBE_BYTES: usize = 256 << 10;

/// When the last checkpoint was taken, and of what.
#[derive(Debug, Default)]
pub(super) struct LastCheckpoint {
    at: Option<Instant>,
    /// Write-backs that it knew.
    flushes: u64,
}

/// What the keeper did last.
struct Rounds {
    alive: Instant,
    clock: Instant,
    clock_change: u64,
    store: Instant,
    scan: Instant,
    swept: Instant,
    flush: Instant,
    /// When the next look at NFS clients is due.
    nfs: Option<Instant>,
    /// When usage was counted anew, and how long that took.
    counted: (Instant, Duration),
    present: Seconds,
}

impl Volume {
    pub(super) fn keep(&self) {
        let began = Instant::now();
        let mut last = Rounds {
            alive: began,
            clock: began,
            clock_change: self.home.clock.tick().number,
            store: began,
            scan: began,
            swept: began,
            flush: began,
            nfs: None,
            counted: (began, Duration::ZERO),
            present: Seconds::now(),
        };
        while !self.stopping.load(Relaxed) {
            std::thread::sleep(TICK);
            self.look_for_the_volume(&mut last);
            if let Some(error) = self.store.doubt() {
                self.index_trouble(&error);
            }
            // A first scan fills the same pages again and again, and if it is interrupted it begins anew: until it is
            // over, only memory asks for writing back (see `scan::Surroundings`).
            let is_first = !self.health.lock().record.scanned;
            let is_due = last.flush.elapsed().saturating_add(TICK / 2)
                >= Duration::from_secs(self.config.flush_interval);
            if self.mend_store(&mut last) && is_due && !is_first {
                last.flush = Instant::now();
                self.write_back();
                self.tend_windows();
                self.checkpoint_when_due();
            }
            self.count_rate();
            self.recount_when_due(&mut last);
            self.judge_collector();
            self.judge_journal();
            self.look_at_nfs_clients(&mut last);
            if last.clock.elapsed() >= CLOCK_EVERY {
                last.clock = Instant::now();
                self.follow_clock(&mut last);
            }
            let urgent = std::mem::take(&mut self.health.lock().urgent);
            if urgent || last.alive.elapsed() >= ALIVE_EVERY {
                last.alive = Instant::now();
                self.home.clock.save();
                self.told_alive();
                if self.health.lock().index_trouble.is_none()
                    && let Err(error) = self.save_record()
                {
                    self.index_trouble(&error);
                    self.health.lock().urgent |= urgent;
                }
            }
            if let Err(error) = aside::mirror_records(&self.store, &self.home.state_dir) {
                tracing::debug!(%error, "holds cannot be mirrored yet");
            }
            self.request_scans(&mut last);
        }
    }

    fn look_at_nfs_clients(&self, last: &mut Rounds) {
        let began = Instant::now();
        if last.nfs.is_some_and(|due| began < due) {
            return;
        }
        match nfsd::record(&self.watched) {
            Ok(held) => self.keeping.nfs_held.store(held as u64, Relaxed),
            // An unmounted volume is told of elsewhere.
            Err(error) if self.health.lock().away.is_some() => {
                tracing::debug!(%error, "no look at NFS clients")
            }
            Err(error) => {
                let volume = &self.config.name;
                tracing::warn!(%error, %volume, "what NFS clients hold cannot be read from {}", nfsd::CLIENTS);
            }
        }
        let rest = began.elapsed().saturating_mul(NFS_REST).max(NFS_EVERY);
        last.nfs = began.checked_add(rest);
    }

    /// Days and ages of the usage go on: they are counted anew every minute, on large volumes so rarely that it costs
    /// less than half a percent of a processor.
    fn recount_when_due(&self, last: &mut Rounds) {
        let every = Duration::from_secs(RECOUNT_EVERY).max(last.counted.1.saturating_mul(300));
        if last.counted.0.elapsed() < every {
            return;
        }
        let began = Instant::now();
        let _one = self.watched.counting.lock();
        let at = (Seconds::judged(), self.condition().gap_end);
        if let Err(error) = recount(&self.watched.index, at) {
            tracing::error!(volume = %self.config.name, %error, "usage cannot be counted");
        }
        last.counted = (Instant::now(), began.elapsed());
    }

    fn count_rate(&self) {
        let mut health = self.health.lock();
        health.rates.push_back(self.watched.counters.events.load(Relaxed));
        if health.rates.len() > RATE_SECONDS + 1 {
            health.rates.pop_front();
        }
    }

    /// Everything that was seen up to now is in the index or in the journal.
    pub(super) fn told_alive(&self) {
        let mut health = self.health.lock();
        // While a first scan runs, only the journal keeps the uses of files that it has not met.
        let lost = !health.record.scanned && health.journal_trouble.is_some();
        if !lost && health.away.is_none() && health.collector_trouble.is_none() {
            health.record.last_alive = Seconds::now().0;
        }
    }

    pub(super) fn save_record(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let record = self.health.lock().record.encode_to_vec();
        batch.put(Record::Volume, self.config.name.as_bytes(), &record);
        self.store.apply(batch)?;
        self.store.flush()
    }

    // ------------------------------------------------------------ writing back

    /// Writes what changed to the store. False if it could not be written.
    pub(super) fn write_back(&self) -> bool {
        let _one = self.writing.lock();
        if self.health.lock().index_trouble.is_some() {
            return false;
        }
        let began = Instant::now();
        let (mut write_back, segment) = {
            let mut index = self.watched.index.write();
            let write_back = index.start_write_back();
            let segment = match write_back.is_empty() {
                true => None,
                false => Some(self.watched.journal.rotate()),
            };
            (write_back, segment)
        };
        let rows = write_back.len();
        let Some(segment) = segment else {
            self.watched.index.write().written_back(true);
            return true;
        };
        let scanned = {
            let mut record = self.health.lock().record.clone();
            if record.scanned {
                record.stored_journal = record.stored_journal.max(segment);
            }
            write_back.set_record(&self.config.name, record.encode_to_vec());
            record.scanned
        };
        let result = write_back.commit();
        if rows > ROWS_TO_TRIM {
            crate::sys::memory::give_back();
        }
        self.watched.index.write().written_back(result.is_ok());
        self.count_flush(began.elapsed(), result.is_ok());
        match &result {
            Err(error) => self.index_trouble(error),
            // While a first scan runs, the journal alone knows of uses of files that it has not met.
            Ok(()) if scanned => {
                {
                    let mut health = self.health.lock();
                    health.record.stored_journal = health.record.stored_journal.max(segment);
                }
                if let Err(error) = self.watched.journal.stored(segment) {
                    tracing::debug!(volume = %self.config.name, %error, "a journal segment cannot be set aside");
                }
            }
            Ok(()) => {}
        }
        result.is_ok()
    }

    fn count_flush(&self, took: Duration, ok: bool) {
        if !ok {
            self.keeping.flushes_failed.fetch_add(1, Relaxed);
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.keeping.flushes.fetch_add(1, Relaxed);
        self.keeping.flush_micros.fetch_add(micros, Relaxed);
        self.keeping.flush_micros_max.fetch_max(micros, Relaxed);
    }

    pub(super) fn index_trouble(&self, error: &StoreError) {
        let mut health = self.health.lock();
        if error.is_damage() && !matches!(error, StoreError::Panicked { .. }) {
            health.damage.get_or_insert_with(|| error.to_string());
        }
        let words = format!("the index cannot be written: {error}; free space for the state directory");
        if health.index_trouble.as_ref() != Some(&words) {
            tracing::error!(volume = %self.config.name, %error, "the index cannot be written");
            health.index_trouble = Some(words);
        }
    }

    /// After an error the store takes nothing any more: once its directory can be written again, it is opened anew.
    /// Whether it is well.
    fn mend_store(&self, last: &mut Rounds) -> bool {
        if self.health.lock().index_trouble.is_none() {
            return true;
        }
        if last.store.elapsed() < RETRY_EVERY {
            return false;
        }
        last.store = Instant::now();
        if let Err(error) = probe(&self.home.state_dir) {
            tracing::debug!(volume = %self.config.name, %error, "the state directory cannot be written yet");
            return false;
        }
        let _one = self.writing.lock();
        match self.store.reopen() {
            Ok(()) => {
                let mut health = self.health.lock();
                health.index_trouble = None;
                tracing::info!(volume = %self.config.name, "the index can be written again");
                true
            }
            Err(error) => {
                tracing::error!(volume = %self.config.name, %error, "the index cannot be opened again");
                if error.is_damage() {
                    self.health.lock().damage.get_or_insert_with(|| error.to_string());
                }
                false
            }
        }
    }

    /// Why the index must be set aside and made anew by a restart, if so.
    pub fn damage(&self) -> Option<String> {
        self.health.lock().damage.clone()
    }

    // ------------------------------------------------------------ checkpoints

    fn checkpoint_when_due(&self) {
        let due = {
            let last = self.checkpoint.lock();
            let old = last
                .at
                .is_none_or(|at| at.elapsed() >= Duration::from_secs(self.config.checkpoint_interval));
            let changed = last.at.is_none() || self.keeping.flushes.load(Relaxed) != last.flushes;
            (old && changed) || self.watched.journal.bytes() > BYTES_WANT_CHECKPOINT
        };
        if due {
            self.take_checkpoint();
        }
    }

    /// Writes the clock column with its coverage beside the store. Only of a volume that was wholly seen: until then, what an
    /// earlier checkpoint holds is worth more.
    pub(super) fn take_checkpoint(&self) {
        let mut last = self.checkpoint.lock();
        if !self.health.lock().record.scanned {
            return;
        }
        let flushes = self.keeping.flushes.load(Relaxed);
        // Uses up to here are in the index, so they will be in the checkpoint.
        let segment = {
            let _index = self.watched.index.write();
            self.watched.journal.rotate()
        };
        match self.write_checkpoint(segment) {
            Ok(bytes) => {
                self.keeping.checkpoints.fetch_add(1, Relaxed);
                self.keeping.checkpoint_bytes.store(bytes, Relaxed);
                self.health.lock().checkpoint_trouble = None;
            }
            Err(error) => {
                let words = format!(
                    "the clocks cannot be saved beside the index: {error}; free space for the state directory"
                );
                tracing::error!(volume = %self.config.name, %error, "the checkpoint cannot be written");
                self.health.lock().checkpoint_trouble = Some(words);
            }
        }
        *last = LastCheckpoint {
            at: Some(Instant::now()),
            flushes,
        };
    }

    fn write_checkpoint(&self, segment: u64) -> io::Result<u64> {
        let journal = &self.watched.journal;
        let dir = opening::directory(&self.home.state_dir, &self.config.name);
        let record = self.health.lock().record.clone();
        let head = Head {
            identity: journal.identity(),
            number: checkpoint::next_number(&dir),
            taken: Seconds(record.last_alive.max(Seconds::now().0)),
            journal: segment,
            record: record.encode_to_vec(),
        };
        let mut writer = Writer::begin(&dir, &head)?;
        let mut from = 0;
        loop {
            let index = self.watched.index.read();
            let pages = index.pages_from(from, PAGES_AT_ONCE);
            if pages.len() == 0 {
                break;
            }
            from += pages.len();
            pages.for_each(|page| writer.page(&page));
            // Whoever waits for the index does not wait for the disk.
            drop(index);
            writer.end_frame()?;
        }
        let bytes = writer.finish()?;
        // What the store does not hold yet is still needed, should this process be killed.
        journal.covered(segment.min(record.stored_journal))?;
        Ok(bytes)
    }

    // ------------------------------------------------------------ what may be wrong

    /// Tells whether the volume was unmounted; when it is back, only a restart watches it again.
    fn look_for_the_volume(&self, last: &mut Rounds) {
        if !self.presence.lock().is_gone() {
            last.present = Seconds::now();
            return;
        }
        let mut health = self.health.lock();
        if health.away.is_none() {
            let words = format!(
                "{} was unmounted; mount it, and it is watched again",
                self.config.path.display()
            );
            tracing::error!(volume = %self.config.name, "the volume was unmounted");
            health.away = Some(words);
            health.record.away_since = last.present.0;
            health.urgent = true;
        }
    }

    /// The volume was away and lies there again, the same as before.
    pub fn is_back(&self) -> bool {
        let journal = self.watched.journal.identity();
        self.health.lock().away.is_some() && identity(&self.config.path).is_ok_and(|found| found == journal)
    }

    /// A collector that has made no error for a while works again; what it may have missed is a gap.
    fn judge_collector(&self) {
        let mut health = self.health.lock();
        let well = health
            .collector_trouble
            .as_ref()
            .is_some_and(|t| t.last.elapsed() >= WELL_AFTER);
        if !well {
            return;
        }
        if let Some(trouble) = health.collector_trouble.take() {
            let now = Seconds::now();
            health.record.add_gap(
                trouble.since,
                now,
                Cause::Collector,
                self.config.gap_tolerance,
                false,
            );
            health.urgent = true;
            tracing::info!(volume = %self.config.name, "events are recorded again");
            drop(health);
            self.request_scan(Extent::Volume);
        }
    }

    fn judge_journal(&self) {
        self.watched.journal.probe();
        let trouble = self.watched.journal.trouble().map(|why| {
            format!("the journal of uses cannot be written: {why}; free space for the state directory")
        });
        let mut health = self.health.lock();
        if health.journal_trouble != trouble {
            match &trouble {
                Some(words) => tracing::error!(volume = %self.config.name, "{words}"),
                None => tracing::info!(volume = %self.config.name, "the journal can be written again"),
            }
            health.journal_trouble = trouble;
        }
    }

    /// Takes over a change of the agent's time.
    fn follow_clock(&self, last: &mut Rounds) {
        let change = self.home.clock.tick();
        if change.number == last.clock_change {
            return;
        }
        last.clock_change = change.number;
        let now = Seconds::now();
        let name = &self.config.name;
        match change.step {
            Step::None => {}
            Step::Ahead(by) => {
                let seconds = by / 1_000_000_000;
                tracing::warn!(volume = %name, seconds, "the wall clock was set forward: ages do not follow it");
            }
            Step::Corrected(_) => {
                tracing::warn!(volume = %name, "the wall clock was corrected after boot: everything counts as used now");
                let mut health = self.health.lock();
                let from = last.present.min(now);
                health.record.add_gap(from, now, Cause::ClockJump, 0, true);
                health.urgent = true;
            }
            Step::Back(_) => {
                tracing::warn!(volume = %name, "the wall clock was set back, and is believed");
                // First nothing is hidden any more, then the clocks that lie ahead move to this moment.
                if let Err(error) = self.windows.begin_anew() {
                    tracing::error!(volume = %name, %error, "the precision window cannot be ended");
                    return;
                }
                self.sync();
                let now = Seconds::now().plus(1);
                self.watched.index.write().clamp_uses(now);
                let mut health = self.health.lock();
                health.record.set_back(now);
                health.record.window_end = self.windows.end().0;
                health
                    .record
                    .add_gap(now, now, Cause::ClockJump, self.config.gap_tolerance, false);
                health.urgent = true;
            }
        }
        last.present = now;
    }

    /// Asks for the scans that are due: of trees that came in, after one that failed, and from time to time.
    fn request_scans(&self, last: &mut Rounds) {
        let trees = std::mem::take(&mut *self.watched.unlisted.lock());
        if !trees.is_empty() {
            self.request_scan(Extent::Trees(trees));
        }
        let (failed, running) = {
            let health = self.health.lock();
            let failed = health.scan_trouble.is_some() || health.missed_names;
            (failed && health.away.is_none(), health.scan.is_some())
        };
        if running {
            last.scan = Instant::now();
            last.swept = Instant::now();
            return;
        }
        if failed && last.scan.elapsed() >= RETRY_EVERY {
            last.scan = Instant::now();
            self.health.lock().missed_names = false;
            self.request_scan(Extent::Volume);
        }
        if self.watched.projects.wants_scan() {
            self.request_scan(Extent::Volume);
        }
        let every = self.config.sweep_interval;
        if every > 0 && last.swept.elapsed() >= Duration::from_secs(every) {
            last.swept = Instant::now();
            tracing::info!(volume = %self.config.name, "a slow scan begins");
            self.request_sweep();
        }
    }

    /// Keeps a slow scan to its rate.
    pub(super) fn keep_pace(&self, entries: u64) {
        let rate = self.config.sweep_rate;
        let began = self.health.lock().scan.as_ref().map(|(_, began)| *began);
        let Some(began) = began.filter(|_| rate > 0) else {
            return;
        };
        let due = Duration::from_millis(entries.saturating_mul(1000) / rate);
        while self.sweeping.load(Relaxed) && began.elapsed() < due && !self.stopping.load(Relaxed) {
            std::thread::sleep(
                due.saturating_sub(began.elapsed())
                    .min(Duration::from_millis(100)),
            );
        }
    }

    /// Begins a new precision window when the old one is over, and hides the further uses of files that are hot.
    fn tend_windows(&self) {
        let tended = self.windows.roll(&self.watched).and_then(|is_new| {
            if is_new {
                self.health.lock().record.window_end = self.windows.end().0;
                if let Err(error) = self.save_record() {
                    self.index_trouble(&error);
                    return Ok(());
                }
            }
            self.windows.mark_hot(&self.watched, || self.write_back())
        });
        if let Err(error) = tended {
            tracing::warn!(volume = %self.config.name, %error, "the precision window cannot be kept");
        }
    }
}

/// Whether a directory's file system takes data again.
fn probe(dir: &std::path::Path) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let file = dir.join(format!("probe.{}", NUMBER.fetch_add(1, Relaxed)));
    let written = std::fs::write(&file, vec![0xA5; PROBE_BYTES])
        .and_then(|()| std::fs::File::open(&file))
        .and_then(|f| f.sync_all());
    // Whatever became of it, it must not stay.
    let removed = std::fs::remove_file(&file);
    written.and(removed)
}
