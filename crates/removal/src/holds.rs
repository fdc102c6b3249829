//! Holds: paths and trees that stay regardless of the rules, at once and also for a run in progress.
//!
//! A hold protects the inode that lay at its place when it was made, even after a move, and any entry that lies at the
//! place now: in doubt both. A place is names below the volume's root, and is looked up without following a link.
//!
//! What clients can make the agent keep is bounded (`bounds`), and what has expired is removed: when a hold is added, at a regular
//! tick, and at the start.

mod bounds;
mod hold;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustc_hash::FxHashSet;

use self::bounds::Taken;
pub use self::bounds::{Asker, HOLDS_OF_USER_MAX, PATH_BYTES_MAX, REASON_BYTES_MAX};
use self::hold::Entry;
pub use self::hold::Hold;
use purge_base::clock;
use purge_base::id::new_id;
use purge_index::{Batch, Record, Store, StoreError};
use purge_model::path::{self, VolumePath};
use purge_model::{Inode, Seconds};
use purge_sys::{beneath, stat};

/// As many places are looked up for every batch of a run, whose files others may be waiting for. With more holds than that, batches go by what
/// was found at the last plan or the last tick: see [`Holds::held`].
const LOOKED_UP_AT_ONCE: usize = 1000;
/// What was found is not believed for longer.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// Expired holds that are removed from the store in one batch.
const REMOVED_AT_ONCE: usize = 1000;
/// A page of a list has at most this many holds, and ends when they have `PAGE_BYTES_MAX` bytes.
const PAGE_HOLDS_MAX: usize = 1000;
const PAGE_BYTES_MAX: usize = 2 << 20;

/// A hold that is to be made, of something that was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The volume's name.
    pub volume: &'a str,
    /// Its root.
    pub root: &'a Path,
    /// The place below it.
    pub below: &'a VolumePath,
    /// What lies there.
    pub ino: Inode,
    /// Why it is held.
    pub reason: &'a str,
    /// For how long; none: until it is removed.
    pub seconds: Option<u64>,
    /// By whom, as it stands in records.
    pub by: &'a str,
    /// What they are.
    pub asker: Asker,
}

/// When places were looked up, and what lay there.
type Found = (Instant, Arc<FxHashSet<Inode>>);

/// All holds.
#[derive(Debug)]
pub struct Holds {
    store: Store,
    all: RwLock<Vec<Arc<Entry>>>,
    /// Locked while a hold is added or removed: the new hold is added to exactly what was counted.
    writing: Mutex<()>,
    /// By volume: what lay at the places of its holds, and when that was looked up.
    found: Mutex<HashMap<String, Found>>,
    /// Held for reading by batches that are being taken, from asking what is held to their end.
    taking: RwLock<()>,
}

/// Why a hold cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It belongs to another user, or is not there: the two are not told apart.
    #[error("uid {uid} holds nothing of the name {id}")]
    NotTheirs {
        /// Who asked.
        uid: u32,
        /// Which hold.
        id: String,
    },
    /// No hold has this name.
    #[error("there is no hold {0}; `purgectl hold list` names them")]
    Unknown(String),
    /// There are too many, or they are too large together.
    #[error("{0}")]
    Full(String),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Holds {
    /// The holds in the store. `roots` are the volumes' names and roots: an older record says only which path was given, and its place is
    /// found by the words. A path that leads through `..` or outside holds the inode that it led to, and nothing else.
    ///
    /// # Errors
    /// When the store cannot be read. There must be no purge then.
    pub fn open(store: Store, roots: &[(String, PathBuf)]) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        for record in store.records(Record::Hold, b"") {
            let (_, value) = record?;
            let decoded = stored::decode(&value);
            let mut record = decoded.map_err(|e| e.into_error("read a hold"))?;
            record.find_place(roots);
            all.push(Arc::new(record));
        }
        Ok(Self {
            store,
            all: RwLock::new(all),
            writing: Mutex::default(),
            found: Mutex::default(),
            taking: RwLock::default(),
        })
    }

    /// Holds something. What has expired is removed first, so that nothing counts that holds nothing.
    ///
    /// # Errors
    /// When there are too many, or the hold cannot be made durable.
    pub fn add(&self, wanted: &Wanted<'_>) -> Result<Hold, HoldError> {
        let hold = self.insert(wanted)?;
        // Batches that asked before this hold was there come to their end first: from here on nothing of it goes.
        drop(self.taking.write());
        Ok(hold)
    }

    fn insert(&self, wanted: &Wanted<'_>) -> Result<Hold, HoldError> {
        let _one = self.writing.lock();
        self.remove_expired(clock::judged())?;
        let mut record = Entry::new(wanted, clock::now());
        {
            let all = self.all.read();
            bounds::room_for(wanted, record.bytes(), all.iter().map(|r| r.taken()))?;
            // Two of one second may have drawn the same name.
            while all.iter().any(|r| r.id() == record.id()) {
                record = Entry::new(wanted, clock::now());
            }
        }
        let hold = record.hold.clone();
        let mut batch = Batch::default();
        let root = wanted.root.as_os_str().as_bytes();
        batch.put(Record::Hold, hold.id.as_bytes(), &stored::encode(&record, root));
        self.store.apply(batch)?;
        self.store.flush()?;
        self.all.write().push(Arc::new(record));
        Ok(hold)
    }

    /// Removes a hold and returns it. With `only`, none but this user's: others' are not told apart from those that there are not.
    ///
    /// # Errors
    /// When there is none of this name, or the store cannot be written: the hold stays then.
    pub fn remove(&self, id: &str, only: Option<(u32, &str)>) -> Result<Hold, HoldError> {
        let _one = self.writing.lock();
        let found = self.all.read().iter().find(|r| r.id() == id).cloned();
        let found = match only {
            Some((uid, by)) => found
                .filter(|r| r.by() == by)
                .ok_or(HoldError::NotTheirs { uid, id: id.into() }),
            None => found.ok_or_else(|| HoldError::Unknown(id.into())),
        }?;
        let mut batch = Batch::default();
        batch.remove(Record::Hold, id.as_bytes());
        self.store.apply(batch)?;
        self.store.flush()?;
        self.all.write().retain(|r| r.id() != id);
        Ok(found.hold.clone())
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// When the store cannot be written: what is still in it stays.
    pub fn tidy(&self) -> Result<(), StoreError> {
        let now = clock::judged();
        if self.all.read().iter().all(|r| r.in_force(now)) {
            return Ok(());
        }
        let _one = self.writing.lock();
        self.remove_expired(now)?;
        self.store.flush()
    }

    /// By the earlier of the agent's clocks: a wall clock that stands ahead at boot must not take a hold away for good.
    fn remove_expired(&self, now: Seconds) -> Result<(), StoreError> {
        let expired: Vec<String> = {
            let all = self.all.read();
            let expired = all.iter().filter(|r| !r.in_force(now));
            expired.map(|r| r.id().to_owned()).collect()
        };
        for some in expired.chunks(REMOVED_AT_ONCE) {
            let mut batch = Batch::default();
            some.iter()
                .for_each(|id| batch.remove(Record::Hold, id.as_bytes()));
            self.store.apply(batch)?;
            let gone: FxHashSet<&str> = some.iter().map(String::as_str).collect();
            self.all.write().retain(|r| !gone.contains(r.id()));
        }
        Ok(())
    }

    /// How many there are, in force or not.
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.read().is_empty()
    }

    /// The names of all holds in force that begin with this, oldest first. With `by`, only of those that they made.
    pub fn ids(&self, prefix: &str, by: Option<&str>) -> Vec<String> {
        let now = clock::judged();
        let all = self.all.read();
        let named = all
            .iter()
            .filter(|r| r.in_force(now) && r.id().starts_with(prefix) && by.is_none_or(|by| r.by() == by));
        let mut ids: Vec<String> = named.map(|r| r.id().to_owned()).collect();
        drop(all);
        ids.sort_unstable();
        ids
    }

    /// A page of the holds in force, in the order of their names, which is that of their making: those after `after`, at most `size` (0: as
    /// many as a page may have), and the name to go on after; none at the end. With `by`, only those that they made.
    pub fn page(&self, after: &str, size: usize, by: Option<&str>) -> (Vec<Hold>, Option<String>) {
        let now = clock::judged();
        let mut found: Vec<Arc<Entry>> = {
            let all = self.all.read();
            let wanted =
                |r: &&Arc<Entry>| r.in_force(now) && r.id() > after && by.is_none_or(|by| r.by() == by);
            all.iter().filter(wanted).cloned().collect()
        };
        found.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        let size = match size {
            0 => PAGE_HOLDS_MAX,
            n => n.min(PAGE_HOLDS_MAX),
        };
        let (mut page, mut bytes) = (Vec::new(), 0usize);
        for record in &found {
            if page.len() >= size || bytes >= PAGE_BYTES_MAX {
                let last = page.last().map(|h: &Hold| h.id.clone());
                return (page, last);
            }
            bytes = bytes.saturating_add(record.bytes());
            page.push(record.hold.clone());
        }
        (page, None)
    }

    /// No hold that is added while this lives is in force before it is dropped.
    pub fn taking(&self) -> RwLockReadGuard<'_, ()> {
        self.taking.read()
    }

    /// The same; none while a caller waits until all present guards are dropped.
    pub fn taking_at_once(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.taking.try_read()
    }

    /// The inodes held on a volume now.
    ///
    /// Of many holds not every place is looked up each time. That suffices for a batch: a candidate is opened by the path with which it was
    /// planned, so it lies at a held place by now only if it did so when the plan was made, for which all places are looked up
    /// ([`Holds::look_up`]), or when the hold was made, which knows what lay there.
    pub fn held(&self, volume: &str, root: &Path) -> FxHashSet<Inode> {
        let of_volume = self.of_volume(volume);
        let mut held: FxHashSet<Inode> = of_volume.iter().map(|r| r.ino).collect();
        let known = match of_volume.len() > LOOKED_UP_AT_ONCE {
            true => self.found.lock().get(volume).cloned(),
            false => None,
        };
        match known.filter(|(at, _)| at.elapsed() < BELIEVED_FOR) {
            Some((_, found)) => held.extend(found.iter()),
            None => held.extend(self.find(volume, root, &of_volume).iter()),
        }
        held
    }

    /// Looks up what lies at the places of a volume's holds now. To be called before a plan is made.
    pub fn look_up(&self, volume: &str, root: &Path) {
        self.find(volume, root, &self.of_volume(volume));
    }

    /// Looks it up again if batches go by what was found before.
    pub fn look_up_again(&self, volume: &str, root: &Path) {
        let of_volume = self.of_volume(volume);
        if of_volume.len() > LOOKED_UP_AT_ONCE {
            self.find(volume, root, &of_volume);
        }
    }

    fn find(&self, volume: &str, root: &Path, holds: &[Arc<Entry>]) -> Arc<FxHashSet<Inode>> {
        let began = Instant::now();
        // The agent looks elsewhere whether the volume is there.
        let root = beneath::open_root(root).ok();
        let now = |r: &Arc<Entry>| root.as_ref().and_then(|root| r.inode_now(root));
        let found: Arc<FxHashSet<Inode>> = Arc::new(holds.iter().filter_map(now).collect());
        if holds.len() > LOOKED_UP_AT_ONCE {
            let mut all = self.found.lock();
            // Another may have looked later and been faster.
            if all.get(volume).is_none_or(|(at, _)| *at < began) {
                all.insert(volume.to_owned(), (began, Arc::clone(&found)));
            }
        }
        found
    }

    /// The holds that keep something: on itself or on a directory above. `chain` is its inode and those of the directories above, `place`
    /// its names below the volume's root.
    pub fn over(&self, volume: &str, root: &Path, place: &VolumePath, chain: &[Inode]) -> Vec<Hold> {
        let root = beneath::open_root(root).ok();
        let keeps = |r: &Arc<Entry>| {
            if chain.contains(&r.ino) {
                return true;
            }
            let may = r.below.as_ref().is_some_and(|b| path::is_within(b, place));
            let now = || root.as_ref().and_then(|root| r.inode_now(root));
            may && now().is_some_and(|ino| chain.contains(&ino))
        };
        let of_volume = self.of_volume(volume).into_iter();
        of_volume.filter(keeps).map(|r| r.hold.clone()).collect()
    }

    /// Those in force. They are looked at without a lock: a caller that adds a hold does not wait for that.
    fn of_volume(&self, volume: &str) -> Vec<Arc<Entry>> {
        let now = clock::judged();
        let all = self.all.read();
        let of_volume = all.iter().filter(|r| r.volume == volume && r.in_force(now));
        of_volume.cloned().collect()
    }
}

impl Entry {
    fn new(wanted: &Wanted<'_>, now: Seconds) -> Self {
        let root = wanted.root.as_os_str().as_bytes();
        Self {
            hold: Hold {
                id: new_id('h', now),
                path: wanted.below.absolute(root),
                reason: wanted.reason.into(),
                created: now,
                expires: wanted.seconds.map(|s| now.plus(s)),
                by: wanted.by.into(),
            },
            ino: wanted.ino,
            volume: wanted.volume.into(),
            below: Some(wanted.below.clone()),
            own: match wanted.asker {
                Asker::User(uid) => Some(uid),
                Asker::Root | Asker::Role => None,
            },
        }
    }

    fn id(&self) -> &str {
        &self.hold.id
    }

    fn by(&self) -> &str {
        &self.hold.by
    }

    /// What it takes of memory and of the store, about.
    fn bytes(&self) -> usize {
        let words = self.hold.path.len().saturating_add(self.hold.reason.len());
        words.saturating_add(bounds::HOLD_BYTES)
    }

    fn taken(&self) -> Taken<'_> {
        Taken {
            by: self.by(),
            is_users: self.own.is_some(),
            bytes: self.bytes(),
        }
    }

    /// An older record knows its place by its path.
    fn find_place(&mut self, roots: &[(String, PathBuf)]) {
        if self.below.is_some() {
            return;
        }
        self.below = path::clean(&self.hold.path).ok().and_then(|clean| {
            let (_, root) = roots.iter().find(|(name, _)| *name == self.volume)?;
            path::below(root.as_os_str().as_bytes(), &clean)
        });
    }

    /// What lies at its place, if the hold may hold that.
    fn inode_now(&self, root: &OwnedFd) -> Option<Inode> {
        let below = self.below.as_ref()?;
        let found = stat::open_file(beneath::open_entry(root, below).ok()?).ok()?;
        let may = self.own.is_none_or(|uid| uid == found.stat.uid);
        may.then_some(found.stat.ino)
    }
}
