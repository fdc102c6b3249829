//! The directory of the trash itself: opened, made, listed, and given to a run.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::fs::IFlags;

use crate::trash::bin::{Bin, Making};
use crate::trash::freeing::{Ended, Freer, Rest, free_files, free_tree};
use crate::trash::lanes::{Lanes, WORKERS_MAX};
use crate::trash::layout::{FILES, FLAT, NAME, ORIGIN, TRASH, TREE, TREES};
use crate::trash::places;
use crate::trash::reserve;
use crate::trash::share::Share;
use crate::trash::stranded::Stranded;
use crate::trash::way::Stage;
use purge_base::probe;
use purge_collect::Watched;
use purge_model::{Seconds, Stat};
use purge_sys::absence::Absence;
use purge_sys::walk::{Removal, list};
use purge_sys::{beneath, inside, mark, stat, vacant};

/// This many names are tried for what users have put in its place: short ones, then ones that no user can guess and take beforehand.
const ASIDE_SHORT: u64 = 8;
const ASIDE_MAX: u64 = 16;
/// Where directories are made. No share is called so.
const STAGE: &CStr = c"new";

/// The trash of a volume, open.
#[derive(Debug)]
pub struct Trash {
    pub(crate) volume: OwnedFd,
    pub(crate) dir: OwnedFd,
    /// Something that had to be put back lies somewhere in the shares that are open.
    failed: Arc<AtomicBool>,
    /// See [`Bin`].
    making: Making,
}

impl Trash {
    /// Opens the trash of a volume, and makes it if there is none. What a user has put in its place is set aside.
    ///
    /// # Errors
    /// When it cannot be made, or the one that lies there is open to others: they could reach what is in it.
    pub fn open_or_make(watched: &Watched) -> io::Result<Self> {
        let volume = watched.open_root()?;
        if let Place::Foreign = look(watched, &volume)? {
            set_aside(watched, &volume)?;
        }
        let (dir, is_new) = inside::make_own_dir(&volume, NAME.to_bytes())?;
        if is_new {
            may_take_any_project(&volume);
            // The owner of the volume's root may have put another directory there since.
            let dir = beneath::open_dir(&dir, b"")?;
            if list(&dir)?.is_empty() {
                let needs_none = only_own_renames(&volume)?;
                // Without CAP_SYS_ADMIN there is no such mark.
                let may_lack = |error: io::Error| match error.raw_os_error() {
                    Some(libc::EPERM) if needs_none => Ok(()),
                    _ => mark::may_lack(error),
                };
                mark::give(&dir).or_else(may_lack)?;
            }
        }
        Self::open(watched)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens the trash of a volume, if there is one.
    ///
    /// # Errors
    /// When the one that lies there is open to others.
    pub fn open(watched: &Watched) -> io::Result<Option<Self>> {
        let volume = watched.open_root()?;
        let Place::Own(dir) = look(watched, &volume)? else {
            return Ok(None);
        };
        watched.trash.store(stat::open_file(&dir)?.stat.ino, SeqCst);
        Ok(Some(Self {
            volume,
            dir,
            failed: Arc::default(),
            making: Making::default(),
        }))
    }

    /// The trash itself.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Does something that needs an inode, and gives up some of the reserve for it.
    ///
    /// # Errors
    /// What is done says so.
    pub fn with_ballast<T>(&self, act: impl FnMut(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        let mut act = act;
        reserve::with_ballast(&self.dir, || act(&self.dir))
    }

    /// Keeps what a run needs of a volume that is full. Without space for it now a run may do without.
    pub fn keep_reserve(&self) {
        if let Err(error) = reserve::keep(&self.dir, WORKERS_MAX) {
            tracing::debug!(%error, "there is no space for the reserve of the trash");
        }
    }

    /// Whether the volume's file system takes changes.
    ///
    /// # Errors
    /// What it says instead.
    pub fn touch(&self) -> io::Result<()> {
        probe::takes_changes(&self.dir)
    }

    /// Takes away what only a restore needs.
    pub fn tidy(&self) {
        let _ = inside::remove_dir(&self.dir, STAGE);
    }

    /// The runs that have something here, oldest first.
    ///
    /// # Errors
    /// When the trash cannot be listed.
    pub fn shares(&self) -> io::Result<Vec<Share>> {
        let names = list(&beneath::open_dir(&self.dir, b"")?)?;
        let mut shares: Vec<Share> = names
            .iter()
            .filter_map(|n| Share::parse(n.to_str().ok()?))
            .collect();
        shares.sort_unstable_by(|a, b| (&a.run, a.until).cmp(&(&b.run, b.until)));
        Ok(shares)
    }

    /// Whether a share is there.
    ///
    /// # Errors
    /// What `statx(2)` says.
    pub fn has(&self, share: &Share) -> io::Result<bool> {
        let name = CString::new(share.name()).unwrap_or_default();
        inside::is_there(&self.dir, &name)
    }

    /// When a share was begun, at the latest; not said by any record.
    ///
    /// # Errors
    /// What `statx(2)` says.
    pub fn begun(&self, share: &Share) -> io::Result<Seconds> {
        let name = CString::new(share.name()).unwrap_or_default();
        let found = stat::entry(&self.dir, &name)?.stat;
        Ok(found.birth.min(found.mtime))
    }

    /// Begins a run's share.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, share: &Share) -> io::Result<()> {
        let name = share.name();
        let make = || reserve::make_share(&self.dir, name.as_bytes());
        match make() {
            Err(e) if reserve::is_full(&e) => {
                self.sweep(share);
                let here = CString::new(name.as_str()).unwrap_or_default();
                match share.until {
                    0 if reserve::take(&self.dir, &here).is_ok() => Ok(()),
                    _ => reserve::with_ballast(&self.dir, make),
                }
            }
            other => other,
        }
    }

    /// Where directories are made before they are moved to their places. What a process that was killed has left there goes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn stage(&self) -> io::Result<Stage> {
        if inside::is_there(&self.dir, STAGE)? {
            Removal::of(&self.dir, STAGE)?;
        }
        inside::make_own_dir(&self.dir, STAGE.to_bytes()).map(|(dir, _)| Stage::of(dir))
    }

    /// Where a batch's things go.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn bin(&self, share: &Share) -> io::Result<Bin> {
        let dir = beneath::open_anchor(&self.dir, share.name().as_bytes())?;
        Ok(Bin {
            volume: rustix::io::dup(&self.volume)?,
            files: beneath::open_anchor(&dir, FILES.as_bytes())?,
            trees: beneath::open_anchor(&dir, TREES.as_bytes())?,
            trees_path: format!("{TRASH}/{}/{TREES}", share.name()),
            last: None,
            above: None,
            kept: self.kept(&share.run)?,
            trash: rustix::io::dup(&self.dir)?,
            making: self.making.clone(),
        })
    }

    /// The lanes of a worker: each has its own, so that none waits for another's directory.
    ///
    /// # Errors
    /// When they cannot be made or opened.
    pub fn lanes(&self, share: &Share, worker: u8) -> io::Result<Lanes> {
        let flat = format!("{}/{FLAT}", share.name());
        let flat = beneath::open_anchor(&self.dir, flat.as_bytes())?;
        let lane = |n: usize| {
            let name = format!("{worker}.{n}");
            let made = reserve::with_ballast(&self.dir, || inside::make_own_dir(&flat, name.as_bytes()));
            made.map(|(dir, _)| Arc::new(dir))
        };
        let dirs: Vec<_> = (0..Lanes::COUNT).map(lane).collect::<io::Result<_>>()?;
        let dirs = dirs.try_into().map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Lanes::new(dirs))
    }

    /// Where what cannot be put back is kept.
    ///
    /// # Errors
    /// What `dup(2)` says.
    pub fn kept(&self, run: &str) -> io::Result<Stranded> {
        let dir = rustix::io::dup(&self.dir)?;
        Ok(Stranded::of_run(dir, run, Arc::clone(&self.failed)))
    }

    /// The run is over: its share can be restored from now on, or, without a grace, no longer exists.
    ///
    /// # Errors
    /// When it cannot be renamed, or something in it had to be put back and could not: the share stays as it is then, and
    /// nothing in it is freed.
    pub fn end(&self, share: &Share) -> io::Result<()> {
        if share.until == 0 {
            // Of files with several names the directories are left.
            match beneath::open_anchor(&self.dir, share.name().as_bytes()) {
                Ok(dir) => Removal::of_empty(&dir, c"f")?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let name = share.name();
        let here = CString::new(name.as_str()).unwrap_or_default();
        // What is left is in its parts; a share of which nothing is left goes.
        if share.until != 0 || !reserve::give_back(&self.dir, &here) {
            self.sweep(share);
        }
        let is_there = inside::is_there(&self.dir, &here)?;
        if is_there && (share.until == 0 || self.failed.load(SeqCst)) {
            return Err(io::Error::other(format!(
                "something may have been used while it was being taken, and could neither be put back nor be kept apart: \
                 it stays in {TRASH}/{name}, and the agent frees nothing there"
            )));
        }
        let closed = Share {
            open: false,
            ..share.clone()
        };
        let closed = CString::new(closed.name()).unwrap_or_default();
        match vacant::take(&self.dir, &here, &self.dir, &closed) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Takes a share away if nothing is in it.
    pub(crate) fn sweep(&self, share: &Share) {
        let name = share.name();
        if let Ok(dir) = beneath::open_anchor(&self.dir, name.as_bytes()) {
            if let Ok(flat) = beneath::open_dir(&dir, FLAT.as_bytes()) {
                for lane in list(&flat).unwrap_or_default() {
                    let _ = inside::remove_dir(&flat, lane);
                }
            }
            for part in [TREES, FILES, FLAT] {
                let _ = inside::remove_dir(&dir, part);
            }
            let _ = inside::remove_dir(&self.dir, name);
        }
    }

    /// Things whose place in a share does not tell where they came from.
    ///
    /// # Errors
    /// When the share cannot be listed.
    pub fn flat(&self, share: &Share) -> io::Result<Vec<Stat>> {
        let Some(flat) = self.part(share, FLAT)? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for lane in list(&flat)? {
            let lane = beneath::open_dir(&flat, lane.to_bytes())?;
            for name in list(&lane)? {
                found.push(stat::entry(&lane, &name)?.stat);
            }
        }
        Ok(found)
    }

    /// Where those things of a share belong that say so themselves, relative to the volume.
    ///
    /// # Errors
    /// When the share cannot be listed.
    pub fn origins(&self, share: &Share) -> io::Result<Vec<Vec<u8>>> {
        let Some(trees) = self.part(share, TREES)? else {
            return Ok(Vec::new());
        };
        let mut origins = Vec::new();
        for name in list(&trees)? {
            let Some(dir) = places::open(&trees, &name)? else {
                let found = stat::entry(&trees, &name)?.stat;
                origins.push(places::path_of_foreign(found.ino));
                continue;
            };
            if !inside::is_there(&dir, TREE)? {
                continue;
            }
            match inside::read_note(&dir, ORIGIN) {
                Ok(origin) => origins.push(origin),
                // It is kept all the same, and one that is damaged must not keep the volume from starting.
                Err(error) => {
                    tracing::warn!(run = %share.run, name = %name.to_string_lossy(), %error, "kept in the trash, and where it was cannot be read")
                }
            }
        }
        Ok(origins)
    }

    /// A part of a share, open; none if the run had not come to make it.
    pub(crate) fn part(&self, share: &Share, part: &str) -> io::Result<Option<OwnedFd>> {
        let path = format!("{}/{part}", share.name());
        match beneath::open_dir(&self.dir, path.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Frees what a share holds. What cannot be freed is in the answer, and everything else is freed. What was used is kept.
    ///
    /// # Errors
    /// When the share cannot be opened or listed, and when the rest must be freed later.
    pub fn free(&self, share: &Share, by: &Freer<'_>) -> Result<Rest, Ended> {
        let mut left = Rest::default();
        if let Some(trees) = self.part(share, TREES)? {
            for name in list(&trees)? {
                // Users may move directories of one while it is visited: that is a matter of this one.
                match free_tree(by, &trees, &name) {
                    Ok(rest) => left.add(rest, &below(share, name.to_bytes())),
                    Err(Ended::Failed(error)) => {
                        left.stuck.leave_behind(&below(share, name.to_bytes()), error)
                    }
                    Err(later) => return Err(later),
                }
            }
        }
        let name = share.name();
        let dir = beneath::open_anchor(&self.dir, name.as_bytes())?;
        for part in [FILES, FLAT] {
            let part = CString::new(part).unwrap_or_default();
            // An empty part was removed with the rest.
            if inside::is_there(&dir, &part)? {
                left.add(free_files(by, &dir, &part)?, share.name().as_bytes());
            }
        }
        let _ = inside::remove_dir(&dir, TREES);
        match inside::remove_dir(&self.dir, name) {
            Err(error)
                if (left.stuck.stuck_total, left.waiting) == (0, 0)
                    && error.kind() != io::ErrorKind::NotFound =>
            {
                Err(error.into())
            }
            _ => Ok(left),
        }
    }
}

/// The place of a tree of a share, in the trash.
fn below(share: &Share, tree: &[u8]) -> Vec<u8> {
    [share.name().as_bytes(), b"/", TREES.as_bytes(), b"/", tree].concat()
}

/// What lies where the trash belongs.
enum Place {
    Nothing,
    /// The trash.
    Own(OwnedFd),
    /// Something that a user put there.
    Foreign,
}

fn look(watched: &Watched, volume: &OwnedFd) -> io::Result<Place> {
    let dir = match beneath::open_dir(volume, NAME.to_bytes()) {
        Ok(dir) => dir,
        Err(e) => {
            return match Absence::of(&e) {
                Some(Absence::Missing) => Ok(Place::Nothing),
                Some(Absence::Replaced) => Ok(Place::Foreign),
                Some(Absence::Stale | Absence::Covered) | None => Err(e),
            };
        }
    };
    let found = rustix::fs::fstat(&dir)?;
    if found.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(Place::Foreign);
    }
    // Where others may rename what is the agent's, any private directory of its user may have got this name: what lies in it is no run's.
    let only_own_renames = only_own_renames(volume)?;
    match found.st_mode & 0o077 {
        0 if mark::is_on(&dir)? => Ok(Place::Own(dir)),
        0 if only_own_renames => {
            // An earlier agent made it, or one that cannot mark it.
            let _ = mark::give(&dir);
            Ok(Place::Own(dir))
        }
        0 => Ok(Place::Foreign),
        _ => Err(io::Error::other(format!(
            "{}/{TRASH} is open to other users: look at what is in it, then remove it, or give it the mode 0700",
            watched.path.display()
        ))),
    }
}

/// Whether only root and the agent's user can give a name in the volume's root to something of that user's.
fn only_own_renames(volume: &OwnedFd) -> io::Result<bool> {
    let root = rustix::fs::fstat(volume)?;
    let is_own = root.st_uid == 0 || root.st_uid == rustix::process::geteuid().as_raw();
    Ok(is_own && (root.st_mode & 0o022 == 0 || root.st_mode & 0o1000 != 0))
}

/// Gives what a user has put in the place of the trash another name there: it stays a user's, as everything else in the volume.
fn set_aside(watched: &Watched, volume: &OwnedFd) -> io::Result<()> {
    let luck = RandomState::new();
    for n in 0..ASIDE_MAX {
        let aside = match n {
            ..ASIDE_SHORT => format!("purge-agent-set-aside.{n}"),
            n => format!("purge-agent-set-aside.{:016x}", luck.hash_one(n)),
        };
        let name = CString::new(aside.as_str())?;
        match vacant::set_aside(volume, NAME, volume, &name) {
            Ok(()) => {
                let volume = watched.path.display();
                tracing::warn!(%volume, %aside, "{TRASH} at the root of the volume was not made by the agent; it has another name now");
                return Ok(());
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other(format!(
        "{}/{TRASH} belongs to a user, and no name was free to set it aside (purge-agent-set-aside.*): remove it",
        watched.path.display()
    )))
}

/// A directory with a project id of its own takes nothing of another project (EXDEV): the trash must not inherit one.
fn may_take_any_project(volume: &OwnedFd) {
    // Where there are no projects, none is inherited.
    if let Ok(dir) = beneath::open_dir(volume, NAME.to_bytes())
        && let Ok(flags) = rustix::fs::ioctl_getflags(&dir)
        && flags.contains(IFlags::PROJECT_INHERIT)
    {
        let _ = rustix::fs::ioctl_setflags(&dir, flags - IFlags::PROJECT_INHERIT);
    }
}
