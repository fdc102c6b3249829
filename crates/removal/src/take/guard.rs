//! Compares a candidate with the live file and the live index: the gate that everything passes before it goes.
//!
//! ```text
//!   lease      a process that opens the file from now on waits; refused while any process has it open
//!   barrier    every use before the lease is in the index (the caller's: `Surroundings::sync`)
//!   verify     name, inode, times, index and holds are as the plan says
//! ```
//! What follows, the taking itself, is in [`crate::take::batch`].
//!
//! Everything is anchored below the volume's root by `openat2(2)`: no symlink, mount or `..` that a user puts into
//! the path while the run goes on leads out of the volume.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashSet;

use crate::candidate::Candidate;
use crate::fate::{Fate, Skip};
use crate::refusal::{self, Room};
use crate::take::room::LEASES_OF_A_TREE_MAX;
use crate::trash::bin::Bin;
use crate::trash::lanes::Lanes;
use crate::trash::origin::{Origin, Recent};
use purge_collect::Watched;
use purge_collect::altered::Follower;
use purge_collect::fuse::asking::{Taken, Talk};
use purge_collect::mounted::InUse;
use purge_collect::source::Reads;
use purge_index::DirId;
use purge_model::{Inode, Kind, Stat};
use purge_policy::evaluate::Shape;
use purge_sys::leads::{Found, Links};
use purge_sys::lease::{self, Asked, Lease};
use purge_sys::stat::Located;
use purge_sys::{beneath, stat};

/// A file that is kept from being opened while it is verified and taken.
#[derive(Debug)]
pub enum Leased {
    /// A process that opens the file waits.
    Guarded(Lease),
    /// There are no leases here. A process that opens the file by the mount of the agent's waits.
    Kept(OwnedFd, Taken),
    /// There are no leases here: the file is only known to be the one that is open.
    Unguarded(OwnedFd),
}

impl Leased {
    /// The file.
    pub fn file(&self) -> &OwnedFd {
        match self {
            Self::Guarded(lease) => lease.file(),
            Self::Kept(file, _) | Self::Unguarded(file) => file,
        }
    }

    /// Whether no process has come to open it since.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Guarded(lease) => lease.is_whole(),
            Self::Kept(_, taken) => taken.is_whole(),
            Self::Unguarded(_) => true,
        }
    }

    /// The last look, at what no process can find by its name any more: whether no process is on its way to it either.
    pub fn is_still_granted(&self) -> bool {
        match self {
            Self::Guarded(lease) => lease.is_still_granted(),
            Self::Kept(_, taken) => taken.is_whole(),
            Self::Unguarded(_) => true,
        }
    }

    /// Whether each process that opens it waits. Others are known by what watches the volume, once they have opened it.
    pub fn holds_up_all(&self) -> bool {
        matches!(self, Self::Guarded(_))
    }
}

/// One name of a candidate.
#[derive(Debug, Clone)]
pub struct Name {
    /// The directory that holds it, open.
    pub dir: Arc<OwnedFd>,
    /// Its path, relative to the volume.
    pub path: Arc<[u8]>,
    /// The name there.
    pub name: Arc<CStr>,
}

impl Name {
    /// The directories above it, as they are now.
    pub fn origin(&self) -> Origin {
        Origin::of(&self.dir, &self.path)
    }

    /// The whole path, relative to the volume.
    pub fn full(&self) -> Vec<u8> {
        match self.path.is_empty() {
            true => self.name.to_bytes().to_vec(),
            false => [&self.path, b"/".as_slice(), self.name.to_bytes()].concat(),
        }
    }
}

/// A candidate that was compared with the live file and index: the only thing that can be taken.
#[derive(Debug)]
pub struct Verified {
    /// All names of a file, the only one of a directory.
    pub(crate) names: Vec<Name>,
}

/// This many directories above a candidate are remembered as locked or not.
const LEVELS_REMEMBERED: usize = 64;

/// A directory of the volume, open.
#[derive(Debug, Clone)]
struct Anchor {
    path: Arc<[u8]>,
    by: By,
    fd: Arc<OwnedFd>,
    /// A process has a lock on it, or on one above it.
    locked: bool,
}

/// Through which mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The volume as all processes see it.
    Itself,
    /// The quiet one, if there is one.
    Quiet,
}

/// What a batch of candidates is compared with.
#[derive(Debug)]
pub struct Ground<'a> {
    pub(crate) watched: &'a Watched,
    root: OwnedFd,
    quiet: Option<&'a OwnedFd>,
    /// Knows what others rename or change of what is compared.
    pub(crate) follower: Follower<'a>,
    pub(crate) held: FxHashSet<Inode>,
    pub(crate) mounted: Arc<InUse>,
    /// When the plan was evaluated, in nanoseconds since 1970.
    pub(crate) evaluated: i128,
    /// A candidate that takes longer stays.
    pub(crate) until: Option<Instant>,
    /// In how many directories the names of one file may lie: all of them are open together.
    pub(crate) directories_max: usize,
    /// Leases that a directory which goes as a whole may keep.
    pub(crate) leases_of_a_tree: usize,
    /// The directory opened last: candidates come in runs.
    anchor: Option<Anchor>,
    /// Whether a process has a lock on a directory, or on one above it.
    locked: HashMap<Arc<[u8]>, bool>,
    pub(crate) bin: Bin,
    /// What is taken is removed in a moment, through these; none: it stays in the trash.
    pub(crate) lanes: Option<Lanes>,
    /// The volume's symbolic links, once one is looked at.
    links: Option<Links>,
    /// The mount by which users come, if it keeps files from them.
    mount: Option<Arc<Talk>>,
}

impl<'a> Ground<'a> {
    /// The live state for one batch. What is taken goes into `bin` and stays there, unless there are `lanes`. What is only opened is opened by
    /// way of `quiet`, a mount of the volume of which no events come, if there is one: a name that is renamed is looked for in the
    /// volume itself, where other mounts are seen.
    ///
    /// # Errors
    /// When the volume's root cannot be opened.
    pub fn new(
        watched: &'a Watched,
        bin: Bin,
        lanes: Option<Lanes>,
        quiet: Option<&'a OwnedFd>,
    ) -> io::Result<Self> {
        Ok(Self {
            watched,
            root: watched.open_root()?,
            quiet,
            follower: watched.altered.follower(),
            held: FxHashSet::default(),
            mounted: watched.mounted.last(),
            evaluated: 0,
            until: None,
            directories_max: usize::MAX,
            leases_of_a_tree: LEASES_OF_A_TREE_MAX,
            anchor: None,
            locked: HashMap::new(),
            bin,
            lanes,
            links: None,
            mount: watched.asker.talk().filter(|mount| mount.guards()),
        })
    }

    /// Whether an entry may have been changed since the plan was evaluated; a directory, if something was moved into it, or out of it. Users
    /// cannot set a change time.
    pub(crate) fn is_changed_since_plan(&self, found: &Stat) -> bool {
        /// The kernel's times of changes are those of its last tick.
        const TICK_NANOS: i128 = 20_000_000;
        let changed = i128::from(found.ctime.unix()) * 1_000_000_000 + i128::from(found.ctime_nanos);
        changed > self.evaluated - TICK_NANOS
    }

    /// Whether what is taken stays in the trash.
    pub fn keeps(&self) -> bool {
        self.lanes.is_none()
    }

    /// What is held now, and what is in use by mounts: ask after every use up to the leases is in the index.
    pub fn hold(&mut self, held: FxHashSet<Inode>, mounted: Arc<InUse>) {
        self.held = held;
        self.mounted = mounted;
        // The path may lead elsewhere by now.
        self.anchor = None;
    }

    /// Where these lie now, for the case that the run is killed.
    pub fn origins(&self, candidates: &[Candidate], recent: &mut Recent) -> Vec<(usize, Origin)> {
        recent.of_batch(self.root(By::Quiet), candidates)
    }

    /// Takes a lease on a file.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn lease(&mut self, candidate: &Candidate) -> Result<Leased, Fate> {
        let name = self.look(candidate, By::Quiet)?;
        self.lease_file(&name.dir, &name.name)
    }

    /// Takes a lease on a regular file. Without one nothing is removed for good. Another process's lease is not waited for: the file is opened
    /// without blocking (EAGAIN, `fcntl(2)`). A lease is refused by the system only, so what it says is no user's matter.
    pub(crate) fn lease_file(&self, dir: &OwnedFd, name: &CStr) -> Result<Leased, Fate> {
        let file = beneath::open_file(dir, name).map_err(refusal::fate)?;
        if self.watched.opens_what_is_used && self.quiet.is_none() {
            // That it was opened just now is told, and the source would break the lease by that.
            return match self.keeps() {
                true => self.without_lease(file),
                false => Err(Fate::Skipped(Skip::Open)),
            };
        }
        match lease::ask(file).map_err(Fate::Failed)? {
            Asked::Granted(lease) => Ok(Leased::Guarded(lease)),
            // Where opens by others cannot be told from the agent's, only a lease says that there was none.
            Asked::Unsupported(file) if self.keeps() && self.watched.knows_own => self.without_lease(file),
            Asked::Open | Asked::Unsupported(_) => Err(Fate::Skipped(Skip::Open)),
            Asked::Locked => Err(Fate::Skipped(Skip::Locked)),
        }
    }

    /// Where there are no leases: the mount keeps its users from the file, if they come by one.
    fn without_lease(&self, file: OwnedFd) -> Result<Leased, Fate> {
        let Some(mount) = &self.mount else {
            return Ok(Leased::Unguarded(file));
        };
        let ino = stat::open_file(&file).map_err(Fate::Failed)?.stat.ino;
        match mount.take(ino) {
            Some(taken) => Ok(Leased::Kept(file, taken)),
            None => Err(Fate::Skipped(Skip::Open)),
        }
    }

    /// The candidate is still where the plan saw it, and no process has a lock on it or above.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn find(&mut self, candidate: &Candidate) -> Result<Name, Fate> {
        self.look(candidate, By::Itself)
    }

    fn look(&mut self, candidate: &Candidate, by: By) -> Result<Name, Fate> {
        let anchor = self.anchor_of(candidate, by)?;
        if anchor.locked {
            return Err(Fate::Skipped(Skip::Locked));
        }
        let name = anchor.name(candidate);
        // Before anything is opened: opening a device or a fifo that has taken its place would do something.
        let found = stat::entry(&name.dir, &name.name).map_err(refusal::fate)?;
        if found.mount_root {
            return Err(Fate::Skipped(Skip::Mounted));
        }
        if (found.stat.ino, found.stat.kind) != (candidate.ino, candidate.kind()) {
            return Err(Fate::Skipped(Skip::Changed));
        }
        if candidate.kind() == Kind::Directory {
            let dir = beneath::open_dir(&name.dir, candidate.name.to_bytes()).map_err(refusal::fate)?;
            let path = candidate.path();
            if self.watched.is_held_up(&dir, &path).map_err(Fate::Failed)? {
                return Err(Fate::Skipped(Skip::Locked));
            }
        }
        Ok(name)
    }

    /// Compares a candidate with what is there now. Of a file that is open it is the file that counts: its name may have led to another in the
    /// moment when it was opened, and the lease would be on that. Whether it still has its name is looked at when that is taken.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn verify(&mut self, candidate: &Candidate, file: Option<&Leased>) -> Result<Verified, Fate> {
        let name = self.anchor_of(candidate, By::Itself)?.name(candidate);
        let found = match file {
            // A server is asked for what is decided by.
            Some(file) if self.watched.reads != Reads::Seen => stat::open_file_now(file.file()),
            Some(file) => stat::open_file(file.file()),
            None if self.watched.reads != Reads::Seen => stat::entry_now(&name.dir, &name.name),
            None => stat::entry(&name.dir, &name.name),
        };
        let found = found.map_err(refusal::fate)?;
        check_place(self.watched, &found)?;
        let s = &found.stat;
        let same_file = (s.ino, s.birth, s.kind) == (candidate.ino, candidate.birth, candidate.kind());
        // Removing its last files has changed a directory that is empty by now; rmdir itself refuses a full one.
        let same_content = candidate.kind() == Kind::Directory
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
        self.check_mounted(s.ino)?;
        self.check_index(candidate)?;
        self.check_read(candidate, s)?;
        if !same_content {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let names = match candidate.shape == Shape::File && candidate.links > 1 {
            true => self.all_names(candidate)?,
            false => vec![name],
        };
        Ok(Verified { names })
    }

    /// Where no event tells of reads: the access time must not be later than the last use that the plan knows of.
    fn check_read(&self, candidate: &Candidate, now: &Stat) -> Result<(), Fate> {
        let is_told = self.watched.reads != Reads::AtScans || candidate.shape != Shape::File;
        match is_told || now.atime <= candidate.access.at {
            true => Ok(()),
            false => Err(Fate::Skipped(Skip::Accessed)),
        }
    }

    fn anchor_of(&mut self, candidate: &Candidate, by: By) -> Result<Anchor, Fate> {
        let dir = &candidate.dir;
        let is_it = |a: &&Anchor| a.by == by && (Arc::ptr_eq(&a.path, dir) || a.path == *dir);
        if let Some(anchor) = self.anchor.as_ref().filter(is_it) {
            return Ok(anchor.clone());
        }
        let (fd, locked) = match self.locked.get(dir) {
            Some(locked) => (
                beneath::open_anchor(self.root(by), dir).map_err(refusal::fate)?,
                *locked,
            ),
            None => self.open_and_ask(dir, by)?,
        };
        let anchor = Anchor {
            path: Arc::clone(dir),
            by,
            fd: Arc::new(fd),
            locked,
        };
        self.anchor = Some(anchor.clone());
        Ok(anchor)
    }

    /// A directory of the volume, through the quiet mount.
    pub(crate) fn open_quietly(&self, path: &[u8]) -> io::Result<OwnedFd> {
        beneath::open_anchor(self.root(By::Quiet), path)
    }

    /// Looks at a symbolic link, and where it leads.
    pub(crate) fn look_at_link(&mut self, dir: &[u8], name: &CStr, is_followed: bool) -> io::Result<Found> {
        if self.links.is_none() {
            self.links = Some(self.watched.links()?);
        }
        let links = self.links.as_mut().ok_or(io::ErrorKind::NotFound)?;
        links.look(dir, name.to_bytes(), is_followed)
    }

    /// What it means that the trash took a candidate not.
    pub(crate) fn not_taken(&self, error: io::Error) -> Fate {
        refusal::fate_with(error, || match stat::has_room(&self.root) {
            Ok(true) => Room::Left,
            _ => Room::Unknown,
        })
    }

    /// The renames and removals of a run are not in what the agent reads: the index hears of a file that stays from here.
    pub(crate) fn refresh(&self, mut found: Stat) -> io::Result<()> {
        let mut index = self.watched.index.write();
        // Asking might mean opening, which would break what is left of the lease.
        if let Some((known, _)) = index.get(found.ino) {
            found.project = known.project;
        }
        index.refresh(&found).map(drop).map_err(io::Error::other)
    }

    fn root(&self, by: By) -> &OwnedFd {
        match by {
            By::Itself => &self.root,
            By::Quiet => self.quiet.unwrap_or(&self.root),
        }
    }

    /// Opens a directory and finds out whether a process has a lock on it or on one above it.
    fn open_and_ask(&mut self, path: &Arc<[u8]>, by: By) -> Result<(OwnedFd, bool), Fate> {
        // From the nearest one above that was asked before.
        let mut known: &[u8] = path;
        let before = loop {
            if let Some(locked) = self.locked.get(known) {
                break Some(*locked);
            }
            match parent_path(known) {
                Some(above) => known = above,
                None => break None,
            }
        };
        let mut dir = beneath::open_dir(self.root(by), known).map_err(refusal::fate)?;
        let mut locked = match before {
            Some(locked) => locked,
            None => self.watched.is_held_up(&dir, known).map_err(Fate::Failed)?,
        };
        self.locked.insert(known.into(), locked);
        let below = path.get(known.len()..).unwrap_or_default();
        let mut asked = known.len();
        let names = below.split(|b| *b == b'/').filter(|name| !name.is_empty());
        for (level, name) in names.enumerate() {
            dir = beneath::open_dir(&dir, name).map_err(refusal::fate)?;
            asked += name.len() + usize::from(asked > 0);
            let so_far = path.get(..asked).unwrap_or_default();
            locked |= self.watched.is_held_up(&dir, so_far).map_err(Fate::Failed)?;
            // Paths of all levels of a very deep directory would fill the memory.
            if level < LEVELS_REMEMBERED
                && let Some(so_far) = path.get(..asked)
            {
                self.locked.insert(so_far.into(), locked);
            }
        }
        self.locked.insert(Arc::clone(path), locked);
        Ok((dir, locked))
    }

    /// The index must still say what the plan says, and no hold may protect the candidate.
    pub(crate) fn check_index(&self, candidate: &Candidate) -> Result<(), Fate> {
        let index = self.watched.index.read();
        let Some(access) = index.last_use(candidate.ino) else {
            return Err(Fate::Skipped(Skip::Changed));
        };
        if candidate.shape == Shape::File && access != candidate.access {
            return Err(Fate::Skipped(Skip::Accessed));
        }
        drop(index);
        self.check_held(candidate.ino)
    }

    /// No mount of any namespace may lie on an inode, or be of it.
    pub(crate) fn check_mounted(&self, ino: Inode) -> Result<(), Fate> {
        match self.mounted.has(ino) {
            true => Err(Fate::Skipped(Skip::Mounted)),
            false => Ok(()),
        }
    }

    /// No hold may protect an entry, or a directory above it.
    pub(crate) fn check_held(&self, ino: Inode) -> Result<(), Fate> {
        if self.held.is_empty() {
            return Ok(());
        }
        let index = self.watched.index.read();
        let parent = || index.parent_of(ino).unwrap_or(DirId::ROOT);
        let mut dir = index.dirs().of_inode(ino).unwrap_or_else(parent);
        let mut held = self.held.contains(&ino);
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

    /// Whether the names of a candidate have taken too long: openers of the file wait.
    pub(crate) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }

    /// A file with several names goes with all of them or stays. Names in one directory follow each other and share its descriptor.
    fn all_names(&self, candidate: &Candidate) -> Result<Vec<Name>, Fate> {
        let mut all = Vec::new();
        for (path, names) in self.names_by_directory(candidate)? {
            if self.is_late() {
                return Err(Fate::Skipped(Skip::ManyNames));
            }
            let dir = Arc::new(beneath::open_anchor(&self.root, &path).map_err(refusal::fate)?);
            let path: Arc<[u8]> = path.into();
            for name in names {
                let name: Arc<CStr> = CString::new(name)
                    .map_err(|_| Fate::Skipped(Skip::Changed))?
                    .into();
                let is_it = |found: Located| found.stat.ino == candidate.ino;
                if !stat::entry(&dir, &name).is_ok_and(is_it) {
                    return Err(Fate::Skipped(Skip::Hardlinked));
                }
                let (dir, path) = (Arc::clone(&dir), Arc::clone(&path));
                all.push(Name { dir, path, name });
            }
        }
        match all.len() == candidate.links as usize {
            true => Ok(all),
            false => Err(Fate::Skipped(Skip::Hardlinked)),
        }
    }

    /// The paths of all directories that hold a file's names, and these.
    fn names_by_directory(&self, candidate: &Candidate) -> Result<Vec<Directory>, Fate> {
        let index = self.watched.index.read();
        let names = index
            .names(candidate.ino)
            .map_err(|e| Fate::Failed(io::Error::other(e)))?;
        let mut dirs: BTreeMap<DirId, Vec<Vec<u8>>> = BTreeMap::new();
        for (dir, name) in names {
            dirs.entry(dir).or_default().push(name);
        }
        if dirs.len() > self.directories_max {
            return Err(Fate::Skipped(Skip::ManyNames));
        }
        let dir_of = |dir: &DirId| index.dirs().get(*dir).map(|dir| dir.ino);
        let inodes: Vec<Inode> = dirs.keys().filter_map(dir_of).collect();
        let paths: Option<Vec<_>> = dirs
            .into_iter()
            .map(|(dir, names)| Some((index.dirs().path(dir)?, names)))
            .collect();
        drop(index);
        // A hold on any of the directories keeps the file.
        for dir in inodes {
            self.check_held(dir)?;
        }
        paths.ok_or(Fate::Skipped(Skip::Hardlinked))
    }
}

/// The path of a directory, and names in it.
type Directory = (Vec<u8>, Vec<Vec<u8>>);

impl Anchor {
    fn name(&self, candidate: &Candidate) -> Name {
        Name {
            dir: Arc::clone(&self.fd),
            path: Arc::clone(&self.path),
            name: Arc::clone(&candidate.name),
        }
    }
}

/// The path of the directory above; none above the root.
fn parent_path(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    path.get(..cut)
}

/// What lies there is of this volume, and the kernel would remove it.
pub(crate) fn check_place(watched: &Watched, found: &Located) -> Result<(), Fate> {
    let why = match found {
        found if found.mount_root => Skip::Mounted,
        found if found.device != watched.device => Skip::Changed,
        found if found.protected => Skip::Protected,
        _ => return Ok(()),
    };
    Err(Fate::Skipped(why))
}
