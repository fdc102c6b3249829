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
use crate::sys::{beneath, stat};

/// A stored hold: the contract's message, and what it holds.
#[derive(Clone, PartialEq, Message)]
struct HoldRecord {
    #[prost(message, optional, tag = "1")]
    hold: Option<v1::Hold>,
    #[prost(uint64, tag = "2")]
    ino: u64,
    #[prost(string, tag = "3")]
    volume: String,
    /// An ordinary user's: it holds only what is theirs.
    #[prost(message, optional, tag = "20")]
    own: Option<OwnRecord>,
}

/// What an ordinary user's hold is bound to.
#[derive(Clone, PartialEq, Message)]
struct OwnRecord {
    #[prost(uint32, tag = "1")]
    uid: u32,
    /// The volume's root, and the path below it: no symlink leads the hold elsewhere.
    #[prost(bytes = "vec", tag = "2")]
    root: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    below: Vec<u8>,
}

/// Something that an ordinary user wants to hold.
#[derive(Debug, Clone, Copy)]
pub struct Owned<'a> {
    /// Who.
    pub uid: u32,
    /// The volume's root.
    pub root: &'a Path,
    /// What, below it.
    pub below: &'a [u8],
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
    /// It belongs to somebody else, or is not there: the two are not told apart.
    #[error("uid {uid} owns nothing at {path}")]
    NotTheirs {
        /// Who asked.
        uid: u32,
        /// Which path.
        path: String,
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
        self.keep(HoldRecord {
            hold: Some(new_hold(path, reason, for_seconds, by)),
            ino: found.stat.ino,
            volume: volume.into(),
            own: None,
        })
    }

    /// Holds what an ordinary user owns.
    ///
    /// # Errors
    /// When nothing of theirs lies there, or the hold cannot be made durable.
    pub fn add_own(
        &self,
        volume: &str,
        owned: &Owned<'_>,
        reason: &str,
        seconds: u64,
        by: &str,
    ) -> Result<v1::Hold, HoldError> {
        let mut path = owned.root.as_os_str().as_bytes().to_vec();
        if !owned.below.is_empty() {
            path.push(b'/');
            path.extend_from_slice(owned.below);
        }
        let own = OwnRecord {
            uid: owned.uid,
            root: owned.root.as_os_str().as_bytes().to_vec(),
            below: owned.below.to_vec(),
        };
        let ino = own.inode().ok_or_else(|| HoldError::NotTheirs {
            uid: owned.uid,
            path: String::from_utf8_lossy(&path).into_owned(),
        })?;
        self.keep(HoldRecord {
            hold: Some(new_hold(&path, reason, Some(seconds), by)),
            ino,
            volume: volume.into(),
            own: Some(own),
        })
    }

    fn keep(&self, record: HoldRecord) -> Result<v1::Hold, HoldError> {
        let hold = record.hold.clone().unwrap_or_default();
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

    /// The same; none while somebody waits for those that there are to be dropped.
    pub fn taking_at_once(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.taking.try_read()
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
            if let Some(own) = &record.own {
                held.extend(own.inode());
                continue;
            }
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

impl OwnRecord {
    /// What lies at the path, if it is theirs.
    fn inode(&self) -> Option<Inode> {
        let root = beneath::open_root(Path::new(OsStr::from_bytes(&self.root))).ok()?;
        let found = stat::open_file(beneath::open_entry(&root, &self.below).ok()?).ok()?;
        (found.stat.uid == self.uid).then_some(found.stat.ino)
    }
}

fn new_hold(path: &[u8], reason: &str, for_seconds: Option<u64>, by: &str) -> v1::Hold {
    let now = Seconds::now();
    v1::Hold {
        hold_id: new_id('h', now),
        path: path.to_vec(),
        reason: reason.into(),
        created_at: Some(timestamp(now)),
        expires_at: for_seconds.map(|s| timestamp(now.plus(s))),
        created_by: by.into(),
    }
}

/// A moment as the contract has it.
pub fn timestamp(at: Seconds) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix(),
        nanos: 0,
    }
}
