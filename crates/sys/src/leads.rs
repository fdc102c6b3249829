//! Where symbolic links lead, found out without following one: each name on the way is looked at below the volume's root and nowhere else
//! (`openat2(2)`), and what a link says is read (`readlink(2)`).
//!
//! To read a link moves its access time, as to follow it does (`path_resolution(7)`), and a plan changes nothing. So links are read by way
//! of a mount of the agent's own that keeps none, where the kernel gives one.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use super::beneath;
use super::stat::{self, Device};
use purge_model::{Inode, Kind, Seconds, Stat};

/// More links than this on one way are followed by no kernel (`path_resolution(7)`).
const LINKS_MAX: usize = 40;
/// Longer ways are given up.
const NAMES_MAX: usize = 4096;
/// Access times stay as they are (`MOUNT_ATTR_NOATIME` of linux/mount.h), and what is replaced by that.
const NOATIME: u64 = 0x10;
const ALL_OF_ATIME: u64 = 0x70;

/// Where a link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// To nothing: a name on the way does not exist, or the links lead in a circle.
    Nowhere,
    /// To this inode of the volume.
    At(Inode),
    /// Out of the volume, or it cannot be told.
    Unknown,
}

/// What was found out of a link.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The link itself.
    pub link: Stat,
    /// Where it leads; unknown if that was not asked.
    pub end: End,
    /// When the links on the way were changed last, by their change times; the link itself is not among them.
    pub changed: Seconds,
    /// And by their modification times.
    pub modified: Seconds,
}

/// Looks at the links of one volume.
#[derive(Debug)]
pub struct Links {
    root: OwnedFd,
    device: Device,
    /// The volume's path: an absolute link leads into the volume if it begins with this.
    path: Vec<Vec<u8>>,
    /// What is the agent's own: what lies there is no user's.
    own: Vec<Inode>,
    /// The volume through a mount that keeps no access times.
    quiet: Option<OwnedFd>,
    /// The directory that was looked at last.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Links {
    /// The links below an open root, of which `path` is the path; `own` are the directories in it that are the agent's.
    pub fn of(root: OwnedFd, device: Device, path: &Path, own: Vec<Inode>) -> Self {
        let quiet = without_access_times(&root);
        if let Err(error) = &quiet {
            tracing::debug!(%error, "to read symbolic links moves their access times");
        }
        Self {
            root,
            device,
            path: names(path.as_os_str().as_encoded_bytes()),
            own,
            quiet: quiet.ok(),
            last: None,
        }
    }

    /// Looks at the link `name` of the directory `dir`, and where it leads if that is asked.
    ///
    /// # Errors
    /// What `openat2(2)` and `statx(2)` say of the link itself; EINVAL if it is none.
    pub fn look(&mut self, dir: &[u8], name: &[u8], is_followed: bool) -> io::Result<Found> {
        let place = CString::new(name)?;
        let link = self.entry(dir, &place)?;
        if link.stat.kind != Kind::Symlink || link.device != self.device {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut way = Way {
            at: names(dir),
            left: vec![name.to_vec()],
            met: Vec::new(),
            steps: 0,
            changed: Seconds::MIN,
            modified: Seconds::MIN,
        };
        let end = match is_followed {
            true => self.go(&mut way).unwrap_or(End::Unknown),
            false => End::Unknown,
        };
        Ok(Found {
            link: link.stat,
            end,
            changed: way.changed,
            modified: way.modified,
        })
    }

    /// Goes on until the end. An error is doubt.
    fn go(&mut self, way: &mut Way) -> io::Result<End> {
        while let Some(name) = way.left.pop() {
            way.steps = way.steps.saturating_add(1);
            if way.steps > NAMES_MAX {
                return Ok(End::Unknown);
            }
            match &*name {
                b"" | b"." => continue,
                b".." if way.at.pop().is_none() => return Ok(End::Unknown),
                b".." => continue,
                _ => {}
            }
            if let Some(end) = self.step(way, name)? {
                return Ok(end);
            }
        }
        let dir = way.at.join(&b'/');
        let found = stat::open_file(beneath::open_anchor(&self.root, &dir)?)?;
        Ok(match way.at.is_empty() {
            true => End::Unknown,
            false => End::At(found.stat.ino),
        })
    }

    /// One name further; the end, if it is reached.
    fn step(&mut self, way: &mut Way, name: Vec<u8>) -> io::Result<Option<End>> {
        let dir = way.at.join(&b'/');
        let place = CString::new(&*name)?;
        let found = match self.entry(&dir, &place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(End::Nowhere)),
            other => other?,
        };
        if found.mount_root || found.device != self.device || self.own.contains(&found.stat.ino) {
            return Ok(Some(End::Unknown));
        }
        let s = found.stat;
        match s.kind {
            Kind::Directory => {
                way.at.push(name);
                Ok(None)
            }
            Kind::Symlink => {
                if way.met.contains(&s.ino) {
                    return Ok(Some(End::Nowhere));
                }
                if way.met.len() >= LINKS_MAX {
                    return Ok(Some(End::Unknown));
                }
                if !way.met.is_empty() {
                    way.changed = way.changed.max(s.ctime);
                    way.modified = way.modified.max(s.mtime);
                }
                way.met.push(s.ino);
                let target = self.read(&dir, &place, s.ino)?;
                Ok(if self.turn(way, &target) {
                    None
                } else {
                    Some(End::Unknown)
                })
            }
            // Something below a file, or a file that is named as a directory.
            _ if !way.left.is_empty() => Ok(Some(End::Unknown)),
            Kind::File | Kind::Special => Ok(Some(End::At(s.ino))),
        }
    }

    /// Goes on by what a link says. False: that is not below the volume.
    fn turn(&self, way: &mut Way, target: &[u8]) -> bool {
        let mut ahead = target
            .split(|b| *b == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>();
        if target.first() == Some(&b'/') {
            let all = names(target);
            let Some(below) = all.strip_prefix(&*self.path) else {
                return false;
            };
            way.at.clear();
            // What the slash at the end says is kept.
            let slash = (target.last() == Some(&b'/')).then(Vec::new);
            ahead = below.iter().cloned().chain(slash).collect();
        }
        ahead.reverse();
        way.left.extend(ahead);
        true
    }

    fn entry(&mut self, dir: &[u8], name: &CStr) -> io::Result<stat::Located> {
        if self.last.as_ref().is_none_or(|(path, _)| path != dir) {
            self.last = Some((dir.to_vec(), beneath::open_anchor(&self.root, dir)?));
        }
        let fd = self.last.as_ref().map(|(_, fd)| fd);
        stat::entry(fd.ok_or(io::ErrorKind::NotFound)?, name)
    }

    /// What a link says, if it is still the one that was looked at.
    fn read(&self, dir: &[u8], name: &CStr, ino: Inode) -> io::Result<Vec<u8>> {
        let dir = beneath::open_anchor(self.quiet.as_ref().unwrap_or(&self.root), dir)?;
        if stat::entry(&dir, name)?.stat.ino != ino {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(rustix::fs::readlinkat(&dir, name, Vec::new())?.into_bytes())
    }
}

/// A way, and how far it was followed.
struct Way {
    /// Where: names of directories below the root.
    at: Vec<Vec<u8>>,
    /// The names that are left, the next one last.
    left: Vec<Vec<u8>>,
    /// The links that were met.
    met: Vec<Inode>,
    steps: usize,
    changed: Seconds,
    modified: Seconds,
}

/// The names of a path.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/');
    parts.filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()
}

/// A mount of the agent's own on a directory, which keeps no access times and ends with its descriptor.
fn without_access_times(dir: impl AsFd) -> io::Result<OwnedFd> {
    let mount = beneath::mount_apart(dir)?;
    let attributes = libc::mount_attr {
        attr_set: NOATIME,
        attr_clr: ALL_OF_ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the path is an empty C string, and the structure has the size that is told; the kernel only reads them
    // (`mount_setattr(2)`).
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match done {
        0 => Ok(mount),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[path = "leads_tests.rs"]
mod tests;
