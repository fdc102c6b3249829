//! Calls of sled: what they may do to the agent ends here.
//!
//! sled 0.34 has been seen to panic on a store that a power cut damaged, so every call goes through [`Sled::call`] or [`Sled::write`],
//! which contain it: a panic inside the store becomes [`StoreError::Panicked`]. After one failed write sled refuses every later one, so
//! the store can be closed and opened again while the agent runs ([`Sled::reopen`]).
//!
//! Nothing waits for the store without end: what may wait runs on a thread of the store ([`Threads`]), and the caller hears after a bounded
//! time that the store does not answer. After an error of a write sled may wait without end for what that write has left unfinished, so no
//! later write reaches it until it was opened again.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::fs::{Advice, fadvise};

use super::error::StoreError;
use super::threads::Threads;
use purge_sys::failure::Failure;

/// Bytes of the store's own cache. Pages are held by the index itself; the store is read for names only.
const CACHE_BYTES: u64 = 8 << 20;

/// A write may take so long, also on a slow disk that others use.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// A read, opening and closing: these wait for a write at most.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// sled, open or closed.
#[derive(Debug)]
pub(super) struct Sled {
    /// None: closed after an error.
    db: RwLock<Option<sled::Db>>,
    path: PathBuf,
    /// What some call said that cannot be right, or where it panicked, since the store was opened.
    doubt: Mutex<Option<StoreError>>,
    /// The first write that failed since the store was opened.
    failed: Mutex<Option<StoreError>>,
    /// Writes that are going on.
    writes: AtomicUsize,
    threads: Threads,
}

impl Sled {
    fn new(db: sled::Db, path: PathBuf) -> Self {
        Self {
            db: RwLock::new(Some(db)),
            path,
            doubt: Mutex::default(),
            failed: Mutex::default(),
            writes: AtomicUsize::new(0),
            threads: Threads::default(),
        }
    }

    /// See [`super::Store::open`].
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        read_ahead(path);
        Ok(Self::new(open(path)?, path.to_owned()))
    }

    /// See [`super::Store::temporary`].
    pub(super) fn temporary() -> Result<Self, StoreError> {
        let config = sled::Config::new().temporary(true).flush_every_ms(None);
        let db = contained("open", || config.open())?;
        Ok(Self::new(db, PathBuf::new()))
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// See [`super::Store::reopen`].
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        const DOING: &str = "open again";
        let is_closed = self.close();
        if self.path.as_os_str().is_empty() {
            return Err(StoreError::Closed { doing: DOING });
        }
        if !is_closed || self.threads.overdue() > 0 {
            return Err(StoreError::Silent { doing: DOING });
        }
        let path = self.path.clone();
        let opened = self.threads.run(WRITE_WITHIN, move || open(&path));
        let opened = opened.ok_or(StoreError::Silent { doing: DOING })??;
        *self.doubt.lock() = None;
        *self.failed.lock() = None;
        *self.db.write() = Some(opened);
        Ok(())
    }

    /// See [`super::Store::close`].
    pub(super) fn close(&self) -> bool {
        let db = self.db.write().take();
        // Dropping flushes, and may panic or wait as any other call.
        let closing = move || drop(catch_unwind(AssertUnwindSafe(|| drop(db))));
        self.threads.run(READ_WITHIN, closing).is_some()
    }

    /// Whether a call does not end. Until it does, all others are errors.
    pub(super) fn is_silent(&self) -> bool {
        self.threads.overdue() > 0
    }

    /// A read: at once, while nothing is written that it could wait for.
    pub(super) fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let is_quiet = self.writes.load(SeqCst) == 0 && self.failed.lock().is_none();
        if !is_quiet || self.is_silent() {
            return self.on_a_thread(doing, READ_WITHIN, move |db| on(doing, db, call));
        }
        let db = self.db.read();
        let db = db.as_ref().ok_or(StoreError::Closed { doing })?;
        self.noted(contained(doing, || call(db)))
    }

    /// A write. After one that failed all later ones fail as it did.
    pub(super) fn write<T: Send + 'static>(
        self: &Arc<Self>,
        doing: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        if let Some(error) = self.failed.lock().clone() {
            return Err(error);
        }
        self.writes.fetch_add(1, SeqCst);
        let shared = Arc::clone(self);
        let written = move |db: sled::Db| {
            let result = on(doing, db, call);
            if let Err(error @ StoreError::Call { .. }) = &result {
                // Also when the caller waits no longer.
                shared.failed.lock().get_or_insert_with(|| error.clone());
            }
            result
        };
        let result = self.on_a_thread(doing, WRITE_WITHIN, written);
        self.writes.fetch_sub(1, SeqCst);
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
        let db = self.db.read().clone().ok_or(StoreError::Closed { doing })?;
        let done = self.threads.run(patience, move || call(db));
        self.noted(done.unwrap_or(Err(StoreError::Silent { doing })))
    }

    /// Remembers an error that puts the content in doubt, whichever caller met it.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.doubt.lock().get_or_insert_with(|| error.clone());
        }
        result
    }

    /// The first error since the store was opened that puts its content in doubt, whichever caller met it.
    pub(super) fn doubt(&self) -> Option<StoreError> {
        self.doubt.lock().clone()
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
