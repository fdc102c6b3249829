//! Places that only root can change: a path is walked one name at a time from `/`, and each directory on the way is looked at by its
//! descriptor.
//!
//! ```text
//!   /  ->  etc  ->  purge-agent  ->  agent.toml
//!   each: belongs to root; others cannot write, neither by mode nor by ACL, or it is sticky (/tmp: what is root's stays where it is)
//!   the last: others cannot write, sticky or not
//! ```
//! A symbolic link is followed only where root made it, and never as the last name of what is written. So a user who can
//! write a directory on the way can exchange nothing between a look and the use of it: such a path is refused.
//!
//! An agent that does not run as root has nothing to give away: only its own rights are at stake, and nothing is refused.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;

use super::protection::Protection;

/// As many links as the kernel follows in one path.
const LINKS_MAX: u32 = 40;
/// Groups below this number are the system's own (login.defs, SYS_GID_MAX): `syslog` may write `/var/log` in Ubuntu. They are
/// accepted above the last directory only.
const SYSTEM_GROUPS: std::ops::Range<u32> = 1..1000;
/// But this one is every user's in some distributions (`users`).
const USERS_GROUP: u32 = 100;
const OTHERS_WRITE: u32 = 0o022;
const GROUP_WRITES: u32 = 0o020;
const STICKY: u32 = 0o1000;

/// Why a place is not trusted, or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// The kernel refused.
    #[error("{}: {source}", place.display())]
    Io {
        /// Where.
        place: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another user owns a part of the path.
    #[error("{} belongs to user {uid}, who can exchange what is there", place.display())]
    Foreign {
        /// The part.
        place: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others can write a part of the path.
    #[error("{} can be written by others than root (mode {mode:04o}, group {gid}, or by its ACL)", place.display())]
    Open {
        /// The part.
        place: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its group.
        gid: u32,
    },
    /// It is something else than expected.
    #[error("{} is no {expected}", place.display())]
    Kind {
        /// Where.
        place: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// It is too large to be what it should be.
    #[error("{} has more than {max} bytes", place.display())]
    Large {
        /// Where.
        place: PathBuf,
        /// The bound.
        max: u64,
    },
}

impl Distrust {
    /// How to make the place one that only root can change; empty where that is not what is wrong.
    pub fn cure(&self) -> String {
        match self {
            Self::Foreign { place, .. } => format!("chown root {}, or choose another place", place.display()),
            Self::Open { place, .. } => format!("chmod go-w {}, or choose another place", place.display()),
            Self::Kind { expected, .. } => {
                format!("name a {expected}; a symbolic link counts only where root made it")
            }
            Self::Io { .. } | Self::Large { .. } => String::new(),
        }
    }

    /// Whether there is nothing at the path.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    fn io(place: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            place: place.to_owned(),
            source: source.into(),
        }
    }
}

impl From<Distrust> for io::Error {
    fn from(why: Distrust) -> Self {
        match why {
            Distrust::Io { place, source } => {
                Self::new(source.kind(), format!("{}: {source}", place.display()))
            }
            other => Self::new(
                io::ErrorKind::PermissionDenied,
                format!("{other}; {}", other.cure()),
            ),
        }
    }
}

/// What a walk does at the end of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A link of root's is followed.
    Read,
    /// Nothing is followed.
    Write,
    /// Nothing is followed, and directories that are missing are made with this mode.
    Make(u32),
}

/// Where a walk ended.
struct Found {
    /// The directory that holds the last name.
    dir: OwnedFd,
    name: OsString,
    place: PathBuf,
    /// What lies there, unless it is missing: an O_PATH descriptor.
    entry: Option<(OwnedFd, Stat)>,
}

/// A directory to make or replace files in.
///
/// # Errors
/// [`Distrust`], also for a directory that is not there.
pub fn directory(path: &Path) -> Result<OwnedFd, Distrust> {
    open_directory(walk(path, End::Write)?)
}

/// The same; directories that are missing are made with `mode`, with any umask.
///
/// # Errors
/// [`Distrust`].
pub fn make_directory(path: &Path, mode: u32) -> Result<OwnedFd, Distrust> {
    open_directory(walk(path, End::Make(mode))?)
}

/// A directory in which what root makes stays where it is: it may be sticky. It is made with `mode` where it is missing.
///
/// # Errors
/// [`Distrust`].
pub fn holder(path: &Path, mode: u32) -> Result<OwnedFd, Distrust> {
    let found = walk(path, End::Make(mode))?;
    if let Some((entry, stat)) = &found.entry {
        check_above(&found.place, entry, stat)?;
    }
    opened(&found)
}

/// Looks at as much of the path of a directory as there is.
///
/// # Errors
/// [`Distrust`].
pub fn look(path: &Path) -> Result<(), Distrust> {
    match walk(path, End::Write).and_then(open_directory) {
        Err(e) if !e.is_absent() => Err(e),
        _ => Ok(()),
    }
}

fn open_directory(found: Found) -> Result<OwnedFd, Distrust> {
    if let Some((_, stat)) = &found.entry {
        check_last(&found.place, stat)?;
    }
    opened(&found)
}

fn opened(found: &Found) -> Result<OwnedFd, Distrust> {
    let failed = |e: Errno| Distrust::io(&found.place, e);
    let (entry, stat) = found.entry.as_ref().ok_or_else(|| failed(Errno::NOENT))?;
    if kind(stat) != FileType::Directory {
        return Err(Distrust::Kind {
            place: found.place.clone(),
            expected: "directory",
        });
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(entry, c".", flags, Mode::empty()).map_err(failed)
}

/// A regular file to read. Nothing blocks if it is a fifo.
///
/// # Errors
/// [`Distrust`].
pub fn file(path: &Path) -> Result<File, Distrust> {
    let found = walk(path, End::Read)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&found.dir, found.name.as_os_str(), flags, Mode::empty());
    let opened = opened.map_err(|e| Distrust::io(&found.place, e))?;
    regular(&found.place, opened)
}

/// The text of a regular file of at most `max` bytes.
///
/// # Errors
/// [`Distrust`].
pub fn read(path: &Path, max: u64) -> Result<String, Distrust> {
    let mut text = String::new();
    let mut reader = file(path)?.take(max.saturating_add(1));
    reader
        .read_to_string(&mut text)
        .map_err(|e| Distrust::io(path, e))?;
    match text.len() as u64 > max {
        true => Err(Distrust::Large {
            place: path.to_owned(),
            max,
        }),
        false => Ok(text),
    }
}

/// A regular file to read and to append to, made with `mode` where it is missing, in a directory that only root can write.
///
/// # Errors
/// [`Distrust`].
pub fn append(path: &Path, mode: u32) -> Result<File, Distrust> {
    let found = walk(path, End::Write)?;
    let above = rustix::fs::fstat(&found.dir).map_err(|e| Distrust::io(&found.place, e))?;
    check_last(found.place.parent().unwrap_or(Path::new("/")), &above)?;
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match found.entry {
        Some((_, ref stat)) if kind(stat) != FileType::RegularFile => None,
        Some(_) => Some(rustix::fs::openat(
            &found.dir,
            found.name.as_os_str(),
            flags,
            Mode::empty(),
        )),
        None => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let made = rustix::fs::openat(&found.dir, found.name.as_os_str(), flags, Mode::RUSR | Mode::WUSR);
            Some(made.and_then(|file| {
                rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
                Ok(file)
            }))
        }
    };
    let opened = opened.ok_or_else(|| Distrust::Kind {
        place: found.place.clone(),
        expected: "regular file",
    })?;
    regular(&found.place, opened.map_err(|e| Distrust::io(&found.place, e))?)
}

fn regular(place: &Path, opened: OwnedFd) -> Result<File, Distrust> {
    let stat = rustix::fs::fstat(&opened).map_err(|e| Distrust::io(place, e))?;
    if kind(&stat) != FileType::RegularFile {
        return Err(Distrust::Kind {
            place: place.to_owned(),
            expected: "regular file",
        });
    }
    check_last(place, &stat)?;
    Ok(File::from(opened))
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The last of a path: others can neither own nor write it.
fn check_last(place: &Path, stat: &Stat) -> Result<(), Distrust> {
    check_owner(place, stat)?;
    match is_root() && stat.st_mode & OTHERS_WRITE != 0 {
        true => Err(open(place, stat)),
        false => Ok(()),
    }
}

/// A directory on the way: what is root's in it cannot be exchanged by others.
fn check_above(place: &Path, dir: &OwnedFd, stat: &Stat) -> Result<(), Distrust> {
    check_owner(place, stat)?;
    let writers = stat.st_mode & OTHERS_WRITE;
    let is_kept = !is_root()
        || writers == 0
        || stat.st_mode & STICKY != 0
        || (writers == GROUP_WRITES && is_systems(stat.st_gid) && is_groups_alone(dir));
    match is_kept {
        true => Ok(()),
        false => Err(open(place, stat)),
    }
}

fn is_systems(gid: u32) -> bool {
    gid == 0 || (SYSTEM_GROUPS.contains(&gid) && gid != USERS_GROUP)
}

/// Whether the bits of the group are the group's: with an ACL they are the mask, and say what a user whom it names may do. What cannot be
/// read is not trusted.
fn is_groups_alone(dir: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, c".", flags, Mode::empty()).map_err(io::Error::from);
    let protection = opened.and_then(|dir| Protection::of(&dir));
    protection.is_ok_and(|found| found.named_writers_are(|uid| uid == 0, is_systems))
}

fn check_owner(place: &Path, stat: &Stat) -> Result<(), Distrust> {
    match is_root() && stat.st_uid != 0 {
        true => Err(Distrust::Foreign {
            place: place.to_owned(),
            uid: stat.st_uid,
        }),
        false => Ok(()),
    }
}

fn open(place: &Path, stat: &Stat) -> Distrust {
    Distrust::Open {
        place: place.to_owned(),
        mode: stat.st_mode & 0o7777,
        gid: stat.st_gid,
    }
}

/// The names of a path that are still to be walked.
fn names_of(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn root() -> Result<OwnedFd, Distrust> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/", flags, Mode::empty()).map_err(|e| Distrust::io(Path::new("/"), e))
}

fn walk(path: &Path, end: End) -> Result<Found, Distrust> {
    let path = std::path::absolute(path).map_err(|e| Distrust::io(path, e))?;
    let mut left: VecDeque<OsString> = names_of(&path).collect();
    let (mut at, mut place, mut links) = (root()?, PathBuf::from("/"), 0u32);
    loop {
        let stat = stat_of(&at).map_err(|e| Distrust::io(&place, e))?;
        check_above(&place, &at, &stat)?;
        let name = left.pop_front().unwrap_or_else(|| ".".into());
        let here = place.join(&name);
        let (is_last, found) = (left.is_empty(), look_at(&at, &name));
        let entry = match (found, end) {
            (Err(Errno::NOENT), End::Make(mode)) => {
                Some(make(&at, &name, mode).map_err(|e| Distrust::io(&here, e))?)
            }
            (Err(Errno::NOENT), End::Write) if is_last => None,
            (found, _) => Some(found.map_err(|e| Distrust::io(&here, e))?),
        };
        let Some((entry, stat)) = entry else {
            let (dir, place) = (at, here);
            return Ok(Found {
                dir,
                name,
                place,
                entry: None,
            });
        };
        let is_link = kind(&stat) == FileType::Symlink;
        if is_link && !(is_last && end != End::Read) {
            links = links.saturating_add(1);
            let target = follow(&here, &entry, &stat, links)?;
            names_of(&target).rev().for_each(|name| left.push_front(name));
            if target.is_absolute() {
                (at, place) = (root()?, PathBuf::from("/"));
            }
            continue;
        }
        if is_last {
            let (dir, place, entry) = (at, here, Some((entry, stat)));
            return Ok(Found {
                dir,
                name,
                place,
                entry,
            });
        }
        if kind(&stat) != FileType::Directory {
            return Err(Distrust::Kind {
                place: here,
                expected: "directory",
            });
        }
        (at, place) = (entry, here);
    }
}

/// Where a link of root's leads.
fn follow(place: &Path, link: &OwnedFd, stat: &Stat, links: u32) -> Result<PathBuf, Distrust> {
    check_owner(place, stat)?;
    if links > LINKS_MAX {
        return Err(Distrust::io(place, Errno::LOOP));
    }
    let target = rustix::fs::readlinkat(link, c"", Vec::new()).map_err(|e| Distrust::io(place, e))?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Kubernetes gives a container its configuration in a directory of mode 0777 that is mounted read-only: who may write there cannot.
fn stat_of(entry: &OwnedFd) -> Result<Stat, Errno> {
    let mut stat = rustix::fs::fstat(entry)?;
    if kind(&stat) == FileType::Directory
        && rustix::fs::fstatvfs(entry)?
            .f_flag
            .contains(StatVfsMountFlags::RDONLY)
    {
        stat.st_mode &= !OTHERS_WRITE;
    }
    Ok(stat)
}

fn look_at(dir: impl AsFd, name: &OsStr) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = rustix::fs::openat(dir, name.as_bytes(), flags, Mode::empty())?;
    let stat = stat_of(&entry)?;
    Ok((entry, stat))
}

/// A new directory in one that only root can write. Its mode is set by its descriptor.
fn make(dir: &OwnedFd, name: &OsStr, mode: u32) -> Result<(OwnedFd, Stat), Errno> {
    match rustix::fs::mkdirat(dir, name.as_bytes(), Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name.as_bytes(), flags, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    look_at(dir, name)
}

/// A directory that only root can write, by its descriptor: what is made, replaced and removed in it is one name below it.
#[derive(Debug)]
pub struct Own(OwnedFd);

impl Own {
    /// Opens the directory, which is made with `mode` unless it is there.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn make(path: &Path, mode: u32) -> Result<Self, Distrust> {
        make_directory(path, mode).map(Self)
    }

    /// The directory `name` in this one, made unless it is there. Its mode becomes `mode`.
    ///
    /// # Errors
    /// What the kernel says: ENOTDIR or ELOOP where something else lies there. EPERM where another user owns it.
    pub fn inside(&self, name: &str, mode: u32) -> io::Result<Self> {
        let (entry, stat) = match look_at(&self.0, OsStr::new(name)) {
            Err(Errno::NOENT) => make(&self.0, OsStr::new(name), mode)?,
            found => found?,
        };
        let place = Path::new(name);
        check_owner(place, &stat)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if kind(&stat) != FileType::Directory {
            let expected = "directory";
            let place = place.to_owned();
            return Err(Distrust::Kind { place, expected }.into());
        }
        let dir = rustix::fs::openat(&entry, c".", flags, Mode::empty())?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
        Ok(Self(dir))
    }

    /// A new file that only root can read. What had the name goes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn begin(&self, name: &str) -> io::Result<File> {
        self.remove(OsStr::new(name))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::RUSR)?))
    }

    /// The file that [`Own::begin`] made, to append to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn go_on(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(
            &self.0,
            name,
            flags,
            Mode::empty(),
        )?))
    }

    /// Renames within the directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(e) if e != Errno::NOENT => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// The names of all that is not a directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            if entry.file_type() != FileType::Directory {
                names.push(OsString::from_vec(entry.file_name().to_bytes().to_vec()));
            }
        }
        Ok(names)
    }
}

/// Gives an open file to its reader: owner and mode, by its descriptor.
///
/// # Errors
/// What `fchown(2)` and `fchmod(2)` say: EDQUOT where the owner's quota is full.
pub fn give(file: impl AsFd, uid: u32, mode: u32) -> io::Result<()> {
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(rustix::fs::fchown(
        &file,
        Some(rustix::fs::Uid::from_raw(uid)),
        None,
    )?)
}

/// Lets one user read an open file that stays root's (`acl(5)`, in the kernel's own form).
///
/// # Errors
/// What `fsetxattr(2)` says.
pub fn let_read(file: impl AsFd, uid: u32) -> io::Result<()> {
    const VERSION: u32 = 2;
    const ANY: u32 = u32::MAX;
    // Tag, permissions, id: the owner, the user, the group, the mask, others.
    let entries: [(u16, u16, u32); 5] = [(1, 4, ANY), (2, 4, uid), (4, 0, ANY), (16, 4, ANY), (32, 0, ANY)];
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(may.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::fsetxattr(
        file,
        c"system.posix_acl_access",
        &value,
        flags,
    )?)
}

#[cfg(test)]
#[path = "trusted_tests.rs"]
mod tests;
