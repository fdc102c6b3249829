//! The scanner's thread: one scan after another, as they are asked for.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use super::Volume;
use crate::work::Phase;
use purge_base::clock;
use purge_collect::source::Reads;
use purge_model::{Seconds, Stat};
use purge_scan::{self, Belief, Extent, Progress, ScanError};

impl Volume {
    /// Asks for a scan in the background.
    pub fn request_scan(&self, extent: Extent) {
        // The caller does not want to wait for a slow one.
        self.sweeping.store(false, Relaxed);
        self.queue_scan(extent);
    }

    /// A slow scan of the whole volume, in the background.
    pub(super) fn request_sweep(&self) {
        self.sweeping.store(true, Relaxed);
        self.queue_scan(Extent::Volume);
    }

    fn queue_scan(&self, extent: Extent) {
        if extent == Extent::Volume {
            // One that waits sees all that was there when it was asked for again.
            if self.whole_scan_waits.swap(true, SeqCst) {
                return;
            }
            let mut health = self.health.lock();
            health
                .scan
                .get_or_insert_with(|| (Arc::default(), Instant::now()));
        }
        if let Some(scans) = &*self.scans.lock() {
            // The scanner lives as long as the sender.
            let _ = scans.send(extent);
        }
    }

    pub(super) fn scan_when_asked(&self, inbox: &mpsc::Receiver<Extent>) {
        while let Ok(extent) = inbox.recv() {
            if self.stopping.load(Relaxed) {
                return;
            }
            if extent == Extent::Volume {
                self.whole_scan_waits.store(false, SeqCst);
            }
            self.scan(&extent);
        }
    }

    /// What is believed of files that are new to the index.
    fn belief_of(&self, extent: &Extent, number: u32, began: Seconds) -> Belief {
        match (self.watched.reads, extent) {
            (_, Extent::Volume) if number == 1 => self.belief,
            // Nothing tells of them sooner than a scan, which reads what is known of their uses.
            (Reads::AtScans, _) => Belief::Atime(began),
            (Reads::Unknown, _) => Belief::Mtime,
            // What comes in from outside, or is found later, is used now. What is believed of the time before does not matter.
            (Reads::Seen, _) => Belief::Since(began),
        }
    }

    fn scan(&self, extent: &Extent) {
        let progress = match extent {
            Extent::Volume => {
                let fresh = (Arc::new(Progress::default()), Instant::now());
                let progress = Arc::clone(&fresh.0);
                self.health.lock().scan = Some(fresh);
                progress
            }
            Extent::Trees(_) => Arc::default(),
        };
        let number = self.scan_number.fetch_add(1, Relaxed) + 1;
        let began = clock::now();
        let belief = self.belief_of(extent, number, began);
        let result = purge_scan::run(&self.watched, extent, belief, number, &progress, self);
        if number == 1 && result.is_ok() {
            self.close_gap();
        }
        {
            let mut health = self.health.lock();
            let mut phase = Phase::Scan;
            if *extent == Extent::Volume {
                if self.sweeping.swap(false, Relaxed) {
                    phase = Phase::Sweep;
                }
                health.scan = None;
            }
            match result {
                Ok(outcome) if *extent == Extent::Volume => {
                    health.whole = true;
                    health.record.scanned = true;
                    if let Some(tree) = &self.watched.tree {
                        tree.places().all_met();
                    }
                    self.keeping.scans.fetch_add(1, Relaxed);
                    if self.watched.reads != Reads::Seen {
                        // What was used before it began is known by now.
                        self.watched.recorder().seen(began);
                    }
                    self.keeping.work.phases.observe(phase, outcome.seconds);
                    health.unreadable = outcome.unreadable;
                    if outcome.subvolumes > 0 && outcome.subvolumes != health.subvolumes {
                        tracing::warn!(volume = %self.config.name, subvolumes = outcome.subvolumes,
                            "subvolumes of btrfs lie below the volume: what is in them is not covered");
                    }
                    health.subvolumes = outcome.subvolumes;
                    health.scan_trouble = None;
                    // They are listed by themselves, when they have come to rest.
                    self.watched.unlisted.lock().extend(&outcome.unlisted);
                    let (entries, seconds) = (outcome.entries, (outcome.seconds * 1000.0).round() / 1000.0);
                    let (unreadable, vanished) = (outcome.unreadable, outcome.vanished);
                    tracing::info!(volume = %self.config.name, entries, seconds, unreadable, vanished, "scan finished");
                }
                // Nothing else would find what lies in them.
                Ok(outcome) => health.missed_names |= !outcome.unlisted.is_empty(),
                Err(ScanError::Stopped) => return,
                Err(error) => {
                    tracing::error!(volume = %self.config.name, %error, "scan failed");
                    self.keeping.work.scans_failed.fetch_add(1, Relaxed);
                    health.scan_trouble =
                        Some(format!("the last scan failed: {error}; try `purgectl rescan`"));
                }
            }
        }
        self.write_back();
        purge_sys::memory::give_back();
        if let Err(error) = self.save_record() {
            self.index_trouble(&error);
        }
    }
}

impl purge_scan::Surroundings for Volume {
    fn sync(&self) {
        self.sync_patiently();
    }
    fn write_back(&self) {
        // What could not be written is told by the state.
        let _ = Self::write_back(self);
    }
    fn pace(&self, entries: u64) {
        self.keep_pace(entries);
    }
    fn met(&self, dir: &OwnedFd, name: &CStr, stat: &Stat) {
        if let Some(closing) = &self.closing
            && self.scan_number.load(Relaxed) == 1
        {
            closing.met(dir, name, stat);
        }
    }
    fn stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
}
