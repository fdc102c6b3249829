//! What of a volume is in use by mounts, in every mount namespace of the host.
//!
//! `rmdir(2)`, `unlink(2)` and `rename(2)` refuse a mount point of the own namespace only: one of another namespace (a container, a batch
//! job) is detached without a word, and its job loses what was mounted there. What is itself mounted elsewhere (a `subPath` of Kubernetes)
//! is in use as well. No event tells of either, so the tables of mounts of all processes are read, one table for each namespace.
//!
//! ```text
//! NS_MNT_GET_NEXT       which namespaces there are; where the kernel tells it, processes are listed for new ones only
//! /proc/PID/ns/mnt      which namespace; where that is not allowed, the first mount of the table tells it
//! /proc/PID/mountinfo   its mounts -> paths in the file system -> inodes of the volume
//! ```
//! In a user namespace of their own users mount what they can find, also other users' files that they cannot even read. What they mount there
//! counts if it is theirs. That another user's file is really used is seen when it is opened.
//!
//! Users make namespaces and mounts as they like. So the memory and the time for those of a user are bounded, and each user has a share of
//! its own: what is beyond it is counted as not seen. A table that takes long is read again later than one that does not.
//!
//! Not seen: a namespace in which no process lives, one of a single thread, and all others where the agent has a process namespace of its own.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Watched;
use purge_base::accounts::Persons;
use purge_model::Inode;
use purge_sys::namespaces::{self, Namespace};
use purge_sys::stat::Device;
use purge_sys::{beneath, mountinfo, stat, time};

/// Of a user's table so much is read.
const USER_TABLE_BYTES: u64 = 16 << 20;
/// And of one of root's.
const ROOT_TABLE_BYTES: u64 = 256 << 20;
/// At most this number of namespaces of a user is looked at.
const USER_NAMESPACES: usize = 2048;
/// At most this number of inodes is kept of one namespace of a user; root's have no bound but their table's.
const USER_INODES: usize = 16 << 10;
/// And at most this number of all namespaces of a user.
const USER_INODES_TOTAL: usize = 64 << 10;
/// One look spends so long at most on the tables of one user, and on those of root.
const USER_TIME: Duration = Duration::from_millis(20);
const ROOT_TIME: Duration = Duration::from_millis(250);
/// One look spends so long at most on the tables of all users together, and no more than half of the time since the look before.
const USERS_TIME_MAX: Duration = Duration::from_millis(100);
const USERS_TIME_MIN: Duration = Duration::from_millis(10);
/// What took longer than this, in processor time, is not done again before [`REST`] times as long: the list of processes, tables of root, and
/// tables of users. What is cheaper is done with each look: a mount that was made before the look counts.
const CHEAP: Duration = Duration::from_millis(20);
const USER_CHEAP: Duration = Duration::from_millis(2);
const REST: u32 = 20;
/// The kernel is asked for no more namespaces than this: beyond it, listing the processes costs less.
const NAMESPACES_ASKED: usize = 2048;
/// Processes of one namespace whose tables are tried: one may end in this moment, or have another root.
const TRIED: usize = 4;
/// The kernel's number of the first process namespace.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What is in use by mounts.
#[derive(Debug, Default)]
pub struct InUse {
    inodes: Arc<FxHashSet<Inode>>,
    /// Namespaces that were looked at.
    pub namespaces: usize,
    /// Namespaces of which not everything is known: a user has made more than is looked at.
    pub unknown: usize,
    /// Why the tables cannot be read at all: then everything may be in use.
    pub failed: Option<String>,
    /// When the look began.
    began: Option<Instant>,
}

impl InUse {
    /// Whether an inode is a mount point, or is mounted elsewhere. Doubt counts as use.
    pub fn has(&self, ino: Inode) -> bool {
        self.failed.is_some() || self.inodes.contains(&ino)
    }

    /// All of them.
    ///
    /// # Errors
    /// When nothing is known.
    pub fn inodes(&self) -> io::Result<Arc<FxHashSet<Inode>>> {
        match &self.failed {
            Some(why) => Err(io::Error::other(format!(
                "the mounts of this host cannot be read: {why}"
            ))),
            None => Ok(Arc::clone(&self.inodes)),
        }
    }

    /// How many inodes are in use so.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }
}

/// Remembers what was seen, so that a look is cheap.
#[derive(Debug, Default)]
pub struct Mounted(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    spaces: FxHashMap<Key, Space>,
    /// When the processes were listed, and what that took.
    listed: Option<(Instant, Duration)>,
    /// The namespaces of these processes, by the kernel's numbers.
    covered: FxHashSet<u64>,
    /// Namespaces that were left out.
    unlisted: usize,
    last: Arc<InUse>,
}

/// What tells a namespace from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// Its number.
    Number(u64),
    /// Its first mount, as a process of it sees it.
    FirstMount(u64),
}

/// A namespace.
#[derive(Debug)]
struct Space {
    owner: u32,
    /// The user who made it, in a user namespace. None: root, or not known.
    maker: Option<u32>,
    processes: Vec<u32>,
    /// When its table was read, and what that took.
    read: Option<(Instant, Duration)>,
    inodes: Vec<Inode>,
    whole: bool,
    /// No process of it that is known has a table with all of its mounts.
    wants_process: bool,
}

impl Space {
    fn is_due(&self, now: Instant) -> bool {
        let cheap = if self.owner == 0 { CHEAP } else { USER_CHEAP };
        self.read.is_none_or(|last| is_due(last, cheap, now))
    }
}

fn is_due((at, took): (Instant, Duration), cheap: Duration, now: Instant) -> bool {
    took <= cheap || now.saturating_duration_since(at) >= took.saturating_mul(REST)
}

impl Mounted {
    /// What is in use now: no look that began before `since` will do.
    pub fn look(&self, watched: &Watched, since: Instant) -> Arc<InUse> {
        let mut state = self.0.lock();
        if state.last.began.is_some_and(|began| began >= since) {
            return Arc::clone(&state.last);
        }
        let began = Instant::now();
        let found = match state.look(watched, began) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(volume = %watched.path.display(), %error,
                    "the mounts of this host cannot be read: everything counts as in use by one");
                InUse {
                    failed: Some(error.to_string()),
                    ..InUse::default()
                }
            }
        };
        state.last = Arc::new(InUse {
            began: Some(began),
            ..found
        });
        Arc::clone(&state.last)
    }

    /// What was in use some seconds ago, for a question.
    pub fn lately(&self, watched: &Watched) -> Arc<InUse> {
        const LATELY: Duration = Duration::from_secs(5);
        let now = Instant::now();
        self.look(watched, now.checked_sub(LATELY).unwrap_or(now))
    }

    /// What was seen last.
    pub fn last(&self) -> Arc<InUse> {
        Arc::clone(&self.0.lock().last)
    }
}

/// Whether the agent sees the processes of the whole host: in a process namespace of its own it does not.
pub fn sees_all_processes() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST_PID_NAMESPACE)
}

/// The volume in the file system that it lies on.
struct Top<'w> {
    root: OwnedFd,
    device: Vec<u8>,
    path: Vec<u8>,
    watched: &'w Watched,
    /// The namespace that the agent is in, and its table.
    own: Option<Key>,
    table: Vec<u8>,
    is_whole: bool,
    persons: OnceCell<Persons>,
}

impl<'w> Top<'w> {
    fn of(watched: &'w Watched) -> io::Result<Self> {
        let root = watched.open_root()?;
        let id = stat::mount_id(&root)?;
        let (table, is_whole) = mountinfo::read(Path::new("/proc/self/mountinfo"), ROOT_TABLE_BYTES)?;
        let unlisted = || io::Error::other("/proc/self/mountinfo does not list the volume's mount");
        let mount = mountinfo::find(&table, id).ok_or_else(unlisted)?;
        let volume = watched.path.as_os_str().as_bytes();
        let point = mount.point();
        // By another way (a link above it) the volume has another path than its mount: what lies at the top is meant then.
        let below = mountinfo::below(volume, &point).unwrap_or_default();
        Ok(Self {
            root,
            device: mount.device.to_vec(),
            path: mountinfo::join(&mount.root(), below),
            watched,
            own: namespace_of(std::process::id()),
            table,
            is_whole,
            persons: OnceCell::new(),
        })
    }

    /// The table of the agent's own namespace, unless it has another root than that.
    fn own_table(&self, key: Key) -> Option<&[u8]> {
        let is_own = self.is_whole && self.own == Some(key);
        (is_own && mountinfo::unplaced(&self.table) == 0).then_some(&self.table)
    }

    /// The inodes of a table that are in use: only those of one user, if there is one.
    fn inodes(&self, table: &[u8], max: usize, of: Option<u32>) -> (Vec<Inode>, bool) {
        let persons = of.map(|uid| (self.persons.get_or_init(Persons::of_host), uid));
        let found = mountinfo::in_use(table, &self.device, &self.path).paths;
        let whole = found.len() <= max;
        let inode = |path: &Vec<u8>| {
            // What is a mount point here as well is kept by the kernel, and cannot be opened.
            let entry = stat::open_file(beneath::open_entry(&self.root, path).ok()?).ok()?;
            let is_of_volume = |device: Device| device == self.watched.device;
            let is_theirs =
                persons.is_none_or(|(persons, uid)| persons.of(entry.stat.uid) == persons.of(uid));
            (is_of_volume(entry.device) && is_theirs).then_some(entry.stat.ino)
        };
        (found.iter().take(max).filter_map(inode).collect(), whole)
    }
}

impl State {
    fn look(&mut self, watched: &Watched, began: Instant) -> io::Result<InUse> {
        let namespaces = namespaces::all(NAMESPACES_ASKED).ok();
        let mut is_listed = !namespaces.as_ref().is_some_and(|now| self.covers(now));
        if is_listed {
            self.list_if_due(namespaces.as_deref(), began)?;
        }
        let top = Top::of(watched)?;
        self.read_tables(&top, began);
        // The processes that were known have ended: another one of the namespace has the table.
        if !is_listed && self.spaces.values().any(|space| space.wants_process) {
            is_listed = true;
            self.list_if_due(namespaces.as_deref(), began)?;
            self.read_tables(&top, began);
        }
        tracing::trace!(is_listed, namespaces = self.spaces.len(), "looked at the mounts");
        let mut found = InUse {
            namespaces: self.spaces.len(),
            unknown: self.unlisted,
            ..InUse::default()
        };
        let mut of_owner: FxHashMap<u32, usize> = FxHashMap::default();
        let mut inodes = FxHashSet::default();
        for space in self.spaces.values() {
            let total = of_owner.entry(space.owner).or_default();
            *total = total.saturating_add(space.inodes.len());
            let fits = space.owner == 0 || *total <= USER_INODES_TOTAL;
            if fits {
                inodes.extend(&space.inodes);
            }
            found.unknown += usize::from(!space.whole || !fits || space.read.is_none());
        }
        found.inodes = Arc::new(inodes);
        Ok(found)
    }

    /// Whether processes of all these namespaces are known. One that holds no more than its root has nothing mounted on the volume; any other
    /// without a process, which keeps its mounts, may be joined by one at any time.
    fn covers(&self, now: &[Namespace]) -> bool {
        now.iter()
            .all(|namespace| namespace.mounts <= 1 || self.covered.contains(&namespace.id))
    }

    /// Finds the namespaces of all processes, unless that took long a short time ago. `before` were there when this began.
    fn list_if_due(&mut self, before: Option<&[Namespace]>, began: Instant) -> io::Result<()> {
        if !self.listed.is_none_or(|last| is_due(last, CHEAP, began)) {
            return Ok(());
        }
        let start = time::of_this_thread();
        self.unlisted = self.list()?;
        self.listed = Some((began, time::of_this_thread().saturating_sub(start)));
        let spaces = &self.spaces;
        let before = before.unwrap_or_default().iter();
        let covered = before.filter(|n| spaces.contains_key(&Key::Number(n.number)));
        self.covered = covered.map(|namespace| namespace.id).collect();
        Ok(())
    }

    /// Finds the namespaces of all processes. Returns how many were left out.
    fn list(&mut self) -> io::Result<usize> {
        for space in self.spaces.values_mut() {
            space.processes.clear();
        }
        let mut of_owner: FxHashMap<u32, usize> = FxHashMap::default();
        for space in self.spaces.values() {
            *of_owner.entry(space.owner).or_default() += 1;
        }
        let mut left_out = FxHashSet::default();
        for process in fs::read_dir("/proc")? {
            let name = process?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process that has ended has no namespace.
            let Some(key) = namespace_of(id) else { continue };
            match self.spaces.entry(key) {
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    if known.processes.len() < TRIED {
                        known.processes.push(id);
                    }
                }
                Entry::Vacant(new) => {
                    let Ok(owner) = fs::metadata(format!("/proc/{id}")).map(|dir| dir.uid()) else {
                        continue;
                    };
                    let number = of_owner.entry(owner).or_default();
                    if owner != 0 && *number >= USER_NAMESPACES {
                        left_out.insert(key);
                        continue;
                    }
                    *number += 1;
                    new.insert(Space {
                        owner,
                        maker: namespaces::maker(id).unwrap_or_default().filter(|uid| *uid != 0),
                        processes: vec![id],
                        read: None,
                        inodes: Vec::new(),
                        whole: false,
                        wants_process: false,
                    });
                }
            }
        }
        self.spaces.retain(|_, space| !space.processes.is_empty());
        Ok(left_out.len())
    }

    /// Reads the tables that are due, those that were read longest ago first, as far as the time of their owners goes.
    fn read_tables(&mut self, top: &Top<'_>, began: Instant) {
        let since = self
            .last
            .began
            .map_or(USERS_TIME_MAX, |last| began.saturating_duration_since(last));
        let mut users_left = (since / 2).clamp(USERS_TIME_MIN, USERS_TIME_MAX);
        let mut left: FxHashMap<u32, Duration> = FxHashMap::default();
        let mut due: Vec<(Option<Instant>, Key)> = Vec::new();
        for (key, space) in &self.spaces {
            if space.is_due(began) {
                due.push((space.read.map(|(at, _)| at), *key));
            }
        }
        due.sort_unstable();
        for (_, key) in due {
            let Some(space) = self.spaces.get_mut(&key) else {
                continue;
            };
            let is_roots = space.owner == 0;
            let own = left.entry(space.owner).or_insert(match is_roots {
                true => ROOT_TIME,
                false => USER_TIME,
            });
            if own.is_zero() || (!is_roots && users_left.is_zero()) {
                continue;
            }
            let (start, before) = (Instant::now(), time::of_this_thread());
            space.read_table(top, key);
            let took = time::of_this_thread().saturating_sub(before);
            space.read = Some((start, took));
            *own = own.saturating_sub(took);
            if !is_roots {
                users_left = users_left.saturating_sub(took);
            }
        }
    }
}

impl Space {
    /// What was known stays where no process of it can be asked any more.
    fn read_table(&mut self, top: &Top<'_>, key: Key) {
        if let Some(table) = top.own_table(key) {
            let (found, all) = top.inodes(table, usize::MAX, None);
            (self.inodes, self.whole, self.wants_process) = (found, all, false);
            return;
        }
        let (bytes, inodes) = match self.owner {
            0 => (ROOT_TABLE_BYTES, usize::MAX),
            _ => (USER_TABLE_BYTES, USER_INODES),
        };
        match self.best_table(key, bytes) {
            Some((unplaced, table, whole)) => {
                let (found, all) = top.inodes(&table, inodes, self.maker);
                (self.inodes, self.whole) = (found, whole && all && unplaced == 0);
                self.wants_process = unplaced > 0;
            }
            None => (self.whole, self.wants_process) = (false, true),
        }
    }

    /// The table of the process that sees most of the namespace: how many mounts it cannot place, and whether that is all of it.
    fn best_table(&self, key: Key, bytes: u64) -> Option<(usize, Vec<u8>, bool)> {
        let mut best: Option<(usize, Vec<u8>, bool)> = None;
        for process in &self.processes {
            let path = PathBuf::from(format!("/proc/{process}/mountinfo"));
            let Ok((table, whole)) = mountinfo::read(&path, bytes) else {
                continue;
            };
            // Its number may be that of another process by now, or it may have left the namespace.
            if namespace_of(*process) != Some(key) {
                continue;
            }
            let unplaced = mountinfo::unplaced(&table);
            if !table.is_empty() && best.as_ref().is_none_or(|(least, ..)| unplaced < *least) {
                best = Some((unplaced, table, whole));
            }
            if best.as_ref().is_some_and(|(least, ..)| *least == 0) {
                break;
            }
        }
        best
    }
}

/// The mount namespace of a process. Without CAP_SYS_PTRACE its number is not told of others' processes.
pub(super) fn namespace_of(process: u32) -> Option<Key> {
    match fs::read_link(format!("/proc/{process}/ns/mnt")) {
        Ok(link) => {
            let link = link.to_str()?.strip_prefix("mnt:[")?;
            Some(Key::Number(link.strip_suffix(']')?.parse().ok()?))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // The kernel fills no more than a page for it.
            const FIRST_LINES: u64 = 1024;
            let path = PathBuf::from(format!("/proc/{process}/mountinfo"));
            let (table, _) = mountinfo::read(&path, FIRST_LINES).ok()?;
            let first = mountinfo::lines(&table).next()?;
            Some(Key::FirstMount(first.id))
        }
        Err(_) => None,
    }
}
