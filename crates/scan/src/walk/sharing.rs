//! Whether the worker that lists a directory asks for its entries, or others do.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::{Crew, Shared, Task};
use purge_index::DirId;

/// A directory with more entries than this is shared among idle workers, in chunks of as many.
const SHARE_ENTRIES: usize = 2048;
/// Entries that are asked for before it is said whether that is slow.
const SLOW_AFTER: u32 = 4;
/// An answer takes longer than this where a server is asked, or a disk.
const SLOW: Duration = Duration::from_micros(400);
/// Of a directory whose entries are slow, others ask for this number at a time.
const SLOW_CHUNK: usize = 16;

/// A directory that is open for workers who ask for its entries.
pub(super) struct Lent {
    pub dir: DirId,
    pub fd: OwnedFd,
    /// See [`super::Pending::unseen`].
    pub unseen: bool,
    /// How many are open so.
    all: Arc<AtomicUsize>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
}

/// Whether others ask for the entries of a directory, and for which.
pub(super) struct Sharing<'a> {
    pub dir: DirId,
    /// See [`super::Pending::unseen`].
    pub unseen: bool,
    pub fd: &'a OwnedFd,
    is_local: bool,
    asked: u32,
    took: Duration,
    lent: Option<Arc<Lent>>,
    /// Names that wait to be shared, each ended by NUL.
    pub names: Vec<u8>,
    pub count: usize,
}

impl<'a> Sharing<'a> {
    pub fn of(shared: &Shared<'_>, (dir, unseen): (DirId, bool), fd: &'a OwnedFd) -> Self {
        Self {
            dir,
            unseen,
            fd,
            is_local: shared.is_local,
            asked: 0,
            took: Duration::ZERO,
            lent: None,
            names: Vec::new(),
            count: 0,
        }
    }

    pub fn asked(&mut self, took: Duration) {
        self.asked = self.asked.saturating_add(1);
        self.took = self.took.saturating_add(took);
    }

    /// How many of the names that follow another worker is to ask for at a time; none: this one asks for the next by itself.
    ///
    /// On a far server each answer that the listing has not brought takes long, and then many ask at a time. Where the listing brings them, it
    /// goes on doing so only while the one that lists asks for each right then.
    pub fn chunk(&self, crew: &Crew<Task>) -> Option<usize> {
        if !self.names.is_empty() {
            return Some(if self.is_slow() { SLOW_CHUNK } else { SHARE_ENTRIES });
        }
        if self.asked >= SLOW_AFTER && self.is_slow() && crew.has_room() {
            return Some(SLOW_CHUNK);
        }
        let is_large = self.is_local && self.asked as usize >= SHARE_ENTRIES;
        is_large.then_some(SHARE_ENTRIES)
    }

    fn is_slow(&self) -> bool {
        self.took > SLOW.saturating_mul(self.asked.max(1))
    }

    /// The directory for others; none where enough are open already.
    pub fn lend(&mut self, shared: &Shared<'_>) -> Option<Arc<Lent>> {
        if let Some(lent) = &self.lent {
            return Some(Arc::clone(lent));
        }
        if shared.lent.load(Relaxed) >= shared.lent_max {
            return None;
        }
        let fd = self.fd.try_clone().ok()?;
        shared.lent.fetch_add(1, Relaxed);
        let lent = Arc::new(Lent {
            dir: self.dir,
            fd,
            unseen: self.unseen,
            all: Arc::clone(&shared.lent),
        });
        self.lent = Some(Arc::clone(&lent));
        Some(lent)
    }
}
