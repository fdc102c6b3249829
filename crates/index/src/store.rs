//! The embedded store: rows and records, read and written. Only this file and `calls` name sled.
//!
//! One tree, so that a batch is atomic over everything in it.
//!
//! Each value starts with [`VERSION`], or an older one that is still understood. No iterator of sled's outlives a call.
//!
//! sled makes a new copy of a page of its own for each row that is written, and leaves the old one to crossbeam-epoch, which frees
//! some of them every 128 calls. A batch is one call and leaves a thousand: see `apply_and_free`.
//!
//! - `keys`    what lies under which key
//! - `calls`   opening sled, calling it, and what is contained
//! - `threads` where calls run that may wait
//! - `error`   what may go wrong

mod calls;
mod error;
mod keys;
mod threads;

use std::ops::{Bound, RangeInclusive};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use self::calls::Sled;
pub use self::error::StoreError;
pub use self::keys::{Record, Row, VolumeId};
use self::keys::{prefix, record_key, row_key};
use super::codec::{OLDEST_VERSION, VERSION};
use purge_format::Damaged;

/// A round frees up to 512 things, two rounds after they were left at the soonest; a batch of the agent's leaves some thousands.
const ROUNDS_TO_FREE: usize = 64;
/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// Changes that are applied together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    rows: sled::Batch,
    /// Records that nothing but the store holds are among them.
    has_records: bool,
}

impl Batch {
    /// Writes a page's row; an empty one is removed.
    pub fn put_row(&mut self, row: Row, volume: VolumeId, number: u64, value: &[u8]) {
        let key = row_key(row, volume, number);
        if value.is_empty() {
            self.rows.remove(&key[..]);
        } else {
            self.rows.insert(&key[..], versioned(value));
        }
    }

    /// Writes a record.
    pub fn put(&mut self, record: Record, key: &[u8], value: &[u8]) {
        self.has_records |= record != Record::Volume;
        self.rows.insert(record_key(record, key), versioned(value));
    }

    /// Removes a record.
    pub fn remove(&mut self, record: Record, key: &[u8]) {
        self.has_records |= record != Record::Volume;
        self.rows.remove(record_key(record, key));
    }
}

/// The open store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    sled: Arc<Sled>,
    records_changed: Arc<AtomicBool>,
}

impl Store {
    fn of(sled: Sled) -> Self {
        Self {
            sled: Arc::new(sled),
            records_changed: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Opens the store in the directory `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it is damaged, locked by another agent, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Sled::open(path).map(Self::of)
    }

    /// A store in memory-backed temporary files, for tests.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn temporary() -> Result<Self, StoreError> {
        Sled::temporary().map(Self::of)
    }

    /// Closes the store and opens it again: after an error sled takes no writes any more, also when its cause no longer exists.
    /// Batches that were not flushed may be lost.
    ///
    /// # Errors
    /// When it cannot be opened: it stays closed, and this may be tried again. [`StoreError::Silent`]: a call still runs in it, and until
    /// that ends only another process can open it.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.sled.reopen()
    }

    /// Lets go of the files. Every later call is an error. False: a call does not end, and holds them.
    pub fn close(&self) -> bool {
        self.sled.close()
    }

    /// Whether a call does not end. Until it does, all others are errors.
    pub fn is_silent(&self) -> bool {
        self.sled.is_silent()
    }

    /// The first error since the store was opened that puts its content in doubt, whichever caller met it.
    pub fn doubt(&self) -> Option<StoreError> {
        self.sled.doubt()
    }

    /// Applies a batch. Durable after the next [`Store::flush`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.has_records {
            self.note_records_changed();
        }
        self.sled.write("write", |db| apply_and_free(db, batch.rows))
    }

    /// Whether records (not pages, not volumes) were written since the last call.
    pub(super) fn take_records_changed(&self) -> bool {
        self.records_changed.swap(false, Relaxed)
    }

    pub(super) fn note_records_changed(&self) {
        self.records_changed.store(true, Relaxed);
    }

    /// Makes everything applied so far survive a power cut.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.sled.write("flush", |db| db.flush()).map(drop)
    }

    /// A page's row.
    ///
    /// # Errors
    /// When the store cannot be read or the row has another version.
    pub fn row(&self, row: Row, volume: VolumeId, number: u64) -> Result<Option<Value>, StoreError> {
        self.sled
            .call("read", move |db| db.get(row_key(row, volume, number)))?
            .map(Value::checked)
            .transpose()
    }

    /// Calls `each` with the number and content of every row of one kind. `each` must not call the store.
    ///
    /// # Errors
    /// What `each` returns, and when the store cannot be read.
    pub fn rows(
        &self,
        row: Row,
        volume: VolumeId,
        each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.rows_between(row, volume, 0..=u64::MAX, each)
    }

    /// The same of the rows with these numbers.
    ///
    /// # Errors
    /// As for [`Store::rows`].
    pub fn rows_between(
        &self,
        row: Row,
        volume: VolumeId,
        numbers: RangeInclusive<u64>,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let last = row_key(row, volume, *numbers.end());
        let mut from = Bound::Included(row_key(row, volume, *numbers.start()));
        loop {
            let keys = (from, Bound::Included(last));
            let some = self.sled.call("read", move |db| {
                let rows = db.range(keys).take(ROWS_AT_ONCE);
                rows.collect::<sled::Result<Vec<_>>>()
            })?;
            let is_last = some.len() < ROWS_AT_ONCE;
            for (key, value) in some {
                let number = number_of(&key)?;
                from = Bound::Excluded(row_key(row, volume, number));
                each(number, &Value::checked(value)?)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The highest number of such a row.
    ///
    /// # Errors
    /// As for [`Store::rows`].
    pub fn last_number(&self, row: Row, volume: VolumeId) -> Result<Option<u64>, StoreError> {
        let last = self.sled.call("read", move |db| {
            db.scan_prefix(prefix(row, volume)).keys().next_back().transpose()
        })?;
        Ok(last.map(|key| number_of(&key)).transpose()?)
    }

    /// Removes every row of a volume's index.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn clear_volume(&self, volume: VolumeId) -> Result<(), StoreError> {
        for row in Row::OF_THE_INDEX {
            let cleared = move |db: &sled::Db| {
                let mut batch = sled::Batch::default();
                let mut found = false;
                for key in db.scan_prefix(prefix(row, volume)).keys().take(10_000) {
                    batch.remove(key?);
                    found = true;
                }
                apply_and_free(db, batch).map(|()| found)
            };
            while self.sled.write("clear", cleared)? {}
        }
        Ok(())
    }

    /// A record.
    ///
    /// # Errors
    /// When the store cannot be read or the record has another version.
    pub fn get(&self, record: Record, key: &[u8]) -> Result<Option<Value>, StoreError> {
        let key = record_key(record, key);
        self.sled
            .call("read", |db| db.get(key))?
            .map(Value::checked)
            .transpose()
    }

    /// The records of one kind whose keys start with `prefix`, in the order of their keys: (key, content).
    pub fn records(
        &self,
        record: Record,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Value), StoreError>> + use<> {
        let (store, prefix) = (self.clone(), record_key(record, prefix));
        let mut after = Some(Bound::Included(prefix.clone()));
        // Each step looks the next key up again: an iterator of sled's would keep the store open for as long as it lives.
        std::iter::from_fn(move || {
            let from = after.take()?;
            let read = move |db: &sled::Db| db.range((from, Bound::Unbounded)).next().transpose();
            let next = store.sled.call("read", read);
            match next {
                Ok(Some((key, value))) if key.starts_with(&prefix) => {
                    after = Some(Bound::Excluded(key.to_vec()));
                    Some(Value::checked(value).map(|v| (key.get(1..).unwrap_or_default().to_vec(), v)))
                }
                Ok(_) => None,
                Err(e) => Some(Err(e)),
            }
        })
    }

    /// Bytes the store takes on disk; 0 while it is closed.
    pub fn disk_bytes(&self) -> u64 {
        self.sled
            .call("measure itself", sled::Db::size_on_disk)
            .unwrap_or(0)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.sled.path()
    }
}

/// A value read from the store, without its version byte.
#[derive(Debug, Clone)]
pub struct Value(sled::IVec);

impl Value {
    fn checked(raw: sled::IVec) -> Result<Self, StoreError> {
        match raw.first() {
            Some(OLDEST_VERSION..=VERSION) => Ok(Self(raw)),
            found => Err(StoreError::Version {
                found: found.copied().unwrap_or(0),
            }),
        }
    }
}

impl std::ops::Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.get(1..).unwrap_or(&[])
    }
}

/// Applies a batch, and frees what it replaced. Measured with 300,000 rows that are written and then removed (`tests/tests/index/store.rs`): 26 to 29 MiB
/// stay, without the second 193 to 267. Only what no thread can see any more is freed.
fn apply_and_free(db: &sled::Db, batch: sled::Batch) -> sled::Result<()> {
    db.apply_batch(batch)?;
    for _ in 0..ROUNDS_TO_FREE {
        crossbeam_epoch::pin().flush();
    }
    Ok(())
}

fn number_of(key: &[u8]) -> Result<u64, Damaged> {
    match key.get(3..).map(TryInto::try_into) {
        Some(Ok(tail)) => Ok(u64::from_be_bytes(tail)),
        _ => Err(Damaged { row: "key", at: 0 }),
    }
}

fn versioned(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 1);
    out.push(VERSION);
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::calls::READ_WITHIN;
    use super::*;
    use purge_sys::failure::Failure;

    fn one(value: &[u8]) -> Batch {
        let mut batch = Batch::default();
        batch.put(Record::Hold, b"h", value);
        batch
    }

    #[test]
    fn a_panic_inside_the_store_is_an_error_and_the_store_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.apply(one(b"kept")).unwrap();
        store.flush().unwrap();
        let met: Result<(), _> = store.sled.call("read", |_| panic!("as sled does"));
        assert!(matches!(met, Err(StoreError::Panicked { .. })));
        assert!(store.doubt().is_some());
        store.reopen().unwrap();
        assert!(store.doubt().is_none());
        assert_eq!(&*store.get(Record::Hold, b"h").unwrap().unwrap(), b"kept");
    }

    #[test]
    fn nonsense_is_damage_and_a_full_disk_is_none() {
        let store = Store::temporary().unwrap();
        let corrupt: Result<(), _> = store
            .sled
            .call("read", |_| Err(sled::Error::Corruption { at: None, bt: () }));
        assert!(corrupt.unwrap_err().is_damage());
        let full = || sled::Error::Io(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let met: Result<(), _> = store.sled.write("write", move |_| Err(full()));
        assert!(!met.unwrap_err().is_damage());
        let later = store.flush().unwrap_err();
        assert_eq!(later.failure(), Failure::Full, "no later write reaches sled");
    }

    #[test]
    fn a_store_whose_directory_is_removed_keeps_no_caller() {
        const ALONE: &str = "PURGE_TEST_ALONE";
        // All stores of a process share sled's threads, and this one leaves them waiting: it has a process of its own.
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args([
                "--exact",
                "store::tests::a_store_whose_directory_is_removed_keeps_no_caller",
            ]);
            let said = alone.env(ALONE, "1").output().unwrap();
            let words = String::from_utf8_lossy(&said.stdout);
            assert!(said.status.success() && words.contains("1 passed"), "{words}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let store = Store::open(&path).unwrap();
        store.apply(one(b"kept")).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        // So long a value has a file of its own, which cannot be made.
        let met = store.apply(one(&vec![7; 4 << 20])).unwrap_err();
        assert_eq!(
            (met.failure(), met.is_damage()),
            (Failure::Missing, false),
            "{met}"
        );
        let began = std::time::Instant::now();
        assert_eq!(store.flush().unwrap_err().failure(), Failure::Missing);
        let _ = store.get(Record::Hold, b"h");
        assert!(store.reopen().is_err(), "what the write has left keeps it open");
        assert!(store.is_silent());
        assert!(matches!(
            store.get(Record::Hold, b"h"),
            Err(StoreError::Silent { .. } | StoreError::Closed { .. })
        ));
        assert!(began.elapsed() < READ_WITHIN * 3, "{:?}", began.elapsed());
    }

    #[test]
    fn a_closed_store_answers_with_errors() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.close();
        assert!(matches!(store.apply(one(b"x")), Err(StoreError::Closed { .. })));
        assert!(matches!(store.flush(), Err(StoreError::Closed { .. })));
        assert!(store.records(Record::Hold, b"").next().unwrap().is_err());
        assert_eq!(store.disk_bytes(), 0);
    }
}
