//! What answers the kernel.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::{Condvar, Mutex};

use super::tree::{Content, Node, Nodes, Tree};
use super::{Atimes, Like};

/// The kernel believes entries and attributes for so long.
const TTL: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was asked.
#[derive(Debug, Default)]
pub struct Requests {
    /// Names.
    pub lookups: AtomicU64,
    /// Attributes.
    pub getattrs: AtomicU64,
    /// Parts of listings.
    pub listings: AtomicU64,
    /// Opened files.
    pub opens: AtomicU64,
    /// Removed names of files.
    pub unlinks: AtomicU64,
    /// Names that were given to other places.
    pub renames: AtomicU64,
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

type Answer = Box<dyn FnOnce() + Send>;

/// Whether it answers, and what it has not answered meanwhile.
#[derive(Default)]
pub struct Gate(Mutex<Option<Vec<Answer>>>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gate").field(&self.0.lock().is_some()).finish()
    }
}

impl Gate {
    /// Answers no more from now on, or again.
    pub fn answer(&self, answers: bool) {
        let held = match answers {
            true => self.0.lock().take(),
            false => self.0.lock().replace(Vec::new()),
        };
        held.into_iter().flatten().for_each(|answer| answer());
    }

    fn pass(&self, answer: Answer) -> Option<Answer> {
        match &mut *self.0.lock() {
            Some(held) => {
                held.push(answer);
                None
            }
            None => Some(answer),
        }
    }
}

/// Answers that are due later, in the order in which they are: each waits for as long as the others.
#[derive(Default)]
struct Late {
    due: Mutex<VecDeque<(Instant, Answer)>>,
    more: Condvar,
}

impl Late {
    fn add(&self, at: Instant, answer: Answer) {
        let mut due = self.due.lock();
        let is_first = due.is_empty();
        due.push_back((at, answer));
        drop(due);
        // To wake it for each would take a processor that those who are measured need.
        if is_first {
            self.more.notify_one();
        }
    }

    /// Answers when the time has come: all that are due by then, so that the lock is not taken for each.
    fn answer_all(&self) {
        let mut now = Vec::new();
        loop {
            let mut due = self.due.lock();
            let at = Instant::now();
            match due.front().map(|first| first.0) {
                None => self.more.wait(&mut due),
                Some(first) if first > at => drop(self.more.wait_for(&mut due, first - at)),
                Some(_) => {
                    let count = due.iter().take_while(|(first, _)| *first <= at).count();
                    now.extend(due.drain(..count).map(|(_, answer)| answer));
                    drop(due);
                    now.drain(..).for_each(|answer| answer());
                }
            }
        }
    }
}

pub struct Server {
    tree: Arc<Tree>,
    requests: Arc<Requests>,
    like: Like,
    late: Arc<Late>,
    gate: Arc<Gate>,
}

impl Server {
    pub fn new(tree: Arc<Tree>, requests: Arc<Requests>, gate: Arc<Gate>, like: Like) -> Self {
        let late = Arc::new(Late::default());
        if !like.delay.is_zero() {
            let late = Arc::clone(&late);
            std::thread::spawn(move || late.answer_all());
        }
        Self {
            tree,
            requests,
            like,
            late,
            gate,
        }
    }

    fn later(&self, answer: impl FnOnce() + Send + 'static) {
        let Some(answer) = self.gate.pass(Box::new(answer)) else {
            return;
        };
        if self.like.delay.is_zero() {
            return answer();
        }
        self.late.add(Instant::now() + self.like.delay, answer);
    }

    fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        let nodes = self.tree.0.lock();
        nodes
            .all
            .get(&ino)
            .map(|node| attr(ino, node))
            .ok_or(Errno::ENOENT)
    }

    fn entry(&self, found: Result<FileAttr, Errno>, reply: ReplyEntry) {
        self.later(move || match found {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        });
    }

    fn done(&self, done: Result<(), Errno>, reply: ReplyEmpty) {
        self.later(move || match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        });
    }

    fn make(&self, req: &Request, parent: u64, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        let now = SystemTime::now();
        let mut nodes = self.tree.0.lock();
        let node = Node {
            uid: req.uid(),
            gid: req.gid(),
            ..node
        };
        let ino = nodes.add(parent, name.as_bytes(), node).ok_or(Errno::EEXIST)?;
        touch(&mut nodes, parent, now);
        nodes
            .all
            .get(&ino)
            .map(|node| attr(ino, node))
            .ok_or(Errno::ENOENT)
    }

    fn remove(&self, parent: u64, name: &OsStr, is_dir: bool) -> Result<(), Errno> {
        let mut nodes = self.tree.0.lock();
        let ino = nodes.find(parent, name.as_bytes()).ok_or(Errno::ENOENT)?;
        let node = nodes.all.get(&ino).ok_or(Errno::ENOENT)?;
        match (&node.content, is_dir) {
            (Content::Dir(entries, _), true) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (Content::Dir(..), false) => return Err(Errno::EISDIR),
            (Content::Dir(..), true) => {}
            (_, true) => return Err(Errno::ENOTDIR),
            (_, false) => {}
        }
        nodes.unname(parent, name.as_bytes());
        let now = SystemTime::now();
        touch(&mut nodes, parent, now);
        drop_name(&mut nodes, ino, now);
        Ok(())
    }

    fn read_moves(&self, node: &mut Node, now: SystemTime) {
        let moves = match self.like.atimes {
            Atimes::Off => false,
            Atimes::Strict => true,
            Atimes::Relative => {
                let is_old = now.duration_since(node.atime).is_ok_and(|age| age >= DAY);
                node.atime <= node.mtime || node.atime <= node.ctime || is_old
            }
        };
        if moves {
            node.atime = now;
        }
    }
}

fn touch(nodes: &mut Nodes, dir: u64, now: SystemTime) {
    if let Some(dir) = nodes.all.get_mut(&dir) {
        (dir.mtime, dir.ctime) = (now, now);
    }
}

fn drop_name(nodes: &mut Nodes, ino: u64, now: SystemTime) {
    if let Some(node) = nodes.all.get_mut(&ino) {
        node.links = node.links.saturating_sub(1);
        node.ctime = now;
        if node.links == 0 {
            nodes.all.remove(&ino);
        }
    }
}

fn attr(ino: u64, node: &Node) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: node.size(),
        blocks: node.size().div_ceil(512),
        atime: node.atime,
        mtime: node.mtime,
        ctime: node.ctime,
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(node),
        perm: node.mode,
        nlink: node.links,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(node: &Node) -> FileType {
    match node.content {
        Content::Dir(..) => FileType::Directory,
        Content::Link(_) => FileType::Symlink,
        _ => FileType::RegularFile,
    }
}

fn moment(at: TimeOrNow) -> SystemTime {
    match at {
        TimeOrNow::SpecificTime(at) => at,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS;
        if self.like.plus {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS;
        }
        for one in wanted.iter() {
            let _ = config.add_capabilities(one);
        }
        let _ = config.set_max_background(1024);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        one(&self.requests.lookups);
        let found = self.tree.0.lock().find(parent.0, name.as_bytes());
        self.entry(found.ok_or(Errno::ENOENT).and_then(|ino| self.attr(ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        one(&self.requests.getattrs);
        let found = self.attr(ino.0);
        self.later(move || match found {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut nodes = self.tree.0.lock();
        let now = SystemTime::now();
        let Some(node) = nodes.all.get_mut(&ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        node.mode = mode.map_or(node.mode, |mode| (mode & 0o7777) as u16);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        if let Some(size) = size {
            node.content = match &node.content {
                Content::File(bytes) => {
                    let mut bytes = bytes.clone();
                    bytes.resize(usize::try_from(size).unwrap_or(0), 0);
                    Content::File(bytes)
                }
                _ => Content::Size(size),
            };
            node.mtime = now;
        }
        node.atime = atime.map_or(node.atime, moment);
        node.mtime = mtime.map_or(node.mtime, moment);
        node.ctime = now;
        let attr = attr(ino.0, node);
        drop(nodes);
        self.later(move || reply.attr(&TTL, &attr));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let nodes = self.tree.0.lock();
        match nodes.all.get(&ino.0).map(|node| &node.content) {
            Some(Content::Link(to)) => reply.data(to),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mode = (mode & !umask & 0o7777) as u16;
        let made = self.make(req, parent.0, name, Node::dir(parent.0, mode, SystemTime::now()));
        self.entry(made, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, to: &std::path::Path, reply: ReplyEntry) {
        let content = Content::Link(to.as_os_str().as_bytes().to_vec());
        let node = Node::new(content, parent.0, 0o777, SystemTime::now());
        let made = self.make(req, parent.0, name, node);
        self.entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        one(&self.requests.unlinks);
        self.done(self.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(self.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        as_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        one(&self.requests.renames);
        let (from, to) = ((parent.0, name.as_bytes()), (to.0, as_name.as_bytes()));
        let done = rename(&mut self.tree.0.lock(), from, to, flags.bits());
        self.done(done, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut nodes = self.tree.0.lock();
        let named = nodes.name(parent.0, name.as_bytes(), ino.0);
        if let Some(node) = nodes.all.get_mut(&ino.0).filter(|_| named) {
            node.links += 1;
            node.ctime = SystemTime::now();
        }
        drop(nodes);
        let made = match named {
            true => self.attr(ino.0),
            false => Err(Errno::EEXIST),
        };
        self.entry(made, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        one(&self.requests.opens);
        self.later(move || reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mode = (mode & !umask & 0o7777) as u16;
        let node = Node::new(Content::File(Vec::new()), parent.0, mode, SystemTime::now());
        let made = self.make(req, parent.0, name, node);
        self.later(move || match made {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut nodes = self.tree.0.lock();
        let Some(node) = nodes.all.get_mut(&ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        self.read_moves(node, SystemTime::now());
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = match &node.content {
            Content::File(bytes) => bytes.iter().copied().skip(begin).take(size as usize).collect(),
            Content::Size(all) => {
                let left = all.saturating_sub(offset).min(size.into());
                vec![0; usize::try_from(left).unwrap_or(0)]
            }
            _ => Vec::new(),
        };
        drop(nodes);
        self.later(move || reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut nodes = self.tree.0.lock();
        let Some(node) = nodes.all.get_mut(&ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        let mut bytes = match &node.content {
            Content::File(bytes) => bytes.clone(),
            _ => vec![0; usize::try_from(node.size()).unwrap_or(0)],
        };
        let begin = usize::try_from(offset).unwrap_or(0);
        bytes.resize(bytes.len().max(begin + data.len()), 0);
        if let Some(place) = bytes.get_mut(begin..begin + data.len()) {
            place.copy_from_slice(data);
        }
        node.content = Content::File(bytes);
        let now = SystemTime::now();
        (node.mtime, node.ctime) = (now, now);
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        drop(nodes);
        self.later(move || reply.written(written));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        one(&self.requests.listings);
        {
            let nodes = self.tree.0.lock();
            for (cookie, name, of, node) in listed(&nodes, ino.0, offset) {
                if reply.add(INodeNo(of), cookie, kind(node), OsStr::from_bytes(name)) {
                    break;
                }
            }
        }
        self.later(move || reply.ok());
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        one(&self.requests.listings);
        {
            let nodes = self.tree.0.lock();
            for (cookie, name, of, node) in listed(&nodes, ino.0, offset) {
                let name = OsStr::from_bytes(name);
                if reply.add(INodeNo(of), cookie, name, &TTL, &attr(of, node), Generation(0)) {
                    break;
                }
            }
        }
        self.later(move || reply.ok());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.later(move || reply.statfs(1 << 30, 1 << 29, 1 << 29, 1 << 30, 1 << 29, 4096, 255, 4096));
    }
}

/// The entries of a directory behind an offset: cookie, name, inode, node.
fn listed(nodes: &Nodes, dir: u64, offset: u64) -> impl Iterator<Item = (u64, &[u8], u64, &Node)> {
    let entries = match nodes.all.get(&dir).map(|node| &node.content) {
        Some(Content::Dir(entries, _)) => Some(entries.range(offset + 1..)),
        _ => None,
    };
    entries
        .into_iter()
        .flatten()
        .filter_map(|(cookie, (name, ino))| Some((*cookie, name.as_slice(), *ino, nodes.all.get(ino)?)))
}

fn rename(nodes: &mut Nodes, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<(), Errno> {
    const NOREPLACE: u32 = 1;
    if flags & !NOREPLACE != 0 {
        return Err(Errno::EINVAL);
    }
    let now = SystemTime::now();
    let ino = nodes.find(from.0, from.1).ok_or(Errno::ENOENT)?;
    if let Some(there) = nodes.find(to.0, to.1) {
        if flags & NOREPLACE != 0 {
            return Err(Errno::EEXIST);
        }
        nodes.unname(to.0, to.1);
        drop_name(nodes, there, now);
    }
    nodes.unname(from.0, from.1);
    nodes.name(to.0, to.1, ino);
    touch(nodes, from.0, now);
    touch(nodes, to.0, now);
    if let Some(node) = nodes.all.get_mut(&ino) {
        (node.parent, node.ctime) = (to.0, now);
    }
    Ok(())
}
