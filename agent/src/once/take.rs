//! Removing what the scan found, many files at a time.
//!
//! ```text
//!   leases (a local disk)   open, lease, compare, move aside in the same directory, compare once more, unlink
//!   none (a file server)    ask the server, compare, unlink: right one after another
//! ```
//! The kernel changes one name of a directory at a time, and waits for the server meanwhile. So a directory has few workers, of which one
//! unlinks and the others ask, and as many directories are worked on as there are workers. What the scan has met of a directory in several
//! parts is one job.
//!
//! What may never happen: the removal of a file that is not, right then, as the scan saw it and as old as the rule says.

use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use purge_model::Kind;
use purge_proto::shown::Shown;
use purge_scan::crew::{self, Crew, Member};
use purge_sys::exact::{self, Exact, Fresh};
use purge_sys::{beneath, inside, lease, vacant};
use rustc_hash::FxHashMap;

use super::held::Held;
use super::scan::{Ground, Linked};
use super::tally::{Skip, Tally, get, one};
use super::tree::{DirNo, Item, Part, ROOT, Tree};

/// Workers for one directory: while one unlinks, the others ask. More would ask the server for the directory again and again.
const LANES: usize = 2;
/// The same on a file server: to ask takes two answers of it, and to unlink one.
const FAR_LANES: usize = 3;
/// Workers at the beginning, on a file server: it is known that it answers late.
const FAR_FIRST: usize = 64;
/// A job ends when more than this share of its candidates fails.
const FAILED_MAX: f64 = 0.05;
/// But not before this number has failed.
const FAILED_MIN: u64 = 100;
/// At most this number of failures is named in the log; the rest is counted.
const FAILED_LOGGED_MAX: u64 = 20;
/// What is about to be removed has this name for a moment.
pub(super) const ASIDE: &[u8] = b".purge-agent-once.";

/// What became of a candidate.
enum Fate {
    Gone,
    Stays(Skip),
    Failed(io::Error),
}

impl From<io::Error> for Fate {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESTALE | libc::ENOTDIR) => Self::Stays(Skip::Gone),
            Some(libc::EXDEV | libc::EBUSY) => Self::Stays(Skip::Mounted),
            Some(libc::ELOOP | libc::EISDIR) => Self::Stays(Skip::Changed),
            Some(libc::EAGAIN | libc::ETXTBSY) => Self::Stays(Skip::Open),
            _ => Self::Failed(error),
        }
    }
}

/// Files of one directory, on which several workers work.
struct Job {
    part: Part,
    next: AtomicUsize,
    /// None: it cannot be worked on.
    fd: OnceLock<Option<OwnedFd>>,
}

/// A removal as a whole.
pub(super) struct Taking<'a> {
    on: &'a Ground<'a>,
    tally: &'a Tally,
    tree: RwLock<Tree>,
    /// Leases are given here.
    leases: bool,
    held: Held,
    /// Whether a process has a lock on a directory, or one above.
    locked: Mutex<FxHashMap<DirNo, bool>>,
    failed_too_often: AtomicBool,
    aside: AtomicUsize,
}

enum Task {
    Lane(Arc<Job>),
    Linked(Linked),
}

impl<'a> Taking<'a> {
    pub fn new(on: &'a Ground<'a>, tally: &'a Tally, tree: Tree, leases: bool) -> Self {
        Self {
            on,
            tally,
            tree: RwLock::new(tree),
            leases,
            held: Held::new(on.device),
            locked: Mutex::default(),
            failed_too_often: AtomicBool::new(false),
            aside: AtomicUsize::new(0),
        }
    }

    /// Whether it ended because too much failed.
    pub fn has_failed_too_often(&self) -> bool {
        self.failed_too_often.load(Relaxed)
    }

    /// The directories, afterwards.
    pub fn into_tree(self) -> Tree {
        self.tree.into_inner()
    }

    /// Removes what is in `parts`, and files with several names.
    pub fn run(&self, parts: Vec<Part>, linked: Vec<Linked>, workers_max: usize) {
        let jobs: Vec<Arc<Job>> = by_directory(parts).map(|part| Arc::new(Job::of(part))).collect();
        let mut tasks: Vec<Task> = linked.into_iter().map(Task::Linked).collect();
        let (lanes, first) = match self.leases {
            true => (LANES, crew::FIRST),
            false => (FAR_LANES, FAR_FIRST),
        };
        // The last are taken first: one worker for each directory before a second one.
        for lane in (0..lanes).rev() {
            let long = jobs.iter().filter(|job| job.part.items.len() > lane);
            tasks.extend(long.map(|job| Task::Lane(Arc::clone(job))));
        }
        drop(jobs);
        crew::run_from(first, tasks, workers_max, &|_| Worker { of: self });
    }

    fn is_over(&self) -> bool {
        self.on.stop.load(Relaxed) || self.has_failed_too_often()
    }

    fn note(&self, dir: DirNo, name: &CStr, item: &Item, fate: Fate) {
        match fate {
            Fate::Gone => {
                one(&self.tally.removed);
                self.tally.removed_bytes.fetch_add(item.size, Relaxed);
                return;
            }
            Fate::Stays(why) => self.tally.skipped.count(why),
            Fate::Failed(error) => self.note_failure(dir, name, &error),
        }
        self.tree.write().keep(dir);
    }

    fn note_failure(&self, dir: DirNo, name: &CStr, error: &io::Error) {
        let before = self.tally.failed.fetch_add(1, Relaxed);
        if before < FAILED_LOGGED_MAX {
            let path = self.tree.read().path_of(dir, name);
            let path = Shown::name(&path).to_string();
            tracing::error!(%error, path, "a file cannot be removed");
        }
        let share = (before + 1) as f64 / get(&self.tally.expired).max(1) as f64;
        if before + 1 >= FAILED_MIN && share > FAILED_MAX && !self.failed_too_often.swap(true, Relaxed) {
            tracing::error!("too much of what was to be removed fails: the job ends");
        }
    }

    /// A directory, if it is the one that the scan met and no process has a lock on it.
    fn open(&self, dir: DirNo) -> Result<OwnedFd, Fate> {
        let (path, ino) = {
            let tree = self.tree.read();
            let ino = tree.0.get(dir as usize).map(|dir| dir.ino);
            (tree.path(dir), ino)
        };
        let fd = beneath::open_dir(self.on.root, &path)?;
        let found = exact::open(&fd, Fresh::Now)?;
        if Some(found.ino) != ino || found.device != self.on.device {
            return Err(Fate::Stays(Skip::Changed));
        }
        match self.is_locked(dir, &fd) {
            true => Err(Fate::Stays(Skip::Locked)),
            false => Ok(fd),
        }
    }

    /// Whether a process has a lock (`flock(2)`) on a directory, or on one above it but the root.
    fn is_locked(&self, dir: DirNo, fd: &OwnedFd) -> bool {
        if dir == ROOT {
            return false;
        }
        if let Some(known) = self.locked.lock().get(&dir) {
            return *known;
        }
        let above = self.tree.read().0.get(dir as usize).map_or(ROOT, |dir| dir.above);
        // A file system without locks has none.
        let is_locked = lease::is_locked(fd).unwrap_or(false) || self.is_locked_above(above);
        self.locked.lock().insert(dir, is_locked);
        is_locked
    }

    fn is_locked_above(&self, above: DirNo) -> bool {
        let mut chain = Vec::new();
        let mut at = above;
        let mut is_locked = false;
        while at != ROOT {
            if let Some(known) = self.locked.lock().get(&at) {
                is_locked = *known;
                break;
            }
            chain.push(at);
            at = self.tree.read().0.get(at as usize).map_or(ROOT, |dir| dir.above);
        }
        for dir in chain.into_iter().rev() {
            let path = self.tree.read().path(dir);
            is_locked |= beneath::open_dir(self.on.root, &path)
                .and_then(lease::is_locked)
                .unwrap_or(false);
            self.locked.lock().insert(dir, is_locked);
        }
        is_locked
    }

    /// What is there is what the scan saw, and it goes by the rule as well.
    fn check(&self, item: &Item, links: u32, now: &Exact) -> Result<(), Fate> {
        let stays = |why| Err(Fate::Stays(why));
        if now.mount_root {
            return stays(Skip::Mounted);
        }
        if (now.ino, now.kind, now.device) != (item.ino, Kind::File, self.on.device) {
            return stays(Skip::Changed);
        }
        if now.protected {
            return stays(Skip::Protected);
        }
        if now.links != links {
            return stays(Skip::Hardlinked);
        }
        // Removing one of several names is a change as well.
        let same_change = now.ctime == item.ctime || links < item.links;
        if (now.size, now.mtime) != (item.size, item.mtime) || !same_change {
            return stays(Skip::Changed);
        }
        let as_scanned = Exact {
            ctime: item.ctime,
            ..*now
        };
        match self.on.rule.is_expired(&as_scanned, self.on.now) {
            true => Ok(()),
            false => stays(Skip::Accessed),
        }
    }

    /// Removes one name of a file that has `links` names.
    fn take(&self, dir: &OwnedFd, name: &CStr, item: &Item, links: u32) -> Result<(), Fate> {
        let fresh = match self.leases {
            true => Fresh::Listed,
            false => Fresh::Now,
        };
        let found = exact::entry(dir, name, fresh)?;
        self.check(item, links, &found)?;
        if self.held.has(item.ino) {
            return Err(Fate::Stays(Skip::Open));
        }
        match self.leases {
            true => self.take_leased(dir, name, item, links),
            false => Ok(inside::unlink(dir, name)?),
        }
    }

    fn take_leased(&self, dir: &OwnedFd, name: &CStr, item: &Item, links: u32) -> Result<(), Fate> {
        let lease = match lease::ask(beneath::open_file(dir, name)?)? {
            lease::Asked::Granted(lease) => lease,
            lease::Asked::Locked => return Err(Fate::Stays(Skip::Locked)),
            lease::Asked::Open | lease::Asked::Unsupported(_) => return Err(Fate::Stays(Skip::Open)),
        };
        let leased = exact::open(lease.file(), Fresh::Now)?;
        self.check(item, links, &leased)?;
        // No process finds it by its name from here on, and what has the name may be another file by now.
        let aside = self.aside_name()?;
        vacant::set_aside(dir, name, dir, &aside)?;
        let moved = exact::entry(dir, &aside, Fresh::Now);
        let of = |e: &Exact| (e.ino, e.size, e.mtime, e.atime, e.links, e.uid);
        let is_same = moved.as_ref().is_ok_and(|moved| of(moved) == of(&leased));
        if !is_same || !lease.is_still_granted() {
            return Err(self.put_back(dir, name, &aside, is_same));
        }
        Ok(inside::unlink(dir, &*aside)?)
    }

    fn put_back(&self, dir: &OwnedFd, name: &CStr, aside: &CStr, is_same: bool) -> Fate {
        match vacant::give(dir, aside, dir, name) {
            Ok(()) if is_same => Fate::Stays(Skip::Open),
            Ok(()) => Fate::Stays(Skip::Changed),
            Err(error) => {
                let (name, aside) = (Shown::name(name.to_bytes()), Shown::name(aside.to_bytes()));
                let words = format!(
                    "it was used while it was taken, and cannot get its name {name} back ({error}): it lies beside as {aside}"
                );
                Fate::Failed(io::Error::other(words))
            }
        }
    }

    fn aside_name(&self) -> io::Result<CString> {
        let number = self.aside.fetch_add(1, Relaxed);
        let mut name = ASIDE.to_vec();
        name.extend_from_slice(format!("{}.{number}", std::process::id()).as_bytes());
        CString::new(name).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    /// Each name of a file leads to it, and it goes: looked at before the first one is removed.
    fn check_linked(&self, linked: &Linked) -> Result<(), (DirNo, CString, Fate)> {
        for (dir, name) in &linked.names {
            let seen = self.open(*dir).and_then(|fd| {
                let found = exact::entry(&fd, name, Fresh::Now)?;
                self.check(&linked.item, linked.item.links, &found)
            });
            seen.map_err(|fate| (*dir, name.clone(), fate))?;
        }
        Ok(())
    }

    /// All names of a file, or none: if one stays after others went, the file has those that are left.
    fn take_linked(&self, linked: &Linked) {
        if let Err((dir, name, fate)) = self.check_linked(linked) {
            self.note(dir, &name, &linked.item, fate);
            let mut tree = self.tree.write();
            return linked.names.iter().for_each(|(dir, _)| tree.keep(*dir));
        }
        let mut links = linked.item.links;
        for (dir, name) in &linked.names {
            let taken = self
                .open(*dir)
                .and_then(|fd| self.take(&fd, name, &linked.item, links));
            if let Err(fate) = taken {
                self.note(*dir, name, &linked.item, fate);
                let mut tree = self.tree.write();
                return linked.names.iter().for_each(|(dir, _)| tree.keep(*dir));
            }
            self.mark_changed(*dir);
            links = links.saturating_sub(1);
        }
        if let Some((dir, name)) = linked.names.first() {
            self.note(*dir, name, &linked.item, Fate::Gone);
        }
    }

    fn mark_changed(&self, dir: DirNo) {
        if let Some(dir) = self.tree.write().0.get_mut(dir as usize) {
            dir.changed = true;
        }
    }
}

/// One part for each directory.
fn by_directory(parts: Vec<Part>) -> impl Iterator<Item = Part> {
    let mut whole: FxHashMap<DirNo, Part> = FxHashMap::default();
    for part in parts {
        match whole.entry(part.dir) {
            Entry::Occupied(mut known) => known.get_mut().take_in(part),
            Entry::Vacant(none) => drop(none.insert(part)),
        }
    }
    whole.into_values()
}

impl Job {
    fn of(part: Part) -> Self {
        Self {
            part,
            next: AtomicUsize::new(0),
            fd: OnceLock::new(),
        }
    }
}

struct Worker<'a> {
    of: &'a Taking<'a>,
}

impl Member for Worker<'_> {
    type Task = Task;

    fn work(&mut self, task: Task, crew: &Crew<Task>) {
        if self.of.is_over() {
            return crew.stop();
        }
        match task {
            Task::Linked(linked) => {
                self.of.take_linked(&linked);
                crew.did(linked.names.len() as u64);
            }
            Task::Lane(job) => self.lane(&job, crew),
        }
    }

    fn hand_over(&mut self, _: &Crew<Task>) -> bool {
        false
    }
}

impl Worker<'_> {
    fn lane(&self, job: &Job, crew: &Crew<Task>) {
        let dir = job.part.dir;
        let fd = job.fd.get_or_init(|| match self.of.open(dir) {
            Ok(fd) => {
                self.of.mark_changed(dir);
                Some(fd)
            }
            Err(fate) => {
                // The same for each of its files.
                for at in 0..job.part.items.len() {
                    let Some((item, name)) = job.part.get(at) else {
                        break;
                    };
                    let same =
                        match &fate {
                            Fate::Gone => Fate::Stays(Skip::Gone),
                            Fate::Stays(why) => Fate::Stays(*why),
                            Fate::Failed(e) => Fate::Failed(e.raw_os_error().map_or_else(
                                || io::Error::other(e.to_string()),
                                io::Error::from_raw_os_error,
                            )),
                        };
                    self.of.note(dir, name, &item, same);
                }
                None
            }
        });
        let Some(fd) = fd else { return };
        while !self.of.is_over() {
            let Some((item, name)) = job.part.get(job.next.fetch_add(1, Relaxed)) else {
                break;
            };
            let fate = match self.of.take(fd, name, &item, item.links) {
                Ok(()) => Fate::Gone,
                Err(fate) => fate,
            };
            self.of.note(dir, name, &item, fate);
            crew.did(1);
        }
    }
}
