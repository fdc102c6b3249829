//! The keeper's thread: writes the index back, takes checkpoints, and repairs what can be repaired while the agent runs.
//!
//! - this file       its rounds, and what is due in them
//! - `flush`         writing the index back, and a store that takes nothing any more
//! - `checkpoints`   the clocks beside the store
//! - `looks`         what may be wrong around the index

mod checkpoints;
mod flush;
mod looks;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub(super) use self::checkpoints::LastCheckpoint;
use super::claim::LOOK_EVERY;
use super::{RATE_SECONDS, Volume};
use purge_base::accounts::expect_names;
use purge_base::clock;
use purge_collect::nfsd;
use purge_collect::source::Mode;
use purge_index::aside;
use purge_model::Seconds;
use purge_query::usage::{RECOUNT_EVERY, recount};
use purge_scan::Extent;

/// How often the keeper looks whether something is to be done.
const TICK: Duration = Duration::from_secs(1);
/// How often the store is told that the agent is still watching; a crash makes its gap longer by this at most.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How often it is written what was removed. After a crash a scan finds that out again; a large run need not write the same pages each
/// second for it.
const REMOVED_EVERY: Duration = Duration::from_secs(10);
/// A store, a scan or a count that failed is tried again after this.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How often the agent makes an event itself, to find out whether the kernel tells of it.
const LISTEN_EVERY: Duration = Duration::from_secs(15);
/// How often both clocks are looked at.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked what clients of the kernel's NFS server hold.
const NFS_EVERY: Duration = Duration::from_secs(15);
/// This number of uses is added to the sums while the collector waits: some milliseconds.
const SETTLED_AT_ONCE: usize = 4096;
/// And this number of times in a round: as many as can wait. In a storm that goes on, the index has to be written as well.
const SETTLED_TIMES: usize = 64;
/// A look that took long is not taken again before this multiple of its time.
const NFS_REST: u32 = 20;

/// What the keeper did last.
struct Rounds {
    alive: Instant,
    clock: Instant,
    clock_change: u64,
    store: Instant,
    scan: Instant,
    swept: Instant,
    flush: Instant,
    removed: Instant,
    claim: Instant,
    /// When the agent listened for an event of its own, and when it heard one.
    listened: Instant,
    heard: Seconds,
    /// When the next look at NFS clients is due.
    nfs: Option<Instant>,
    /// When usage was counted again, and how long that took.
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
            removed: began,
            claim: began,
            listened: began,
            heard: clock::now(),
            nfs: None,
            counted: (began, Duration::ZERO),
            present: clock::now(),
        };
        self.expect_names();
        while !self.stopping.load(Relaxed) {
            std::thread::sleep(TICK);
            self.keeping.pulse.beat();
            if self.profile().mode == Mode::Scans {
                // Its source has no thread that could stand still.
                self.watched.counters.pulse.beat();
            }
            self.look_for_the_volume(&mut last);
            if last.claim.elapsed() >= LOOK_EVERY {
                last.claim = Instant::now();
                self.other_agent();
            }
            if let Some(error) = self.store.doubt() {
                self.index_trouble(&error);
            }
            // A first scan fills the same pages again and again, and if it is interrupted it begins again: until it is
            // over, only memory asks for writing back (see `scan::Surroundings`).
            let is_first = !self.health.lock().record.scanned;
            let is_due = last.flush.elapsed().saturating_add(TICK / 2)
                >= Duration::from_secs(self.config.flush_interval);
            if self.mend_store(&mut last) && is_due && !is_first {
                last.flush = Instant::now();
                let removed = last.removed.elapsed() >= REMOVED_EVERY;
                if removed {
                    last.removed = Instant::now();
                }
                self.write_back_with(removed);
                self.tend_windows();
                self.checkpoint_when_due();
            }
            self.count_rate();
            self.settle_uses();
            self.recount_when_due(&mut last);
            self.judge_collector();
            self.judge_journal();
            if last.listened.elapsed() >= LISTEN_EVERY {
                last.listened = Instant::now();
                self.listen(&mut last);
            }
            self.judge_scan();
            self.tell_of_the_file_system();
            self.look_at_nfs_clients(&mut last);
            if last.clock.elapsed() >= CLOCK_EVERY {
                last.clock = Instant::now();
                self.follow_clock(&mut last);
            }
            let urgent = std::mem::take(&mut self.health.lock().urgent);
            if urgent || last.alive.elapsed() >= ALIVE_EVERY {
                last.alive = Instant::now();
                if self.home.state.defect().is_none() {
                    self.home.clock.save();
                }
                self.told_alive();
                if self.health.lock().index_trouble.is_none()
                    && !self.home.state.is_silent()
                    && let Err(error) = self.save_record()
                {
                    self.index_trouble(&error);
                    self.health.lock().urgent |= urgent;
                }
            }
            if self.home.state.defect().is_none()
                && let Err(error) = aside::mirror_records(&self.store, &self.home.state_dir)
            {
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
        match self.nfs.look() {
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

    /// Days and ages of the usage go on: they are counted again every minute, on large volumes so rarely that it costs
    /// less than half a percent of a processor. After a start, and when a gap has made every age wrong, sooner: a client that asks would
    /// have to wait for it.
    fn recount_when_due(&self, last: &mut Rounds) {
        let gap_end = self.health.lock().record.counted_until();
        let wrong = {
            let index = self.watched.index.read();
            let ledger = index.ledger();
            ledger.as_of() == Seconds::MIN || ledger.gap_end() != gap_end
        };
        let (counted, took) = last.counted;
        let rest = match wrong {
            true if took.is_zero() => Duration::ZERO,
            true => RETRY_EVERY.max(took.saturating_mul(20)),
            false => Duration::from_secs(RECOUNT_EVERY).max(took.saturating_mul(300)),
        };
        if counted.elapsed() < rest {
            return;
        }
        let began = Instant::now();
        let _one = self.watched.counting.lock();
        let at = (clock::judged(), gap_end);
        if let Err(error) = recount(&self.watched.index, at) {
            tracing::error!(volume = %self.config.name, %error, "usage cannot be counted");
        }
        last.counted = (Instant::now(), began.elapsed());
        self.expect_names();
    }

    /// Of owners, for clients that ask for usage.
    fn expect_names(&self) {
        let index = self.watched.index.read();
        let ledger = index.ledger();
        expect_names(ledger.users().keys().copied(), ledger.groups().keys().copied());
    }

    /// The sums of the usage follow the clocks; the collector, who moves those, should not wait for it.
    fn settle_uses(&self) {
        for _ in 0..SETTLED_TIMES {
            if !self.watched.index.write().settle_some(SETTLED_AT_ONCE) {
                return;
            }
        }
    }

    fn count_rate(&self) {
        let mut health = self.health.lock();
        health.rates.push_back(self.watched.counters.events.load(Relaxed));
        if health.rates.len() > RATE_SECONDS + 1 {
            health.rates.pop_front();
        }
    }

    /// Until when every use is in the store, as the volume's record says it. What was read since then is in the journal, which
    /// says so itself ([`Entry::Seen`](purge_index::journal::Entry)) and is lost with the power.
    pub(super) fn told_alive(&self) {
        let mut health = self.health.lock();
        // While a first scan runs, only the journal keeps the uses of files that it has not met.
        let seen_until = match (health.record.scanned, &health.journal_trouble) {
            (true, _) => &self.keeping.stored_until,
            (false, None) => &self.watched.counters.seen_until,
            (false, Some(_)) => return,
        };
        if health.away.is_none() && health.collector_trouble.is_none() && health.deaf.is_none() {
            let seen_until = Seconds(seen_until.load(Relaxed));
            health.record.saw(seen_until, clock::now());
        }
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
        if !self.profile().knows_names {
            if last.swept.elapsed() >= Duration::from_secs(self.config.scan_interval) {
                last.swept = Instant::now();
                self.request_scan(Extent::Volume);
            }
            return;
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
        let Some(windows) = self.source.windows() else {
            return;
        };
        let tended = windows.roll(&self.watched).and_then(|is_new| {
            if is_new {
                self.health.lock().record.window_end = windows.end().0;
                if let Err(error) = self.save_record() {
                    self.index_trouble(&error);
                    return Ok(());
                }
            }
            windows.mark_hot(&self.watched, || self.write_back())
        });
        if let Err(error) = tended {
            tracing::warn!(volume = %self.config.name, %error, "the precision window cannot be kept");
        }
    }
}
