//! Directories that go as a whole: renamed into the trash first, where nobody finds them by a path any more, then
//! verified inside, and put back as a whole if anything in them was used.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustc_hash::FxHashMap;
use rustix::fs::{AtFlags, RenameFlags};

use super::candidate::Candidate;
use super::guard::{Fate, Ground, Leased, Name, Skip, gone_or_failed};
use super::take::{Finished, Freed};
use super::trash::{TREE, list};
use crate::model::{Inode, Kind, Seconds};
use crate::sys::{beneath, lease, stat};

/// Deeper trees are refused: each level takes a descriptor and stack.
pub(super) const DEPTH_MAX: usize = 512;
/// Leases that are kept until the directory is removed. What else lies in it is leased twice, for a moment each.
const LEASES_MAX: usize = 1024;

/// A directory in the trash, with all that is in it.
#[derive(Debug)]
pub struct Tree {
    ino: Inode,
    /// Nothing in it may have been used later than this.
    unused_since: Seconds,
    from: Name,
    place: OwnedFd,
    leases: FxHashMap<Inode, Leased>,
    inodes: Vec<Inode>,
}

/// Something in the tree, as the index knows it.
type Entry = Freed;

/// Called for everything in a directory, and for the directory itself last.
type Visit<'v> = dyn FnMut(&OwnedFd, &CString, Entry) -> Result<(), Fate> + 'v;

impl Tree {
    /// Takes a directory out of everybody's reach. Whoever has a file in it open is found.
    ///
    /// # Errors
    /// The fate of a candidate that does not go: it lies at its place.
    pub fn take(ground: &mut Ground<'_>, candidate: &Candidate) -> Result<Self, Fate> {
        let from = ground.find(candidate)?;
        let ino = candidate.ino;
        let mut tree = Self {
            ino,
            unused_since: candidate.access.at.max(candidate.last.at),
            place: rustix::io::dup(&from.dir).map_err(|e| Fate::Failed(e.into()))?,
            from,
            leases: FxHashMap::default(),
            inodes: Vec::new(),
        };
        // Most that does not go is found here, before anything is moved.
        ground.verify(candidate, None)?;
        tree.walk(ground, &tree.from.dir, &tree.from.name, 0, &mut |_, _, entry| {
            // Its other name may lie elsewhere, and a second lease on it would meet the first.
            match entry.known.kind == Kind::File && entry.known.links > 1 {
                true => Err(Fate::Skipped(Skip::Hardlinked)),
                false => Ok(()),
            }
        })?;
        if ground.keeps() {
            // Its owners and modes are remembered for the directories above, should they be gone when it is restored.
            ground
                .bin
                .place(&candidate.dir, &tree.from.dir)
                .map_err(gone_or_failed)?;
        }
        tree.place = ground
            .bin
            .place_tree(ino, &candidate.path())
            .map_err(Fate::Failed)?;
        let moved = rustix::fs::renameat_with(
            &tree.from.dir,
            &*tree.from.name,
            &tree.place,
            TREE,
            RenameFlags::NOREPLACE,
        );
        if let Err(e) = moved {
            ground.bin.clear_tree(ino);
            return Err(gone_or_failed(e.into()));
        }
        match tree.lease_all(ground) {
            Ok(()) => Ok(tree),
            Err(fate) => Err(tree.put_back(ground).map_or_else(Fate::Failed, |()| fate)),
        }
    }

    /// Finds out whether anybody has a file in it open or locked. What happens after this is seen by the barrier.
    fn lease_all(&mut self, ground: &Ground<'_>) -> Result<(), Fate> {
        if stat::entry(&self.place, TREE).map_err(gone_or_failed)?.stat.ino != self.ino {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let mut leases = FxHashMap::default();
        self.walk(ground, &self.place, TREE, 0, &mut |dir, name, entry| {
            if entry.known.kind == Kind::File {
                let lease = ground.lease_file(dir, name)?;
                if leases.len() < LEASES_MAX {
                    leases.insert(entry.ino, lease);
                }
            }
            Ok(())
        })?;
        self.leases = leases;
        Ok(())
    }

    /// Compares everything in it with the index. To be called when every use up to now is in the index.
    ///
    /// # Errors
    /// The fate of a directory that does not go.
    pub fn verify(&mut self, ground: &Ground<'_>) -> Result<(), Fate> {
        ground.check_held(self.ino)?;
        let mut inodes = Vec::new();
        self.walk(ground, &self.place, TREE, 0, &mut |_, _, entry| {
            inodes.push(entry.ino);
            Ok(())
        })?;
        self.inodes = inodes;
        match self.leases.values().all(Leased::is_whole) {
            true => Ok(()),
            false => Err(Fate::Skipped(Skip::Open)),
        }
    }

    /// Puts it back as a whole.
    ///
    /// # Errors
    /// When something else has taken its place.
    pub fn put_back(self, ground: &Ground<'_>) -> io::Result<()> {
        let back = rustix::fs::renameat_with(
            &self.place,
            TREE,
            &self.from.dir,
            &*self.from.name,
            RenameFlags::NOREPLACE,
        );
        let back = back.map_err(|e| {
            let from = (&self.place, TREE);
            ground.bin.kept.take(from, self.ino, &self.from.full(), &e.into())
        });
        ground.bin.clear_tree(self.ino);
        back
    }

    /// Removes it, if it has no grace.
    pub fn finish(mut self, ground: &Ground<'_>, finished: &mut Finished) -> Fate {
        if !self.leases.values().all(Leased::is_whole) {
            return self
                .put_back(ground)
                .map_or_else(Fate::Failed, |()| Fate::Skipped(Skip::Open));
        }
        if ground.keeps() {
            finished.gone.append(&mut self.inodes);
            return Fate::Trashed;
        }
        let freed = &mut finished.freed;
        let before = freed.len();
        let leases = std::mem::take(&mut self.leases);
        match self.remove(ground, leases, freed) {
            Ok(()) => {
                ground.bin.clear_tree(self.ino);
                Fate::Deleted
            }
            Err(fate) => {
                let removed = freed.len().saturating_sub(before);
                let back = self.put_back(ground);
                match (fate, back) {
                    (_, Err(e)) | (Fate::Failed(e), Ok(())) => Fate::Failed(e),
                    (fate, Ok(())) if removed == 0 => fate,
                    (_, Ok(())) => Fate::Failed(io::Error::other(format!(
                        "something in it was used while it was being removed: {removed} entries are gone, the rest is \
                         back at its place"
                    ))),
                }
            }
        }
    }

    fn remove(
        &self,
        ground: &Ground<'_>,
        mut leases: FxHashMap<Inode, Leased>,
        freed: &mut Vec<Freed>,
    ) -> Result<(), Fate> {
        self.walk(ground, &self.place, TREE, 0, &mut |dir, name, entry| {
            let flags = match entry.known.kind {
                Kind::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            let lease = match (entry.known.kind, leases.remove(&entry.ino)) {
                (Kind::File, None) => Some(ground.lease_file(dir, name)?),
                (_, lease) => lease,
            };
            if lease.as_ref().is_some_and(|lease| !lease.is_whole()) {
                return Err(Fate::Skipped(Skip::Open));
            }
            match rustix::fs::unlinkat(dir, name, flags) {
                Ok(()) => {
                    freed.push(entry);
                    Ok(())
                }
                Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {
                    Err(Fate::Skipped(Skip::Changed))
                }
                Err(e) => Err(Fate::Failed(e.into())),
            }
        })
    }

    /// Visits everything below and then the directory itself, each entry compared with the index first.
    fn walk(
        &self,
        ground: &Ground<'_>,
        parent: &OwnedFd,
        name: &std::ffi::CStr,
        depth: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fate> {
        if depth > DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} levels deep");
            return Err(Fate::Failed(io::Error::other(why)));
        }
        let this = self.check(ground, parent, name)?;
        if this.known.kind != Kind::Directory {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let fd = beneath::open_dir(parent.as_fd(), name.to_bytes()).map_err(gone_or_failed)?;
        if lease::is_locked(&fd).map_err(Fate::Failed)? {
            return Err(Fate::Skipped(Skip::Locked));
        }
        for name in list(&fd).map_err(Fate::Failed)? {
            let entry = self.check(ground, &fd, &name)?;
            match entry.known.kind {
                Kind::Directory => self.walk(ground, &fd, &name, depth + 1, visit)?,
                _ => visit(&fd, &name, entry)?,
            }
        }
        visit(parent, &name.to_owned(), this)
    }

    /// The entry must be known to the index as it is, and be used no later than the plan says of the whole.
    fn check(&self, ground: &Ground<'_>, dir: &OwnedFd, name: &std::ffi::CStr) -> Result<Entry, Fate> {
        let watched = ground.watched;
        let found = stat::entry(dir, name).map_err(gone_or_failed)?;
        let s = found.stat;
        if found.device != watched.device || found.mount_root || s.kind == Kind::Special {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let index = watched.index.read();
        let Some((known, access)) = index.get(s.ino) else {
            return Err(Fate::Skipped(Skip::Changed));
        };
        if ground.held.contains(&s.ino) {
            return Err(Fate::Skipped(Skip::Held));
        }
        if (known.kind, known.birth) != (s.kind, s.birth) {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let entry = Freed { ino: s.ino, known };
        if s.kind == Kind::Directory {
            return Ok(entry);
        }
        if s.kind == Kind::File && access.at > self.unused_since {
            return Err(Fate::Skipped(Skip::Accessed));
        }
        let known = (known.size, known.mtime, known.ctime, known.ctime_nanos);
        match known == (s.size, s.mtime, s.ctime, s.ctime_nanos) {
            true => Ok(entry),
            false => Err(Fate::Skipped(Skip::Changed)),
        }
    }
}
