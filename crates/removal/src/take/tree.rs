//! Directories that go as a whole: renamed into the trash first, where no process finds them by a path any more, then
//! verified inside, and put back as a whole if anything in them was used.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::candidate::Candidate;
use crate::fate::{Fate, Skip};
use crate::refusal;
use crate::take::guard::{Ground, Leased, Name, check_place};
use crate::take::moves::Freed;
use crate::trash::layout::TREE;
use crate::trash::placeholder;
use purge_model::{Inode, Kind, Seconds};
use purge_sys::stat::{self, Located};
use purge_sys::vacant;
use purge_sys::walk::{Listed, Visitor, walk};

/// Entries of the directories that are out of reach together. One with more goes by itself, and no lease is kept on what lies in it: to
/// compare them all takes longer than an opener may wait.
pub const ENTRIES_TOGETHER_MAX: usize = 2000;

/// A directory in the trash, with all that is in it.
#[derive(Debug)]
pub struct Tree {
    pub(super) ino: Inode,
    /// Nothing in it may have been used later than this.
    pub(super) unused_since: Seconds,
    from: Name,
    /// A placeholder has its name.
    name_is_kept: bool,
    place: OwnedFd,
    /// The same through the quiet mount: what lies in it is looked for there.
    pub(super) quiet: OwnedFd,
    pub(super) leases: FxHashMap<Inode, Leased>,
    /// How many files were leased, for however long.
    files: u64,
    /// What was in it before it was moved, in order; none: that is being found out.
    planned: Option<Vec<Inode>>,
    pub(super) inodes: Vec<Inode>,
}

/// Something in the tree, as the index knows it.
type Entry = Freed;

/// When something was changed.
pub(super) type Changed = (Seconds, u32);

/// Ends a walk.
pub(super) struct Ended(pub(super) Fate);

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self(refusal::fate(error))
    }
}

impl From<Fate> for Ended {
    fn from(fate: Fate) -> Self {
        Self(fate)
    }
}

impl Tree {
    /// Looks at a directory at its place. Most that does not go is found here, before anything is moved.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn find(ground: &mut Ground<'_>, candidate: &Candidate) -> Result<Self, Fate> {
        let from = ground.find(candidate)?;
        let ino = candidate.ino;
        let mut tree = Self {
            ino,
            unused_since: candidate.last_use(),
            place: rustix::io::dup(&from.dir).map_err(|e| Fate::Failed(e.into()))?,
            quiet: rustix::io::dup(&from.dir).map_err(|e| Fate::Failed(e.into()))?,
            from,
            name_is_kept: false,
            leases: FxHashMap::default(),
            files: 0,
            planned: None,
            inodes: Vec::new(),
        };
        ground.verify(candidate, None)?;
        tree.look_at_all(ground)?;
        Ok(tree)
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.planned.as_ref().map_or(0, Vec::len)
    }

    /// Takes it out of reach. A process that has a file in it open is found.
    ///
    /// # Errors
    /// The fate of a candidate that does not go: it lies at its place.
    pub fn take(self, ground: &mut Ground<'_>, candidate: &Candidate) -> Result<Self, Fate> {
        let mut tree = self;
        let ino = tree.ino;
        if ground.keeps() {
            // Its owners and modes are remembered for the directories above, in case they no longer exist when it is restored.
            ground
                .bin
                .place(&candidate.dir, &tree.from.dir)
                .map_err(|e| ground.not_taken(e))?;
        }
        tree.place = ground
            .bin
            .place_tree(ino, &candidate.path(), &tree.from.origin())
            .map_err(|e| ground.not_taken(e))?;
        let moved = ground
            .open_quietly(&ground.bin.path_of_tree(ino))
            .and_then(|quiet| {
                // By its path, which users may change where the volume's root is theirs.
                if stat::open_file(&quiet)?.stat.ino != stat::open_file(&tree.place)?.stat.ino {
                    return Err(io::Error::from_raw_os_error(libc::EXDEV));
                }
                tree.quiet = quiet;
                placeholder::take((&tree.from.dir, &tree.from.name), &tree.place)
            });
        match moved {
            Ok(is_kept) => tree.name_is_kept = is_kept,
            Err(e) => {
                ground.bin.clear_tree(ino);
                return Err(ground.not_taken(e));
            }
        }
        match tree.lease_all(ground) {
            Ok(()) => Ok(tree),
            Err(fate) => Err(tree.put_back(ground).map_or_else(Fate::Failed, |()| fate)),
        }
    }

    /// Everything in it is as the index says, before anything is moved, and no file in it has a name elsewhere.
    fn look_at_all(&mut self, ground: &Ground<'_>) -> Result<(), Fate> {
        let mut names_left: FxHashMap<Inode, u32> = FxHashMap::default();
        let (dir, name) = (Arc::clone(&self.from.dir), Arc::clone(&self.from.name));
        let from = (&*dir, &*name);
        let mut planned = Vec::new();
        self.compare(ground, from, &mut |_, _, entry| {
            let Freed { ino, known } = entry;
            planned.push(ino);
            if known.kind == Kind::Symlink && known.links > 1 {
                // There is no lease that tells what is left of it when one name is removed.
                return Err(Fate::Skipped(Skip::Hardlinked));
            }
            if known.kind == Kind::File && known.links > 1 {
                let left = names_left.entry(ino).or_insert(known.links);
                *left = left.saturating_sub(1);
            }
            Ok(())
        })?;
        planned.sort_unstable();
        self.planned = Some(planned);
        match names_left.values().all(|left| *left == 0) {
            true => Ok(()),
            false => Err(Fate::Skipped(Skip::Hardlinked)),
        }
    }

    /// Finds out whether a process has a file in it open or locked. What happens after this is seen by the barrier.
    fn lease_all(&mut self, ground: &Ground<'_>) -> Result<(), Fate> {
        if stat::entry(&self.place, TREE).map_err(refusal::fate)?.stat.ino != self.ino {
            return Err(Fate::Skipped(Skip::Changed));
        }
        self.leases = FxHashMap::default();
        let mut leasing = Leasing {
            ground,
            leases: Some(FxHashMap::default()),
            entries: 0,
            files: 0,
        };
        walk(&self.quiet, TREE, &mut leasing).map_err(|Ended(fate)| fate)?;
        self.files = leasing.files;
        self.leases = leasing.leases.unwrap_or_default();
        Ok(())
    }

    /// Compares everything in it with the index. To be called when every use up to now is in the index.
    ///
    /// # Errors
    /// The fate of a directory that does not go.
    pub fn verify(&mut self, ground: &Ground<'_>) -> Result<(), Fate> {
        ground.check_held(self.ino)?;
        let mut inodes = Vec::new();
        self.compare(ground, (&self.quiet, TREE), &mut |_, _, entry| {
            inodes.push(entry.ino);
            Ok(())
        })?;
        self.inodes = inodes;
        match self.leases.values().all(Leased::is_whole) {
            true => Ok(()),
            false => Err(Fate::Skipped(Skip::Open)),
        }
    }

    /// Whether no process has come for a file in it whose lease is kept.
    pub fn is_still_granted(&self) -> bool {
        self.leases.values().all(Leased::is_still_granted)
    }

    /// Puts it back as a whole.
    ///
    /// # Errors
    /// When something else has taken its place.
    pub fn put_back(self, ground: &Ground<'_>) -> io::Result<()> {
        let name = (&*self.from.dir, &*self.from.name);
        let back = match self.name_is_kept {
            true => placeholder::give_back(&self.place, name),
            false => vacant::give(&self.place, TREE, name.0, name.1),
        };
        let back = back.map_err(|e| {
            let from = (&self.place, TREE);
            let belongs = (&*self.from.full(), Some(&self.from.origin()));
            ground.bin.kept.take(from, self.ino, belongs, &e)
        });
        ground.bin.clear_tree(self.ino);
        back
    }

    /// It will not go back: others may have its name.
    pub(super) fn let_go_of_the_name(&self, ground: &Ground<'_>) {
        if !self.name_is_kept {
            return;
        }
        let Some(ino) = placeholder::remove((&self.from.dir, &self.from.name)) else {
            return;
        };
        // A scan may have met it.
        if ground.watched.index.read().get(ino).is_some()
            && let Err(error) = ground.watched.index.write().remove(&[ino])
        {
            tracing::debug!(%error, "a directory that is no more stays in the index until the next scan");
        }
    }

    /// No process has come to what is in it, through a directory that was open before it was moved, or had renamed something of it just before.
    pub(super) fn last_look(&mut self, ground: &Ground<'_>, barrier: bool) -> Result<(), Fate> {
        if !self.is_still_granted() {
            return Err(Fate::Skipped(Skip::Open));
        }
        if !barrier || self.inodes.iter().any(|ino| ground.follower.has_seen(*ino)) {
            return Err(Fate::Skipped(Skip::Changed));
        }
        self.inodes
            .iter()
            .try_for_each(|ino| ground.check_mounted(*ino))?;
        // What is removed is leased once more then.
        match ground.keeps() && (self.leases.len() as u64) < self.files {
            true => self.lease_all(ground),
            false => Ok(()),
        }
    }

    /// Compares a directory that is open.
    pub(super) fn check_directory(&self, ground: &Ground<'_>, dir: &OwnedFd) -> Result<Entry, Fate> {
        let ino = stat::open_file(dir).map_err(refusal::fate)?.stat.ino;
        self.follow(ground, ino);
        let found = stat::open_file(dir).map_err(refusal::fate)?;
        let entry = self.check(ground, &found, None)?;
        let is_held_up = ground.watched.is_held_up(dir, &self.from.full());
        match is_held_up.map_err(Fate::Failed)? {
            true => Err(Fate::Skipped(Skip::Locked)),
            false => Ok(entry),
        }
    }

    /// Visits everything below and then the directory itself, each entry compared with the index first. What is leased is looked at by its
    /// lease.
    fn compare(
        &self,
        ground: &Ground<'_>,
        (parent, name): (&OwnedFd, &CStr),
        visit: &mut Visit<'_>,
    ) -> Result<(), Fate> {
        let mut comparing = Comparing {
            tree: self,
            ground,
            visit,
            open: Vec::new(),
        };
        walk(parent, name, &mut comparing).map_err(|Ended(fate)| fate)
    }

    /// Others may alter an entry from the moment on in which it is compared first.
    fn follow(&self, ground: &Ground<'_>, ino: Inode) {
        if self.planned.is_none() {
            ground.follower.follow(ino);
        }
    }

    /// The entry must be known to the index as it is, and be used no later than the plan says of the whole.
    /// `changed`: when the agent itself changed it last, if it has.
    pub(super) fn check(
        &self,
        ground: &Ground<'_>,
        found: &Located,
        changed: Option<Changed>,
    ) -> Result<Entry, Fate> {
        let watched = ground.watched;
        let s = found.stat;
        check_place(watched, found)?;
        if s.kind == Kind::Special {
            return Err(Fate::Skipped(Skip::Changed));
        }
        // What a user moves into it meanwhile is in no plan.
        let planned = self.planned.as_ref();
        let is_planned = planned.is_none_or(|planned| planned.binary_search(&s.ino).is_ok());
        // The index follows every change. The move has changed the directory itself.
        let is_moved = planned.is_some() && s.ino == self.ino;
        let is_unchanged = match changed {
            Some(changed) => (s.ctime, s.ctime_nanos) == changed,
            None => is_moved || !ground.is_changed_since_plan(&s),
        };
        if !is_planned || !is_unchanged {
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
        drop(index);
        ground.check_mounted(s.ino)?;
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

/// Called for everything in a directory, and for the directory itself last.
type Visit<'v> = dyn FnMut(&OwnedFd, &CStr, Entry) -> Result<(), Fate> + 'v;

/// Compares what it meets with the index.
struct Comparing<'c, 'g, 'v> {
    tree: &'c Tree,
    ground: &'c Ground<'g>,
    visit: &'c mut Visit<'v>,
    /// The directories that are being visited.
    open: Vec<Entry>,
}

impl Visitor for Comparing<'_, '_, '_> {
    type Stop = Ended;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, dir: &OwnedFd) -> Result<bool, Ended> {
        let entry = self.tree.check_directory(self.ground, dir)?;
        self.open.push(entry);
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> Result<(), Ended> {
        self.tree.follow(self.ground, entry.ino);
        let found = match self.tree.leases.get(&entry.ino) {
            Some(lease) => leased_as(lease, entry.ino),
            None => stat::entry(dir, &entry.name),
        };
        let found = found?;
        if found.stat.kind == Kind::Directory || found.stat.ino != entry.ino {
            // It was no directory when it was listed, and is the one that is followed.
            return Err(Fate::Skipped(Skip::Changed).into());
        }
        let entry_known = self.tree.check(self.ground, &found, None)?;
        Ok((self.visit)(dir, &entry.name, entry_known)?)
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Ended> {
        match self.open.pop() {
            Some(entry) => Ok((self.visit)(parent, name, entry)?),
            None => Ok(()),
        }
    }
}

/// Takes a lease on every file below. Whether each of them is what the index knows is looked at afterwards.
struct Leasing<'c, 'g> {
    ground: &'c Ground<'g>,
    /// None: there are too many to keep them.
    leases: Option<FxHashMap<Inode, Leased>>,
    entries: usize,
    files: u64,
}

impl Visitor for Leasing<'_, '_> {
    type Stop = Ended;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> Result<bool, Ended> {
        self.entries = self.entries.saturating_add(1);
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> Result<(), Ended> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > ENTRIES_TOGETHER_MAX {
            self.leases = None;
        }
        let under_another_name = self.leases.as_ref().is_some_and(|l| l.contains_key(&entry.ino));
        if entry.kind != Kind::File || under_another_name {
            return Ok(());
        }
        let lease = self.ground.lease_file(dir, &entry.name)?;
        self.files = self.files.saturating_add(1);
        // What has no place is leased twice, for a moment each.
        let max = self.ground.leases_of_a_tree;
        if let Some(leases) = self.leases.as_mut().filter(|l| l.len() < max) {
            leases.insert(entry.ino, lease);
        }
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> Result<(), Ended> {
        Ok(())
    }
}

/// What is leased, if it is what it was leased as: a name may have been another's in the moment between the list and the lease.
pub(super) fn leased_as(lease: &Leased, ino: Inode) -> io::Result<Located> {
    let found = stat::open_file(lease.file())?;
    match found.stat.ino == ino {
        true => Ok(found),
        false => Err(rustix::io::Errno::STALE.into()),
    }
}
