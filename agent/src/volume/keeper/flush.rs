//! Writing the index back, and a store that takes nothing any more.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use prost::Message;

use super::{RETRY_EVERY, Rounds};
use crate::volume::Volume;
use purge_collect::atimes::clocks_agree;
use purge_index::{Batch, Record, StoreError};
use purge_sys::failure::Defect;

/// After writing back more rows than this, what that took is given back to the system.
const ROWS_TO_TRIM: usize = 4000;
/// A store that must be writable takes a file of this number of bytes.
const PROBE_BYTES: usize = 256 << 10;

impl Volume {
    pub(in crate::volume) fn save_record(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let record = {
            let mut health = self.health.lock();
            if !clocks_agree() {
                // Access times of this stretch are from another clock than the agent's.
                health.record.atimes.clear();
            }
            health.record.encode_to_vec()
        };
        batch.put(Record::Volume, self.config.name.as_bytes(), &record);
        self.store.apply(batch)?;
        self.store.flush()
    }

    /// Writes what changed to the store. False if it could not be written.
    pub(crate) fn write_back(&self) -> bool {
        self.write_back_with(true)
    }

    /// The same, or all but what was `removed`.
    pub(super) fn write_back_with(&self, removed: bool) -> bool {
        let _one = self.writing.lock();
        if self.has_stopped.load(Relaxed) || self.health.lock().index_trouble.is_some() {
            return false;
        }
        let began = Instant::now();
        let (mut write_back, segment, seen_until) = {
            let mut index = self.watched.index.write();
            let seen_until = self.watched.counters.seen_until.load(Relaxed);
            let write_back = index.start_write_back(removed);
            let segment = match write_back.is_empty() {
                true => None,
                false => Some(self.watched.journal.rotate()),
            };
            if segment == Some(None) {
                index.written_back(false);
                return false;
            }
            (write_back, segment.flatten(), seen_until)
        };
        // The journal knows of these as well, until the end of this write-back.
        if let Err(error) = self.save_trashed() {
            self.watched.index.write().written_back(false);
            self.index_trouble(&error);
            return false;
        }
        let rows = write_back.len();
        let Some(segment) = segment else {
            self.watched.index.write().written_back(true);
            self.keeping.stored_until.store(seen_until, Relaxed);
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
        self.watched.index.write().written_back(result.is_ok());
        if rows > ROWS_TO_TRIM {
            purge_sys::memory::give_back();
        }
        self.count_flush(began.elapsed(), result.is_ok());
        match &result {
            Err(error) => {
                self.index_trouble(error);
                return false;
            }
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
        self.keeping.stored_until.store(seen_until, Relaxed);
        true
    }

    fn save_trashed(&self) -> Result<(), StoreError> {
        let (store, id) = {
            let index = self.watched.index.read();
            let (store, id) = index.home();
            (store.clone(), id)
        };
        self.watched.trashed.save(&store, id)
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

    pub(in crate::volume) fn index_trouble(&self, error: &StoreError) {
        let mut health = self.health.lock();
        if error.is_damage() && !matches!(error, StoreError::Panicked { .. }) {
            health.damage.get_or_insert_with(|| error.to_string());
        }
        let failure = error.failure();
        let cure = failure.cure_of_state();
        let defect = Defect {
            failure,
            words: format!("the index cannot be written: {error}; {cure}"),
        };
        if health.index_trouble.is_none() {
            tracing::error!(volume = %self.config.name, %error, cure, "the index cannot be written");
            health.index_trouble = Some(defect);
        }
    }

    /// After an error the store takes nothing any more: once its directory can be written again, it is opened again.
    /// Whether it is well.
    pub(super) fn mend_store(&self, last: &mut Rounds) -> bool {
        if self.health.lock().index_trouble.is_none() {
            return true;
        }
        if last.store.elapsed() < RETRY_EVERY {
            return false;
        }
        last.store = Instant::now();
        if self.home.state.defect().is_some() {
            return false;
        }
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

    /// Why a restart must set the index aside and make it again, if so.
    pub fn damage(&self) -> Option<String> {
        self.health.lock().damage.clone()
    }
}

/// Whether a directory's file system takes data again.
fn probe(dir: &Path) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let file = dir.join(format!("probe.{}", NUMBER.fetch_add(1, Relaxed)));
    let written = purge_sys::private::write(&file, &[0xA5; PROBE_BYTES])
        .and_then(|()| std::fs::File::open(&file))
        .and_then(|f| f.sync_all());
    // The file must not stay, also after an error.
    let removed = std::fs::remove_file(&file);
    written.and(removed)
}
