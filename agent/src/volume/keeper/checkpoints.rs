//! The clock column with its coverage beside the store, every few minutes and at a stop.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use prost::Message;

use crate::volume::Volume;
use crate::volume::beside::directory;
use purge_base::clock;
use purge_index::checkpoint::{self, Head, Writer};
use purge_index::journal::BYTES_WANT_CHECKPOINT;
use purge_model::Seconds;
use purge_sys::failure::{Defect, Failure};

/// Pages that go into a checkpoint while the index is held.
const PAGES_AT_ONCE: usize = 2048;

/// When the last checkpoint was taken, and of what.
#[derive(Debug, Default)]
pub(in crate::volume) struct LastCheckpoint {
    at: Option<Instant>,
    /// Write-backs that it knew.
    flushes: u64,
}

impl Volume {
    pub(super) fn checkpoint_when_due(&self) {
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
    pub(in crate::volume) fn take_checkpoint(&self) {
        let mut last = self.checkpoint.lock();
        // At the path of a state directory that is away lies another one, or none.
        if !self.health.lock().record.scanned || self.home.state.is_away() {
            return;
        }
        let flushes = self.keeping.flushes.load(Relaxed);
        // Uses up to here are in the index, so they will be in the checkpoint.
        let (segment, seen_until) = {
            let _index = self.watched.index.write();
            let seen_until = self.watched.counters.seen_until.load(Relaxed);
            let Some(segment) = self.watched.journal.rotate() else {
                return;
            };
            (segment, seen_until)
        };
        match self.write_checkpoint(segment, seen_until) {
            Ok(bytes) => {
                self.keeping.checkpoints.fetch_add(1, Relaxed);
                self.keeping.checkpoint_bytes.store(bytes, Relaxed);
                self.health.lock().checkpoint_trouble = None;
            }
            Err(error) => {
                let failure = Failure::of(&error);
                let cure = failure.cure_of_state();
                let words = format!("the clocks cannot be saved beside the index: {error}; {cure}");
                tracing::error!(volume = %self.config.name, %error, cure, "the checkpoint cannot be written");
                self.health.lock().checkpoint_trouble = Some(Defect { failure, words });
            }
        }
        *last = LastCheckpoint {
            at: Some(Instant::now()),
            flushes,
        };
    }

    fn write_checkpoint(&self, segment: u64, seen_until: u32) -> io::Result<u64> {
        let journal = &self.watched.journal;
        let dir = directory(&self.home.state_dir, &self.config.name);
        let mut record = self.health.lock().record.clone();
        record.saw(Seconds(seen_until), clock::now());
        let head = Head {
            identity: journal.identity(),
            number: checkpoint::next_number(&dir),
            taken: clock::now(),
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
            // A thread that waits for the index does not wait for the disk.
            drop(index);
            writer.end_frame()?;
        }
        let bytes = writer.finish()?;
        // What the store does not hold yet is still needed, should this process be killed.
        journal.covered(segment.min(record.stored_journal))?;
        Ok(bytes)
    }
}
