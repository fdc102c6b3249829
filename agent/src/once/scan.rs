//! The scan of a job: every directory below the root is listed, and each entry is asked for right after its part of the listing.
//!
//! Nothing is followed and no mount is entered. A directory is opened in the one above it, by its name, where that is still open; otherwise by
//! its path, beneath the root, so a tree may be as deep as it likes and no more descriptors are open than there may be.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purge_model::{Inode, Kind};
use purge_proto::shown::Shown;
use purge_removal::trash::TRASH;
use purge_scan::crew::{self, Crew, Member};
use purge_sys::exact::{self, Exact, Fresh, Moment};
use purge_sys::stat::Device;
use purge_sys::{beneath, trying};
use rustix::fs::RawDir;

use super::judge::Rule;
use super::tally::{Tally, one};
use super::tree::{Dir, DirNo, Item, Part, ROOT, Tree};

/// One `getdents64(2)`.
const LISTING_BYTES: usize = 32 << 10;
/// The plan takes no more memory; the rest is found by another scan.
const PLAN_BYTES_MAX: usize = 256 << 20;
/// What one worker has met of one directory goes into the plan when it takes this much: a directory may be of any size.
const PART_BYTES_MAX: usize = 1 << 20;
/// Names of one directory end within 32 bits (`Item::name_end`): the whole plan, and what each worker adds to it last, is smaller.
const _: () = assert!(PLAN_BYTES_MAX + crew::MOST * 2 * PART_BYTES_MAX < u32::MAX as usize);
/// Names of files with several are kept until all are known, this number at most.
const LINKED_MAX: usize = 1_000_000;
/// Entries that are asked for before it is said whether that is slow.
const SLOW_AFTER: u32 = 4;
/// An answer takes longer than this where a server is asked.
const SLOW: Duration = Duration::from_micros(400);
/// Of a directory whose entries are slow, others ask for this number at a time.
const SLOW_CHUNK: usize = 16;
/// At most this number of unreadable entries is named in the log; the rest is counted.
const UNREADABLE_LOGGED_MAX: u64 = 20;

/// What is scanned, and by which rule.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub root: &'a OwnedFd,
    pub device: Device,
    pub rule: Rule,
    /// The earlier of the host's clock and the file system's.
    pub now: Moment,
    pub stop: &'a AtomicBool,
    /// Descriptors of directories that may be open for others.
    pub lent_max: usize,
    pub workers_max: usize,
}

/// Names of a file with several.
#[derive(Debug)]
pub(super) struct Linked {
    pub item: Item,
    pub names: Vec<(DirNo, CString)>,
}

/// What the scan found.
#[derive(Debug)]
pub(super) struct Found {
    pub tree: Tree,
    pub parts: Vec<Part>,
    pub linked: HashMap<Inode, Linked>,
    /// There is more than the plan has room for.
    pub more: bool,
}

/// An open directory that others use.
#[derive(Debug)]
struct Lent {
    fd: OwnedFd,
    all: Arc<AtomicUsize>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
}

enum Task {
    List(DirNo, Option<Arc<Lent>>),
    /// Names, each ended by NUL.
    Ask(DirNo, Arc<Lent>, Vec<u8>),
}

struct Shared<'a> {
    on: &'a Ground<'a>,
    tally: &'a Tally,
    lent: Arc<AtomicUsize>,
    tree: Mutex<Tree>,
    parts: Mutex<(Vec<Part>, usize)>,
    linked: Mutex<HashMap<Inode, Linked>>,
    more: AtomicBool,
}

/// Scans everything.
pub(super) fn scan(on: &Ground<'_>, root: &Exact, tally: &Tally) -> Found {
    let top = Dir {
        above: ROOT,
        depth: 0,
        name: Box::default(),
        ino: root.ino,
        ctime: root.ctime,
        stays: true,
        changed: false,
    };
    let shared = Shared {
        on,
        tally,
        lent: Arc::default(),
        tree: Mutex::new(Tree(vec![top])),
        parts: Mutex::default(),
        linked: Mutex::default(),
        more: AtomicBool::new(false),
    };
    crew::run(vec![Task::List(ROOT, None)], on.workers_max, &|_| Worker {
        shared: &shared,
        listing: vec![MaybeUninit::uninit(); LISTING_BYTES],
    });
    Found {
        tree: shared.tree.into_inner(),
        parts: shared.parts.into_inner().0,
        linked: shared.linked.into_inner(),
        more: shared.more.into_inner(),
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    listing: Vec<MaybeUninit<u8>>,
}

impl Member for Worker<'_> {
    type Task = Task;

    fn work(&mut self, task: Task, crew: &Crew<Task>) {
        if self.shared.on.stop.load(Relaxed) {
            return crew.stop();
        }
        match task {
            Task::List(dir, above) => {
                let mut listing = std::mem::take(&mut self.listing);
                self.list(dir, above, &mut listing, crew);
                self.listing = listing;
            }
            Task::Ask(dir, lent, names) => {
                let mut met = Met::of(dir);
                for name in names.split_inclusive(|b| *b == 0) {
                    if let Ok(name) = CStr::from_bytes_with_nul(name) {
                        self.ask(&lent.fd, name, &mut met);
                        crew.did(1);
                    }
                }
                self.end(met, Some(lent), crew);
            }
        }
    }

    fn hand_over(&mut self, _: &Crew<Task>) -> bool {
        false
    }
}

/// What was met in a directory.
struct Met {
    dir: DirNo,
    stays: bool,
    part: Part,
    below: Vec<Dir>,
}

impl Met {
    fn of(dir: DirNo) -> Self {
        Self {
            dir,
            stays: false,
            part: Part::of(dir),
            below: Vec::new(),
        }
    }
}

impl Worker<'_> {
    fn list(
        &mut self,
        dir: DirNo,
        above: Option<Arc<Lent>>,
        listing: &mut [MaybeUninit<u8>],
        crew: &Crew<Task>,
    ) {
        let mut met = Met::of(dir);
        let fd = match self.open(dir, above) {
            Ok(Some(fd)) => fd,
            // Another one lies there by now.
            Ok(None) => return self.shared.tree.lock().keep(dir),
            Err(error) => {
                self.unreadable(dir, c"", &error);
                return self.shared.tree.lock().keep(dir);
            }
        };
        let fd = self.lend(fd);
        let mut entries = RawDir::new(fd.as_fd(), listing);
        let (mut asked, mut took, mut names, mut count) = (0u32, Duration::ZERO, Vec::new(), 0);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.unreadable(dir, c"", &error.into());
                    met.stays = true;
                    break;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." || (dir == ROOT && is_ours(name, &mut met)) {
                continue;
            }
            // Where each answer takes long, many ask at a time. Otherwise the listing has brought it, and goes on doing so only if it is
            // asked for right then.
            let is_slow = asked >= SLOW_AFTER && took > SLOW.saturating_mul(asked);
            if let Open::Lent(lent) = &fd
                && is_slow
                && (count > 0 || crew.has_room())
            {
                names.extend_from_slice(name.to_bytes_with_nul());
                count += 1;
                if count >= SLOW_CHUNK {
                    count = 0;
                    crew.push([Task::Ask(dir, Arc::clone(lent), std::mem::take(&mut names))]);
                }
                continue;
            }
            let began = Instant::now();
            self.ask(fd.as_fd(), name, &mut met);
            took = took.saturating_add(began.elapsed());
            asked = asked.saturating_add(1);
            crew.did(1);
        }
        match &fd {
            Open::Lent(lent) if count > 0 => crew.push([Task::Ask(dir, Arc::clone(lent), names)]),
            // None were gathered.
            _ => {}
        }
        one(&self.shared.tally.directories);
        self.end(met, fd.lent(), crew);
    }

    /// A directory, if it is the one that was met.
    fn open(&self, dir: DirNo, above: Option<Arc<Lent>>) -> io::Result<Option<OwnedFd>> {
        let (ino, name, path) = {
            let tree = self.shared.tree.lock();
            let Some(entry) = tree.0.get(dir as usize) else {
                return Ok(None);
            };
            let path = above.is_none().then(|| tree.path(dir));
            (entry.ino, entry.name.clone(), path)
        };
        let fd = match (&above, path) {
            (Some(above), _) => beneath::open_dir(&above.fd, &name)?,
            (None, path) => beneath::open_dir(self.shared.on.root, &path.unwrap_or_default())?,
        };
        let found = exact::open(&fd, Fresh::Listed)?;
        Ok((found.ino == ino && found.device == self.shared.on.device).then_some(fd))
    }

    fn lend(&self, fd: OwnedFd) -> Open {
        let all = &self.shared.lent;
        if all.load(Relaxed) >= self.shared.on.lent_max {
            return Open::Own(fd);
        }
        all.fetch_add(1, Relaxed);
        Open::Lent(Arc::new(Lent {
            fd,
            all: Arc::clone(all),
        }))
    }

    fn ask(&self, fd: &OwnedFd, name: &CStr, met: &mut Met) {
        let (on, tally) = (self.shared.on, self.shared.tally);
        let found = match exact::entry(fd, name, Fresh::Listed) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => {
                met.stays = true;
                // Something is mounted there: it is not entered, and no failure.
                if e.raw_os_error() != Some(libc::EXDEV) {
                    self.unreadable(met.dir, name, &e);
                }
                return;
            }
        };
        if found.mount_root || found.device != on.device {
            met.stays = true;
            return;
        }
        match found.kind {
            Kind::Directory => met.below.push(Dir {
                above: met.dir,
                depth: 0,
                name: name.to_bytes().into(),
                ino: found.ino,
                ctime: found.ctime,
                // What was changed within the ttl is in use: jobs make files in it.
                stays: !on.rule.is_settled(&found, on.now),
                changed: false,
            }),
            Kind::File => self.meet_file(name, &found, met),
            Kind::Symlink => {
                one(&tally.symlinks);
                met.stays = true;
            }
            Kind::Special => {
                one(&tally.others);
                met.stays = true;
            }
        }
    }

    fn meet_file(&self, name: &CStr, found: &Exact, met: &mut Met) {
        let (on, tally) = (self.shared.on, self.shared.tally);
        one(&tally.files);
        tally.bytes.fetch_add(found.size, Relaxed);
        if found.protected || !on.rule.is_expired(found, on.now) {
            met.stays = true;
            return;
        }
        let mut item = Item {
            ino: found.ino,
            size: found.size,
            mtime: found.mtime,
            ctime: found.ctime,
            links: found.links,
            name_end: 0,
        };
        if found.links != 1 {
            return self.meet_linked(name, item, met);
        }
        one(&tally.expired);
        tally.expired_bytes.fetch_add(found.size, Relaxed);
        met.part.names.extend_from_slice(name.to_bytes_with_nul());
        item.name_end = u32::try_from(met.part.names.len()).unwrap_or(u32::MAX);
        met.part.items.push(item);
        if met.part.bytes() >= PART_BYTES_MAX {
            let part = std::mem::replace(&mut met.part, Part::of(met.dir));
            self.plan(part);
        }
    }

    /// A file with several names goes with all of them, or stays.
    fn meet_linked(&self, name: &CStr, item: Item, met: &mut Met) {
        let mut linked = self.shared.linked.lock();
        if linked.len() >= LINKED_MAX && !linked.contains_key(&item.ino) {
            met.stays = true;
            return;
        }
        let of = linked.entry(item.ino).or_insert_with(|| Linked {
            item,
            names: Vec::new(),
        });
        if of.names.len() < LINKED_MAX {
            of.names.push((met.dir, name.to_owned()));
        }
    }

    /// Takes what was met into the tree and the plan.
    fn end(&self, met: Met, fd: Option<Arc<Lent>>, crew: &Crew<Task>) {
        let mut tasks = Vec::with_capacity(met.below.len());
        {
            let mut tree = self.shared.tree.lock();
            if met.stays {
                tree.keep(met.dir);
            }
            let depth = tree.0.get(met.dir as usize).map_or(0, |dir| dir.depth);
            for below in met.below {
                let Ok(number) = DirNo::try_from(tree.0.len()) else {
                    break;
                };
                tree.0.push(Dir {
                    depth: depth.saturating_add(1),
                    ..below
                });
                tasks.push(Task::List(number, fd.clone()));
            }
        }
        crew.push(tasks);
        if !met.part.items.is_empty() {
            self.plan(met.part);
        }
    }

    /// Takes files of a directory into the plan, if there is room.
    fn plan(&self, part: Part) {
        let mut parts = self.shared.parts.lock();
        if parts.1 >= PLAN_BYTES_MAX {
            drop(parts);
            self.shared.more.store(true, Relaxed);
            return self.shared.tree.lock().keep(part.dir);
        }
        parts.1 = parts.1.saturating_add(part.bytes());
        parts.0.push(part);
    }

    fn unreadable(&self, dir: DirNo, name: &CStr, error: &io::Error) {
        let before = self.shared.tally.unreadable.fetch_add(1, Relaxed);
        if before < UNREADABLE_LOGGED_MAX {
            let path = self.shared.tree.lock().path_of(dir, name);
            let path = Shown::name(&path).to_string();
            tracing::warn!(%error, path, "cannot read; it and the directories above it stay");
        }
    }
}

/// An open directory, for others as well where that may be.
enum Open {
    Own(OwnedFd),
    Lent(Arc<Lent>),
}

impl Open {
    fn as_fd(&self) -> &OwnedFd {
        match self {
            Self::Own(fd) => fd,
            Self::Lent(lent) => &lent.fd,
        }
    }

    fn lent(self) -> Option<Arc<Lent>> {
        match self {
            Self::Own(_) => None,
            Self::Lent(lent) => Some(lent),
        }
    }
}

/// The trash of an agent, and files with which a job tries the file system, are not the users'.
fn is_ours(name: &CStr, met: &mut Met) -> bool {
    let name = name.to_bytes();
    // fsck(8) needs its directory, and none but root could make it again.
    let is_ours = [TRASH.as_bytes(), b"lost+found"].contains(&name) || name.starts_with(trying::PREFIX);
    met.stays |= is_ours;
    is_ours
}
