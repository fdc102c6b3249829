//! The embedded store. This is the only file that says sled.
//!
//! One tree, so that a batch is atomic over everything in it. Keys:
//!
//! ```text
//! c vol:u16 page:u64        clock row         all numbers big-endian, so that rows of
//! a vol:u16 page:u64        attribute row     one kind and volume lie together
//! n vol:u16 page:u64        name row
//! d vol:u16 row:u64         directory row
//! v NAME                    volume record
//! p ID  / P ID chunk:u32    plan / its candidates
//! r ID  / R ID chunk:u32    run / its failures
//! h ID                      hold
//! ```
//! Each value starts with [`VERSION`]. sled 0.34 has been seen to panic on a store that a power cut damaged, so
//! every call is contained: a panic inside the store becomes [`StoreError::Panicked`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec::{Damaged, VERSION};

/// What may go wrong with the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be opened.
    #[error("cannot open the index at {path}: {why}")]
    Open {
        /// Where it lies.
        path: PathBuf,
        /// What the store says.
        why: String,
    },
    /// A call failed.
    #[error("the index store cannot {doing}: {why}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the store says.
        why: String,
    },
    /// The store panicked; it must not be used any more.
    #[error("the index store panicked while it was to {doing}")]
    Panicked {
        /// What was being done.
        doing: &'static str,
    },
    /// A row was written by another version.
    #[error("the index has format version {found}, this agent writes {VERSION}")]
    Version {
        /// The row's first byte.
        found: u8,
    },
    /// A row makes no sense.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Bytes of the store's own cache. Pages are held by the index itself; the store is read for names only.
const CACHE_BYTES: u64 = 8 << 20;

/// A volume's number in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeId(pub u16);

/// The kinds of row that belong to a volume's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Access times.
    Clocks,
    /// Attributes.
    Attributes,
    /// File names.
    Names,
    /// Directories.
    Directories,
}

impl Row {
    const ALL: [Self; 4] = [Self::Clocks, Self::Attributes, Self::Names, Self::Directories];

    fn tag(self) -> u8 {
        match self {
            Self::Clocks => b'c',
            Self::Attributes => b'a',
            Self::Names => b'n',
            Self::Directories => b'd',
        }
    }
}

/// The kinds of record that are not pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A volume: id, identity, coverage.
    Volume,
    /// A plan's head.
    Plan,
    /// A chunk of a plan's candidates.
    PlanChunk,
    /// A run.
    Run,
    /// A hold.
    Hold,
}

impl Record {
    fn tag(self) -> u8 {
        match self {
            Self::Volume => b'v',
            Self::Plan => b'p',
            Self::PlanChunk => b'P',
            Self::Run => b'r',
            Self::Hold => b'h',
        }
    }
}

/// Changes that are applied together or not at all.
#[derive(Debug, Default)]
pub struct Batch(sled::Batch);

impl Batch {
    /// Writes a page's row; an empty one is removed.
    pub fn put_row(&mut self, row: Row, volume: VolumeId, number: u64, value: &[u8]) {
        let key = row_key(row, volume, number);
        if value.is_empty() {
            self.0.remove(&key[..]);
        } else {
            self.0.insert(&key[..], versioned(value));
        }
    }

    /// Writes a record.
    pub fn put(&mut self, record: Record, key: &[u8], value: &[u8]) {
        self.0.insert(record_key(record, key), versioned(value));
    }

    /// Removes a record.
    pub fn remove(&mut self, record: Record, key: &[u8]) {
        self.0.remove(record_key(record, key));
    }
}

/// The open store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    db: sled::Db,
    path: Arc<PathBuf>,
}

impl Store {
    /// Opens the store in the directory `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it is damaged, locked by another agent, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let failed = |why: String| StoreError::Open {
            path: path.to_owned(),
            why,
        };
        let opened =
            catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| failed("it panicked".into()))?;
        let db = opened.map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            db,
            path: Arc::new(path.to_owned()),
        })
    }

    /// A store in memory-backed temporary files, for tests.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn temporary() -> Result<Self, StoreError> {
        let failed = |e: sled::Error| StoreError::Open {
            path: PathBuf::from("temporary"),
            why: e.to_string(),
        };
        let db = sled::Config::new()
            .temporary(true)
            .flush_every_ms(None)
            .open()
            .map_err(failed)?;
        Ok(Self {
            db,
            path: Arc::new(PathBuf::new()),
        })
    }

    /// Applies a batch. Durable after the next [`Store::flush`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        contained("write", || self.db.apply_batch(batch.0))
    }

    /// Makes everything applied so far survive a power cut.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        contained("flush", || self.db.flush()).map(drop)
    }

    /// A page's row.
    ///
    /// # Errors
    /// When the store cannot be read or the row has another version.
    pub fn row(&self, row: Row, volume: VolumeId, number: u64) -> Result<Option<Value>, StoreError> {
        contained("read", || self.db.get(row_key(row, volume, number)))?
            .map(Value::checked)
            .transpose()
    }

    /// Calls `each` with the number and content of every row of one kind.
    ///
    /// # Errors
    /// What `each` returns, and when the store cannot be read.
    pub fn rows(
        &self,
        row: Row,
        volume: VolumeId,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let prefix = prefix(row, volume);
        let mut rows = contained("read", || Ok(self.db.scan_prefix(prefix)))?;
        while let Some(next) = contained("read", || rows.next().transpose())? {
            let (key, value) = next;
            let number = match key.get(3..) {
                Some(tail) if tail.len() == 8 => u64::from_be_bytes(tail.try_into().unwrap_or_default()),
                _ => return Err(Damaged { row: "key", at: 0 }.into()),
            };
            each(number, &Value::checked(value)?)?;
        }
        Ok(())
    }

    /// Removes every row of a volume.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn clear_volume(&self, volume: VolumeId) -> Result<(), StoreError> {
        for row in Row::ALL {
            loop {
                let mut batch = sled::Batch::default();
                let keys = self.db.scan_prefix(prefix(row, volume)).keys().take(10_000);
                let mut found = false;
                for key in keys {
                    batch.remove(contained("read", || key.clone())?);
                    found = true;
                }
                if !found {
                    break;
                }
                contained("write", || self.db.apply_batch(batch))?;
            }
        }
        Ok(())
    }

    /// A record.
    ///
    /// # Errors
    /// When the store cannot be read or the record has another version.
    pub fn get(&self, record: Record, key: &[u8]) -> Result<Option<Value>, StoreError> {
        contained("read", || self.db.get(record_key(record, key)))?
            .map(Value::checked)
            .transpose()
    }

    /// The records of one kind whose keys start with `prefix`, in the order of their keys: (key, content).
    pub fn records(
        &self,
        record: Record,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Value), StoreError>> + use<> {
        let mut rows = self.db.scan_prefix(record_key(record, prefix));
        std::iter::from_fn(move || match contained("read", || rows.next().transpose()) {
            Ok(None) => None,
            Ok(Some((key, value))) => {
                Some(Value::checked(value).map(|v| (key.get(1..).unwrap_or_default().to_vec(), v)))
            }
            Err(e) => Some(Err(e)),
        })
    }

    /// Bytes the store takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A value read from the store, without its version byte.
#[derive(Debug, Clone)]
pub struct Value(sled::IVec);

impl Value {
    fn checked(raw: sled::IVec) -> Result<Self, StoreError> {
        match raw.first() {
            Some(&VERSION) => Ok(Self(raw)),
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

fn versioned(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 1);
    out.push(VERSION);
    out.extend_from_slice(value);
    out
}

fn prefix(row: Row, volume: VolumeId) -> [u8; 3] {
    let [hi, lo] = volume.0.to_be_bytes();
    [row.tag(), hi, lo]
}

fn row_key(row: Row, volume: VolumeId, number: u64) -> [u8; 11] {
    let mut key = [0; 11];
    let (head, tail) = key.split_at_mut(3);
    head.copy_from_slice(&prefix(row, volume));
    tail.copy_from_slice(&number.to_be_bytes());
    key
}

fn record_key(record: Record, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(record.tag());
    out.extend_from_slice(key);
    out
}

fn contained<T>(doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(StoreError::Call {
            doing,
            why: e.to_string(),
        }),
        Err(_) => Err(StoreError::Panicked { doing }),
    }
}
