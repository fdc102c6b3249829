//! Compares a candidate with the live file and the live index, and takes it away only if nothing has changed.
//!
//! ```text
//!   lease      everybody who opens the file from now on waits; refused while anybody has it open
//!   barrier    every use before the lease is in the index (the caller's: `Surroundings::sync`)
//!   verify     name, inode, times, index and holds are as the plan says
//!   take       rename into the trash; put back if somebody waits at the lease by now, or the file has changed
//! ```
//!
//! Everything is anchored below the volume's root by `openat2(2)`: no symlink, mount or `..` that anybody puts into
//! the path while the run goes on leads out of the volume.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use rustix::fs::{AtFlags, RenameFlags};

use super::candidate::Candidate;
use super::trash::Bin;
use crate::collect::Watched;
use crate::index::DirId;
use crate::model::{Inode, Kind};
use crate::policy::evaluate::Shape;
use crate::sys::lease::{self, Asked, Lease};
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
    /// Somebody has it open, or has come to open it while it was being taken.
    Open,
    /// Somebody has a lock on it, or on the directory that holds it.
    Locked,
}

/// What became of a candidate.
#[derive(Debug)]
pub enum Fate {
    /// Removed.
    Deleted,
    /// In the trash until its grace ends.
    Trashed,
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
    /// The paths of those directories, where there are several names.
    dirs: Vec<Vec<u8>>,
}

/// How a candidate is kept from being opened while it is verified and taken.
#[derive(Debug)]
pub enum Leased {
    /// Whoever opens the file waits.
    File(Lease),
    /// There are no leases here: the file is only known to be the one that is open.
    Unguarded(OwnedFd),
    /// A directory: what is in it is leased when it is out of reach.
    Directory,
}

impl Leased {
    fn file(&self) -> Option<&OwnedFd> {
        match self {
            Self::File(lease) => Some(lease.file()),
            Self::Unguarded(file) => Some(file),
            Self::Directory => None,
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::File(lease) => lease.is_whole(),
            Self::Unguarded(_) | Self::Directory => true,
        }
    }
}

/// A directory of the volume, open.
#[derive(Debug, Clone)]
struct Anchor {
    path: Vec<u8>,
    fd: Arc<OwnedFd>,
    /// Somebody has a lock on it.
    locked: bool,
}

/// What a batch of candidates is compared with.
#[derive(Debug)]
pub struct Ground<'a> {
    pub(super) watched: &'a Watched,
    root: OwnedFd,
    pub(super) held: FxHashSet<Inode>,
    /// The directory opened last: candidates come in runs.
    anchor: Option<Anchor>,
    pub(super) bin: Bin,
    /// What is taken stays in the trash.
    pub(super) keep: bool,
}

impl<'a> Ground<'a> {
    /// The live state for one batch. What is taken goes into `bin`, and stays there if `keep`.
    ///
    /// # Errors
    /// When the volume's root cannot be opened.
    pub fn new(watched: &'a Watched, bin: Bin, keep: bool) -> io::Result<Self> {
        Ok(Self {
            watched,
            root: watched.open_root()?,
            held: FxHashSet::default(),
            anchor: None,
            bin,
            keep,
        })
    }

    /// What is held now: ask after every use up to the leases is in the index.
    pub fn hold(&mut self, held: FxHashSet<Inode>) {
        self.held = held;
    }

    /// Takes a lease on a candidate.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn lease(&mut self, candidate: &Candidate) -> Result<Leased, Fate> {
        let anchor = self.anchor_of(candidate)?;
        if anchor.locked {
            return Err(Fate::Skipped(Skip::Locked));
        }
        let name = CString::new(candidate.name.as_slice()).map_err(|_| Fate::Skipped(Skip::Changed))?;
        // Before anything is opened: opening a device or a fifo that has taken its place would do something.
        let found = stat::entry(&anchor.fd, &name).map_err(gone_or_failed)?;
        if (found.stat.ino, found.stat.kind) != (candidate.ino, candidate.kind()) {
            return Err(Fate::Skipped(Skip::Changed));
        }
        if candidate.kind() == Kind::Directory {
            let dir = beneath::open_dir(&anchor.fd, &candidate.name).map_err(gone_or_failed)?;
            return match lease::is_locked(&dir).map_err(Fate::Failed)? {
                true => Err(Fate::Skipped(Skip::Locked)),
                false => Ok(Leased::Directory),
            };
        }
        lease_file(&anchor.fd, &name)
    }

    /// Compares a candidate with what is there now.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn verify<'c>(&mut self, candidate: &'c Candidate) -> Result<Verified<'c>, Fate> {
        let name = CString::new(candidate.name.as_slice()).map_err(|_| Fate::Skipped(Skip::Changed))?;
        let anchor = self.anchor_of(candidate)?.fd;
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
        let (names, dirs) = match candidate.shape == Shape::File && candidate.links > 1 {
            true => self.all_names(candidate)?,
            false => (vec![(anchor, name)], Vec::new()),
        };
        Ok(Verified {
            candidate,
            names,
            dirs,
        })
    }

    fn anchor_of(&mut self, candidate: &Candidate) -> Result<Anchor, Fate> {
        if let Some(anchor) = self.anchor.as_ref().filter(|a| a.path == candidate.dir) {
            return Ok(anchor.clone());
        }
        let fd = beneath::open_dir(&self.root, &candidate.dir).map_err(gone_or_failed)?;
        let anchor = Anchor {
            path: candidate.dir.clone(),
            locked: lease::is_locked(&fd).map_err(Fate::Failed)?,
            fd: Arc::new(fd),
        };
        self.anchor = Some(anchor.clone());
        Ok(anchor)
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
    fn all_names(&self, candidate: &Candidate) -> Result<Named, Fate> {
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
        let (mut open, mut dirs) = (Vec::new(), Vec::new());
        for (dir, name) in paths {
            let fd = beneath::open_anchor(&self.root, &dir).map_err(gone_or_failed)?;
            let name = CString::new(name).map_err(|_| Fate::Skipped(Skip::Changed))?;
            match stat::entry(&fd, &name) {
                Ok(found) if found.stat.ino == candidate.ino => open.push((Arc::new(fd), name)),
                _ => return Err(Fate::Skipped(Skip::Hardlinked)),
            }
            dirs.push(dir);
        }
        match open.len() == candidate.links as usize {
            true => Ok((open, dirs)),
            false => Err(Fate::Skipped(Skip::Hardlinked)),
        }
    }

    /// Takes a verified candidate away. Returns its fate and the inodes that are no more at their place.
    pub fn take(
        &mut self,
        verified: &Verified<'_>,
        leased: &Leased,
        sync: &dyn Fn() -> bool,
    ) -> (Fate, Vec<Inode>) {
        let candidate = verified.candidate;
        let Some((dir, name)) = verified.names.first() else {
            return (Fate::Skipped(Skip::Gone), Vec::new());
        };
        match candidate.shape {
            Shape::File => match self.take_file(verified, leased) {
                Ok(fate) => (fate, vec![candidate.ino]),
                Err(fate) => (fate, Vec::new()),
            },
            Shape::EmptyDirectory => match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) => (Fate::Deleted, vec![candidate.ino]),
                // Something is in it that the plan did not know of.
                Err(rustix::io::Errno::NOTEMPTY) => (Fate::Skipped(Skip::Changed), Vec::new()),
                Err(e) => (gone_or_failed(e.into()), Vec::new()),
            },
            Shape::Tree => super::tree::take(self, candidate, dir, name, sync),
        }
    }

    fn take_file(&mut self, verified: &Verified<'_>, leased: &Leased) -> Result<Fate, Fate> {
        let mut moved = Vec::with_capacity(verified.names.len());
        let taken = self.move_names(verified, &mut moved).and_then(|()| {
            let file = leased.file().ok_or(Fate::Skipped(Skip::Changed))?;
            let found = stat::open_file(file).map_err(Fate::Failed)?.stat;
            let c = verified.candidate;
            // A lease stops openers only: not truncate(2) by a kernel's NFS server, not link(2).
            if (found.ino, found.size, found.mtime, found.links) != (c.ino, c.size, c.mtime, c.links) {
                return Err(Fate::Skipped(Skip::Changed));
            }
            for (_, _, place, name) in &moved {
                if stat::entry(place, name).map_err(gone_or_failed)?.stat.ino != c.ino {
                    return Err(Fate::Skipped(Skip::Changed));
                }
            }
            // From here on nobody can find it: whoever came before is waiting by now.
            match leased.is_whole() {
                true => Ok(()),
                false => Err(Fate::Skipped(Skip::Open)),
            }
        });
        if let Err(fate) = taken {
            return Err(self.put_back(&moved).map_or_else(Fate::Failed, |()| fate));
        }
        if self.keep {
            return Ok(Fate::Trashed);
        }
        for (_, _, place, name) in &moved {
            rustix::fs::unlinkat(place, name, AtFlags::empty()).map_err(|e| Fate::Failed(e.into()))?;
        }
        Ok(Fate::Deleted)
    }

    fn move_names(&mut self, verified: &Verified<'_>, moved: &mut Vec<Moved>) -> Result<(), Fate> {
        for (i, (dir, name)) in verified.names.iter().enumerate() {
            let path = verified
                .dirs
                .get(i)
                .map_or(verified.candidate.dir.as_slice(), Vec::as_slice);
            let place = self.bin.place(path).map_err(gone_or_failed)?;
            rustix::fs::renameat_with(dir, name, &place, name, RenameFlags::NOREPLACE)
                .map_err(|e| gone_or_failed(e.into()))?;
            moved.push((Arc::clone(dir), name.clone(), place, name.clone()));
        }
        Ok(())
    }

    fn put_back(&self, moved: &[Moved]) -> io::Result<()> {
        for (dir, name, place, there) in moved.iter().rev() {
            rustix::fs::renameat_with(place, there, dir, name, RenameFlags::NOREPLACE).map_err(|e| {
                io::Error::other(format!(
                    "was used while it was being taken and cannot be put back: {e}; it stays in the trash until the \
                     agent starts again"
                ))
            })?;
        }
        // The renames have moved its change time, and its own renames are not in what the agent reads.
        if let Some((dir, name, ..)) = moved.first()
            && let Ok(found) = stat::entry(dir, name)
        {
            self.watched
                .index
                .write()
                .refresh(&found.stat)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// The names of a file with the directories that hold them, and the paths of those.
type Named = (Vec<(Arc<OwnedFd>, CString)>, Vec<Vec<u8>>);
/// Where a name was and where it is now.
type Moved = (Arc<OwnedFd>, CString, Arc<OwnedFd>, CString);

/// Takes a lease on a regular file.
pub(super) fn lease_file(dir: &OwnedFd, name: &CStr) -> Result<Leased, Fate> {
    let file = beneath::open_file(dir, name).map_err(gone_or_failed)?;
    match lease::ask(file).map_err(Fate::Failed)? {
        Asked::Granted(lease) => Ok(Leased::File(lease)),
        Asked::Unsupported(file) => Ok(Leased::Unguarded(file)),
        Asked::Open => Err(Fate::Skipped(Skip::Open)),
        Asked::Locked => Err(Fate::Skipped(Skip::Locked)),
    }
}

pub(super) fn gone_or_failed(error: io::Error) -> Fate {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESTALE) => Fate::Skipped(Skip::Gone),
        // A symlink, a mount or a file has taken the place of a directory on the way.
        Some(libc::ELOOP | libc::EXDEV | libc::ENOTDIR) => Fate::Skipped(Skip::Changed),
        _ => Fate::Failed(error),
    }
}
