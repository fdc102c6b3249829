//! Compares a candidate with the live file and the live index, and removes it only if nothing has changed.
//!
//! Everything is anchored below the volume's root by `openat2(2)`: no symlink, mount or `..` that anybody puts into
//! the path while the run goes on leads out of the volume.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustc_hash::FxHashSet;
use rustix::fs::{AtFlags, RawDir};

use super::candidate::Candidate;
use crate::collect::Watched;
use crate::index::DirId;
use crate::model::{Inode, Kind};
use crate::policy::evaluate::Shape;
use crate::sys::{beneath, stat};

/// Why a candidate is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Somebody used it since the plan was made.
    Accessed,
    /// It is not what it was when the plan was made.
    Changed,
    /// Somebody holds it.
    Held,
    /// It is not there any more.
    Gone,
    /// It has a name outside the volume, or one that the index does not know.
    Hardlinked,
}

/// What became of a candidate.
#[derive(Debug)]
pub enum Fate {
    /// Removed.
    Deleted,
    /// Left alone.
    Skipped(Skip),
    /// The kernel refused.
    Failed(io::Error),
}

/// A candidate that was compared with the live file and index: the only thing that can be removed.
#[derive(Debug)]
pub struct Verified<'a> {
    candidate: &'a Candidate,
    /// Directories and names to remove: several for a file with hard links.
    names: Vec<(Arc<OwnedFd>, CString)>,
}

/// What a batch of candidates is compared with.
#[derive(Debug)]
pub struct Ground<'a> {
    watched: &'a Watched,
    root: OwnedFd,
    held: FxHashSet<Inode>,
    /// The directory opened last: candidates come in runs.
    anchor: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

impl<'a> Ground<'a> {
    /// The live state for one batch. `held` must be asked for after the event queue was drained.
    ///
    /// # Errors
    /// When the volume's root cannot be opened.
    pub fn new(watched: &'a Watched, held: FxHashSet<Inode>) -> io::Result<Self> {
        Ok(Self {
            watched,
            root: watched.open_root()?,
            held,
            anchor: None,
        })
    }

    /// Compares a candidate with what is there now.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn verify<'c>(&mut self, candidate: &'c Candidate) -> Result<Verified<'c>, Fate> {
        let name = CString::new(candidate.name.as_slice()).map_err(|_| Fate::Skipped(Skip::Changed))?;
        let anchor = self.open_dir_of(candidate)?;
        let found = stat::entry(&anchor, &name).map_err(gone_or_failed)?;
        if found.device != self.watched.device || found.mount_root {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let s = &found.stat;
        let same_file = (s.ino, s.birth, s.kind) == (candidate.ino, candidate.birth, candidate.kind());
        // Removing its last files has changed a directory that is empty by now; rmdir itself refuses a full one.
        let same_content = candidate.shape != Shape::File
            || (s.size, s.mtime, s.ctime, s.ctime_nanos, s.links)
                == (
                    candidate.size,
                    candidate.mtime,
                    candidate.ctime,
                    candidate.ctime_nanos,
                    candidate.links,
                );
        if !same_file {
            return Err(Fate::Skipped(Skip::Changed));
        }
        self.check_index(candidate)?;
        if !same_content {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let names = match candidate.shape == Shape::File && candidate.links > 1 {
            true => self.all_names(candidate)?,
            false => vec![(anchor, name)],
        };
        Ok(Verified { candidate, names })
    }

    fn open_dir_of(&mut self, candidate: &Candidate) -> Result<Arc<OwnedFd>, Fate> {
        if self
            .anchor
            .as_ref()
            .is_none_or(|(path, _)| *path != candidate.dir)
        {
            let fd = beneath::open_anchor(&self.root, &candidate.dir).map_err(gone_or_failed)?;
            self.anchor = Some((candidate.dir.clone(), Arc::new(fd)));
        }
        let (_, fd) = self.anchor.as_ref().ok_or(Fate::Skipped(Skip::Gone))?;
        Ok(Arc::clone(fd))
    }

    /// The index must still say what the plan says, and nobody may hold the candidate.
    fn check_index(&self, candidate: &Candidate) -> Result<(), Fate> {
        let index = self.watched.index.read();
        let Some(access) = index.last_use(candidate.ino) else {
            return Err(Fate::Skipped(Skip::Changed));
        };
        if candidate.shape == Shape::File && access != candidate.access {
            return Err(Fate::Skipped(Skip::Accessed));
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let parent = || index.parent_of(candidate.ino).unwrap_or(DirId::ROOT);
        let mut dir = index.dirs().of_inode(candidate.ino).unwrap_or_else(parent);
        let mut held = self.held.contains(&candidate.ino);
        for _ in 0..=index.dirs().table_len() {
            let Some(entry) = index.dirs().get(dir) else { break };
            held |= self.held.contains(&entry.ino);
            if dir == DirId::ROOT {
                break;
            }
            dir = entry.parent;
        }
        if held {
            Err(Fate::Skipped(Skip::Held))
        } else {
            Ok(())
        }
    }

    /// A file with several names goes with all of them or stays.
    fn all_names(&self, candidate: &Candidate) -> Result<Vec<(Arc<OwnedFd>, CString)>, Fate> {
        let index = self.watched.index.read();
        let names = index
            .names(candidate.ino)
            .map_err(|e| Fate::Failed(io::Error::other(e)))?;
        let paths: Option<Vec<_>> = names
            .into_iter()
            .map(|(dir, name)| Some((index.dirs().path(dir)?, name)))
            .collect();
        drop(index);
        let paths = paths.ok_or(Fate::Skipped(Skip::Hardlinked))?;
        let mut open = Vec::new();
        for (dir, name) in paths {
            let fd = beneath::open_anchor(&self.root, &dir).map_err(gone_or_failed)?;
            let name = CString::new(name).map_err(|_| Fate::Skipped(Skip::Changed))?;
            match stat::entry(&fd, &name) {
                Ok(found) if found.stat.ino == candidate.ino => open.push((Arc::new(fd), name)),
                _ => return Err(Fate::Skipped(Skip::Hardlinked)),
            }
        }
        match open.len() == candidate.links as usize {
            true => Ok(open),
            false => Err(Fate::Skipped(Skip::Hardlinked)),
        }
    }

    /// Removes a verified candidate. Returns its fate and the inodes that are no more.
    pub fn remove(&self, verified: &Verified<'_>) -> (Fate, Vec<Inode>) {
        let candidate = verified.candidate;
        match candidate.shape {
            Shape::File => {
                for (dir, name) in &verified.names {
                    if let Err(e) = rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                        return (gone_or_failed(e.into()), Vec::new());
                    }
                }
                (Fate::Deleted, vec![candidate.ino])
            }
            Shape::EmptyDirectory => {
                let Some((dir, name)) = verified.names.first() else {
                    return (Fate::Skipped(Skip::Gone), Vec::new());
                };
                match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                    Ok(()) => (Fate::Deleted, vec![candidate.ino]),
                    // Something is in it that the plan did not know of.
                    Err(rustix::io::Errno::NOTEMPTY) => (Fate::Skipped(Skip::Changed), Vec::new()),
                    Err(e) => (gone_or_failed(e.into()), Vec::new()),
                }
            }
            Shape::Tree => {
                let Some((dir, name)) = verified.names.first() else {
                    return (Fate::Skipped(Skip::Gone), Vec::new());
                };
                let mut tree = Tree {
                    ground: self,
                    candidate,
                    gone: Vec::new(),
                };
                let fate = match tree.verify(dir, name).and_then(|()| tree.remove(dir, name)) {
                    Ok(()) => Fate::Deleted,
                    Err(fate) => fate,
                };
                (fate, tree.gone)
            }
        }
    }
}

/// A directory that goes as a whole: everything in it is verified before the first entry is removed, and each
/// entry once more right before it is.
struct Tree<'a> {
    ground: &'a Ground<'a>,
    candidate: &'a Candidate,
    gone: Vec<Inode>,
}

/// One `getdents64(2)`.
const LISTING_BYTES: usize = 16 << 10;
/// Deeper trees are refused: each level takes a descriptor and stack.
const DEPTH_MAX: usize = 512;

impl Tree<'_> {
    fn verify(&self, parent: &OwnedFd, name: &CString) -> Result<(), Fate> {
        self.walk(parent, name, 0, &mut |_, _, _| Ok(()))
    }

    fn remove(&mut self, parent: &OwnedFd, name: &CString) -> Result<(), Fate> {
        let mut gone = Vec::new();
        let result = self.walk(parent, name, 0, &mut |dir, name, ino| {
            let flags = match ino {
                Entry::Directory(_) => AtFlags::REMOVEDIR,
                Entry::Other(_) => AtFlags::empty(),
            };
            match rustix::fs::unlinkat(dir, name, flags) {
                Ok(()) => {
                    let (Entry::Directory(ino) | Entry::Other(ino)) = ino;
                    gone.push(ino);
                    Ok(())
                }
                Err(rustix::io::Errno::NOTEMPTY) => Err(Fate::Skipped(Skip::Changed)),
                Err(e) => Err(Fate::Failed(e.into())),
            }
        });
        self.gone = gone;
        match result {
            Err(Fate::Skipped(_)) if !self.gone.is_empty() => Err(Fate::Failed(io::Error::other(format!(
                "something in it was used while it was being removed: {} entries are gone, the rest stays",
                self.gone.len()
            )))),
            other => other,
        }
    }

    /// Visits everything below and then the directory itself, each entry compared with the index first.
    fn walk(
        &self,
        parent: &OwnedFd,
        name: &CString,
        depth: usize,
        visit: &mut dyn FnMut(&OwnedFd, &CString, Entry) -> Result<(), Fate>,
    ) -> Result<(), Fate> {
        if depth > DEPTH_MAX {
            return Err(Fate::Failed(io::Error::other(format!(
                "more than {DEPTH_MAX} levels deep"
            ))));
        }
        let ino = match self.check(parent, name)? {
            Entry::Directory(ino) => ino,
            Entry::Other(_) => return Err(Fate::Skipped(Skip::Changed)),
        };
        let fd = beneath::open_dir(parent.as_fd(), name.as_bytes()).map_err(gone_or_failed)?;
        for name in list(&fd).map_err(Fate::Failed)? {
            match self.check(&fd, &name)? {
                Entry::Directory(_) => self.walk(&fd, &name, depth + 1, visit)?,
                other @ Entry::Other(_) => visit(&fd, &name, other)?,
            }
        }
        visit(parent, name, Entry::Directory(ino))
    }

    /// The entry must be known to the index as it is, and be used no later than the plan says of the whole.
    fn check(&self, dir: &OwnedFd, name: &CString) -> Result<Entry, Fate> {
        let watched = self.ground.watched;
        let found = stat::entry(dir, name).map_err(gone_or_failed)?;
        let s = found.stat;
        if found.device != watched.device || found.mount_root || s.kind == Kind::Special {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let index = watched.index.read();
        let Some((known, access)) = index.get(s.ino) else {
            return Err(Fate::Skipped(Skip::Changed));
        };
        if self.ground.held.contains(&s.ino) {
            return Err(Fate::Skipped(Skip::Held));
        }
        if (known.kind, known.birth) != (s.kind, s.birth) {
            return Err(Fate::Skipped(Skip::Changed));
        }
        if s.kind == Kind::Directory {
            return Ok(Entry::Directory(s.ino));
        }
        if s.kind == Kind::File && access.at > self.candidate.access.at.max(self.candidate.last.at) {
            return Err(Fate::Skipped(Skip::Accessed));
        }
        let known = (known.size, known.mtime, known.ctime, known.ctime_nanos);
        match known == (s.size, s.mtime, s.ctime, s.ctime_nanos) {
            true => Ok(Entry::Other(s.ino)),
            false => Err(Fate::Skipped(Skip::Changed)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    Directory(Inode),
    Other(Inode),
}

/// The names in a directory, listed before anything in it is removed.
fn list(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); LISTING_BYTES];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn gone_or_failed(error: io::Error) -> Fate {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESTALE) => Fate::Skipped(Skip::Gone),
        // A symlink, a mount or a file has taken the place of a directory on the way.
        Some(libc::ELOOP | libc::EXDEV | libc::ENOTDIR) => Fate::Skipped(Skip::Changed),
        _ => Fate::Failed(error),
    }
}
