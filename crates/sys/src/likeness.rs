//! What makes one directory like another: owner, mode, ACLs, extended attributes, times and project. Read by descriptor, given by
//! descriptor, and compared: whether a directory that lies at a place now protects what is put into it as the one before it did.

mod was;

use self::was::Was;
use crate::time;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::project::{self, Project};
use super::protection::{ACCESS_ACL, Protection};
use purge_model::Inode;

/// The ACL that new entries get.
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// A directory of the trash has its times and its project here: its own times move when something is put into it, and with a project
/// that is inherited it would take nothing of another. Also its owner and mode: an owner whose quota is used up gets no directory.
const NOTE: &CStr = c"trusted.purge_agent.was";
/// A directory of the trash that stands for one which was empty and was removed has this: it goes back by itself.
const REMOVED: &CStr = c"trusted.purge_agent.removed";
/// The longest list of attribute names, and the longest value, that the kernel gives (`xattr(7)`).
const KERNEL_MAX: usize = 64 << 10;
/// What most lists and values have room in.
const SHORT: usize = 512;
/// At most this number of bytes of a directory's attributes, names and values, is remembered: users can give it many.
/// With the note they must stay below
/// what the kernel lists (XATTR_LIST_MAX).
const ATTRIBUTES_MAX: usize = 32 << 10;
/// At most this number of bytes of a file's attributes is noted before the file is removed.
const NOTED_MAX: usize = 256 << 10;
/// What is asked for where there are more names than the kernel lists.
const OF_ACCESS: [&CStr; 4] = [ACCESS_ACL, DEFAULT_ACL, c"security.selinux", c"security.SMACK64"];

/// What is known of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Likeness {
    /// Of which directory.
    ino: Inode,
    uid: u32,
    gid: u32,
    /// Permission bits, set-id bits and the sticky bit.
    mode: u32,
    atime: (i64, i64),
    mtime: (i64, i64),
    project: Option<Project>,
    attributes: Vec<(CString, Vec<u8>)>,
}

impl Likeness {
    /// Of an open directory.
    ///
    /// # Errors
    /// What `fstat(2)`, `flistxattr(2)` and `fgetxattr(2)` say; EBADF for an O_PATH descriptor.
    pub fn of(dir: &OwnedFd) -> io::Result<Self> {
        let s = rustix::fs::fstat(dir)?;
        Ok(Self {
            ino: s.st_ino,
            uid: s.st_uid,
            gid: s.st_gid,
            mode: s.st_mode & 0o7777,
            atime: (s.st_atime, s.st_atime_nsec.cast_signed()),
            mtime: (s.st_mtime, s.st_mtime_nsec.cast_signed()),
            project: project::of_dir(dir)?,
            attributes: attributes(dir)?,
        })
    }

    /// Of the directory that an open directory of the trash stands for.
    ///
    /// # Errors
    /// As for [`Likeness::of`].
    pub fn recorded(dir: &OwnedFd) -> io::Result<Self> {
        let mut likeness = Self::of(dir)?;
        let note = value(dir, NOTE)?.unwrap_or_default();
        if let Some(was) = Was::parse(&note) {
            likeness.ino = was.ino;
            (likeness.uid, likeness.gid, likeness.mode) = was.access;
            (likeness.atime, likeness.mtime) = (was.atime, was.mtime);
            likeness.project = was.project;
        }
        Ok(likeness)
    }

    /// Whether a directory of the trash stands for this one: another may have had its name when it was made.
    ///
    /// # Errors
    /// What `fgetxattr(2)` and `fstat(2)` say.
    pub fn is_of(trash: &OwnedFd, dir: impl AsFd) -> io::Result<bool> {
        let dir = rustix::fs::fstat(dir)?;
        let note = value(trash, NOTE)?.unwrap_or_default();
        Ok(match Was::parse(&note) {
            Some(was) => was.ino == dir.st_ino,
            // It could not be noted: then it must be as safe.
            None => {
                let made = rustix::fs::fstat(trash)?;
                let access = |s: &rustix::fs::Stat| (s.st_uid, s.st_gid, s.st_mode & 0o7777);
                access(&made) == access(&dir)
            }
        })
    }

    /// How many bytes of attributes it has.
    pub fn attribute_bytes(&self) -> usize {
        let bytes = |(name, value): &(CString, Vec<u8>)| name.count_bytes() + value.len();
        self.attributes.iter().map(bytes).sum()
    }

    /// Forgets what users can give a directory without end, and what does not decide about access.
    pub fn forget_attributes(&mut self) {
        self.attributes.retain(|(name, _)| is_acl(name));
    }

    /// Gives a directory of the trash all of it but times and project, which it notes.
    ///
    /// # Errors
    /// As for [`Likeness::give`].
    pub fn record_in(&self, dir: &OwnedFd) -> io::Result<()> {
        let was = Was {
            ino: self.ino,
            access: (self.uid, self.gid, self.mode),
            atime: self.atime,
            mtime: self.mtime,
            project: self.project.filter(|p| *p != Project::default()),
        };
        let noted = rustix::fs::fsetxattr(dir, NOTE, &was.to_note(), XattrFlags::empty());
        match (noted, self.give_access(dir)) {
            (Ok(()), Err(e)) if e.raw_os_error() == Some(libc::EDQUOT) => Ok(()),
            // What else the note says is not restored without it, and access does not depend on it.
            (Err(e), Ok(())) if is_optional(e) => Ok(()),
            (Err(e), Ok(())) => Err(e.into()),
            (_, given) => given,
        }
    }

    /// Gives all of it to a new directory that no other process can reach yet, but for the times: those move with what is put into it.
    ///
    /// # Errors
    /// What `fchown(2)`, `fchmod(2)` and `fsetxattr(2)` say.
    pub fn give(&self, dir: &OwnedFd) -> io::Result<()> {
        self.give_access(dir)?;
        match self.project {
            Some(project) if project != Project::default() => project::set_of_dir(dir, project),
            _ => Ok(()),
        }
    }

    /// Gives the times, last of all.
    ///
    /// # Errors
    /// What `futimens(3)` says.
    pub fn give_times(&self, dir: impl AsFd) -> io::Result<()> {
        let spec = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: spec(self.atime),
            last_modification: spec(self.mtime),
        };
        Ok(rustix::fs::futimens(dir, &times)?)
    }

    fn give_access(&self, dir: &OwnedFd) -> io::Result<()> {
        // A default ACL of the directory in which it was made has given it one.
        for (name, _) in attributes(dir)? {
            if is_acl(&name) && self.attribute(&name).is_none() {
                rustix::fs::fremovexattr(dir, &*name)?;
            }
        }
        for (name, value) in &self.attributes {
            let given = rustix::fs::fsetxattr(dir, &**name, value, XattrFlags::empty());
            match given {
                Err(e) if is_acl(name) || !is_optional(e) => return Err(e.into()),
                _ => {}
            }
        }
        // The owner's quota may be used up: what protects the directory is there by then.
        let now = rustix::fs::fstat(dir)?;
        let given = match (now.st_uid, now.st_gid) == (self.uid, self.gid) {
            true => Ok(()),
            false => {
                let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
                rustix::fs::fchown(dir, Some(uid), Some(gid))
            }
        };
        // Owner and ACLs change the mode, so it comes last.
        if rustix::fs::fstat(dir)?.st_mode & 0o7777 != self.mode {
            rustix::fs::fchmod(dir, Mode::from_raw_mode(self.mode))?;
        }
        Ok(given?)
    }

    fn attribute(&self, name: &CStr) -> Option<&[u8]> {
        let found = self.attributes.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| &**value)
    }

    /// Why a directory that is like `self` must not take what a directory like `before` protected; none: it may.
    #[cfg(test)]
    pub fn is_less_safe_than(&self, before: &Self) -> Option<String> {
        self.protection().is_less_safe_than(&before.protection())
    }

    /// Who may do what in it.
    pub fn protection(&self) -> Protection {
        Protection {
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
            acl: self.attribute(ACCESS_ACL).map(<[u8]>::to_vec),
        }
    }

    /// Of a directory of which only this is known.
    pub fn protected_as(known: &Protection) -> Self {
        let now = (time::wall_seconds().unix(), 0);
        let acl = known.acl.iter();
        Self {
            ino: 0,
            uid: known.uid,
            gid: known.gid,
            mode: known.mode,
            atime: now,
            mtime: now,
            project: None,
            attributes: acl.map(|acl| (ACCESS_ACL.to_owned(), acl.clone())).collect(),
        }
    }

    /// Of which directory it is.
    pub fn ino(&self) -> Inode {
        self.ino
    }
}

/// Notes on a directory of the trash whether the one it stands for was removed. False: the file system keeps no such notes.
///
/// # Errors
/// What `fsetxattr(2)` and `fremovexattr(2)` say.
pub fn note_removed(trash: &OwnedFd, is_removed: bool) -> io::Result<bool> {
    let noted = match is_removed {
        true => rustix::fs::fsetxattr(trash, REMOVED, b"1", XattrFlags::empty()),
        false => rustix::fs::fremovexattr(trash, REMOVED),
    };
    match noted {
        Ok(()) => Ok(true),
        Err(e) if is_optional(e) || e == Errno::NODATA => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether an open directory of the trash stands for one that was removed.
pub fn is_noted_removed(trash: &OwnedFd) -> bool {
    value(trash, REMOVED).is_ok_and(|value| value.is_some())
}

fn is_acl(name: &CStr) -> bool {
    [ACCESS_ACL, DEFAULT_ACL].contains(&name)
}

/// Attributes that a file system does not keep, or has no room for, are left out.
fn is_optional(error: Errno) -> bool {
    matches!(
        error,
        Errno::OPNOTSUPP
            | Errno::NOSPC
            | Errno::DQUOT
            | Errno::TOOBIG
            | Errno::RANGE
            | Errno::INVAL
            | Errno::PERM
    )
}

/// An extended attribute: its name and its value.
pub type Attribute = (CString, Vec<u8>);

/// All extended attributes of an open file or directory, with its ACLs; none: more than the agent can note.
///
/// # Errors
/// What `flistxattr(2)` and `fgetxattr(2)` say.
pub fn all_attributes(file: impl AsFd) -> io::Result<Option<Vec<Attribute>>> {
    let listed = of_any_size(|room| rustix::fs::flistxattr(&file, rustix::buffer::spare_capacity(room)));
    let list = match listed {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP) => return Ok(Some(Vec::new())),
        Err(Errno::TOOBIG | Errno::RANGE) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
    let (mut all, mut bytes) = (Vec::new(), 0usize);
    for name in names.filter_map(|name| CString::new(name).ok()) {
        let Some(value) = value(&file, &name)? else {
            continue;
        };
        bytes = bytes.saturating_add(name.count_bytes() + value.len());
        if bytes > NOTED_MAX {
            return Ok(None);
        }
        all.push((name, value));
    }
    all.sort_unstable();
    Ok(Some(all))
}

/// Extended attributes: what decides about access first, so that a user's own cannot keep it out.
fn attributes(dir: &OwnedFd) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let listed = of_any_size(|room| rustix::fs::flistxattr(dir, rustix::buffer::spare_capacity(room)));
    let list = match listed {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        // A user has given it more names than the kernel lists.
        Err(Errno::TOOBIG | Errno::RANGE) => {
            let names = OF_ACCESS.iter().flat_map(|name| name.to_bytes_with_nul());
            names.copied().collect()
        }
        Err(e) => return Err(e.into()),
    };
    let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<CString> = names.filter_map(|name| CString::new(name).ok()).collect();
    names.retain(|name| ![NOTE, REMOVED].contains(&&**name));
    names.sort_by_key(|name| name.as_bytes().starts_with(b"user."));
    let mut room = ATTRIBUTES_MAX;
    let mut attributes = Vec::new();
    for name in names {
        if room == 0 {
            break;
        }
        if let Some(value) = value(dir, &name)? {
            let bytes = name.count_bytes() + value.len();
            // What decides about access is never left out.
            if bytes <= room || is_acl(&name) {
                room = room.saturating_sub(bytes);
                attributes.push((name, value));
            }
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

/// An attribute; none: the directory does not have it, or it is not for the agent.
fn value(dir: impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    match of_any_size(|room| rustix::fs::fgetxattr(&dir, name, rustix::buffer::spare_capacity(room))) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What the kernel fills in: nearly always it is short.
fn of_any_size(fill: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut room = Vec::with_capacity(SHORT);
    match fill(&mut room) {
        Err(Errno::RANGE) => {
            room = Vec::with_capacity(KERNEL_MAX);
            fill(&mut room)?;
            room.shrink_to_fit();
            Ok(room)
        }
        filled => filled.map(|_| room),
    }
}

#[cfg(test)]
#[path = "likeness_tests.rs"]
mod tests;
