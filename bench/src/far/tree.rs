//! The files of a far server, in memory.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use parking_lot::Mutex;

/// The root's inode.
pub const ROOT: u64 = 1;

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A file.
    File(Vec<u8>),
    /// A file of which only the size is known.
    Size(u64),
    /// A directory: entries in the order in which they were made.
    Dir(BTreeMap<u64, (Vec<u8>, u64)>, HashMap<Vec<u8>, u64>),
    /// A symbolic link.
    Link(Vec<u8>),
}

/// A file or directory.
#[derive(Debug, Clone)]
pub struct Node {
    pub content: Content,
    pub parent: u64,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
}

impl Node {
    pub fn new(content: Content, parent: u64, mode: u16, at: SystemTime) -> Self {
        Self {
            content,
            parent,
            mode,
            uid: 0,
            gid: 0,
            links: 1,
            atime: at,
            mtime: at,
            ctime: at,
        }
    }

    pub fn dir(parent: u64, mode: u16, at: SystemTime) -> Self {
        Self::new(Content::Dir(BTreeMap::new(), HashMap::new()), parent, mode, at)
    }

    pub fn size(&self) -> u64 {
        match &self.content {
            Content::File(bytes) | Content::Link(bytes) => bytes.len() as u64,
            Content::Size(bytes) => *bytes,
            Content::Dir(..) => 4096,
        }
    }
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    pub all: HashMap<u64, Node>,
    next: u64,
}

impl Nodes {
    /// The inode of a name.
    pub fn find(&self, dir: u64, name: &[u8]) -> Option<u64> {
        match &self.all.get(&dir)?.content {
            Content::Dir(entries, names) => Some(entries.get(names.get(name)?)?.1),
            _ => None,
        }
    }

    /// Gives an inode a name; false if it is taken, or there is no such directory.
    pub fn name(&mut self, dir: u64, name: &[u8], ino: u64) -> bool {
        self.next += 1;
        let cookie = self.next;
        let Some(Node {
            content: Content::Dir(entries, names),
            ..
        }) = self.all.get_mut(&dir)
        else {
            return false;
        };
        if names.contains_key(name) {
            return false;
        }
        names.insert(name.to_vec(), cookie);
        entries.insert(cookie, (name.to_vec(), ino));
        true
    }

    /// Takes a name away.
    pub fn unname(&mut self, dir: u64, name: &[u8]) -> Option<u64> {
        let Node {
            content: Content::Dir(entries, names),
            ..
        } = self.all.get_mut(&dir)?
        else {
            return None;
        };
        Some(entries.remove(&names.remove(name)?)?.1)
    }

    /// Adds a node with a name.
    pub fn add(&mut self, dir: u64, name: &[u8], node: Node) -> Option<u64> {
        self.next += 1;
        let ino = self.next;
        if !self.name(dir, name, ino) {
            return None;
        }
        self.all.insert(ino, node);
        Some(ino)
    }
}

/// The same for several threads.
#[derive(Debug)]
pub struct Tree(pub Mutex<Nodes>);

impl Tree {
    pub fn new() -> Self {
        let root = Node::dir(ROOT, 0o777, SystemTime::now());
        Self(Mutex::new(Nodes {
            all: HashMap::from([(ROOT, root)]),
            next: 100,
        }))
    }

    pub fn make(&self, path: &str, bytes: u64, used: SystemTime) {
        let mut nodes = self.0.lock();
        let mut at = ROOT;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let found = nodes.find(at, part.as_bytes());
            let mut made = |nodes: &mut Nodes| match parts.peek() {
                Some(_) => nodes.add(at, part.as_bytes(), Node::dir(at, 0o777, used)),
                None => nodes.add(
                    at,
                    part.as_bytes(),
                    Node::new(Content::Size(bytes), at, 0o666, used),
                ),
            };
            at = found.or_else(|| made(&mut nodes)).unwrap_or(ROOT);
        }
    }

    pub fn files(&self) -> usize {
        let nodes = self.0.lock();
        let is_file = |node: &&Node| matches!(node.content, Content::File(_) | Content::Size(_));
        nodes.all.values().filter(is_file).count()
    }

    pub fn has(&self, path: &str) -> bool {
        let nodes = self.0.lock();
        let mut parts = path.split('/');
        parts
            .try_fold(ROOT, |at, part| nodes.find(at, part.as_bytes()))
            .is_some()
    }
}
