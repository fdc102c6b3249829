//! Holds: paths and trees that stay, whatever the rules say, at once and also for a run in progress.
//!
//! A hold protects the inode that lay at its path when it was made, wherever it moves, and whatever lies at the
//! path now: in doubt both.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use parking_lot::{RwLock, RwLockReadGuard};
use prost::Message;
use purge_proto::v1;
use rustc_hash::FxHashSet;

use super::id::new_id;
use crate::index::{Batch, Record, Store, StoreError};
use crate::model::{Inode, Seconds};
use crate::sys::stat;

/// A stored hold: the contract's message, and what it holds.
#[derive(Clone, PartialEq, Message)]
struct HoldRecord {
    #[prost(message, optional, tag = "1")]
    hold: Option<v1::Hold>,
    #[prost(uint64, tag = "2")]
    ino: u64,
    #[prost(string, tag = "3")]
    volume: String,
}

/// All holds.
#[derive(Debug)]
pub struct Holds {
    store: Store,
    all: RwLock<Vec<HoldRecord>>,
    /// Held for reading by batches that are being taken, from asking what is held to their end.
    taking: RwLock<()>,
}

/// Why a hold cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Nothing lies at the path.
    #[error("cannot hold {path}: {source}")]
    Path {
        /// Which path.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No hold has this name.
    #[error("there is no hold {0}; `purgectl hold list` names them")]
    Unknown(String),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Holds {
    /// The holds in the store.
    ///
    /// # Errors
    /// When the store cannot be read. There must be no purge then.
    pub fn open(store: Store) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        for record in store.records(Record::Hold, b"") {
            let (_, value) = record?;
            let record = HoldRecord::decode(&*value).map_err(|e| StoreError::Call {
                doing: "read a hold",
                why: e.to_string(),
            })?;
            all.push(record);
        }
        Ok(Self {
            store,
            all: RwLock::new(all),
            taking: RwLock::default(),
        })
    }

    /// Holds what lies at `path` on `volume`.
    ///
    /// # Errors
    /// When nothing lies there, or the hold cannot be made durable.
    pub fn add(
        &self,
        volume: &str,
        path: &[u8],
        reason: &str,
        for_seconds: Option<u64>,
        by: &str,
    ) -> Result<v1::Hold, HoldError> {
        let here = Path::new(OsStr::from_bytes(path));
        let found = stat::path(here).map_err(|source| HoldError::Path {
            path: here.display().to_string(),
            source,
        })?;
        let now = Seconds::now();
        let hold = v1::Hold {
            hold_id: new_id('h', now),
            path: path.to_vec(),
            reason: reason.into(),
            created_at: Some(timestamp(now)),
            expires_at: for_seconds.map(|s| timestamp(now.plus(s))),
            created_by: by.into(),
        };
        let record = HoldRecord {
            hold: Some(hold.clone()),
            ino: found.stat.ino,
            volume: volume.into(),
        };
        let mut all = self.all.write();
        let mut batch = Batch::default();
        batch.put(Record::Hold, hold.hold_id.as_bytes(), &record.encode_to_vec());
        self.store.apply(batch)?;
        self.store.flush()?;
        all.push(record);
        drop(all);
        // Batches that asked before this hold was there come to their end first: from here on nothing of it goes.
        drop(self.taking.write());
        Ok(hold)
    }

    /// Removes a hold and returns it.
    ///
    /// # Errors
    /// When there is none of this name, or the store cannot be written: the hold stays then.
    pub fn remove(&self, id: &str) -> Result<v1::Hold, HoldError> {
        let mut all = self.all.write();
        let at = all
            .iter()
            .position(|r| r.hold.as_ref().is_some_and(|h| h.hold_id == id));
        let at = at.ok_or_else(|| HoldError::Unknown(id.into()))?;
        let mut batch = Batch::default();
        batch.remove(Record::Hold, id.as_bytes());
        self.store.apply(batch)?;
        self.store.flush()?;
        all.remove(at).hold.ok_or_else(|| HoldError::Unknown(id.into()))
    }

    /// The holds in force, oldest first.
    pub fn list(&self) -> Vec<v1::Hold> {
        let now = Seconds::now();
        self.all
            .read()
            .iter()
            .filter(|r| r.in_force(now))
            .filter_map(|r| r.hold.clone())
            .collect()
    }

    /// No hold that is added while this lives is in force before it is dropped.
    pub fn taking(&self) -> RwLockReadGuard<'_, ()> {
        self.taking.read()
    }

    /// The inodes held on a volume now.
    pub fn held(&self, volume: &str) -> FxHashSet<Inode> {
        let now = Seconds::now();
        let mut held = FxHashSet::default();
        for record in self
            .all
            .read()
            .iter()
            .filter(|r| r.volume == volume && r.in_force(now))
        {
            held.insert(record.ino);
            let path = record
                .hold
                .as_ref()
                .map(|h| h.path.as_slice())
                .unwrap_or_default();
            if let Ok(found) = stat::path(Path::new(OsStr::from_bytes(path))) {
                held.insert(found.stat.ino);
            }
        }
        held
    }
}

impl HoldRecord {
    fn in_force(&self, now: Seconds) -> bool {
        let expires = self.hold.as_ref().and_then(|h| h.expires_at.as_ref());
        expires.is_none_or(|t| Seconds::from_unix(t.seconds) > now)
    }
}

/// A moment as the contract has it.
pub fn timestamp(at: Seconds) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix(),
        nanos: 0,
    }
}
