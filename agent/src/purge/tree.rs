//! Directories that go as a whole: renamed into the trash first, where nobody finds them by a path any more, then
//! verified inside, and put back as a whole if anything in them was used.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, RenameFlags};

use super::candidate::Candidate;
use super::guard::{Fate, Ground, Skip, gone_or_failed, lease_file};
use super::trash::list;
use crate::model::{Inode, Kind};
use crate::sys::{beneath, lease, stat};

/// Takes a directory away. `sync` waits until every use up to now is in the index. Returns its fate and the inodes that
/// are no more at their place.
pub(super) fn take(
    ground: &Ground<'_>,
    candidate: &Candidate,
    dir: &OwnedFd,
    name: &CString,
    sync: &dyn Fn() -> bool,
) -> (Fate, Vec<Inode>) {
    let mut tree = Tree {
        ground,
        candidate,
        gone: Vec::new(),
    };
    let fate = tree.take(dir, name, sync).unwrap_or_else(|fate| fate);
    (fate, tree.gone)
}

/// A directory that goes as a whole: everything in it is verified before the first entry is removed, and each
/// entry once more right before it is.
struct Tree<'a> {
    ground: &'a Ground<'a>,
    candidate: &'a Candidate,
    gone: Vec<Inode>,
}

/// Deeper trees are refused: each level takes a descriptor and stack.
const DEPTH_MAX: usize = 512;

impl Tree<'_> {
    fn take(&mut self, dir: &OwnedFd, name: &CString, sync: &dyn Fn() -> bool) -> Result<Fate, Fate> {
        // Most that does not go is found here, before anything is moved.
        self.verify(dir, name)?;
        let (bin, ino) = (&self.ground.bin, self.candidate.ino);
        let place = bin
            .place_tree(ino, &self.candidate.path())
            .map_err(Fate::Failed)?;
        let there = c"t".to_owned();
        let moved = rustix::fs::renameat_with(dir, name, &place, &there, RenameFlags::NOREPLACE);
        if let Err(e) = moved {
            bin.clear_tree(ino);
            return Err(gone_or_failed(e.into()));
        }
        let result = self.take_moved(&place, &there, sync);
        if let Err(fate) = result {
            let back = rustix::fs::renameat_with(&place, &there, dir, name, RenameFlags::NOREPLACE);
            return Err(match back {
                Ok(()) => {
                    bin.clear_tree(ino);
                    fate
                }
                Err(e) => Fate::Failed(io::Error::other(format!(
                    "something in it was used while it was being taken, and it cannot be put back: {e}; it stays in the \
                     trash until the agent starts again"
                ))),
            });
        }
        if !self.ground.keep {
            bin.clear_tree(ino);
        }
        result
    }

    fn take_moved(&mut self, place: &OwnedFd, name: &CString, sync: &dyn Fn() -> bool) -> Result<Fate, Fate> {
        if stat::entry(place, name).map_err(gone_or_failed)?.stat.ino != self.candidate.ino {
            return Err(Fate::Skipped(Skip::Changed));
        }
        self.is_idle(place, name)?;
        if !sync() {
            return Err(Fate::Failed(io::Error::other("uses may have gone unseen")));
        }
        self.verify(place, name)?;
        if self.ground.keep {
            let mut gone = Vec::new();
            self.walk(place, name, 0, &mut |_, _, entry| {
                let (Entry::Directory(ino) | Entry::File(ino) | Entry::Other(ino)) = entry;
                gone.push(ino);
                Ok(())
            })?;
            self.gone = gone;
            return Ok(Fate::Trashed);
        }
        self.remove(place, name)?;
        Ok(Fate::Deleted)
    }

    /// Whether anybody has a file in it open or locked. The leases are let go at once: what happens afterwards is seen
    /// by the barrier that follows.
    fn is_idle(&self, parent: &OwnedFd, name: &CString) -> Result<(), Fate> {
        self.walk(parent, name, 0, &mut |dir, name, entry| match entry {
            Entry::File(_) => lease_file(dir, name).map(drop),
            Entry::Directory(_) | Entry::Other(_) => Ok(()),
        })
    }

    fn verify(&self, parent: &OwnedFd, name: &CString) -> Result<(), Fate> {
        self.walk(parent, name, 0, &mut |_, _, _| Ok(()))
    }

    fn remove(&mut self, parent: &OwnedFd, name: &CString) -> Result<(), Fate> {
        let mut gone = Vec::new();
        let result = self.walk(parent, name, 0, &mut |dir, name, entry| {
            let flags = match entry {
                Entry::Directory(_) => AtFlags::REMOVEDIR,
                Entry::File(_) | Entry::Other(_) => AtFlags::empty(),
            };
            let lease = match entry {
                Entry::File(_) => Some(lease_file(dir, name)?),
                Entry::Directory(_) | Entry::Other(_) => None,
            };
            match rustix::fs::unlinkat(dir, name, flags) {
                Ok(()) => {
                    let (Entry::Directory(ino) | Entry::File(ino) | Entry::Other(ino)) = entry;
                    gone.push(ino);
                    drop(lease);
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
            Entry::File(_) | Entry::Other(_) => return Err(Fate::Skipped(Skip::Changed)),
        };
        let fd = beneath::open_dir(parent.as_fd(), name.as_bytes()).map_err(gone_or_failed)?;
        if lease::is_locked(&fd).map_err(Fate::Failed)? {
            return Err(Fate::Skipped(Skip::Locked));
        }
        for name in list(&fd).map_err(Fate::Failed)? {
            match self.check(&fd, &name)? {
                Entry::Directory(_) => self.walk(&fd, &name, depth + 1, visit)?,
                other @ (Entry::File(_) | Entry::Other(_)) => visit(&fd, &name, other)?,
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
            true if s.kind == Kind::File => Ok(Entry::File(s.ino)),
            true => Ok(Entry::Other(s.ino)),
            false => Err(Fate::Skipped(Skip::Changed)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    Directory(Inode),
    File(Inode),
    Other(Inode),
}
