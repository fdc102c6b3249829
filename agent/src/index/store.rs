//! The embedded store. This is the only file that says sled.
//!
//! One tree, so that a batch is atomic over everything in it.
//!
//! Each value starts with [`VERSION`], or an older one that is still understood. sled 0.34 has been seen to panic on a
//! store that a power cut damaged, so every call goes through [`Store::call`], which contains it: a panic inside the store
//! becomes [`StoreError::Panicked`]. After one failed write sled refuses every later one, so the store can be closed and
//! opened again while the agent runs ([`Store::reopen`]); no iterator of sled's outlives a call.
//!
//! sled makes a new copy of a page of its own for each row that is written, and leaves the old one to crossbeam-epoch, which frees
//! some of them every 128 calls. A batch is one call and leaves a thousand: see `apply_and_free`.
//!
//! - `keys`    what lies under which key
//! - `error`   what may go wrong

mod error;
mod keys;

use std::fs::File;
use std::ops::{Bound, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{Advice, fadvise};

pub use self::error::StoreError;
pub use self::keys::{Record, Row, VolumeId};
use self::keys::{prefix, record_key, row_key};
use super::codec::{Damaged, OLDEST_VERSION, VERSION};

/// Bytes of the store's own cache. Pages are held by the index itself; the store is read for names only.
const CACHE_BYTES: u64 = 8 << 20;

/// A round frees up to 512 things, two rounds after they were left at the soonest; a batch of the agent's leaves some thousands.
const ROUNDS_TO_FREE: usize = 64;

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
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None: closed after an error.
    db: RwLock<Option<sled::Db>>,
    path: PathBuf,
    records_changed: AtomicBool,
    /// What some call said that cannot be right, or where it panicked, since the store was opened.
    doubt: Mutex<Option<StoreError>>,
}

impl Store {
    /// Opens the store in the directory `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it is damaged, locked by another agent, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        read_ahead(path);
        Ok(Self(Arc::new(Shared {
            db: RwLock::new(Some(open(path)?)),
            path: path.to_owned(),
            records_changed: AtomicBool::new(true),
            doubt: Mutex::default(),
        })))
    }

    /// A store in memory-backed temporary files, for tests.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn temporary() -> Result<Self, StoreError> {
        let config = sled::Config::new().temporary(true).flush_every_ms(None);
        let db = contained("open", || config.open())?;
        Ok(Self(Arc::new(Shared {
            db: RwLock::new(Some(db)),
            path: PathBuf::new(),
            records_changed: AtomicBool::new(true),
            doubt: Mutex::default(),
        })))
    }

    /// Closes the store and opens it again: after an error sled takes no writes any more, also when its cause is gone.
    /// Batches that were not flushed may be lost.
    ///
    /// # Errors
    /// When it cannot be opened: it stays closed, and this may be tried again.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.close();
        if self.0.path.as_os_str().is_empty() {
            return Err(StoreError::Closed { doing: "open again" });
        }
        let mut db = self.0.db.write();
        *db = Some(open(&self.0.path)?);
        *self.0.doubt.lock() = None;
        Ok(())
    }

    /// Lets go of the files. Every later call is an error.
    pub fn close(&self) {
        let db = self.0.db.write().take();
        // Dropping flushes, and may panic as any other call.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }

    /// The one way to sled: contained, and an error once the store is closed.
    fn call<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let db = self.0.db.read();
        let db = db.as_ref().ok_or(StoreError::Closed { doing })?;
        self.noted(contained(doing, || call(db)))
    }

    /// Remembers an error that puts the content in doubt, whoever met it.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.0.doubt.lock().get_or_insert_with(|| error.clone());
        }
        result
    }

    /// The first error since the store was opened that puts its content in doubt, whoever met it.
    pub fn doubt(&self) -> Option<StoreError> {
        self.0.doubt.lock().clone()
    }

    /// Applies a batch. Durable after the next [`Store::flush`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.has_records {
            self.note_records_changed();
        }
        self.call("write", |db| apply_and_free(db, batch.rows))
    }

    /// Whether records (not pages, not volumes) were written since the last call.
    pub(super) fn take_records_changed(&self) -> bool {
        self.0.records_changed.swap(false, Relaxed)
    }

    pub(super) fn note_records_changed(&self) {
        self.0.records_changed.store(true, Relaxed);
    }

    /// Makes everything applied so far survive a power cut.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.call("flush", |db| db.flush()).map(drop)
    }

    /// A page's row.
    ///
    /// # Errors
    /// When the store cannot be read or the row has another version.
    pub fn row(&self, row: Row, volume: VolumeId, number: u64) -> Result<Option<Value>, StoreError> {
        self.call("read", |db| db.get(row_key(row, volume, number)))?
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
        let keys = row_key(row, volume, *numbers.start())..=row_key(row, volume, *numbers.end());
        let db = self.0.db.read();
        let db = db.as_ref().ok_or(StoreError::Closed { doing: "read" })?;
        let mut rows = contained("read", || Ok(db.range(keys)))?;
        while let Some(next) = self.noted(contained("read", || rows.next().transpose()))? {
            let (key, value) = next;
            each(number_of(&key)?, &Value::checked(value)?)?;
        }
        Ok(())
    }

    /// The highest number of such a row.
    ///
    /// # Errors
    /// As for [`Store::rows`].
    pub fn last_number(&self, row: Row, volume: VolumeId) -> Result<Option<u64>, StoreError> {
        let db = self.0.db.read();
        let db = db.as_ref().ok_or(StoreError::Closed { doing: "read" })?;
        let last = contained("read", || {
            db.scan_prefix(prefix(row, volume)).keys().next_back().transpose()
        });
        let last = self.noted(last)?;
        Ok(last.map(|key| number_of(&key)).transpose()?)
    }

    /// Removes every row of a volume's index.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn clear_volume(&self, volume: VolumeId) -> Result<(), StoreError> {
        for row in Row::OF_THE_INDEX {
            let cleared = |db: &sled::Db| {
                let mut batch = sled::Batch::default();
                let mut found = false;
                for key in db.scan_prefix(prefix(row, volume)).keys().take(10_000) {
                    batch.remove(key?);
                    found = true;
                }
                apply_and_free(db, batch).map(|()| found)
            };
            while self.call("clear", cleared)? {}
        }
        Ok(())
    }

    /// A record.
    ///
    /// # Errors
    /// When the store cannot be read or the record has another version.
    pub fn get(&self, record: Record, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.call("read", |db| db.get(record_key(record, key)))?
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
        // Each step looks the next key up anew: an iterator of sled's would keep the store open for as long as it lives.
        std::iter::from_fn(move || {
            let from = after.take()?;
            let next = store.call("read", |db| db.range((from, Bound::Unbounded)).next().transpose());
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
        self.call("measure itself", sled::Db::size_on_disk).unwrap_or(0)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// After the host was started nothing of the store is in memory, and loading reads small pieces all over its file: the kernel is asked
/// to read the file from its beginning to its end, beside all else.
fn read_ahead(path: &Path) {
    let file = path.join("db");
    let work = move || {
        if let Ok(file) = File::open(file) {
            let _ = fadvise(&file, 0, None, Advice::WillNeed);
        }
    };
    // Without a thread it is only slower.
    let _ = std::thread::Builder::new().name("read-ahead".into()).spawn(work);
}

fn open(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    contained("open", || config.open()).map_err(|error| StoreError::Open {
        path: path.to_owned(),
        damaged: error.is_damage(),
        why: match error {
            StoreError::Corrupt { why, .. } | StoreError::Call { why, .. } => why,
            other => other.to_string(),
        },
    })
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

/// Applies a batch, and frees what it replaced. Measured with 300,000 rows that are written and then removed (`tests/tests/store.rs`): 26 to 29 MiB
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

fn contained<T>(doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let error = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => return Err(StoreError::Panicked { doing }),
    };
    let why = error.to_string();
    Err(match error {
        sled::Error::Io(e) if !is_nonsense(e.kind()) => StoreError::Call { doing, why },
        _ => StoreError::Corrupt { doing, why },
    })
}

/// Errors that say what was read, not that it could not be read.
fn is_nonsense(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

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
        let met: Result<(), _> = store.call("read", |_| panic!("as sled does"));
        assert!(matches!(met, Err(StoreError::Panicked { .. })));
        assert!(store.doubt().is_some());
        store.reopen().unwrap();
        assert!(store.doubt().is_none());
        assert_eq!(&*store.get(Record::Hold, b"h").unwrap().unwrap(), b"kept");
    }

    #[test]
    fn nonsense_is_damage_and_a_full_disk_is_none() {
        let store = Store::temporary().unwrap();
        let corrupt: Result<(), _> =
            store.call("read", |_| Err(sled::Error::Corruption { at: None, bt: () }));
        assert!(corrupt.unwrap_err().is_damage());
        let full = || sled::Error::Io(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let met: Result<(), _> = store.call("write", |_| Err(full()));
        assert!(!met.unwrap_err().is_damage());
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
