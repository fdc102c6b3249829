//! A volume whose directories are watched one by one: which of them are, and what follows for the files of those that are not.
//!
//! ```text
//!   start: watch_all      from then on what happens is told, before the first scan lists anything
//!   a directory is met (by a scan, or by an event that tells of a new one)
//!     mark it        from here on each use of what lies in it is reported
//!     then list it   what is found counts as used now, unless it was watched before: nothing tells what happened until the mark
//!   a file with several names is marked as well: it may have a name where no directory is watched
//! ```
//! What may never happen: a file in a directory without a mark that looks older than now. So nothing is remembered of directories that
//! could not be marked: each directory of the index that is not known to be marked is taken for one ([`Tree::unwatched`]), and its files
//! count as used whenever a plan is made or applied.

use std::ffi::{CStr, CString};
use std::hash::BuildHasher;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use rustix::fs::{FileType, RawDir};

use super::Watched;
use super::places::Places;
use purge_base::clock;
use purge_index::{DirId, Directories, StoreError};
use purge_model::Inode;
use purge_sys::beneath;
use purge_sys::handle::Handle;
use purge_sys::stat::{self, Device};

/// What is known of inodes that are deleted is forgotten when at least this number more are marked than after the last look.
const PRUNED_AFTER: usize = 1 << 16;
/// Directories that are open at a time while all are watched.
const OPEN_MAX: usize = 64;
/// One `getdents64(2)`.
const LISTING_BYTES: usize = 32 << 10;

/// What the kernel offers for directories: see `fanotify::trees` and `inotify`.
pub trait Marking: std::fmt::Debug + Send + Sync {
    /// What is done in this directory is reported from now on. Again and again: a mark of an inode that was deleted is no mark of the next one.
    ///
    /// # Errors
    /// What the kernel says: nothing of what is done there may be reported then.
    fn mark_dir(&self, ino: Inode, dir: BorrowedFd<'_>) -> io::Result<()>;

    /// Uses of this file are reported from now on, by whichever name.
    ///
    /// # Errors
    /// As for [`Marking::mark_dir`].
    fn mark_file(&self, ino: Inode, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()>;

    /// How many marks there may be.
    fn marks_max(&self) -> Option<u64>;

    /// What that limit is called (sysctl(8)).
    fn limit(&self) -> &'static str;

    /// What is known of inodes that are deleted can be forgotten.
    fn prune(&self, _is_there: &dyn Fn(Inode) -> bool) {}
}

/// Which directories of a volume are watched.
#[derive(Debug)]
pub struct Tree {
    marking: Box<dyn Marking>,
    /// What lies at which name.
    places: Arc<Places>,
    /// Reports name places alone.
    names_alone: bool,
    /// Directories, and files with several names.
    marked: Mutex<Marked>,
    /// Files with several names that could not be marked.
    refused_files: Mutex<FxHashSet<Inode>>,
    /// Marks after which it is looked for those whose inodes are deleted.
    prune_at: AtomicUsize,
    prune_names_at: AtomicUsize,
    /// The kernel's last refusal was told.
    told: Mutex<Option<io::ErrorKind>>,
    /// With this number of marks it is looked whether the limit is near.
    limit_at: AtomicUsize,
}

/// Whether most of what there may be is used: time to tell of the limit, before it is reached.
fn is_near(marks: usize, limit: u64) -> bool {
    marks as u64 >= four_fifths(limit)
}

fn four_fifths(limit: u64) -> u64 {
    limit - limit / 5
}

/// What is marked. An inode number may be another directory's a moment after it was removed, in the same second even: so each with what its
/// handle says.
#[derive(Debug, Default)]
struct Marked {
    by_number: FxHashMap<Inode, u64>,
    /// Marked, and not listed since: what happened before is unknown.
    fresh: FxHashSet<Inode>,
}

/// What tells a directory from another one that has its number later.
pub fn identity(handle: &Handle) -> u64 {
    FxBuildHasher.hash_one(handle)
}

/// Where directories are watched.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The volume's root.
    pub root: &'a Path,
    /// Its device: what is mounted below is not watched.
    pub device: Device,
    /// The agent's own directories: their files are not the users'.
    pub not_watched: &'a [Inode],
}

/// A directory whose subdirectories are still to be watched.
#[derive(Debug)]
struct Above {
    dir: OwnedFd,
    /// How many of these there are.
    _open: Arc<()>,
}

/// What a mark says of the time before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It was there already: what happened was reported.
    Kept,
    /// It is new: what happened until now is unknown.
    Fresh,
    /// There is none.
    Refused,
}

impl Tree {
    /// Watched by this. `marked`: what an earlier process marked, and was told of since.
    pub fn new(
        marking: Box<dyn Marking>,
        (places, names_alone): (Arc<Places>, bool),
        marked: impl IntoIterator<Item = (Inode, u64)>,
    ) -> Self {
        Self {
            marking,
            names_alone,
            places,
            marked: Mutex::new(Marked {
                by_number: marked.into_iter().collect(),
                fresh: FxHashSet::default(),
            }),
            refused_files: Mutex::default(),
            prune_at: AtomicUsize::new(PRUNED_AFTER),
            prune_names_at: AtomicUsize::new(PRUNED_AFTER),
            told: Mutex::default(),
            limit_at: AtomicUsize::new(0),
        }
    }

    /// What lies at which name.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Reports name places alone; elsewhere the file as well.
    pub fn has_names_alone(&self) -> bool {
        self.names_alone
    }

    /// Watches a directory, before it is listed.
    pub fn watch_dir(&self, ino: Inode, dir: BorrowedFd<'_>) -> Mark {
        let mark = self.mark_dir(ino, dir);
        match self.marked.lock().fresh.remove(&ino) && mark == Mark::Kept {
            true => Mark::Fresh,
            false => mark,
        }
    }

    /// Watches a directory that an event told of. [`Mark::Kept`]: it was watched already. Else it is to be listed.
    pub fn watch_what_came(&self, ino: Inode, dir: BorrowedFd<'_>) -> Mark {
        let mark = self.mark_dir(ino, dir);
        if mark == Mark::Fresh {
            self.marked.lock().fresh.insert(ino);
        }
        mark
    }

    fn mark_dir(&self, ino: Inode, dir: BorrowedFd<'_>) -> Mark {
        let id = Handle::id_of(dir, c"").map_or(0, |handle| identity(&handle));
        let marked = self.marking.mark_dir(ino, dir);
        self.note((ino, id), marked)
    }

    /// Watches a file that has several names.
    pub fn watch_file(&self, ino: Inode, dir: BorrowedFd<'_>, name: &CStr) -> Mark {
        let id = Handle::id_of(dir, name).map_or(0, |handle| identity(&handle));
        let marked = self.marking.mark_file(ino, dir, name);
        let mark = self.note((ino, id), marked);
        let mut refused = self.refused_files.lock();
        match mark {
            Mark::Refused => refused.insert(ino),
            Mark::Kept | Mark::Fresh => refused.remove(&ino),
        };
        mark
    }

    /// Watches all directories that there are, before anything is listed for good: what is made meanwhile is made in one that is watched, so it is
    /// listed or told. What cannot be opened is left to the scan. Returns how many are watched.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn watch_all(&self, ground: &Ground<'_>) -> io::Result<usize> {
        let root = beneath::open_dir(beneath::open_root(ground.root)?, b"")?;
        let mut count = 0;
        let mut listing = vec![MaybeUninit::uninit(); LISTING_BYTES];
        let mut left = Vec::new();
        let open = Arc::new(());
        self.watch_and_list(root, ground, &mut count, &mut listing, (&open, &mut left))?;
        while let Some((above, name)) = left.pop() {
            let opened = beneath::open_dir(&above.dir, name.to_bytes());
            drop(above);
            if let Ok(dir) = opened {
                // Not seen here: the scan comes there as well.
                let _ = self.watch_and_list(dir, ground, &mut count, &mut listing, (&open, &mut left));
            }
        }
        Ok(count)
    }

    /// Watches one directory, and adds those in it to what is `left`. Each of these keeps the directory open, so where too many are, it is left to the
    /// scan: users can make trees that are deep and wide.
    fn watch_and_list(
        &self,
        dir: OwnedFd,
        ground: &Ground<'_>,
        count: &mut usize,
        listing: &mut [MaybeUninit<u8>],
        (open, left): (&Arc<()>, &mut Vec<(Arc<Above>, CString)>),
    ) -> io::Result<()> {
        let found = stat::open_file(&dir)?;
        let ino = found.stat.ino;
        if found.device != ground.device || ground.not_watched.contains(&ino) {
            return Ok(());
        }
        *count += usize::from(self.watch_dir(ino, dir.as_fd()) != Mark::Refused);
        if Arc::strong_count(open) > OPEN_MAX {
            return Ok(());
        }
        let above = Arc::new(Above {
            dir,
            _open: Arc::clone(open),
        });
        let mut entries = RawDir::new(&above.dir, listing);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let is_other = !matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if !is_other && name != c"." && name != c".." {
                left.push((Arc::clone(&above), name.to_owned()));
            }
        }
        Ok(())
    }

    fn note(&self, (ino, id): (Inode, u64), marked: io::Result<()>) -> Mark {
        let Err(error) = marked else {
            let (was, marks) = {
                let by_number = &mut self.marked.lock().by_number;
                (by_number.insert(ino, id), by_number.len())
            };
            self.look_at_the_limit(marks);
            return match was == Some(id) {
                true => Mark::Kept,
                false => Mark::Fresh,
            };
        };
        self.forget(ino);
        let told = self.told.lock().replace(error.kind());
        if told != Some(error.kind()) {
            let limit = self.marking.marks_max().unwrap_or(u64::MAX);
            tracing::warn!(%error, limit, "a directory cannot be watched: its files are in no plan; raise the limit ({})", self.marking.limit());
        }
        Mark::Refused
    }

    /// Tells of the limit when most of it is used, once.
    fn look_at_the_limit(&self, marks: usize) {
        if marks < self.limit_at.load(Relaxed) {
            return;
        }
        let at = match self.marking.marks_max() {
            Some(limit) if !is_near(marks, limit) => {
                usize::try_from(four_fifths(limit)).unwrap_or(usize::MAX)
            }
            Some(limit) => {
                let name = self.marking.limit();
                tracing::warn!(
                    marks,
                    limit,
                    "most of the directories that may be watched are: raise {name} (sysctl) before there are more"
                );
                usize::MAX
            }
            None => usize::MAX,
        };
        self.limit_at.store(at, Relaxed);
    }

    /// How many marks there are, how many there may be, and what that limit is called: where most of them are used.
    pub fn nearly_full(&self) -> Option<(usize, u64, &'static str)> {
        let (marks, limit) = (self.len(), self.marking.marks_max()?);
        is_near(marks, limit).then(|| (marks, limit, self.marking.limit()))
    }

    /// Whether a directory is watched.
    pub fn is_watched(&self, ino: Inode) -> bool {
        self.marked.lock().by_number.contains_key(&ino)
    }

    /// Whether it has to be listed before anything is known of what lies in it.
    pub fn is_unlisted(&self, ino: Inode) -> bool {
        let marked = self.marked.lock();
        !marked.by_number.contains_key(&ino) || marked.fresh.contains(&ino)
    }

    /// Another directory may have this inode number now.
    pub fn forget(&self, ino: Inode) {
        let mut marked = self.marked.lock();
        marked.by_number.remove(&ino);
        marked.fresh.remove(&ino);
    }

    /// The marks may be lost: each is made again when a scan comes there, and what happened until then is unknown.
    pub fn forget_all(&self) {
        *self.marked.lock() = Marked::default();
    }

    /// How many marks there are.
    pub fn len(&self) -> usize {
        self.marked.lock().by_number.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The directories of the index that are not watched.
    fn unwatched(&self, dirs: &Directories) -> FxHashSet<DirId> {
        let marked = self.marked.lock();
        let is_watched = |ino: &Inode| marked.by_number.contains_key(ino) && !marked.fresh.contains(ino);
        let not = dirs.iter().filter(|(_, dir)| !is_watched(&dir.ino));
        not.map(|(id, _)| id).collect()
    }

    /// Forgets inodes that are deleted, now and then: users make and remove directories.
    fn prune(&self, is_there: impl Fn(Inode) -> bool) {
        let mut marked = self.marked.lock();
        let places = &self.places;
        if places.len() >= self.prune_names_at.load(Relaxed) {
            places.prune(&is_there);
            self.prune_names_at
                .store(places.len().saturating_mul(2).max(PRUNED_AFTER), Relaxed);
        }
        if marked.by_number.len() < self.prune_at.load(Relaxed) {
            return;
        }
        marked.by_number.retain(|ino, _| is_there(*ino));
        marked.by_number.shrink_to_fit();
        marked.fresh.retain(|ino| is_there(*ino));
        let left = marked.by_number.len();
        self.prune_at
            .store(left.saturating_mul(2).max(PRUNED_AFTER), Relaxed);
        drop(marked);
        self.refused_files.lock().retain(|ino| is_there(*ino));
        self.marking.prune(&is_there);
    }
}

impl Watched {
    /// How many directories of the index are not watched, where each is to be.
    pub fn unwatched(&self) -> usize {
        let tree = self.tree.as_ref();
        tree.map_or(0, |tree| tree.unwatched(self.index.read().dirs()).len())
    }

    /// Files that nothing reports uses of count as used now: those of directories without a mark. To be called before anything is judged
    /// by the index. Returns how many directories that are.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn use_what_is_unwatched(&self) -> Result<usize, StoreError> {
        let Some(tree) = &self.tree else { return Ok(0) };
        let dirs = {
            let index = self.index.read();
            tree.prune(|ino| index.last_use(ino).is_some());
            tree.unwatched(index.dirs())
        };
        let files = tree.refused_files.lock().clone();
        if dirs.is_empty() && files.is_empty() {
            return Ok(0);
        }
        let at = clock::now().plus(1);
        let mut index = self.index.write();
        index.use_those(at, |ino, parent, _| {
            dirs.contains(&parent) || files.contains(&ino)
        })?;
        Ok(dirs.len())
    }

    /// Files that nothing reported uses of to an earlier process, which watched by `tree`, count as used now: those of directories without a mark,
    /// and those with several names that have none themselves. Once this returned, the journal says so.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn use_what_was_unwatched(&self, tree: &Tree) -> Result<(), StoreError> {
        let dirs = tree.unwatched(self.index.read().dirs());
        let at = clock::now().plus(1);
        let marked = tree.marked.lock();
        let has_mark = |ino: Inode| marked.by_number.contains_key(&ino);
        let is_unwatched = |ino, parent, links| dirs.contains(&parent) || (links > 1 && !has_mark(ino));
        let those = self.index.write().use_those(at, is_unwatched)?;
        self.journal.uses(at, &those);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Marks inodes up to a number.
    #[derive(Debug)]
    struct UpTo(Inode);

    impl Marking for UpTo {
        fn mark_dir(&self, ino: Inode, _: BorrowedFd<'_>) -> io::Result<()> {
            match ino <= self.0 {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn mark_file(&self, ino: Inode, dir: BorrowedFd<'_>, _: &CStr) -> io::Result<()> {
            self.mark_dir(ino, dir)
        }

        fn marks_max(&self) -> Option<u64> {
            Some(self.0)
        }

        fn limit(&self) -> &'static str {
            "max"
        }
    }

    #[test]
    fn the_limit_is_near_before_it_is_reached() {
        let at = std::fs::File::open("/").unwrap();
        let tree = Tree::new(Box::new(UpTo(10)), (Arc::default(), false), []);
        for ino in 1..8 {
            tree.watch_dir(ino, at.as_fd());
        }
        assert_eq!(tree.nearly_full(), None);
        tree.watch_dir(8, at.as_fd());
        assert_eq!(tree.nearly_full(), Some((8, 10, "max")));
    }

    #[test]
    fn a_mark_is_fresh_once_and_again_when_another_directory_may_have_the_number() {
        let at = std::fs::File::open("/").unwrap();
        let id = Handle::id_of(&at, c"").map_or(0, |handle| identity(&handle));
        let tree = Tree::new(
            Box::new(UpTo(5)),
            (Arc::default(), false),
            [(3, id), (2, id.wrapping_add(1))],
        );
        assert_eq!(
            tree.watch_dir(3, at.as_fd()),
            Mark::Kept,
            "an earlier process marked it"
        );
        assert_eq!(
            tree.watch_dir(2, at.as_fd()),
            Mark::Fresh,
            "that was another directory"
        );
        assert_eq!(tree.watch_dir(4, at.as_fd()), Mark::Fresh);
        assert_eq!(tree.watch_dir(4, at.as_fd()), Mark::Kept);
        tree.forget(4);
        assert_eq!(tree.watch_what_came(4, at.as_fd()), Mark::Fresh);
        assert_eq!(tree.watch_what_came(4, at.as_fd()), Mark::Kept);
        assert_eq!(
            tree.watch_dir(4, at.as_fd()),
            Mark::Fresh,
            "it was not listed since"
        );
        assert_eq!(tree.watch_dir(4, at.as_fd()), Mark::Kept);
        assert_eq!(tree.watch_dir(6, at.as_fd()), Mark::Refused);
        assert!(tree.is_watched(4) && !tree.is_watched(6));
        tree.forget_all();
        assert!(tree.is_empty());
    }
}
