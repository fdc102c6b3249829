//! The workers of a scan: each takes a directory, lists it, and asks for every entry's attributes.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purge_proto::shown;
use rustix::fs::RawDir;

use super::crew::{self, Crew, Member};
use super::{Belief, Newborn, Progress, ScanError, Surroundings};
use purge_base::clock;
use purge_base::descriptors;
use purge_collect::Watched;
use purge_collect::source::Reads;
use purge_index::{DirId, Found, Index, StoreError};
use purge_model::{Inode, Kind, Seconds, Stat};
use purge_sys::absence::Absence;
use purge_sys::handle::Handle;
use purge_sys::{beneath, project, stat};

/// Entries that a worker gathers before it takes the index's lock.
const BATCH_ENTRIES: usize = 4096;
/// One `getdents64(2)`: some 1,500 entries.
const LISTING_BYTES: usize = 64 << 10;
/// A directory with more entries than this is shared among idle workers, in chunks of as many.
const SHARE_ENTRIES: usize = 2048;
/// Entries that are asked for before it is said whether that is slow.
const SLOW_AFTER: u32 = 4;
/// An answer takes longer than this where a server is asked, or a disk.
const SLOW: Duration = Duration::from_micros(400);
/// Of a directory whose entries are slow, others ask for this number at a time.
const SLOW_CHUNK: usize = 16;
/// Names waiting to be written back may take this much memory.
const PENDING_NAME_BYTES_MAX: usize = 24 << 20;
/// At most this number of unreadable entries is named in the log; the rest is counted.
const UNREADABLE_LOGGED_MAX: u64 = 20;

/// Something to do for a worker.
enum Task {
    /// List this directory, to which the handle leads: to open it by its path would take as many steps as lie above it.
    List(DirId, Option<Handle>),
    /// Ask for the attributes of these entries, each name ended by NUL.
    Ask(Arc<Lent>, Vec<u8>),
}

/// A directory that is open for workers who ask for its entries.
struct Lent {
    dir: DirId,
    fd: OwnedFd,
    /// How many are open so.
    all: Arc<AtomicUsize>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
}

struct Shared<'a> {
    watched: &'a Watched,
    root: &'a OwnedFd,
    /// The mount that handles belong to.
    mount: &'a OwnedFd,
    belief: Belief,
    newborn: Newborn,
    progress: &'a Progress,
    around: &'a dyn Surroundings,
    /// A directory that is listed tells of its entries as well, so they are asked for by the worker that lists it.
    is_local: bool,
    /// Directories that may be open for others at a time: users can make large directories in one another.
    lent_max: usize,
    lent: Arc<AtomicUsize>,
    error: Mutex<Option<ScanError>>,
    /// Directories of which a shared chunk could not be read.
    unreadable: Mutex<HashSet<DirId>>,
    doubtful: Mutex<Vec<(DirId, Vec<u8>)>>,
    /// Directories that were not where the index has them.
    missed: Mutex<Vec<DirId>>,
}

/// Lists `dirs` and everything below them that the index does not know as listed yet. Places whose names changed
/// meanwhile are added to `doubtful`. Returns the directories that had moved and are still to be listed.
pub(super) fn walk(
    watched: &Watched,
    (root, mount): (&OwnedFd, &OwnedFd),
    dirs: Vec<DirId>,
    (belief, newborn): (Belief, Newborn),
    progress: &Progress,
    around: &dyn Surroundings,
    doubtful: &mut Vec<(DirId, Vec<u8>)>,
) -> Result<Vec<DirId>, ScanError> {
    let tasks = dirs.into_iter().map(|dir| Task::List(dir, None)).collect();
    let shares = descriptors::shares();
    let shared = Shared {
        watched,
        root,
        mount,
        belief,
        newborn,
        progress,
        around,
        is_local: stat::mount(&watched.path).map_or(true, |mount| mount.is_local()),
        lent_max: shares.scan,
        lent: Arc::default(),
        error: Mutex::default(),
        unreadable: Mutex::default(),
        doubtful: Mutex::default(),
        missed: Mutex::default(),
    };
    crew::run(tasks, shares.scan_workers, &|number| Worker::new(&shared, number));
    let mut index = watched.index.write();
    for dir in shared.unreadable.into_inner() {
        index.doubt_dir(dir);
    }
    doubtful.append(&mut shared.doubtful.into_inner());
    let missed = shared.missed.into_inner();
    shared.error.into_inner().map_or(Ok(missed), Err)
}

/// An entry that was found and is not in the index yet.
struct Pending {
    stat: Stat,
    dir: DirId,
    /// `chattr +A`: its access time tells nothing.
    keeps_atime: bool,
    /// Where its name ends in the arena; it begins where the one before ends.
    name_end: usize,
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    number: usize,
    entries: Vec<Pending>,
    arena: Vec<u8>,
    /// Directories among the entries: they are listed once the index knows them.
    subdirs: Vec<(Inode, Option<Handle>)>,
    /// Directories that were listed to their end: unreadable, with mount points.
    listed: Vec<(DirId, bool, bool)>,
    listing: Vec<MaybeUninit<u8>>,
}

impl Member for Worker<'_> {
    type Task = Task;

    fn work(&mut self, task: Task, crew: &Crew<Task>) {
        match task {
            Task::List(dir, handle) => {
                let mut listing = std::mem::take(&mut self.listing);
                self.list(dir, handle, &mut listing, crew);
                self.listing = listing;
            }
            Task::Ask(lent, names) => self.ask_all(lent.dir, &lent.fd, &names, crew),
        }
        self.shared.progress.rests(self.number);
        // Many workers gather less each.
        let batch = BATCH_ENTRIES.saturating_mul(crew::FIRST) / crew.size().max(crew::FIRST);
        if self.entries.len() >= batch || crew.is_short() {
            self.flush(crew);
        }
    }

    fn hand_over(&mut self, crew: &Crew<Task>) -> bool {
        let had = !self.entries.is_empty() || !self.listed.is_empty();
        if had {
            self.flush(crew);
        }
        had
    }
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>, number: usize) -> Self {
        Self {
            shared,
            number,
            entries: Vec::new(),
            arena: Vec::new(),
            subdirs: Vec::new(),
            listed: Vec::new(),
            listing: vec![MaybeUninit::uninit(); LISTING_BYTES],
        }
    }

    fn list(
        &mut self,
        dir: DirId,
        handle: Option<Handle>,
        listing: &mut [MaybeUninit<u8>],
        crew: &Crew<Task>,
    ) {
        self.shared.progress.asks(self.number, dir, b"");
        let fd = match self.open(dir, handle) {
            Ok(Opened::Here(fd)) => fd,
            // It may have been met at another place before.
            Ok(Opened::NotWanted) => return,
            // Moved or removed meanwhile: it stays unlisted and is tried again where it is then.
            Ok(Opened::Elsewhere) => return self.shared.missed.lock().push(dir),
            Err(error) => {
                self.note_unreadable(dir, b"", &error);
                self.listed.push((dir, true, false));
                return;
            }
        };
        let mut to_share = Sharing::of(self.shared, dir, &fd);
        let (mut unreadable, mut mounts) = (false, false);
        let mut entries = RawDir::new(&fd, listing);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.note_unreadable(dir, b"", &error.into());
                    unreadable = true;
                    break;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if let Some(chunk) = to_share.chunk(crew) {
                to_share.names.extend_from_slice(name.to_bytes_with_nul());
                to_share.count += 1;
                if to_share.count >= chunk {
                    self.share(&mut to_share, crew);
                }
                continue;
            }
            let began = Instant::now();
            match self.ask(dir, &fd, name) {
                Ok(is_mount) => mounts |= is_mount,
                Err(error) => {
                    self.note_unreadable(dir, name.to_bytes(), &error);
                    unreadable = true;
                }
            }
            to_share.asked(began.elapsed());
            crew.did(1);
        }
        self.share(&mut to_share, crew);
        self.shared.progress.directories.fetch_add(1, Relaxed);
        self.listed.push((dir, unreadable, mounts));
    }

    /// By its handle, at any place where it lies by now: that it moved is told by an event. Otherwise by its present path.
    fn open(&self, dir: DirId, handle: Option<Handle>) -> io::Result<Opened> {
        let (ino, path) = {
            let index = self.shared.watched.index.read();
            let Some(known) = index.dirs().get(dir).filter(|_| !index.is_listed(dir)) else {
                return Ok(Opened::NotWanted);
            };
            let path = (handle.is_none() || !self.shared.is_local)
                .then(|| index.dirs().path(dir))
                .flatten();
            if handle.is_none() && path.is_none() && index.dirs().is_too_deep(dir) {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
            (known.ino, path)
        };
        let by_handle = handle.map(|handle| open_by_handle(self.shared.mount, handle, ino));
        let opened = match (by_handle.transpose()?.flatten(), path) {
            (Some(fd), _) => Some(fd),
            // Not every file server leads by a handle to what it has told of.
            (None, Some(path)) => open_expected(self.shared.root, &path, ino)?,
            // What lies above it is on the move.
            (None, None) => None,
        };
        Ok(opened.map_or(Opened::Elsewhere, Opened::Here))
    }

    /// Has another worker ask for what was gathered, or asks for it where enough directories are open already.
    fn share(&mut self, these: &mut Sharing<'_>, crew: &Crew<Task>) {
        these.count = 0;
        let names = std::mem::take(&mut these.names);
        if names.is_empty() {
            return;
        }
        match these.lend(self.shared) {
            Some(lent) => crew.push([Task::Ask(lent, names)]),
            None => self.ask_all(these.dir, these.fd, &names, crew),
        }
    }

    fn ask_all(&mut self, dir: DirId, fd: &OwnedFd, names: &[u8], crew: &Crew<Task>) {
        for name in names.split_inclusive(|b| *b == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            match self.ask(dir, fd, name) {
                Ok(false) => {}
                // Whichever it is, the directory must never be a candidate.
                Ok(true) => drop(self.shared.unreadable.lock().insert(dir)),
                Err(error) => {
                    self.note_unreadable(dir, name.to_bytes(), &error);
                    self.shared.unreadable.lock().insert(dir);
                }
            }
            crew.did(1);
        }
    }

    /// Asks for one entry's attributes; true if something is mounted there.
    fn ask(&mut self, dir: DirId, fd: &OwnedFd, name: &CStr) -> io::Result<bool> {
        self.shared.progress.asks(self.number, dir, name.to_bytes());
        let found = match self.shared.watched.projects.listed_entry(fd, name) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let watched = self.shared.watched;
        if found.mount_root || found.device != watched.device || watched.is_own(found.stat.ino) {
            if !found.mount_root && found.device != watched.device {
                self.shared.progress.subvolumes.fetch_add(1, Relaxed);
            }
            return Ok(true);
        }
        let newborn = self.shared.newborn;
        let is_newborn = newborn.is(found.stat.kind, found.stat.birth, self.shared.progress);
        if found.stat.kind == Kind::Directory && !is_newborn {
            self.subdirs
                .push((found.stat.ino, Handle::of_entry(fd, name).ok()));
        }
        self.shared.around.met(fd, name, &found.stat);
        self.arena.extend_from_slice(name.to_bytes());
        let believed = self.shared.belief.rests_on_atime(&found.stat);
        // Of a file server a file of our own has shown that it moves them.
        let keeps_atime =
            believed && self.shared.is_local && !project::moves_atime(fd, name).unwrap_or(false);
        self.entries.push(Pending {
            stat: found.stat,
            dir,
            keeps_atime,
            name_end: self.arena.len(),
        });
        Ok(false)
    }

    /// Gives everything gathered to the index, and the directories among it to the queue.
    fn flush(&mut self, crew: &Crew<Task>) {
        let result = self.write_entries();
        let subdirs = std::mem::take(&mut self.subdirs);
        let pending = {
            let mut index = self.shared.watched.index.write();
            for (dir, unreadable, mounts) in self.listed.drain(..) {
                index.set_listed(dir, unreadable, mounts);
            }
            index.pending_name_bytes()
        };
        let tasks: Vec<Task> = {
            let index = self.shared.watched.index.read();
            subdirs
                .into_iter()
                .filter_map(|(ino, handle)| Some((index.dirs().of_inode(ino)?, handle)))
                .filter(|(dir, _)| index.needs_listing(*dir))
                .map(|(dir, handle)| Task::List(dir, handle))
                .collect()
        };
        crew.push(tasks);
        let error = match result {
            Err(e) => Some(e.into()),
            Ok(()) => self.shared.around.stopping().then_some(ScanError::Stopped),
        };
        if let Some(error) = error {
            self.shared.error.lock().get_or_insert(error);
            crew.stop();
        }
        if pending > PENDING_NAME_BYTES_MAX {
            self.shared.around.write_back();
        }
        self.shared
            .around
            .pace(self.shared.progress.entries.load(Relaxed));
    }

    fn write_entries(&mut self) -> Result<(), StoreError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.shared
            .progress
            .entries
            .fetch_add(self.entries.len() as u64, Relaxed);
        let mut index = self.shared.watched.index.write();
        let belief = match index.early_uses_overflowed() {
            true => Belief::Since(clock::now()),
            false => self.shared.belief,
        };
        let mut start = 0;
        let now = clock::judged();
        let mut ahead = Vec::new();
        let mut found = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let name = self.arena.get(start..entry.name_end).unwrap_or(&[]);
            start = entry.name_end;
            found.push(Found {
                stat: entry.stat,
                parent: entry.dir,
                name,
                first_use: match (entry.keeps_atime, belief) {
                    (true, Belief::Atime(watched_from)) => {
                        Belief::Since(watched_from).first_use(&entry.stat, now)
                    }
                    _ => belief.first_use(&entry.stat, now),
                },
            });
            if index.is_newly_ahead(&entry.stat, now) {
                ahead.push(entry.stat.ino);
            }
        }
        let doubtful = index.upsert_scanned(&mut found)?;
        if self.shared.watched.reads == Reads::AtScans {
            let read = self.entries.iter().filter(|entry| entry.stat.kind == Kind::File);
            self.note_reads(&mut index, read.map(|entry| (entry, now)));
        }
        for ino in ahead {
            index.record_use(ino, now);
        }
        drop(index);
        if !doubtful.is_empty() {
            let places = doubtful
                .into_iter()
                .filter_map(|i| found.get(i))
                .map(|f| (f.parent, f.name.to_vec()));
            self.shared.doubtful.lock().extend(places);
        }
        drop(found);
        self.entries.clear();
        self.arena.clear();
        Ok(())
    }

    /// Where only access times tell of reads, each scan takes them over. A clock never moves backwards.
    fn note_reads<'e>(&self, index: &mut Index, entries: impl Iterator<Item = (&'e Pending, Seconds)>) {
        for (entry, now) in entries {
            let belief = match entry.keeps_atime {
                true => Belief::Since(now),
                false => Belief::Atime(now),
            };
            let read = belief.first_use(&entry.stat, now).at;
            if index.last_use(entry.stat.ino).is_some_and(|last| last.at < read) {
                index.record_use(entry.stat.ino, read);
            }
        }
    }

    fn note_unreadable(&self, dir: DirId, name: &[u8], error: &io::Error) {
        let before = self.shared.progress.unreadable.fetch_add(1, Relaxed);
        if before < UNREADABLE_LOGGED_MAX {
            let dir = self
                .shared
                .watched
                .index
                .read()
                .dirs()
                .path(dir)
                .unwrap_or_default();
            let dir = shown::cut(&dir, shown::LOGGED_MAX);
            let (dir, name) = (String::from_utf8_lossy(&dir), String::from_utf8_lossy(name));
            tracing::warn!(%error, %dir, %name, "cannot read; it and the directories above it stay");
        } else if before == UNREADABLE_LOGGED_MAX {
            tracing::warn!("more entries cannot be read; see `unreadable` in status");
        }
    }
}

/// Whether others ask for the entries of a directory, and for which.
struct Sharing<'a> {
    dir: DirId,
    fd: &'a OwnedFd,
    is_local: bool,
    asked: u32,
    took: Duration,
    lent: Option<Arc<Lent>>,
    /// Names that wait to be shared, each ended by NUL.
    names: Vec<u8>,
    count: usize,
}

impl<'a> Sharing<'a> {
    fn of(shared: &Shared<'_>, dir: DirId, fd: &'a OwnedFd) -> Self {
        Self {
            dir,
            fd,
            is_local: shared.is_local,
            asked: 0,
            took: Duration::ZERO,
            lent: None,
            names: Vec::new(),
            count: 0,
        }
    }

    fn asked(&mut self, took: Duration) {
        self.asked = self.asked.saturating_add(1);
        self.took = self.took.saturating_add(took);
    }

    /// How many of the names that follow another worker is to ask for at a time; none: this one asks for the next by itself.
    ///
    /// On a far server each answer that the listing has not brought takes long, and then many ask at a time. Where the listing brings them, it
    /// goes on doing so only while the one that lists asks for each right then.
    fn chunk(&self, crew: &Crew<Task>) -> Option<usize> {
        if !self.names.is_empty() {
            return Some(if self.is_slow() { SLOW_CHUNK } else { SHARE_ENTRIES });
        }
        if self.asked >= SLOW_AFTER && self.is_slow() && crew.is_short() {
            return Some(SLOW_CHUNK);
        }
        let is_large = self.is_local && self.asked as usize >= SHARE_ENTRIES;
        is_large.then_some(SHARE_ENTRIES)
    }

    fn is_slow(&self) -> bool {
        self.took > SLOW.saturating_mul(self.asked.max(1))
    }

    /// The directory for others; none where enough are open already.
    fn lend(&mut self, shared: &Shared<'_>) -> Option<Arc<Lent>> {
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
            all: Arc::clone(&shared.lent),
        });
        self.lent = Some(Arc::clone(&lent));
        Some(lent)
    }
}

/// A directory that was to be listed.
enum Opened {
    Here(OwnedFd),
    Elsewhere,
    NotWanted,
}

/// Opens a directory by its handle, if it still is the one with this inode.
fn open_by_handle(mount: &OwnedFd, handle: Handle, ino: Inode) -> io::Result<Option<OwnedFd>> {
    let fd = match handle.open_dir(mount) {
        Ok(fd) => fd,
        Err(e) => {
            return match Absence::of(&e) {
                Some(Absence::Missing | Absence::Stale | Absence::Replaced) => Ok(None),
                // No handle leads through a mount.
                Some(Absence::Covered) | None => Err(e),
            };
        }
    };
    Ok((stat::open_file(&fd)?.stat.ino == ino).then_some(fd))
}

/// Opens a directory by its path, if it still is the one with this inode.
pub(super) fn open_expected(root: &OwnedFd, path: &[u8], ino: Inode) -> io::Result<Option<OwnedFd>> {
    let fd = match beneath::open_dir(root, path) {
        Ok(fd) => fd,
        Err(e) => {
            return match Absence::of(&e) {
                Some(Absence::Missing | Absence::Replaced | Absence::Covered) => Ok(None),
                // The root itself may be what is stale: that says nothing of what lies below it.
                Some(Absence::Stale) | None => Err(e),
            };
        }
    };
    Ok((stat::open_file(&fd)?.stat.ino == ino).then_some(fd))
}
