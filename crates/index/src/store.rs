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
//! Nothing waits for the store without end: what may wait runs on a thread of the store ([`threads`]), and the caller hears after a bounded time
//! that the store does not answer. After an error of a write sled may wait without end for what that write has left unfinished, so no
//! later write reaches it until it was opened again.
//!
//! - `keys`    what lies under which key
//! - `error`   what may go wrong
//! - `threads` where calls run that may wait

mod error;
mod keys;
mod threads;

use std::fs::File;
use std::ops::{Bound, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::fs::{Advice, fadvise};

pub use self::error::StoreError;
pub use self::keys::{Record, Row, VolumeId};
use self::keys::{prefix, record_key, row_key};
use self::threads::Threads;
use super::codec::{OLDEST_VERSION, VERSION};
use purge_format::Damaged;
use purge_sys::failure::Failure;

/// Bytes of the store's own cache. Pages are held by the index itself; the store is read for names only.
const CACHE_BYTES: u64 = 8 << 20;

/// A round frees up to 512 things, two rounds after they were left at the soonest; a batch of the agent's leaves some thousands.
const ROUNDS_TO_FREE: usize = 64;

/// A write may take so long, also on a slow disk that others use.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// A read, opening and closing: these wait for a write at most.
const READ_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
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
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None: closed after an error.
    db: RwLock<Option<sled::Db>>,
    path: PathBuf,
    records_changed: AtomicBool,
    /// What some call said that cannot be right, or where it panicked, since the store was opened.
    doubt: Mutex<Option<StoreError>>,
    /// The first write that failed since the store was opened.
    failed: Mutex<Option<StoreError>>,
    /// Writes that are going on.
    writes: AtomicUsize,
    threads: Threads,
}

impl Shared {
    fn new(db: sled::Db, path: PathBuf) -> Self {
        Self {
            db: RwLock::new(Some(db)),
            path,
            records_changed: AtomicBool::new(true),
            doubt: Mutex::default(),
            failed: Mutex::default(),
            writes: AtomicUsize::new(0),
            threads: Threads::default(),
        }
    }
}

impl Store {
    /// Opens the store in the directory `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it is damaged, locked by another agent, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        read_ahead(path);
        Ok(Self(Arc::new(Shared::new(open(path)?, path.to_owned()))))
    }

    /// A store in memory-backed temporary files, for tests.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn temporary() -> Result<Self, StoreError> {
        let config = sled::Config::new().temporary(true).flush_every_ms(None);
        let db = contained("open", || config.open())?;
        Ok(Self(Arc::new(Shared::new(db, PathBuf::new()))))
    }

    /// Closes the store and opens it again: after an error sled takes no writes any more, also when its cause no longer exists.
    /// Batches that were not flushed may be lost.
    ///
    /// # Errors
    /// When it cannot be opened: it stays closed, and this may be tried again. [`StoreError::Silent`]: a call still runs in it, and until
    /// that ends only another process can open it.
    pub fn reopen(&self) -> Result<(), StoreError> {
        const DOING: &str = "open again";
        let is_closed = self.close();
        if self.0.path.as_os_str().is_empty() {
            return Err(StoreError::Closed { doing: DOING });
        }
        if !is_closed || self.0.threads.overdue() > 0 {
            return Err(StoreError::Silent { doing: DOING });
        }
        let path = self.0.path.clone();
        let opened = self.0.threads.run(WRITE_WITHIN, move || open(&path));
        let opened = opened.ok_or(StoreError::Silent { doing: DOING })??;
        *self.0.doubt.lock() = None;
        *self.0.failed.lock() = None;
        *self.0.db.write() = Some(opened);
        Ok(())
    }

    /// Lets go of the files. Every later call is an error. False: a call does not end, and holds them.
    pub fn close(&self) -> bool {
        let db = self.0.db.write().take();
        // Dropping flushes, and may panic or wait as any other call.
        let closing = move || drop(catch_unwind(AssertUnwindSafe(|| drop(db))));
        self.0.threads.run(READ_WITHIN, closing).is_some()
    }

    /// Whether a call does not end. Until it does, all others are errors.
    pub fn is_silent(&self) -> bool {
        self.0.threads.overdue() > 0
    }

    /// A read: at once, while nothing is written that it could wait for.
    fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let is_quiet = self.0.writes.load(SeqCst) == 0 && self.0.failed.lock().is_none();
        if !is_quiet || self.is_silent() {
            return self.on_a_thread(doing, READ_WITHIN, move |db| on(doing, db, call));
        }
        let db = self.0.db.read();
        let db = db.as_ref().ok_or(StoreError::Closed { doing })?;
        self.noted(contained(doing, || call(db)))
    }

    /// A write. After one that failed all later ones fail as it did.
    fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(error) = self.0.failed.lock().clone() {
            return Err(error);
        }
        self.0.writes.fetch_add(1, SeqCst);
        let shared = Arc::clone(&self.0);
        let written = move |db: sled::Db| {
            let result = on(doing, db, call);
            if let Err(error @ StoreError::Call { .. }) = &result {
                // Also when the caller waits no longer.
                shared.failed.lock().get_or_insert_with(|| error.clone());
            }
            result
        };
        let result = self.on_a_thread(doing, WRITE_WITHIN, written);
        self.0.writes.fetch_sub(1, SeqCst);
        result
    }

    fn on_a_thread<T: Send + 'static>(
        &self,
        doing: &'static str,
        patience: Duration,
        call: impl FnOnce(sled::Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.is_silent() {
            return Err(StoreError::Silent { doing });
        }
        let db = self.0.db.read().clone().ok_or(StoreError::Closed { doing })?;
        let done = self.0.threads.run(patience, move || call(db));
        self.noted(done.unwrap_or(Err(StoreError::Silent { doing })))
    }

    /// Remembers an error that puts the content in doubt, whichever caller met it.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.0.doubt.lock().get_or_insert_with(|| error.clone());
        }
        result
    }

    /// The first error since the store was opened that puts its content in doubt, whichever caller met it.
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
        self.write("write", |db| apply_and_free(db, batch.rows))
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
        self.write("flush", |db| db.flush()).map(drop)
    }

    /// A page's row.
    ///
    /// # Errors
    /// When the store cannot be read or the row has another version.
    pub fn row(&self, row: Row, volume: VolumeId, number: u64) -> Result<Option<Value>, StoreError> {
        self.call("read", move |db| db.get(row_key(row, volume, number)))?
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
            let some = self.call("read", move |db| {
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
        let last = self.call("read", move |db| {
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
            while self.write("clear", cleared)? {}
        }
        Ok(())
    }

    /// A record.
    ///
    /// # Errors
    /// When the store cannot be read or the record has another version.
    pub fn get(&self, record: Record, key: &[u8]) -> Result<Option<Value>, StoreError> {
        let key = record_key(record, key);
        self.call("read", |db| db.get(key))?
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
            let next = store.call("read", read);
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
        failure: error.failure(),
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

/// Calls sled, and lets go of it: the call may be the last that has the store open.
fn on<T>(
    doing: &'static str,
    db: sled::Db,
    call: impl FnOnce(&sled::Db) -> sled::Result<T>,
) -> Result<T, StoreError> {
    contained(doing, move || {
        let result = call(&db);
        drop(db);
        result
    })
}

fn contained<T>(doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let error = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => return Err(StoreError::Panicked { doing }),
    };
    let why = error.to_string();
    Err(match error {
        sled::Error::Io(e) if !is_nonsense(e.kind()) => StoreError::Call {
            doing,
            why,
            failure: Failure::of(&e),
        },
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
        let met: Result<(), _> = store.write("write", move |_| Err(full()));
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
