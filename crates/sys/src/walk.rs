//! Walks a tree of directories to any depth with a bounded number of descriptors, a bounded amount of memory for names, and without
//! recursion: what lies below is made by users.
//!
//! ```text
//!   enter a            parent and name are known, `a` is open
//!     meet a/file      everything in it that is no directory, first
//!     enter a/sub
//!     leave a/sub      its content was visited; its parent is open again
//!   leave a
//! ```
//! Only the deepest [`OPEN_MAX`] directories are open. On the way back one that was closed is reached by `..` of its child, and must be the
//! directory that it was: users may move directories while the walk goes on. No link is followed and no mount is entered (`openat2(2)`).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, RawDir, SeekFrom};

use super::{beneath, inside, stat};
use purge_model::{Inode, Kind};

/// Directories that are open at a time.
pub const OPEN_MAX: usize = 16;
/// Names of directories that are kept of each open directory; the others are listed when these were visited.
const NAMES_MAX: usize = 1024;
/// What one call lists.
const BUFFER_BYTES: usize = 16 << 10;

/// What a directory says of an entry.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: CString,
    /// Its inode.
    pub ino: Inode,
    /// What it is.
    pub kind: Kind,
}

/// Is told what a walk meets.
pub trait Visitor {
    /// Ends the walk.
    type Stop: From<io::Error>;

    /// The directory `name` of `parent` is open. False: it is passed over, and not left.
    ///
    /// # Errors
    /// Ends the walk.
    fn enter(&mut self, parent: &OwnedFd, name: &CStr, dir: &OwnedFd) -> Result<bool, Self::Stop>;

    /// `dir` has an entry that is no directory.
    ///
    /// # Errors
    /// Ends the walk.
    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> Result<(), Self::Stop>;

    /// Everything in the directory `name` of `parent` was visited.
    ///
    /// # Errors
    /// Ends the walk.
    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Self::Stop>;

    /// The directory `name` of `parent` cannot be opened or listed.
    ///
    /// # Errors
    /// Ends the walk; this is what happens unless a visitor does otherwise.
    fn refused(&mut self, parent: &OwnedFd, name: &CStr, error: io::Error) -> Result<(), Self::Stop> {
        let _ = (parent, name);
        Err(error.into())
    }
}

/// A directory that is being visited.
struct Level {
    name: CString,
    id: Id,
    /// None: it was closed, because too many below it are open.
    dir: Option<OwnedFd>,
    /// Directories in it that were not entered yet, the next one last, each with the position that follows it.
    below: Vec<(CString, u64)>,
    /// Where the list of directories goes on when those were visited; none: there are no more.
    more: Option<u64>,
    /// The position that follows the directory that is being visited below this one.
    at: u64,
}

/// What tells a directory from another.
type Id = (stat::Device, Inode);

/// Visits the directory `name` of `parent`, and everything below it.
///
/// # Errors
/// What the visitor says, or a directory that is not there any more on the way back (ESTALE).
pub fn walk<V: Visitor>(parent: &OwnedFd, name: &CStr, visitor: &mut V) -> Result<(), V::Stop> {
    let mut levels: Vec<Level> = Vec::new();
    if let Some(first) = enter(parent, name, visitor)? {
        levels.push(first);
    }
    while let Some(level) = levels.last_mut() {
        match next_below(level)? {
            Some(name) => {
                let dir = level.dir.as_ref().ok_or_else(stale)?;
                if let Some(below) = enter(dir, &name, visitor)? {
                    levels.push(below);
                    close_far(&mut levels);
                }
            }
            None => leave(parent, &mut levels, visitor)?,
        }
    }
    Ok(())
}

fn enter<V: Visitor>(parent: &OwnedFd, name: &CStr, visitor: &mut V) -> Result<Option<Level>, V::Stop> {
    let opened = beneath::open_dir(parent, name.to_bytes()).and_then(|dir| Ok((id(&dir)?, dir)));
    let (id, dir) = match opened {
        Ok(opened) => opened,
        Err(error) => return visitor.refused(parent, name, error).map(|()| None),
    };
    if !visitor.enter(parent, name, &dir)? {
        return Ok(None);
    }
    let mut level = Level {
        name: name.to_owned(),
        id,
        dir: None,
        below: Vec::new(),
        more: None,
        at: 0,
    };
    // What is no directory comes first: a visitor has to remember nothing of this directory while it is further down.
    let mut full_at: Option<u64> = None;
    let mut at = 0;
    loop {
        let part = match list_part(&dir, at) {
            Ok(part) => part,
            Err(error) => {
                visitor.refused(parent, name, error)?;
                break;
            }
        };
        let Some((_, last)) = part.last() else { break };
        at = *last;
        for (entry, after) in part {
            if entry.kind != Kind::Directory {
                visitor.meet(&dir, &entry)?;
            } else if level.below.len() < NAMES_MAX {
                level.below.push((entry.name, after));
            } else if full_at.is_none() {
                full_at = level.below.last().map(|(_, after)| *after);
            }
        }
    }
    level.more = full_at;
    level.below.reverse();
    level.dir = Some(dir);
    Ok(Some(level))
}

/// The next directory below.
fn next_below(level: &mut Level) -> io::Result<Option<CString>> {
    while level.below.is_empty()
        && let Some(from) = level.more.take()
    {
        let part = list_part(level.dir.as_ref().ok_or_else(stale)?, from)?;
        level.more = part.last().map(|(_, after)| *after);
        let dirs = part
            .into_iter()
            .filter(|(entry, _)| entry.kind == Kind::Directory);
        level.below.extend(dirs.map(|(entry, after)| (entry.name, after)));
        level.below.reverse();
    }
    Ok(level.below.pop().map(|(name, after)| {
        level.at = after;
        name
    }))
}

/// Closes the directory that is too far above the deepest one. Its list goes on behind the one that is visited below it.
fn close_far(levels: &mut [Level]) {
    let far = levels.len().checked_sub(OPEN_MAX + 1);
    if let Some(far) = far.and_then(|n| levels.get_mut(n)) {
        far.more = Some(far.at);
        far.below = Vec::new();
        far.dir = None;
    }
}

fn leave<V: Visitor>(root: &OwnedFd, levels: &mut Vec<Level>, visitor: &mut V) -> Result<(), V::Stop> {
    let Some(left) = levels.pop() else { return Ok(()) };
    let Some(above) = levels.last_mut() else {
        return visitor.leave(root, &left.name);
    };
    let dir = match above.dir.take() {
        Some(dir) => dir,
        None => {
            let dir = beneath::open_listable_parent(left.dir.as_ref().ok_or_else(stale)?)?;
            if id(&dir)? != above.id {
                return Err(stale().into());
            }
            dir
        }
    };
    visitor.leave(above.dir.insert(dir), &left.name)
}

fn id(dir: &OwnedFd) -> io::Result<Id> {
    let found = stat::open_file(dir)?;
    Ok((found.device, found.stat.ino))
}

/// A directory was moved while it was being visited, which any user can do.
fn stale() -> io::Error {
    rustix::io::Errno::STALE.into()
}

/// Some entries of a directory, from a position on, each with the position that follows it. Few file systems leave out what an entry is;
/// there each is looked at.
fn list_part(dir: &OwnedFd, from: u64) -> io::Result<Vec<(Listed, u64)>> {
    rustix::fs::seek(dir, SeekFrom::Start(from))?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut part = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let after = entry.next_entry_cookie();
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let kind = match entry.file_type() {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Symlink,
                FileType::Unknown => match stat::entry(dir, name) {
                    Ok(found) => found.stat.kind,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                },
                _ => Kind::Special,
            };
            let listed = Listed {
                name: name.to_owned(),
                ino: entry.ino(),
                kind,
            };
            part.push((listed, after));
        }
        if entries.is_buffer_empty() && !part.is_empty() {
            break;
        }
    }
    Ok(part)
}

/// The names in a directory, all of them: for directories that only the agent fills.
///
/// # Errors
/// What `getdents64(2)` says.
pub fn list(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes what lies below a directory of the trash, and goes on where something cannot be removed.
#[derive(Debug, Default)]
pub struct Removal {
    /// Names of the directories that are being visited.
    path: Vec<u8>,
    /// What cannot be removed, at most [`Removal::STUCK_MAX`] of them: path below the directory, and why.
    pub stuck: Vec<(Vec<u8>, io::Error)>,
    /// How many cannot be removed.
    pub stuck_total: u64,
    /// What it is for: only directories, and only if they are empty.
    only_empty: bool,
}

impl Removal {
    /// At most this number is named.
    pub const STUCK_MAX: usize = 100;

    /// Removes the directory `name` of `parent` with everything in it.
    ///
    /// # Errors
    /// When the walk cannot go on. What cannot be removed is in the answer.
    pub fn of(parent: &OwnedFd, name: &CStr) -> io::Result<Self> {
        let mut removal = Self::default();
        walk(parent, name, &mut removal)?;
        Ok(removal)
    }

    /// Adds what another removal has left.
    pub fn add(&mut self, other: Self) {
        self.stuck_total = self.stuck_total.saturating_add(other.stuck_total);
        let room = Self::STUCK_MAX.saturating_sub(self.stuck.len());
        self.stuck.extend(other.stuck.into_iter().take(room));
    }

    /// The same, with the paths as they are below the directory `above`.
    #[must_use]
    pub fn below(mut self, above: &[u8]) -> Self {
        for (path, _) in &mut self.stuck {
            path.splice(0..0, above.iter().copied().chain(*b"/"));
        }
        self
    }

    /// Something that could not be removed, outside of a walk.
    pub fn leave_behind(&mut self, path: &[u8], error: io::Error) {
        self.stuck_total = self.stuck_total.saturating_add(1);
        if self.stuck.len() < Self::STUCK_MAX {
            self.stuck.push((path.to_vec(), error));
        }
    }

    /// Removes the directories below the directory `name` of `parent`, as far as they are empty.
    ///
    /// # Errors
    /// When the walk cannot go on.
    pub fn of_empty(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        let mut removal = Self {
            only_empty: true,
            ..Self::default()
        };
        walk(parent, name, &mut removal)
    }

    /// Something in the directory that is visited stays there.
    fn is_stuck(&mut self, name: &CStr, error: io::Error) {
        // What is already away needs no removal.
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        self.stuck_total = self.stuck_total.saturating_add(1);
        if self.stuck.len() < Self::STUCK_MAX {
            let mut path = self.path.clone();
            path.extend_from_slice(name.to_bytes());
            self.stuck.push((path, error));
        }
    }
}

impl Visitor for Removal {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, name: &CStr, _: &OwnedFd) -> io::Result<bool> {
        self.path.extend_from_slice(name.to_bytes());
        self.path.push(b'/');
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        if !self.only_empty
            && let Err(error) = inside::unlink(dir, &*entry.name)
        {
            self.is_stuck(&entry.name, error);
        }
        Ok(())
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        let above = self.path.len().saturating_sub(name.count_bytes() + 1);
        self.path.truncate(above);
        if self.only_empty && above == 0 {
            return Ok(());
        }
        match inside::remove_dir(parent, name) {
            // What is in it has been named, or was not to be removed.
            Err(error) if self.only_empty || error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => self.is_stuck(name, error),
            Ok(()) => {}
        }
        Ok(())
    }

    fn refused(&mut self, _: &OwnedFd, name: &CStr, error: io::Error) -> io::Result<()> {
        self.is_stuck(name, error);
        Ok(())
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
