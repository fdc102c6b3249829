//! Files and directories that are root's alone: everything that the agent keeps for itself. They are made here and nowhere else, 0600 and
//! 0700 with any umask, and what is found looser at start is tightened.
//!
//! What others are to read (the socket, announced lists, a directory on the way to them) says its mode itself, by descriptor
//! ([`crate::trusted`]).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, openat, statat};
use rustix::io::Errno;

use crate::beneath;

/// Of a file.
const FILE_MODE: u32 = 0o600;
/// Of a directory.
const DIR_MODE: u32 = 0o700;
/// Where a process's open files lie.
const ANCHORS: &str = "/proc/self/fd";
/// Everything that a mode can take away from, set-id bits included.
const ALL_BITS: u32 = 0o7777;

/// Directories of the system: no state directory is one of them or above one.
const OF_THE_SYSTEM: [&str; 10] = [
    "/dev", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var/lib",
];

/// Everything that this process makes is root's alone unless it says otherwise: also what libraries make.
pub fn by_default() {
    rustix::process::umask(Mode::from_raw_mode(0o077));
}

/// How files are opened that may be made by that.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// A new or emptied file.
///
/// # Errors
/// What `open(2)` says.
pub fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// A file with this content.
///
/// # Errors
/// What `open(2)` or `write(2)` says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create(path)?.write_all(bytes)
}

/// A directory, and those above it that are missing.
///
/// # Errors
/// What `mkdir(2)` says.
pub fn dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// A directory by its descriptor: what is done below the path that this returns is done in the directory that lay at `dir`, though another is
/// moved or mounted over it later. The descriptor stays open until the process ends. For people: [`shown`].
///
/// # Errors
/// What `open(2)` says.
pub fn anchored(dir: &Path) -> io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    // A number that is given to another file would lead there.
    Ok(PathBuf::from(format!("{ANCHORS}/{}/.", fd.into_raw_fd())))
}

/// A path below an anchored directory, as people know it.
pub fn shown(path: &Path) -> PathBuf {
    let below = path.strip_prefix(ANCHORS).ok().and_then(|rest| {
        let mut parts = rest.components();
        let number = parts.next()?;
        let dir = std::fs::read_link(Path::new(ANCHORS).join(number)).ok()?;
        Some(dir.join(parts.as_path()))
    });
    below.unwrap_or_else(|| path.to_owned())
}

/// Why a directory cannot be the agent's own.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is another's, or holds what is another's.
    #[error(
        "{path} belongs to uid {uid}: what the agent keeps must be root's alone. Look at it, then: chown -R root:root {top}"
    )]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose.
        uid: u32,
        /// The directory.
        top: PathBuf,
    },
    /// A file has a further name, perhaps outside.
    #[error(
        "{0} has another name (a hard link) and others can open it. Look at it, then move it out of the state directory"
    )]
    Linked(PathBuf),
    /// It is a directory of the system.
    #[error("{0} is not for the agent alone. Name a directory of its own, such as /var/lib/purge-agent")]
    Shared(PathBuf),
    /// It cannot be looked at.
    #[error("{path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Makes a directory and everything in it root's alone; returns how many entries were looser. Each directory is closed before what is in
/// it is looked at, so no process can put something in the way meanwhile.
/// What cannot be changed (a read-only mount, `chattr +a`) is said aloud.
///
/// # Errors
/// When something in it is another's, or it is a directory of the system.
pub fn tighten(top: &Path) -> Result<usize, Unfit> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Unfit::Io { path, source }
    };
    let whole = std::fs::canonicalize(top).map_err(failed(top))?;
    if OF_THE_SYSTEM.iter().any(|dir| Path::new(dir).starts_with(&whole)) {
        return Err(Unfit::Shared(whole));
    }
    let root = beneath::open_root(&whole).map_err(failed(&whole))?;
    let mut changed = 0;
    let mut left: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let place = whole.join(&below);
        let dir = beneath::open_dir(&root, below.as_os_str().as_bytes()).map_err(failed(&place))?;
        let is = fstat(&dir).map_err(|e| failed(&place)(e.into()))?;
        own(&is, &place, top)?;
        if below.as_os_str().is_empty() && is.st_mode & Mode::SVTX.bits() != 0 {
            return Err(Unfit::Shared(whole));
        }
        changed = usize::saturating_add(changed, close(&dir, &is, DIR_MODE, &place).into());
        for entry in Dir::read_from(&dir).map_err(|e| failed(&place)(e.into()))? {
            let entry = entry.map_err(|e| failed(&place)(e.into()))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let place = place.join(name);
            match look(&dir, name, &place, top)? {
                Found::Dir => left.push(below.join(name)),
                Found::Loose(file, is) => {
                    changed = changed.saturating_add(close(&file, &is, FILE_MODE, &place).into());
                }
                Found::Nothing => {}
            }
        }
    }
    Ok(changed)
}

enum Found {
    Dir,
    /// A file whose mode gives others something.
    Loose(OwnedFd, Stat),
    Nothing,
}

/// What lies at a name of a directory that is root's alone by now.
fn look(dir: &OwnedFd, name: &Path, place: &Path, top: &Path) -> Result<Found, Unfit> {
    let failed = |e: Errno| Unfit::Io {
        path: place.to_owned(),
        source: e.into(),
    };
    let is = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        is => is.map_err(failed)?,
    };
    own(&is, place, top)?;
    match FileType::from_raw_mode(is.st_mode) {
        FileType::Directory => Ok(Found::Dir),
        FileType::RegularFile if is.st_mode & ALL_BITS & !FILE_MODE == 0 => Ok(Found::Nothing),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty()).map_err(failed)?;
            let is = fstat(&file).map_err(failed)?;
            own(&is, place, top)?;
            // A user who could write here may have linked a file of the system.
            match is.st_nlink > 1 {
                true => Err(Unfit::Linked(place.to_owned())),
                false => Ok(Found::Loose(file, is)),
            }
        }
        // A socket says its mode itself; a link has none.
        _ => Ok(Found::Nothing),
    }
}

fn own(is: &Stat, path: &Path, top: &Path) -> Result<(), Unfit> {
    match is.st_uid == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err(Unfit::Foreign {
            path: path.to_owned(),
            uid: is.st_uid,
            top: top.to_owned(),
        }),
    }
}

/// Takes from an open file what `mode` does not give.
fn close(file: impl AsFd, is: &Stat, mode: u32, path: &Path) -> bool {
    if is.st_mode & ALL_BITS & !mode == 0 {
        return false;
    }
    match fchmod(file, Mode::from_raw_mode(mode)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "others may open this: its mode cannot be changed");
            false
        }
    }
}

/// Makes an open file root's alone: one that lies where others may look. What is no regular file is left as it is.
///
/// # Errors
/// When it is another's.
pub fn close_file(file: &File, path: &Path) -> io::Result<()> {
    let is = file.metadata()?;
    if !is.is_file() {
        return Ok(());
    }
    let own = rustix::process::geteuid().as_raw();
    if is.uid() != own {
        let words = format!("belongs to uid {}: chown root it, or name another file", is.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    if let Ok(is) = fstat(file) {
        close(file, &is, FILE_MODE, path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & ALL_BITS
    }

    fn loosen(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_done_below_an_anchor_is_done_in_the_directory_that_was_there() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, aside) = (tmp.path().join("state"), tmp.path().join("aside"));
        super::dir(&dir).unwrap();
        let anchor = anchored(&dir).unwrap();
        assert_eq!(shown(&anchor.join("a/b")), dir.join("a/b"));
        fs::rename(&dir, &aside).unwrap();
        super::dir(&dir).unwrap();
        write(&anchor.join("file"), b"x").unwrap();
        assert!(aside.join("file").exists() && !dir.join("file").exists());
        fs::remove_dir_all(&aside).unwrap();
        let error = write(&anchor.join("file"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_loose_is_tightened_and_nothing_outside_is() {
        let tmp = tempfile::tempdir().unwrap();
        let (top, out) = (tmp.path().join("state"), tmp.path().join("out"));
        dir(&top.join("a/b")).unwrap();
        write(&out, b"theirs").unwrap();
        write(&top.join("a/b/file"), b"ours").unwrap();
        assert_eq!((mode(&top), mode(&top.join("a/b/file"))), (0o700, 0o600));
        for (path, bits) in [("", 0o777), ("a", 0o755), ("a/b", 0o2770), ("a/b/file", 0o4755)] {
            loosen(&top.join(path), bits);
        }
        loosen(&out, 0o644);
        symlink(&out, top.join("a/link")).unwrap();
        assert_eq!(tighten(&top).unwrap(), 4);
        assert_eq!(tighten(&top).unwrap(), 0);
        for path in ["", "a", "a/b"] {
            assert_eq!(mode(&top.join(path)), 0o700, "{path}");
        }
        assert_eq!((mode(&top.join("a/b/file")), mode(&out)), (0o600, 0o644));
        // Perhaps a program of the system.
        loosen(&out, 0o755);
        fs::hard_link(&out, top.join("a/name")).unwrap();
        assert!(matches!(tighten(&top), Err(Unfit::Linked(_))));
        assert_eq!(mode(&out), 0o755);
    }

    #[test]
    fn directories_of_the_system_and_of_others_are_not_touched() {
        for dir in ["/", "/var", "/var/lib", "/tmp"] {
            let before = mode(Path::new(dir));
            assert!(matches!(tighten(Path::new(dir)), Err(Unfit::Shared(_))), "{dir}");
            assert_eq!(mode(Path::new(dir)), before);
        }
        let tmp = tempfile::tempdir().unwrap();
        loosen(tmp.path(), 0o1777);
        assert!(matches!(tighten(tmp.path()), Err(Unfit::Shared(_))));
        loosen(tmp.path(), 0o700);
        let file = tmp.path().join("file");
        write(&file, b"").unwrap();
        // Only root can give a file away.
        if std::os::unix::fs::chown(&file, Some(12345), None).is_ok() {
            let words = tighten(tmp.path()).unwrap_err().to_string();
            assert!(
                words.contains("belongs to uid 12345") && words.contains("chown -R root:root"),
                "{words}"
            );
        }
    }

    /// Everything that the agent keeps is made by this module: found by looking at the source.
    #[test]
    fn nothing_else_makes_files() {
        // What `sys` makes says its mode itself; the demonstration makes a tree of its own.
        let others = ["agent/src/demo.rs"];
        let makes = [
            "File::create",
            "fs::write(",
            "create_dir",
            "OpenOptions::new()",
            "DirBuilder::new()",
            "File::create_new",
        ];
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let crates = fs::read_dir(top.join("crates")).unwrap();
        let crates = crates.map(|entry| entry.unwrap().path().join("src"));
        let mut left: Vec<_> = crates.chain([top.join("agent/src")]).collect();
        left.retain(|dir| !dir.ends_with("sys/src"));
        assert!(left.len() > 10, "the source is not where it was");
        let mut wrong = Vec::new();
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    left.push(path);
                } else if !others.contains(&name.as_str()) && !name.contains("test") && name.ends_with(".rs")
                {
                    let text = fs::read_to_string(&path).unwrap();
                    let shipped = text.split("#[cfg(test)]").next().unwrap();
                    let lines = shipped.lines().filter(|l| makes.iter().any(|m| l.contains(m)));
                    let lines = lines.filter(|l| !l.contains("private::"));
                    wrong.extend(lines.map(|l| format!("{name}: {}", l.trim())));
                }
            }
        }
        assert!(wrong.is_empty(), "made without `private`:\n{}", wrong.join("\n"));
    }
}
