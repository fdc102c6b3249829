//! The trash of a volume: where candidates lie between the rename that takes them away and their end.
//!
//! ```text
//!   VOLUME/.purge-agent-trash/        root's alone (0700), on the volume's own file system, invisible to the index
//!     RUN.UNTIL.open/                 a run that is going on, or was killed; UNTIL in unix seconds, 0: no grace
//!     RUN.UNTIL/                      a finished run, restorable until then
//!     RUN.kept/                       what could not be put back: never freed, see [`super::kept`]
//!       f/DIR/DIR/NAME                files below the directories they came from, which carry owner and mode
//!       d/INODE/t                     a directory that was taken as a whole, or anything that is kept,
//!       d/INODE/at -> PATH            and where it came from
//!       n/LANE/NUMBER                 without a grace: a file for the milliseconds until another takes its name or it is unlinked
//! ```
//! What has a grace says itself where it belongs: it can be put back by hand, without the agent. See [`super::restore`].

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::fs::{Access, AtFlags, FileType, Gid, IFlags, Mode, RawDir, RawDirEntry, Uid};

use super::bin::{Bin, Lanes};
use super::kept::Kept;
use crate::collect::Watched;
use crate::model::{Inode, Kind, Stat};
use crate::sys::{beneath, stat};

/// Its name at the volume's root.
pub const NAME: &str = ".purge-agent-trash";
/// What a directory that was taken as a whole is called in its place.
pub(super) const TREE: &CStr = c"t";
/// Where it came from, beside it.
pub(super) const ORIGIN: &CStr = c"at";
/// The end of the name of a run's share while the run is going on.
const OPEN: &str = ".open";
/// In the place of a grace's end in a share's name: there is none.
const KEPT: &str = "kept";
/// The parts of a share.
pub(super) const FILES: &str = "f";
pub(super) const TREES: &str = "d";
pub(super) const FLAT: &str = "n";

/// The trash of a volume, open.
#[derive(Debug)]
pub struct Trash {
    pub(super) volume: OwnedFd,
    pub(super) dir: OwnedFd,
    /// Something that should have gone back lies somewhere in the shares that are open.
    failed: Arc<AtomicBool>,
}

/// A run's part of the trash. What rules take that have different graces lies in different shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The run.
    pub run: String,
    /// When its grace ends, in unix seconds; 0: it has none; [`Share::KEPT`]: never.
    pub until: u64,
    /// The run is going on, or was killed.
    pub open: bool,
}

impl Share {
    /// No grace ends then: what could not be put back is never freed.
    pub const KEPT: u64 = u64::MAX;

    /// Whether it is kept without end.
    pub fn is_kept(&self) -> bool {
        self.until == Self::KEPT
    }

    fn parse(name: &str) -> Option<Self> {
        let (rest, open) = match name.strip_suffix(OPEN) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (run, until) = rest.rsplit_once('.')?;
        Some(Self {
            run: run.into(),
            until: match until {
                KEPT => Self::KEPT,
                until => until.parse().ok()?,
            },
            open,
        })
    }

    /// Its directory's name.
    pub(super) fn name(&self) -> String {
        let end = if self.open { OPEN } else { "" };
        match self.until {
            Self::KEPT => format!("{}.{KEPT}{end}", self.run),
            until => format!("{}.{until}{end}", self.run),
        }
    }
}

impl Trash {
    /// Opens the trash of a volume, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be made, or what lies there is not root's alone: somebody else could reach what is in it.
    pub fn open_or_make(watched: &Watched) -> io::Result<Self> {
        let volume = watched.open_root()?;
        match rustix::fs::mkdirat(&volume, NAME, Mode::RWXU) {
            Ok(()) => may_take_any_project(&volume),
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        Self::open(watched)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens the trash of a volume, if there is one.
    ///
    /// # Errors
    /// As for [`Trash::open_or_make`].
    pub fn open(watched: &Watched) -> io::Result<Option<Self>> {
        let volume = watched.open_root()?;
        let dir = match beneath::open_dir(&volume, NAME.as_bytes()) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let found = rustix::fs::fstat(&dir)?;
        if found.st_uid != rustix::process::geteuid().as_raw() || found.st_mode & 0o077 != 0 {
            return Err(io::Error::other(format!(
                "{}/{NAME} is not root's alone: look at it, then remove it or make it root's with mode 0700",
                watched.path.display()
            )));
        }
        watched.trash.store(found.st_ino, SeqCst);
        Ok(Some(Self {
            volume,
            dir,
            failed: Arc::default(),
        }))
    }

    /// Takes the trash away if nothing is in it.
    pub fn remove_if_empty(self, watched: &Watched) {
        if rustix::fs::unlinkat(&self.volume, NAME, AtFlags::REMOVEDIR).is_ok() {
            // Its inode may be a user's directory from now on.
            watched.trash.store(0, SeqCst);
        }
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

    /// Begins a run's share.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, share: &Share) -> io::Result<()> {
        let at = share.name();
        for dir in [
            at.clone(),
            format!("{at}/{FILES}"),
            format!("{at}/{TREES}"),
            format!("{at}/{FLAT}"),
        ] {
            match rustix::fs::mkdirat(&self.dir, dir, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
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
            trees_path: format!("{NAME}/{}/{TREES}", share.name()),
            last: None,
            above: None,
            kept: self.kept(&share.run)?,
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
            match rustix::fs::mkdirat(&flat, &*name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            beneath::open_anchor(&flat, name.as_bytes()).map(Arc::new)
        };
        let dirs: Vec<_> = (0..Lanes::COUNT).map(lane).collect::<io::Result<_>>()?;
        let dirs = dirs.try_into().map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Lanes::new(dirs))
    }

    /// Where what cannot be put back is kept.
    ///
    /// # Errors
    /// What `dup(2)` says.
    pub fn kept(&self, run: &str) -> io::Result<Kept> {
        let dir = rustix::io::dup(&self.dir)?;
        Ok(Kept::of_run(dir, run, Arc::clone(&self.failed)))
    }

    /// The run is over: its share is restorable from now on, or, without a grace, gone.
    ///
    /// # Errors
    /// When it cannot be renamed, or something in it should have gone back and could not: the share stays as it is then, and
    /// nothing in it is freed.
    pub fn end(&self, share: &Share) -> io::Result<()> {
        if share.until == 0 {
            // Of files with several names the directories are left.
            if let Some(files) = self.part(share, FILES)? {
                prune(&files)?;
            }
        }
        // What is left is in its parts; a share of which nothing is left goes.
        self.sweep(share);
        let name = share.name();
        let is_there = match rustix::fs::accessat(&self.dir, &*name, Access::EXISTS, AtFlags::empty()) {
            Ok(()) => true,
            Err(rustix::io::Errno::NOENT) => false,
            Err(e) => return Err(e.into()),
        };
        if is_there && (share.until == 0 || self.failed.load(SeqCst)) {
            return Err(io::Error::other(format!(
                "something may have been used while it was being taken, and could neither be put back nor be kept apart: \
                 it stays in {NAME}/{name}, and the agent frees nothing there"
            )));
        }
        let closed = Share {
            open: false,
            ..share.clone()
        };
        match rustix::fs::renameat(&self.dir, name, &self.dir, closed.name()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Takes a share away if nothing is in it.
    pub(super) fn sweep(&self, share: &Share) {
        let name = share.name();
        if let Ok(dir) = beneath::open_anchor(&self.dir, name.as_bytes()) {
            if let Ok(flat) = beneath::open_dir(&dir, FLAT.as_bytes()) {
                for lane in list(&flat).unwrap_or_default() {
                    let _ = rustix::fs::unlinkat(&flat, lane, AtFlags::REMOVEDIR);
                }
            }
            for part in [TREES, FILES, FLAT] {
                let _ = rustix::fs::unlinkat(&dir, part, AtFlags::REMOVEDIR);
            }
            let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
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
            let dir = beneath::open_anchor(&trees, name.to_bytes())?;
            if !is_there(&dir, TREE) {
                continue;
            }
            match rustix::fs::readlinkat(&dir, ORIGIN, Vec::new()) {
                Ok(origin) => origins.push(origin.into_bytes()),
                // It is kept all the same, and one that is damaged must not keep the volume from starting.
                Err(error) => {
                    tracing::warn!(run = %share.run, ?name, %error, "kept in the trash, and where it was cannot be read")
                }
            }
        }
        Ok(origins)
    }

    /// A part of a share, open; none if the run had not come to make it.
    fn part(&self, share: &Share, part: &str) -> io::Result<Option<OwnedFd>> {
        let path = format!("{}/{part}", share.name());
        match beneath::open_dir(&self.dir, path.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Frees what a share holds.
    ///
    /// # Errors
    /// What removing it says.
    pub fn free(&self, share: &Share) -> io::Result<()> {
        // Nobody but root reaches the trash, and the library's removal is anchored by descriptors itself.
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.dir.as_raw_fd()));
        std::fs::remove_dir_all(path.join(share.name()))
    }
}

/// A directory with a project id of its own takes nothing of another project (EXDEV): the trash must not inherit one.
fn may_take_any_project(volume: &OwnedFd) {
    // Where there are no projects, none is inherited.
    if let Ok(dir) = beneath::open_dir(volume, NAME.as_bytes())
        && let Ok(flags) = rustix::fs::ioctl_getflags(&dir)
        && flags.contains(IFlags::PROJECT_INHERIT)
    {
        let _ = rustix::fs::ioctl_setflags(&dir, flags - IFlags::PROJECT_INHERIT);
    }
}

/// Removes the empty directories below a directory.
fn prune(dir: &OwnedFd) -> io::Result<()> {
    for name in list(dir)? {
        if let Ok(below) = beneath::open_dir(dir, name.to_bytes()) {
            prune(&below)?;
            let _ = rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR);
        }
    }
    Ok(())
}

/// Gives the directory `name` the owner and mode of another.
pub(super) fn make_alike(dir: &OwnedFd, name: &[u8], model: &rustix::fs::Stat) -> io::Result<()> {
    // Each change is a transaction of the file system and an event.
    let before = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (before.st_uid, before.st_gid) != (model.st_uid, model.st_gid) {
        let (uid, gid) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if before.st_mode != model.st_mode {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(model.st_mode), AtFlags::empty())?;
    }
    Ok(())
}

/// The names in a directory.
pub(super) fn list(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    each(dir, |entry| {
        names.push(entry.file_name().to_owned());
        Ok(())
    })?;
    Ok(names)
}

/// What a directory says of an entry.
#[derive(Debug)]
pub(super) struct Listed {
    pub name: CString,
    pub ino: Inode,
    pub kind: Kind,
}

/// What is in a directory. Few file systems leave out what an entry is; there each is looked at.
pub(super) fn list_kinds(dir: impl AsFd) -> io::Result<Vec<Listed>> {
    let mut all = Vec::new();
    each(&dir, |entry| {
        let kind = match entry.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Unknown => stat::entry(&dir, entry.file_name())?.stat.kind,
            _ => Kind::Special,
        };
        all.push(Listed {
            name: entry.file_name().to_owned(),
            ino: entry.ino(),
            kind,
        });
        Ok(())
    })?;
    Ok(all)
}

fn each(dir: impl AsFd, mut take: impl FnMut(RawDirEntry<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            take(entry)?;
        }
    }
    Ok(())
}

/// Whether anything lies at `name`.
pub(super) fn is_there(dir: impl AsFd, name: &CStr) -> bool {
    stat::entry(dir, name).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_are_told_by_their_names(run in "[a-z0-9]{1,20}", until: u64, open: bool) {
            let share = Share { run, until, open };
            prop_assert_eq!(Share::parse(&share.name()), Some(share));
        }

        #[test]
        fn any_name_is_a_share_or_none(name in "\\PC{0,40}") {
            if let Some(share) = Share::parse(&name) {
                let _ = share.name();
            }
        }
    }
}
