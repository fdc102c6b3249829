//! What records mean, in the values that all sources share; and what is watched.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::inotify::{self, WatchFlags};

use super::decode::{Record, mask};
use crate::event::{Acts, By, Change, Changes, Event, Node, Place, Used};
use crate::places::{self, Places};
use crate::tree::Marking;
use purge_model::Inode;
use purge_sys::fanotify;

/// How many watches a user may have: on this host, and in this user namespace.
const WATCHES_MAX: [&str; 2] = [
    "/proc/sys/fs/inotify/max_user_watches",
    "/proc/sys/user/max_inotify_watches",
];

/// Watches, and which inode each is of.
#[derive(Debug)]
pub(super) struct Watches {
    pub fd: OwnedFd,
    by_number: Mutex<FxHashMap<i32, Inode>>,
    pub places: Arc<Places>,
}

/// Everything that is a use.
const USES: WatchFlags = WatchFlags::ACCESS
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::OPEN)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CLOSE_NOWRITE);
/// And of a directory, everything that changes names or metadata.
const NAMES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);

impl Watches {
    pub fn new(fd: OwnedFd, places: Arc<Places>) -> Self {
        Self {
            fd,
            by_number: Mutex::default(),
            places,
        }
    }

    fn add(&self, ino: Inode, path: &Path, flags: WatchFlags) -> io::Result<()> {
        // Held: an event of it may be read at once.
        let mut by_number = self.by_number.lock();
        let number = inotify::add_watch(&self.fd, path, flags)?;
        by_number.insert(number, ino);
        Ok(())
    }

    /// Uses of what lies in this directory are told, and no names.
    pub fn mark_uses(&self, ino: Inode, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.add(ino, &by_descriptor(dir), USES)
    }

    /// Unmounting takes all watches away.
    pub fn is_empty(&self) -> bool {
        self.by_number.lock().is_empty()
    }

    fn of(&self, number: i32) -> Option<Node> {
        self.by_number.lock().get(&number).map(|ino| node(*ino))
    }

    /// What a record tells. `to` is the other side of a move, where both were read together.
    pub fn event<'a>(&self, record: Record<'a>, to: Option<Record<'a>>) -> Event<'a> {
        let bits = record.mask;
        if bits & mask::IGNORED != 0 {
            self.by_number.lock().remove(&record.wd);
        }
        let watched = self.of(record.wd);
        let here = watched.and_then(|dir| place(dir, record.name));
        let there = to.and_then(|to| place(self.of(to.wd)?, to.name));
        // What is watched itself, or what lay at the name.
        let of = match here {
            Some(place) => self.at(&place),
            None => watched,
        };
        let kinds = changes(bits);
        let is_arrival = bits & mask::MOVED_TO != 0;
        let is_self = here.is_none() && bits & mask::DELETE_SELF != 0;
        let change =
            (kinds != Changes::default() && (here.is_some() || is_self || of.is_some())).then(|| Change {
                kinds,
                of,
                place: here.filter(|_| there.is_none() && !is_arrival),
                old: here.filter(|_| there.is_some()),
                new: there.or(here.filter(|_| is_arrival)),
            });
        let acts = acts(bits);
        let is_access = acts != Acts::NONE && bits & mask::ISDIR == 0;
        if let (true, None, Some(place)) = (is_access, of, &here) {
            self.places.note_stranger(place.dir.ino, place.name);
        }
        Event {
            is_loss: bits & mask::OVERFLOW != 0,
            by: By::UNKNOWN,
            process: None,
            change,
            access: of.filter(|_| is_access).map(|node| (acts, Used::from(node))),
        }
    }

    fn at(&self, place: &Place<'_>) -> Option<Node> {
        self.places.at(place.dir.ino, place.name).map(node)
    }
}

/// Whether two records are the two sides of one move.
pub(super) fn is_one_move(from: &Record<'_>, to: &Record<'_>) -> bool {
    from.mask & mask::MOVED_FROM != 0 && to.mask & mask::MOVED_TO != 0 && from.cookie == to.cookie
}

fn node(ino: Inode) -> Node {
    Node {
        ino,
        handle: places::handle(ino),
    }
}

fn place(dir: Node, name: &[u8]) -> Option<Place<'_>> {
    (!name.is_empty()).then_some(Place { dir, name })
}

fn acts(bits: u32) -> Acts {
    const ACTS: [(u32, Acts); 5] = [
        (mask::ACCESS, Acts::READ),
        (mask::MODIFY, Acts::WRITE),
        (mask::OPEN, Acts::OPEN),
        (mask::CLOSE_NOWRITE, Acts::CLOSE_READER),
        (mask::CLOSE_WRITE, Acts::CLOSE_WRITER),
    ];
    let those = ACTS.iter().filter(|(bit, _)| bits & bit != 0);
    those.fold(Acts::NONE, |all, (_, act)| all | *act)
}

fn changes(bits: u32) -> Changes {
    const CHANGES: [(u32, Changes); 6] = [
        (mask::CREATE, Changes::MADE),
        (mask::DELETE, Changes::REMOVED),
        (mask::MOVED_FROM, Changes::MOVED),
        (mask::MOVED_TO, Changes::MOVED),
        (mask::DELETE_SELF, Changes::DELETED),
        (mask::ATTRIB, Changes::METADATA),
    ];
    let those = CHANGES.iter().filter(|(bit, _)| bits & bit != 0);
    those.fold(Changes::default(), |all, (_, change)| all | *change)
}

fn by_descriptor(of: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", of.as_raw_fd()))
}

/// Watches as a [`crate::tree::Tree`] asks for them.
#[derive(Debug)]
pub(super) struct Trees(pub Arc<Watches>);

impl Marking for Trees {
    fn mark_dir(&self, ino: Inode, dir: BorrowedFd<'_>) -> io::Result<()> {
        // This link leads to what is open, and to nothing else.
        let flags = USES | NAMES | WatchFlags::ONLYDIR;
        self.0.add(ino, &by_descriptor(dir), flags)
    }

    fn mark_file(&self, ino: Inode, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let path = by_descriptor(dir).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let flags = USES | WatchFlags::ATTRIB | WatchFlags::DONT_FOLLOW;
        self.0.add(ino, &path, flags)
    }

    fn marks_max(&self) -> Option<u64> {
        fanotify::least(&WATCHES_MAX)
    }

    fn limit(&self) -> &'static str {
        "fs.inotify.max_user_watches"
    }
}
