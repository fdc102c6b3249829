//! Directories that go as a whole: renamed into the trash first, where nobody finds them by a path any more, then
//! verified inside, and put back as a whole if anything in them was used.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustc_hash::FxHashMap;
use rustix::fs::{AtFlags, RenameFlags};

use super::candidate::Candidate;
use super::guard::{Fate, Ground, Leased, Name, Skip, gone_or_failed};
use super::take::{Finished, Freed};
use super::trash::{Listed, TREE, list_kinds};
use crate::model::{Inode, Kind, Seconds};
use crate::sys::stat::{self, Located};
use crate::sys::{beneath, lease};

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
    /// The same by way of the quiet mount: what lies in it is looked for there.
    quiet: OwnedFd,
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
            quiet: rustix::io::dup(&from.dir).map_err(|e| Fate::Failed(e.into()))?,
            from,
            leases: FxHashMap::default(),
            inodes: Vec::new(),
        };
        // Most that does not go is found here, before anything is moved.
        ground.verify(candidate, None)?;
        tree.look_at_all(ground)?;
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
        let moved = ground
            .open_quietly(&ground.bin.path_of_tree(ino))
            .and_then(|quiet| {
                tree.quiet = quiet;
                let (dir, name) = (&tree.from.dir, &*tree.from.name);
                rustix::fs::renameat_with(dir, name, &tree.place, TREE, RenameFlags::NOREPLACE)?;
                Ok(())
            });
        if let Err(e) = moved {
            ground.bin.clear_tree(ino);
            return Err(gone_or_failed(e));
        }
        match tree.lease_all(ground) {
            Ok(()) => Ok(tree),
            Err(fate) => Err(tree.put_back(ground).map_or_else(Fate::Failed, |()| fate)),
        }
    }

    /// Everything in it is as the index says, before anything is moved, and no file in it has a name elsewhere.
    fn look_at_all(&self, ground: &Ground<'_>) -> Result<(), Fate> {
        let mut names_left: FxHashMap<Inode, u32> = FxHashMap::default();
        let from = (&*self.from.dir, &*self.from.name);
        self.walk(ground, from, 0, &mut |_, _, entry| {
            let Freed { ino, known } = entry;
            if known.kind == Kind::Symlink && known.links > 1 {
                // There is no lease that tells what is left of it when one name is gone.
                return Err(Fate::Skipped(Skip::Hardlinked));
            }
            if known.kind == Kind::File && known.links > 1 {
                let left = names_left.entry(ino).or_insert(known.links);
                *left = left.saturating_sub(1);
            }
            Ok(())
        })?;
        match names_left.values().all(|left| *left == 0) {
            true => Ok(()),
            false => Err(Fate::Skipped(Skip::Hardlinked)),
        }
    }

    /// Finds out whether anybody has a file in it open or locked. What happens after this is seen by the barrier.
    fn lease_all(&mut self, ground: &Ground<'_>) -> Result<(), Fate> {
        if stat::entry(&self.place, TREE).map_err(gone_or_failed)?.stat.ino != self.ino {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let mut leases = FxHashMap::default();
        lease_below(ground, (&self.quiet, TREE), 0, &mut leases)?;
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
        self.walk(ground, (&self.quiet, TREE), 0, &mut |_, _, entry| {
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
        if !self.leases.values().all(Leased::is_still_granted) {
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

    /// Each name is compared once more before it goes: `leases` are no longer this tree's, and so it is looked at and not they.
    fn remove(
        &self,
        ground: &Ground<'_>,
        mut leases: FxHashMap<Inode, Leased>,
        freed: &mut Vec<Freed>,
    ) -> Result<(), Fate> {
        self.walk(ground, (&self.quiet, TREE), 0, &mut |dir, name, entry| {
            let flags = match entry.known.kind {
                Kind::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            let lease = match (entry.known.kind, leases.remove(&entry.ino)) {
                (Kind::File, None) => {
                    let lease = ground.lease_file(dir, name)?;
                    leased_as(&lease, entry.ino).map_err(gone_or_failed)?;
                    Some(lease)
                }
                (_, lease) => lease,
            };
            if lease.as_ref().is_some_and(|lease| !lease.is_still_granted()) {
                return Err(Fate::Skipped(Skip::Open));
            }
            match rustix::fs::unlinkat(dir, name, flags) {
                Ok(()) => {
                    freed.push(entry);
                    match lease.filter(|_| entry.known.links > 1) {
                        // The next of its names is compared with what is left of it.
                        Some(lease) => stat::open_file(lease.file())
                            .and_then(|found| ground.refresh(found.stat))
                            .map_err(Fate::Failed),
                        None => Ok(()),
                    }
                }
                Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {
                    Err(Fate::Skipped(Skip::Changed))
                }
                Err(e) => Err(Fate::Failed(e.into())),
            }
        })
    }

    /// Visits everything below and then the directory itself, each entry compared with the index first. What is leased is looked at by way
    /// of its lease.
    fn walk(
        &self,
        ground: &Ground<'_>,
        (parent, name): (&OwnedFd, &CStr),
        depth: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fate> {
        check_depth(depth)?;
        let this = self.check(ground, stat::entry(parent, name))?;
        if this.known.kind != Kind::Directory {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let fd = beneath::open_dir(parent.as_fd(), name.to_bytes()).map_err(gone_or_failed)?;
        if lease::is_locked(&fd).map_err(Fate::Failed)? {
            return Err(Fate::Skipped(Skip::Locked));
        }
        for Listed { name, ino, .. } in list_kinds(&fd).map_err(Fate::Failed)? {
            let found = match self.leases.get(&ino) {
                Some(lease) => leased_as(lease, ino),
                None => stat::entry(&fd, &name),
            };
            let entry = self.check(ground, found)?;
            match entry.known.kind {
                Kind::Directory => self.walk(ground, (&fd, &name), depth + 1, visit)?,
                _ => visit(&fd, &name, entry)?,
            }
        }
        visit(parent, &name.to_owned(), this)
    }

    /// The entry must be known to the index as it is, and be used no later than the plan says of the whole.
    fn check(&self, ground: &Ground<'_>, found: io::Result<Located>) -> Result<Entry, Fate> {
        let watched = ground.watched;
        let found = found.map_err(gone_or_failed)?;
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
        let known = (
            known.size,
            known.mtime,
            known.ctime,
            known.ctime_nanos,
            known.links,
        );
        match known == (s.size, s.mtime, s.ctime, s.ctime_nanos, s.links) {
            true => Ok(entry),
            false => Err(Fate::Skipped(Skip::Changed)),
        }
    }
}

/// Takes a lease on every file below. Whether each of them is what the index knows is looked at afterwards.
fn lease_below(
    ground: &Ground<'_>,
    (parent, name): (&OwnedFd, &CStr),
    depth: usize,
    leases: &mut FxHashMap<Inode, Leased>,
) -> Result<(), Fate> {
    check_depth(depth)?;
    let fd = beneath::open_dir(parent.as_fd(), name.to_bytes()).map_err(gone_or_failed)?;
    for listed in list_kinds(&fd).map_err(Fate::Failed)? {
        match listed.kind {
            Kind::Directory => lease_below(ground, (&fd, &listed.name), depth + 1, leases)?,
            // Under another of its names.
            Kind::File if leases.contains_key(&listed.ino) => {}
            Kind::File => {
                let lease = ground.lease_file(&fd, &listed.name)?;
                if leases.len() < LEASES_MAX {
                    leases.insert(listed.ino, lease);
                }
            }
            Kind::Symlink | Kind::Special => {}
        }
    }
    Ok(())
}

fn check_depth(depth: usize) -> Result<(), Fate> {
    match depth > DEPTH_MAX {
        true => Err(Fate::Failed(io::Error::other(format!(
            "more than {DEPTH_MAX} levels deep"
        )))),
        false => Ok(()),
    }
}

/// What is leased, if it is what it was leased as: a name may have been another's in the moment between the list and the lease.
fn leased_as(lease: &Leased, ino: Inode) -> io::Result<Located> {
    let found = stat::open_file(lease.file())?;
    match found.stat.ino == ino {
        true => Ok(found),
        false => Err(rustix::io::Errno::STALE.into()),
    }
}
