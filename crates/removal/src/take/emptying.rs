//! Removes what is in a directory that goes as a whole, some at a time.
//!
//! No user finds it by a path any more, but a process may still have a directory of it open. So each part is leased, every use before the
//! leases is read, and then each entry is compared once more, right before it goes.
//!
//! What may never happen: that an entry is removed which was used or changed before it was compared, or another entry than was compared.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::fate::{Fate, Skip};
use crate::refusal;
use crate::take::forget::forget;
use crate::take::guard::{Ground, Leased};
use crate::take::moves::{Finished, Freed};
use crate::take::room::DIRECTORIES_MAX;
use crate::take::tree::{Changed, Ended, Tree, leased_as};
use crate::trash::layout::TREE;
use purge_model::{Inode, Kind};
use purge_sys::walk::{Listed, Visitor, walk};
use purge_sys::{inside, stat};

/// Entries of a part at most: openers of its files wait until it is removed.
const TOGETHER_MAX: usize = 128;
/// This many are removed before the index forgets them.
const FORGOTTEN_AT_ONCE: usize = 4096;
/// So often the uses before a part are waited for, with rests in between in which nothing is leased.
const TRIES: u32 = 8;
const REST: Duration = Duration::from_millis(100);

/// Reads the uses that wait. False: not all of them could be read now.
pub type ReadUses<'r> = dyn Fn() -> bool + 'r;

impl Tree {
    /// Removes it, if it has no grace. `barrier`: one has passed since it was moved.
    pub fn finish(
        mut self,
        ground: &Ground<'_>,
        barrier: bool,
        (read_uses, finished): (&ReadUses<'_>, &mut Finished),
    ) -> Fate {
        if let Err(fate) = self.last_look(ground, barrier) {
            return self.put_back(ground).map_or_else(Fate::Failed, |()| fate);
        }
        if ground.keeps() {
            self.let_go_of_the_name(ground);
            let moved = self.inodes.drain(..).map(|ino| (ino, self.unused_since));
            finished.trashed.extend(moved);
            return Fate::Trashed;
        }
        let leases = std::mem::take(&mut self.leases);
        match self.remove(ground, leases, (read_uses, &mut finished.freed)) {
            (_, Ok(())) => {
                // A process that is killed in between leaves the path to it.
                self.let_go_of_the_name(ground);
                ground.bin.clear_tree(self.ino);
                Fate::Deleted
            }
            (removed, Err(fate)) => {
                let back = self.put_back(ground);
                match (refusal::settled(fate), back) {
                    (_, Err(e)) | (Fate::Failed(e), Ok(())) => Fate::Failed(e),
                    (fate, Ok(())) if removed == 0 => fate,
                    // Not a skip, for it is not as it was.
                    (_, Ok(())) => Fate::Failed(refusal::failure(
                        format!(
                            "something in it was used while it was being removed: {removed} entries are deleted, the rest \
                             is back at its place"
                        ),
                        &[],
                    )),
                }
            }
        }
    }

    /// Removes all of it. Returns also how many entries were removed.
    fn remove(
        &self,
        ground: &Ground<'_>,
        leases: FxHashMap<Inode, Leased>,
        (read_uses, freed): (&ReadUses<'_>, &mut Vec<Freed>),
    ) -> (u64, Result<(), Fate>) {
        let mut emptying = Emptying::of(self, ground, leases, (read_uses, freed));
        let walked = walk(&self.quiet, TREE, &mut emptying).map_err(|Ended(fate)| fate);
        let done = walked.and_then(|()| emptying.carry_out());
        (emptying.removed, done)
    }
}

/// Removes what it meets.
struct Emptying<'e, 'g> {
    tree: &'e Tree,
    ground: &'e Ground<'g>,
    read_uses: &'e ReadUses<'e>,
    /// Leases that were there before the last uses were read.
    leases: FxHashMap<Inode, Leased>,
    freed: &'e mut Vec<Freed>,
    /// What goes next, in this order.
    next: Vec<Next>,
    /// Files of which a name is among these.
    pending: FxHashSet<Inode>,
    together: usize,
    /// How deep the directories lie that these are in.
    with_dir: Vec<usize>,
    /// The directories that are being visited, from the first down.
    open: Vec<Visited>,
    /// Files that have lost a name here, and when that was.
    fewer_names: FxHashMap<Inode, Changed>,
    removed: u64,
}

/// A directory that is being visited.
struct Visited {
    /// As it was compared.
    entry: Freed,
    /// Once something in it goes next.
    dir: Option<Arc<OwnedFd>>,
}

/// Something that goes.
struct Next {
    dir: Arc<OwnedFd>,
    name: CString,
    what: What,
}

enum What {
    /// A file, and whether its lease is older than the uses that were read last.
    File(Inode, Option<Leased>, bool),
    /// What is neither a file nor a directory.
    Other(Inode),
    /// A directory that was compared when it was entered.
    Directory(Freed),
}

impl<'e, 'g> Emptying<'e, 'g> {
    fn of(
        tree: &'e Tree,
        ground: &'e Ground<'g>,
        leases: FxHashMap<Inode, Leased>,
        (read_uses, freed): (&'e ReadUses<'e>, &'e mut Vec<Freed>),
    ) -> Self {
        Self {
            tree,
            ground,
            read_uses,
            leases,
            freed,
            next: Vec::new(),
            pending: FxHashSet::default(),
            // Each has two descriptors.
            together: (ground.leases_of_a_tree / 2).clamp(1, TOGETHER_MAX),
            with_dir: Vec::new(),
            open: Vec::new(),
            fewer_names: FxHashMap::default(),
            removed: 0,
        }
    }

    fn will_remove(&mut self, dir: Arc<OwnedFd>, name: &CStr, what: What) -> Result<(), Fate> {
        let name = name.to_owned();
        self.next.push(Next { dir, name, what });
        match self.next.len() < self.together && self.with_dir.len() < DIRECTORIES_MAX {
            true => Ok(()),
            false => self.carry_out(),
        }
    }

    /// The directory that is visited, for what goes next.
    fn here(&mut self, dir: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        if let Some(here) = self.open.last().and_then(|level| level.dir.as_ref()) {
            return Ok(Arc::clone(here));
        }
        let here = Arc::new(rustix::io::dup(dir)?);
        self.with_dir.push(self.open.len());
        if let Some(level) = self.open.last_mut() {
            level.dir = Some(Arc::clone(&here));
        }
        Ok(here)
    }

    /// Removes what is next.
    fn carry_out(&mut self) -> Result<(), Fate> {
        self.know_all_uses()?;
        self.pending.clear();
        for depth in std::mem::take(&mut self.with_dir) {
            if let Some(level) = depth.checked_sub(1).and_then(|at| self.open.get_mut(at)) {
                level.dir = None;
            }
        }
        for Next { dir, name, what } in std::mem::take(&mut self.next) {
            match what {
                What::File(ino, lease, _) => self.remove_file((&dir, &name), ino, lease.as_ref())?,
                What::Other(ino) => self.remove_file((&dir, &name), ino, None)?,
                What::Directory(entry) => {
                    inside::remove_dir(&*dir, &*name).map_err(not_removed)?;
                    self.is_removed(entry)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the uses before the leases. Where that takes long, openers do not wait for it: the leases are given up and taken again.
    fn know_all_uses(&mut self) -> Result<(), Fate> {
        let is_new = |next: &Next| matches!(next.what, What::File(_, _, is_old) if !is_old);
        if !self.next.iter().any(is_new) {
            return Ok(());
        }
        for _ in 1..TRIES {
            if (self.read_uses)() {
                return Ok(());
            }
            for next in &mut self.next {
                if let What::File(_, lease, is_old) = &mut next.what {
                    (*lease, *is_old) = (None, false);
                }
            }
            std::thread::sleep(REST);
            for Next { dir, name, what } in &mut self.next {
                if let What::File(ino, lease, _) = what {
                    *lease = Some(lease_of(self.ground, (dir, name), *ino)?);
                }
            }
        }
        match (self.read_uses)() {
            true => Ok(()),
            false => Err(Fate::Skipped(Skip::Accessed)),
        }
    }

    fn remove_file(
        &mut self,
        (dir, name): (&OwnedFd, &CStr),
        ino: Inode,
        lease: Option<&Leased>,
    ) -> Result<(), Fate> {
        // By its name: another may have been put there since it was leased.
        let found = stat::entry(dir, name).map_err(refusal::fate)?;
        if found.stat.ino != ino {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let entry = self
            .tree
            .check(self.ground, &found, self.fewer_names.get(&ino).copied())?;
        if lease.is_some_and(|lease| !lease.is_still_granted()) {
            return Err(Fate::Skipped(Skip::Open));
        }
        inside::unlink(dir, name).map_err(not_removed)?;
        if let Some(lease) = lease.filter(|_| entry.known.links > 1) {
            // The next of its names is compared with what is left of it.
            let left = stat::open_file(lease.file()).map_err(Fate::Failed)?.stat;
            self.fewer_names.insert(ino, (left.ctime, left.ctime_nanos));
            self.ground.refresh(left).map_err(Fate::Failed)?;
        }
        self.is_removed(entry)
    }

    fn is_removed(&mut self, entry: Freed) -> Result<(), Fate> {
        self.removed = self.removed.saturating_add(1);
        self.freed.push(entry);
        if self.freed.len() >= FORGOTTEN_AT_ONCE {
            let forgotten = forget(self.ground.watched, Vec::new(), self.freed);
            forgotten.map_err(|e| Fate::Failed(io::Error::other(e)))?;
            self.freed.clear();
        }
        Ok(())
    }
}

impl Visitor for Emptying<'_, '_> {
    type Stop = Ended;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, dir: &OwnedFd) -> Result<bool, Ended> {
        let entry = self.tree.check_directory(self.ground, dir)?;
        self.open.push(Visited { entry, dir: None });
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> Result<(), Ended> {
        // The kernel gives no lease on a file of which this has another name open.
        if self.pending.contains(&entry.ino) {
            self.carry_out()?;
        }
        let here = self.here(dir)?;
        let what = match (entry.kind, self.leases.remove(&entry.ino)) {
            (Kind::File, Some(lease)) => What::File(entry.ino, Some(lease), true),
            (Kind::File, None) => {
                let lease = lease_of(self.ground, (dir, &entry.name), entry.ino)?;
                What::File(entry.ino, Some(lease), false)
            }
            // It was no directory when it was listed, and removing it as one fails.
            _ => What::Other(entry.ino),
        };
        self.pending.insert(entry.ino);
        Ok(self.will_remove(here, &entry.name, what)?)
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Ended> {
        let Some(left) = self.open.pop() else {
            return Ok(());
        };
        let above = self.here(parent)?;
        Ok(self.will_remove(above, name, What::Directory(left.entry))?)
    }
}

/// A lease on what has a name, if that is the file which was listed.
fn lease_of(ground: &Ground<'_>, (dir, name): (&OwnedFd, &CStr), ino: Inode) -> Result<Leased, Fate> {
    let lease = ground.lease_file(dir, name)?;
    leased_as(&lease, ino).map_err(refusal::fate)?;
    Ok(lease)
}

fn not_removed(error: io::Error) -> Fate {
    match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => Fate::Skipped(Skip::Changed),
        _ => Fate::Failed(error),
    }
}
