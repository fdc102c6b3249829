//! The trash of a volume: where candidates lie between the rename that takes them away and their end.
//!
//! ```text
//!   VOLUME/.purge-agent-trash/        root's alone (0700), on the volume's own file system, invisible to the index
//!     RUN.UNTIL.open/                 a run that is going on, or was killed; UNTIL in unix seconds, 0: no grace
//!     RUN.UNTIL/                      a finished run, restorable until then
//!       f/DIR/DIR/NAME                files below the directories they came from, which carry owner and mode
//!       d/INODE/t                     a directory that was taken as a whole,
//!       d/INODE/at -> PATH            and where it came from
//! ```
//! The trash says itself what is in it and where it belongs, so no journal has to agree with it after a crash: the file
//! system's own journal keeps renames in order. What an open run left is put back at the next start, never over anything.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rustix::fs::{AtFlags, Gid, Mode, RawDir, RenameFlags, Uid};

use crate::collect::Watched;
use crate::model::{Inode, Seconds};
use crate::sys::{beneath, stat};

/// Its name at the volume's root.
pub const NAME: &str = ".purge-agent-trash";
/// The end of a run's directory while the run is going on.
const OPEN: &str = ".open";

/// The trash of a volume, open.
#[derive(Debug)]
pub struct Trash {
    volume: OwnedFd,
    dir: OwnedFd,
}

/// A run's part of the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The run.
    pub run: String,
    /// When its grace ends; 0: it has none.
    pub until: u64,
    /// The run is going on, or was killed.
    pub open: bool,
}

impl Share {
    fn parse(name: &str) -> Option<Self> {
        let (rest, open) = match name.strip_suffix(OPEN) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (run, until) = rest.rsplit_once('.')?;
        Some(Self {
            run: run.into(),
            until: until.parse().ok()?,
            open,
        })
    }

    fn name(&self) -> String {
        let end = if self.open { OPEN } else { "" };
        format!("{}.{}{end}", self.run, self.until)
    }
}

/// What was put back.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Directories that were taken as a whole.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What could not be, and why.
    pub failed: Vec<(Vec<u8>, String)>,
}

impl Trash {
    /// Opens the trash of a volume, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be made, or what lies there is not root's alone: somebody else could reach what is in it.
    pub fn open_or_make(watched: &Watched) -> io::Result<Self> {
        let volume = watched.open_root()?;
        match rustix::fs::mkdirat(&volume, NAME, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
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
        Ok(Some(Self { volume, dir }))
    }

    /// Takes the trash away if nothing is in it.
    pub fn remove_if_empty(self, watched: &Watched) {
        // Its inode may be a user's directory a moment later.
        let ino = watched.trash.swap(0, SeqCst);
        if rustix::fs::unlinkat(&self.volume, NAME, AtFlags::REMOVEDIR).is_err() {
            watched.trash.store(ino, SeqCst);
        }
    }

    /// The runs that have something here.
    ///
    /// # Errors
    /// When the trash cannot be listed.
    pub fn shares(&self) -> io::Result<Vec<Share>> {
        let names = list(&beneath::open_dir(&self.dir, b"")?)?;
        Ok(names
            .iter()
            .filter_map(|n| Share::parse(n.to_str().ok()?))
            .collect())
    }

    /// Begins a run's share.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, share: &Share) -> io::Result<()> {
        let at = share.name();
        for dir in [at.clone(), format!("{at}/f"), format!("{at}/d")] {
            match rustix::fs::mkdirat(&self.dir, dir, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Where a run puts things.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn bin(&self, share: &Share) -> io::Result<Bin> {
        let dir = beneath::open_anchor(&self.dir, share.name().as_bytes())?;
        Ok(Bin {
            volume: rustix::io::dup(&self.volume)?,
            files: beneath::open_anchor(&dir, b"f")?,
            trees: beneath::open_anchor(&dir, b"d")?,
            last: None,
        })
    }

    /// The run is over: its share is restorable from now on, or, without a grace, gone.
    ///
    /// # Errors
    /// When it cannot be renamed, or something was left in a share without a grace and could not be put back.
    pub fn end(&self, share: &Share) -> io::Result<()> {
        if share.until == 0 {
            let left = self.put_back(share, &[]);
            return match left?.failed.first() {
                Some((path, why)) => Err(io::Error::other(format!(
                    "{} stays in the trash: {why}",
                    String::from_utf8_lossy(path)
                ))),
                None => Ok(()),
            };
        }
        let closed = Share {
            open: false,
            ..share.clone()
        };
        rustix::fs::renameat(&self.dir, share.name(), &self.dir, closed.name())?;
        Ok(())
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

    /// Puts back what a share holds: all of it, or what lies at or below one of `paths` (relative to the volume). Never
    /// over anything that is there now.
    ///
    /// # Errors
    /// When the share cannot be opened; what happens to single entries is in the result.
    pub fn put_back(&self, share: &Share, paths: &[Vec<u8>]) -> io::Result<Restored> {
        let name = share.name();
        let dir = beneath::open_anchor(&self.dir, name.as_bytes())?;
        let mut back = Back {
            volume: &self.volume,
            paths,
            done: Restored::default(),
        };
        // A killed run may not have come to make both.
        if let Ok(trees) = beneath::open_dir(&dir, b"d") {
            back.trees(&trees)?;
        }
        if let Ok(files) = beneath::open_dir(&dir, b"f") {
            back.files(&files, &[])?;
        }
        let done = back.done;
        for part in ["d", "f"] {
            let _ = rustix::fs::unlinkat(&dir, part, AtFlags::REMOVEDIR);
        }
        // It stays as long as anything is in it.
        let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR);
        Ok(done)
    }
}

/// Where a run puts what it takes away.
#[derive(Debug)]
pub struct Bin {
    volume: OwnedFd,
    files: OwnedFd,
    trees: OwnedFd,
    /// The directory made last: candidates come in runs.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

impl Bin {
    /// The place for the files of a directory of the volume.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn place(&mut self, dir: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if let Some((path, fd)) = &self.last
            && path == dir
        {
            return Ok(Arc::clone(fd));
        }
        let fd = match beneath::open_anchor(&self.files, dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make(dir)?,
            other => other?,
        };
        let fd = Arc::new(fd);
        self.last = Some((dir.to_vec(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Directories like those of the volume: the same owners and modes.
    fn make(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        let mut there = rustix::io::dup(&self.volume)?;
        let mut here = rustix::io::dup(&self.files)?;
        for name in dir.split(|b| *b == b'/') {
            there = beneath::open_anchor(&there, name)?;
            let made = rustix::fs::mkdirat(&here, name, Mode::RWXU);
            let next = beneath::open_anchor(&here, name)?;
            match made {
                Ok(()) => make_alike(&here, name, &rustix::fs::fstat(&there)?)?,
                Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            here = next;
        }
        Ok(here)
    }

    /// The place for a directory that is taken as a whole: its entry there is called `t`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn place_tree(&self, ino: Inode, path: &[u8]) -> io::Result<OwnedFd> {
        let name = ino.to_string();
        rustix::fs::mkdirat(&self.trees, &*name, Mode::RWXU)?;
        let dir = beneath::open_anchor(&self.trees, name.as_bytes())?;
        rustix::fs::symlinkat(path, &dir, "at")?;
        Ok(dir)
    }

    /// The place of a tree that is not there any more.
    pub fn clear_tree(&self, ino: Inode) {
        let name = ino.to_string();
        if let Ok(dir) = beneath::open_anchor(&self.trees, name.as_bytes()) {
            let _ = rustix::fs::unlinkat(&dir, "at", AtFlags::empty());
        }
        let _ = rustix::fs::unlinkat(&self.trees, name, AtFlags::REMOVEDIR);
    }
}

fn make_alike(dir: &OwnedFd, name: &[u8], model: &rustix::fs::Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(model.st_mode), AtFlags::empty())?;
    Ok(())
}

/// One putting back.
struct Back<'a> {
    volume: &'a OwnedFd,
    paths: &'a [Vec<u8>],
    done: Restored,
}

impl Back<'_> {
    fn is_wanted(&self, path: &[u8]) -> bool {
        let covers = |p: &Vec<u8>| {
            path.strip_prefix(p.as_slice())
                .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
        };
        self.paths.is_empty() || self.paths.iter().any(covers)
    }

    fn trees(&mut self, trees: &OwnedFd) -> io::Result<()> {
        for name in list(trees)? {
            let dir = beneath::open_anchor(trees, name.to_bytes())?;
            let Ok(at) = rustix::fs::readlinkat(&dir, "at", Vec::new()) else {
                let _ = rustix::fs::unlinkat(trees, &name, AtFlags::REMOVEDIR);
                continue;
            };
            let path = at.into_bytes();
            let there = stat::entry(&dir, c"t").is_ok();
            if there && !self.is_wanted(&path) {
                continue;
            }
            if there {
                match self.tree(&dir, &path) {
                    Ok(()) => self.done.directories += 1,
                    Err(e) => {
                        self.done.failed.push((path, in_words(&e)));
                        continue;
                    }
                }
            }
            rustix::fs::unlinkat(&dir, "at", AtFlags::empty())?;
            rustix::fs::unlinkat(trees, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn tree(&self, dir: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let cut = path.iter().rposition(|b| *b == b'/');
        let (parent, name) = match cut {
            Some(cut) => path.split_at(cut),
            None => (&[][..], path),
        };
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let parent = beneath::open_anchor(self.volume, parent)?;
        rustix::fs::renameat_with(dir, "t", parent, name, RenameFlags::NOREPLACE)?;
        Ok(())
    }

    /// What lies in a directory of the trash goes to the directory of the volume that it stands for.
    fn files(&mut self, here: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let mut parent: Option<OwnedFd> = None;
        for name in list(here)? {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.to_bytes());
            let found = stat::entry(here, &name)?;
            if found.stat.kind == crate::model::Kind::Directory {
                self.files(&beneath::open_dir(here, name.to_bytes())?, &below)?;
                // Full if something in it was not wanted or could not go back.
                let _ = rustix::fs::unlinkat(here, &name, AtFlags::REMOVEDIR);
                continue;
            }
            if !self.is_wanted(&below) {
                continue;
            }
            if parent.is_none() {
                parent = self
                    .parent(path, here)
                    .map_err(|e| self.done.failed.push((path.to_vec(), in_words(&e))))
                    .ok();
            }
            let Some(parent) = &parent else { return Ok(()) };
            match rustix::fs::renameat_with(here, &name, parent, &name, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.done.files += 1;
                    self.done.bytes = self.done.bytes.saturating_add(found.stat.size);
                }
                Err(e) => self.done.failed.push((below, in_words(&e.into()))),
            }
        }
        Ok(())
    }

    /// The directory of the volume at `path`; where it is gone it is made again, like the one of the trash.
    fn parent(&self, path: &[u8], here: &OwnedFd) -> io::Result<OwnedFd> {
        match beneath::open_anchor(self.volume, path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let cut = path.iter().rposition(|b| *b == b'/');
        let above = beneath::open_parent(here)?;
        let (parent, name) = match cut {
            Some(cut) => (
                self.parent(path.get(..cut).unwrap_or(&[]), &above)?,
                path.get(cut + 1..).unwrap_or(&[]),
            ),
            None => (beneath::open_anchor(self.volume, b"")?, path),
        };
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => make_alike(&parent, name, &rustix::fs::fstat(here)?)?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        beneath::open_anchor(&parent, name)
    }
}

fn in_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EEXIST) => "something else has its name by now; move that away and restore again".into(),
        Some(libc::ELOOP | libc::ENOTDIR | libc::EXDEV) => {
            "what lies on its way is no directory of the volume any more".into()
        }
        _ => error.to_string(),
    }
}

/// The names in a directory.
pub(super) fn list(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 16 << 10];
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

/// Puts back what killed runs left in the trash of a volume. Call it before the volume's first scan.
///
/// # Errors
/// When the trash cannot be opened or listed.
pub fn recover(watched: &Watched) -> io::Result<()> {
    let Some(trash) = Trash::open(watched)? else {
        return Ok(());
    };
    for share in trash.shares()?.into_iter().filter(|s| s.open) {
        let back = trash.put_back(&share, &[])?;
        let (files, directories, failed) = (back.files, back.directories, back.failed.len());
        tracing::info!(run = %share.run, files, directories, failed, "put back what a killed run had in hand");
        for (path, why) in back.failed {
            tracing::error!(run = %share.run, path = %String::from_utf8_lossy(&path), why, "stays in the trash");
        }
    }
    trash.remove_if_empty(watched);
    Ok(())
}

/// Frees what lies in the trash and whose grace has ended.
///
/// # Errors
/// When the trash cannot be opened or listed.
pub fn free_what_is_due(watched: &Watched, now: Seconds) -> io::Result<()> {
    let Some(trash) = Trash::open(watched)? else {
        return Ok(());
    };
    let due = |s: &Share| !s.open && i64::try_from(s.until).is_ok_and(|until| until <= now.unix());
    for share in trash.shares()?.into_iter().filter(due) {
        match trash.free(&share) {
            Ok(()) => tracing::info!(run = %share.run, "the grace has ended: freed"),
            Err(error) => tracing::error!(run = %share.run, %error, "the trash of a run cannot be freed"),
        }
    }
    Ok(())
}
