//! One store in use by one run: files are copied, and what was copied is written down in the store before anything is removed.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::catalogue::{self, End, EndObject};
use crate::content::{Content, Hash, hash_of};
use crate::copy::{Copied, CopyError, copy};
use crate::file::Directory;
use crate::key::OWN;
use crate::probe::probe;
use crate::settings::{Place, Settings};
use crate::store::{Store, StoreError};

/// The name of a store is not longer.
const IDENTITY_MAX: u64 = 256;

/// Opens a store as the configuration names it.
///
/// # Errors
/// When it cannot be reached.
pub fn open(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    match &settings.place {
        Place::Directory(path) => Ok(Arc::new(Directory::open(path)?)),
    }
}

/// The name that a store has given itself; none: it has none yet.
///
/// # Errors
/// When it cannot be read.
pub fn identity(store: &dyn Store) -> Result<Option<String>, StoreError> {
    let key = identity_key();
    if store.size(&key)?.is_none() {
        return Ok(None);
    }
    let mut name = String::new();
    let read = store.get(&key)?.take(IDENTITY_MAX).read_to_string(&mut name);
    read.map_err(|e| StoreError::Broken(format!("cannot read {key:?} from the store: {e}")))?;
    Ok(Some(name.trim().to_owned()))
}

/// Gives a store a name of its own, if it has none.
///
/// # Errors
/// When it cannot be written.
pub fn name(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    let mut content = Content::of_bytes(format!("{name}\n").into_bytes());
    match store.put(&identity_key(), &mut content) {
        Ok(_) | Err(StoreError::Exists) => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity_key() -> String {
    format!("{OWN}/store")
}

/// One store, for one run.
#[derive(Debug)]
pub struct Archive {
    store: Arc<dyn Store>,
    volume: String,
    run: String,
    /// The next object of the run's catalogue.
    number: AtomicU32,
    written: Mutex<Vec<EndObject>>,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Archive {
    /// Tries a store, for a run.
    ///
    /// # Errors
    /// When it does not keep what it promises.
    pub fn begin(store: Arc<dyn Store>, volume: &str, run: &str) -> Result<Self, StoreError> {
        probe(&*store, run)?;
        Ok(Self::over(store, volume, run))
    }

    /// A store that was tried.
    pub fn over(store: Arc<dyn Store>, volume: &str, run: &str) -> Self {
        Self {
            store,
            volume: volume.to_owned(),
            run: run.to_owned(),
            number: AtomicU32::new(0),
            written: Mutex::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Copies a file's content.
    ///
    /// # Errors
    /// Why there is no copy.
    pub fn copy(&self, path: &[u8], content: &mut Content<'_>) -> Result<Copied, CopyError> {
        let copied = copy(&*self.store, path, content)?;
        self.files.fetch_add(1, Relaxed);
        self.bytes.fetch_add(content.size(), Relaxed);
        Ok(copied)
    }

    /// Writes lines of the catalogue, and fetches them back. Until this has returned nothing that they name may be removed.
    ///
    /// # Errors
    /// Why they are not in the store.
    pub fn write_down(&self, lines: Vec<u8>) -> Result<(), StoreError> {
        let number = self.number.fetch_add(1, Relaxed);
        let key = catalogue::object(&self.volume, &self.run, number);
        let hash = self.put_exactly(&key, lines)?;
        self.written.lock().push(EndObject::of(&key, &hash));
        Ok(())
    }

    /// The run came to its end.
    ///
    /// # Errors
    /// Why the store does not know it.
    pub fn end(&self, state: &str) -> Result<(), StoreError> {
        let mut objects = std::mem::take(&mut *self.written.lock());
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let end = End {
            run: self.run.clone(),
            state: state.to_owned(),
            files: self.files.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            objects,
        };
        let bytes = serde_json::to_vec_pretty(&end).map_err(|e| StoreError::Broken(e.to_string()))?;
        self.put_exactly(&catalogue::end(&self.volume, &self.run), bytes)
            .map(drop)
    }

    fn put_exactly(&self, key: &str, bytes: Vec<u8>) -> Result<Hash, StoreError> {
        let mut content = Content::of_bytes(bytes);
        let written = self.store.put(key, &mut content).map_err(|error| match error {
            StoreError::Exists => {
                StoreError::Broken(format!("another agent writes the catalogue {key:?} as well"))
            }
            other => other,
        })?;
        let read = hash_of(self.store.get(key)?, content.size());
        let found =
            read.map_err(|e| StoreError::Broken(format!("cannot read {key:?} from the store: {e}")))?;
        match found == Some(written.hash) {
            true => Ok(written.hash),
            false => Err(StoreError::Broken(format!(
                "the store returned other bytes than were sent to {key:?}"
            ))),
        }
    }
}
