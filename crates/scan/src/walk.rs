//! The workers of a scan: each takes a directory, lists it, and asks for every entry's attributes.

mod sharing;

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use purge_proto::shown;
use rustix::fs::RawDir;

use self::sharing::{Lent, Sharing};
use super::crew::{self, Crew, Member};
use super::{Belief, Newborn, Progress, ScanError, Surroundings};
use purge_base::clock;
use purge_base::descriptors;
use purge_collect::Watched;
use purge_collect::source::Reads;
use purge_collect::tree::Mark;
use purge_index::{DirId, Found, Index, StoreError};
use purge_model::{Inode, Kind, Seconds, Stat};
use purge_sys::absence::Absence;
use purge_sys::handle::Handle;
use purge_sys::{beneath, project, stat};

/// Entries that a worker gathers before it takes the index's lock.
const BATCH_ENTRIES: usize = 4096;
/// One `getdents64(2)`: some 1,500 entries.
const LISTING_BYTES: usize = 64 << 10;
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
    /// Directories in a shared chunk of which something is mounted, or lies that is the agent's own.
    mounted: Mutex<HashSet<DirId>>,
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
        mounted: Mutex::default(),
        doubtful: Mutex::default(),
        missed: Mutex::default(),
    };
    crew::run(tasks, shares.scan_workers, &|number| Worker::new(&shared, number));
    let mut index = watched.index.write();
    for dir in shared.unreadable.into_inner() {
        index.doubt_dir(dir);
    }
    for dir in shared.mounted.into_inner() {
        index.note_mount(dir);
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
    /// Nothing told of its uses until its directory, or it, was marked just now.
    unseen: bool,
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
            Task::Ask(lent, names) => self.ask_all((lent.dir, lent.unseen), &lent.fd, &names, crew),
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
        // First the mark, then the list: what is made after the mark is told.
        let unseen = self.watch(dir, &fd);
        let mut to_share = Sharing::of(self.shared, (dir, unseen), &fd);
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
            match self.ask((dir, unseen), &fd, name) {
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

    /// Watches a directory, where each is watched by itself. Whether nothing was told of what lies in it until now.
    fn watch(&self, dir: DirId, fd: &OwnedFd) -> bool {
        let watched = self.shared.watched;
        let Some(tree) = &watched.tree else { return false };
        let ino = watched.index.read().dirs().get(dir).map(|known| known.ino);
        ino.is_some_and(|ino| tree.watch_dir(ino, fd.as_fd()) == Mark::Fresh)
    }

    /// By its handle, at any place where it lies by now: that it moved is told by an event. Otherwise by its present path.
    fn open(&self, dir: DirId, handle: Option<Handle>) -> io::Result<Opened> {
        let (ino, path) = {
            let index = self.shared.watched.index.read();
            let Some(known) = index.dirs().get(dir).filter(|_| !index.is_listed(dir)) else {
                return Ok(Opened::NotWanted);
            };
            let may_lead_nowhere = !self.shared.is_local || self.shared.watched.tree.is_some();
            let path = (handle.is_none() || may_lead_nowhere)
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
            None => self.ask_all((these.dir, these.unseen), these.fd, &names, crew),
        }
    }

    fn ask_all(&mut self, (dir, unseen): (DirId, bool), fd: &OwnedFd, names: &[u8], crew: &Crew<Task>) {
        for name in names.split_inclusive(|b| *b == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            match self.ask((dir, unseen), fd, name) {
                Ok(false) => {}
                Ok(true) => drop(self.shared.mounted.lock().insert(dir)),
                Err(error) => {
                    self.note_unreadable(dir, name.to_bytes(), &error);
                    self.shared.unreadable.lock().insert(dir);
                }
            }
            crew.did(1);
        }
    }

    /// Asks for one entry's attributes; true if something is mounted there.
    fn ask(&mut self, (dir, unseen): (DirId, bool), fd: &OwnedFd, name: &CStr) -> io::Result<bool> {
        self.shared.progress.asks(self.number, dir, name.to_bytes());
        let found = match self.shared.watched.projects.listed_entry(fd, name) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let watched = self.shared.watched;
        let is_own = watched.is_own(found.stat.ino)
            || found.stat.kind == Kind::Directory && watched.is_trash(dir, name.to_bytes());
        if found.mount_root || found.device != watched.device || is_own {
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
        self.learn(dir, name, found.stat.ino);
        // It may be used by a name where no directory is watched.
        let has_more = found.stat.links > 1 && found.stat.kind == Kind::File;
        let unseen = match watched.tree.as_ref().filter(|_| has_more) {
            // Its own mark tells of it, whichever directory it is met in.
            Some(tree) => {
                let mark = tree.watch_file(found.stat.ino, fd.as_fd(), name);
                // Asked at once: another worker may be about to hand over another name of it.
                mark == Mark::Fresh && watched.index.read().last_use(found.stat.ino).is_some()
            }
            None => unseen,
        };
        self.entries.push(Pending {
            stat: found.stat,
            dir,
            keeps_atime,
            unseen,
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
        self.use_what_was_unseen();
        let mut index = self.shared.watched.index.write();
        let belief = match index.early_uses_overflowed() {
            true => Belief::Since(clock::now()),
            // What lies in a directory is told from its mark on, which is later than the beginning.
            false if self.shared.watched.tree.is_some() => self.shared.belief.no_sooner_than(clock::now()),
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
                    _ if self.was_used(&index, entry.dir, name) => {
                        Belief::Since(clock::now()).first_use(&entry.stat, now)
                    }
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

    /// Whether it was used by a name that was not known yet.
    fn was_used(&self, index: &Index, dir: DirId, name: &[u8]) -> bool {
        let tree = self.shared.watched.tree.as_ref();
        let tree = tree.filter(|tree| tree.has_names_alone());
        let dir = || index.dirs().get(dir).map(|dir| dir.ino);
        tree.is_some_and(|tree| dir().is_some_and(|dir| tree.places().was_used(dir, name)))
    }

    /// What lies at which name, where each directory is watched by itself: at once, because events of it may be read before the index has it.
    fn learn(&self, dir: DirId, name: &CStr, ino: Inode) {
        let watched = self.shared.watched;
        let Some(tree) = &watched.tree else { return };
        let dir = watched.index.read().dirs().get(dir).map(|dir| dir.ino);
        if let Some(was) = dir.and_then(|dir| tree.places().learn(dir, name.to_bytes(), ino)) {
            // It is looked whether it lies there under another name.
            watched.doubtful_links.lock().insert(was);
        }
    }

    /// Of files that the index knows, and of which nothing was told until now, or only a name that was not known.
    fn use_what_was_unseen(&self) {
        let watched = self.shared.watched;
        if watched.tree.is_none() {
            return;
        }
        let mut start = 0;
        let mut unseen = Vec::new();
        {
            let index = watched.index.read();
            for entry in &self.entries {
                let name = self.arena.get(start..entry.name_end).unwrap_or(&[]);
                start = entry.name_end;
                let is_unseen = entry.unseen || self.was_used(&index, entry.dir, name);
                if is_unseen && index.last_use(entry.stat.ino).is_some() {
                    unseen.push(entry.stat.ino);
                }
            }
        }
        if !unseen.is_empty() {
            watched.recorder().unseen_until(clock::now(), &unseen);
        }
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
        // Without CAP_DAC_READ_SEARCH.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => return Ok(None),
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
