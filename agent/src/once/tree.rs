//! The directories that the scan has met, and what it found to be removed in them. Paths are not kept: a directory knows the one above it.

use std::ffi::CStr;

use purge_model::Inode;
use purge_sys::exact::Moment;

/// A directory of the tree.
pub(super) type DirNo = u32;

/// The volume's root.
pub(super) const ROOT: DirNo = 0;

/// One directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub above: DirNo,
    pub depth: u32,
    pub name: Box<[u8]>,
    pub ino: Inode,
    pub ctime: Moment,
    /// Something in it stays, it is young, or it could not be read.
    pub stays: bool,
    /// Something in it was removed.
    pub changed: bool,
}

/// All of them; those above come before those below.
#[derive(Debug)]
pub(super) struct Tree(pub Vec<Dir>);

impl Tree {
    /// The path below the root; empty: the root itself.
    pub fn path(&self, dir: DirNo) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = dir;
        while at != ROOT
            && let Some(entry) = self.0.get(at as usize)
        {
            names.push(&entry.name);
            at = entry.above;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The path of an entry, for people.
    pub fn path_of(&self, dir: DirNo, name: &CStr) -> Vec<u8> {
        let mut path = self.path(dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        path
    }

    /// Something in it stays.
    pub fn keep(&mut self, dir: DirNo) {
        if let Some(entry) = self.0.get_mut(dir as usize) {
            entry.stays = true;
        }
    }
}

/// A file that is to be removed, as the scan saw it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub ino: Inode,
    pub size: u64,
    pub mtime: Moment,
    pub ctime: Moment,
    pub links: u32,
    /// Where its name ends; it begins where the one before ends, and has a NUL at its end.
    pub name_end: u32,
}

/// Files of one directory.
#[derive(Debug)]
pub(super) struct Part {
    pub dir: DirNo,
    pub items: Vec<Item>,
    pub names: Vec<u8>,
}

impl Part {
    pub fn of(dir: DirNo) -> Self {
        Self {
            dir,
            items: Vec::new(),
            names: Vec::new(),
        }
    }

    /// A file and its name.
    pub fn get(&self, at: usize) -> Option<(Item, &CStr)> {
        let item = *self.items.get(at)?;
        let before = at.checked_sub(1).and_then(|n| self.items.get(n));
        let begin = before.map_or(0, |item| item.name_end as usize);
        let name = self.names.get(begin..item.name_end as usize)?;
        Some((item, CStr::from_bytes_with_nul(name).ok()?))
    }

    /// More files of the same directory.
    pub fn take_in(&mut self, more: Self) {
        let before = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.extend(more.names);
        self.items.extend(more.items.into_iter().map(|item| Item {
            name_end: item.name_end.saturating_add(before),
            ..item
        }));
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        let items = self.items.len().saturating_mul(size_of::<Item>());
        items
            .saturating_add(self.names.len())
            .saturating_add(size_of::<Self>())
    }
}
