//! Where an inode lies now, independent of what the events said: the file system itself is asked.
//!
//! A directory's handle leads to the directory, its `..` to its parent, and `/proc/self/fd` to its name, so its place
//! is always found. A file's handle leads to no name: only the places that the index has can be looked at.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::RawDir;

use super::Watched;
use super::entries::{is_absent, take_entry};
use super::unnamed::Seen;
use purge_index::{DirId, Directories, StoreError};
use purge_model::Inode;
use purge_sys::beneath;
use purge_sys::mountpoints;
use purge_sys::stat::{self, Located};

/// No path is deeper than the kernel's longest path has slashes, many times over: this ends a walk upwards.
const LEVELS_MAX: usize = 100_000;
/// A directory that moves while its name is read is read again, up to this number of tries.
const TRIES: usize = 3;

/// Entries of a directory among which one is looked for that has no name otherwise.
const LISTED_MAX: usize = 10_000;
/// One `getdents64(2)`.
const LISTING_BYTES: usize = 32 << 10;

/// A directory's place: its parent, and its name there.
struct Seat {
    parent: OwnedFd,
    parent_is: Located,
    name: Vec<u8>,
    is: Located,
}

/// Makes the index agree with where a directory lies, and takes in directories above it that the index does not know.
/// False if that must be looked at again.
///
/// # Errors
/// When the index cannot be read.
pub fn follow_directory(watched: &Watched, dir: &OwnedFd, ino: Inode) -> Result<bool, StoreError> {
    let root = watched.index.read().dirs().get(DirId::ROOT).map(|d| d.ino);
    if root == Some(ino) {
        return Ok(true);
    }
    let (is_there, is_too_deep) = is_where_it_was(watched, dir, ino);
    if is_there {
        return Ok(true);
    }
    let seat = match seat_of(watched, dir.as_fd(), ino) {
        Ok(Some(seat)) => seat,
        // A scan finds where it is.
        Err(e) if e.kind() == io::ErrorKind::InvalidFilename => return Ok(true),
        // What lies there is no candidate.
        Ok(None) | Err(_) => return Ok(is_too_deep),
    };
    let (parent, known) = {
        let index = watched.index.read();
        let dirs = index.dirs();
        let known = dirs.of_inode(ino).and_then(|id| dirs.get(id));
        let known = known.map(|d| (d.parent, d.name.to_vec()));
        (known_dir(watched, dirs, &seat.parent_is), known)
    };
    match (parent, known) {
        (_, None) => Ok(true),
        (Some(parent), Some((was, name))) if was == parent && name == seat.name => Ok(true),
        (Some(parent), Some(_)) => watched.index.write().move_dir(ino, parent, &seat.name),
        (None, Some(_)) => take_in_from_above(watched, seat, ino),
    }
}

/// Whether a directory lies where the index has it: neither asks for its name, which the kernel does not tell of what lies deep. And
/// whether it lies too deep to have a path.
fn is_where_it_was(watched: &Watched, dir: &OwnedFd, ino: Inode) -> (bool, bool) {
    let (above, name, is_too_deep) = {
        let index = watched.index.read();
        let dirs = index.dirs();
        let known = dirs.of_inode(ino).and_then(|id| Some((id, dirs.get(id)?)));
        let Some((id, entry)) = known else {
            return (false, false);
        };
        let above = dirs.get(entry.parent).map(|parent| parent.ino);
        (above, entry.name.to_vec(), dirs.is_too_deep(id))
    };
    let is_there = || -> io::Result<bool> {
        let parent = beneath::open_parent(dir)?;
        let found = stat::open_file(&parent)?;
        if found.device != watched.device || Some(found.stat.ino) != above {
            return Ok(false);
        }
        let name = CString::new(name.as_slice()).map_err(|_| io::ErrorKind::InvalidFilename)?;
        mountpoints::ask();
        Ok(stat::entry(&parent, &name)?.stat.ino == ino)
    };
    (is_there().unwrap_or(false), is_too_deep)
}

/// The directory's parent is not in the index: either it has left the volume, or what is above it came in and is not
/// listed yet.
fn take_in_from_above(watched: &Watched, mut seat: Seat, ino: Inode) -> Result<bool, StoreError> {
    for _ in 0..LEVELS_MAX {
        let above = match seat.parent_is.device == watched.device {
            true => seat_of(watched, seat.parent.as_fd(), seat.parent_is.stat.ino),
            false => Ok(None),
        };
        let Ok(above) = above else { return Ok(false) };
        // The top of the file system, and the volume's root was not met: it lies outside.
        let Some(above) = above else {
            watched.index.write().remove_tree(ino)?;
            return Ok(true);
        };
        let known = known_dir(watched, watched.index.read().dirs(), &above.parent_is);
        if let Some(parent) = known {
            take_entry(watched, parent, &above.name, &above.is, true)?;
            return Ok(false);
        }
        seat = above;
    }
    Ok(false)
}

fn known_dir(watched: &Watched, dirs: &Directories, found: &Located) -> Option<DirId> {
    let known = dirs.of_inode(found.stat.ino);
    known.filter(|_| found.device == watched.device)
}

/// Where a directory lies; none for the top of a file system.
fn seat_of(watched: &Watched, dir: impl AsFd, ino: Inode) -> io::Result<Option<Seat>> {
    for _ in 0..TRIES {
        let parent = beneath::open_parent(&dir)?;
        let parent_is = stat::open_file(&parent)?;
        if parent_is.stat.ino == ino {
            return Ok(None);
        }
        let name = match beneath::last_name(&dir) {
            Ok(Some(name)) => name,
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidFilename => listed_name(&parent, ino)?,
            Err(e) => return Err(e),
        };
        let as_c = CString::new(name.as_slice()).map_err(|_| io::ErrorKind::InvalidFilename)?;
        mountpoints::ask();
        match watched.projects.entry(&parent, &as_c) {
            // The directory is the top of its mount.
            Ok(is) if is.mount_root => return Ok(None),
            Ok(is) if is.stat.ino == ino => {
                return Ok(Some(Seat {
                    parent,
                    parent_is,
                    name,
                    is,
                }));
            }
            Ok(_) => {}
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The name of an entry of a directory whose path is longer than the kernel tells: among a limited number of entries.
fn listed_name(parent: &OwnedFd, ino: Inode) -> io::Result<Vec<u8>> {
    let dir = beneath::open_dir(parent, b"")?;
    let mut listing = vec![MaybeUninit::uninit(); LISTING_BYTES];
    let mut entries = RawDir::new(&dir, &mut listing);
    let mut left = LISTED_MAX;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.ino() == ino {
            return Ok(entry.file_name().to_bytes().to_vec());
        }
        left = match left {
            0 => break,
            left => left - 1,
        };
    }
    Err(io::ErrorKind::InvalidFilename.into())
}

/// An inode is no more: forgets the places where it was, and with them what names it had besides.
///
/// # Errors
/// When the index cannot be read.
pub fn drop_absent(watched: &Watched, ino: Inode) -> Result<bool, StoreError> {
    let is_known_by_name = !watched.index.read().names(ino)?.is_empty();
    if is_known_by_name {
        return drop_stale_names(watched, ino);
    }
    watched.index.write().remove(&[ino])?;
    Ok(true)
}

/// Looks at every place where the index has this inode, and forgets those where it is not. The inode goes with its
/// last place. False if a place could not be looked at.
///
/// # Errors
/// When the index cannot be read.
pub fn drop_stale_names(watched: &Watched, ino: Inode) -> Result<bool, StoreError> {
    let Some(names) = look_at_names(watched, ino)? else {
        return Ok(true);
    };
    drop_names(watched, ino, &names)?;
    Ok(names.iter().all(|name| name.seen != Seen::Unknown))
}

/// A name that the index has of an inode, and what lies there.
#[derive(Debug)]
pub struct LookedAt {
    dir: DirId,
    name: Vec<u8>,
    /// What lies there.
    pub seen: Seen,
}

/// Looks at every place where the index has this inode. None: the volume cannot be opened.
///
/// # Errors
/// When the index cannot be read.
pub fn look_at_names(watched: &Watched, ino: Inode) -> Result<Option<Vec<LookedAt>>, StoreError> {
    let Ok(volume) = watched.open_root() else {
        return Ok(None);
    };
    let names = watched.index.read().names(ino)?;
    let looked = names.into_iter().map(|(dir, name)| LookedAt {
        seen: lies(watched, &volume, dir, &name, ino),
        dir,
        name,
    });
    Ok(Some(looked.collect()))
}

/// Opens a file, for a look at it only, at one of the places where the index has it. None: it lies at none of them.
///
/// # Errors
/// When the index cannot be read.
pub fn open_by_name(watched: &Watched, ino: Inode) -> Result<Option<OwnedFd>, StoreError> {
    let Ok(volume) = watched.open_root() else {
        return Ok(None);
    };
    let names = watched.index.read().names(ino)?;
    mountpoints::ask();
    Ok(names.into_iter().find_map(|(dir, name)| {
        let mut path = watched.index.read().dirs().path(dir)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let file = beneath::open_entry(&volume, &path).ok()?;
        let found = stat::which(&file).ok()?;
        ((found.ino, found.device) == (ino, watched.device)).then_some(file)
    }))
}

/// Forgets those of these names at which the inode is not. It goes with its last name.
///
/// # Errors
/// When the index cannot be read.
pub fn drop_names(watched: &Watched, ino: Inode, names: &[LookedAt]) -> Result<(), StoreError> {
    for LookedAt { dir, name, .. } in names.iter().filter(|name| name.seen == Seen::NotThere) {
        let mut index = watched.index.write();
        match index.dirs().of_inode(ino) {
            Some(_) => index.remove_tree(ino).map(drop)?,
            None => index.remove_name(ino, *dir, name)?,
        }
    }
    Ok(())
}

fn lies(watched: &Watched, volume: &OwnedFd, dir: DirId, name: &[u8], ino: Inode) -> Seen {
    let (dir_ino, path) = {
        let index = watched.index.read();
        // The directory was forgotten, and with it what lay there.
        let Some(dir_ino) = index.dirs().get(dir).map(|d| d.ino) else {
            return Seen::NotThere;
        };
        (dir_ino, index.dirs().path(dir))
    };
    let Some(path) = path else {
        // No process comes that far by a path: it stays as it is known until a scan meets it.
        return match watched.index.read().dirs().is_too_deep(dir) {
            true => Seen::There,
            false => Seen::Unknown,
        };
    };
    let Ok(name) = CString::new(name) else {
        return Seen::Unknown;
    };
    let Ok(fd) = beneath::open_anchor(volume, &path) else {
        return Seen::Unknown;
    };
    if !stat::open_file(&fd).is_ok_and(|found| found.stat.ino == dir_ino) {
        return Seen::Unknown;
    }
    match stat::entry(fd, &name) {
        Ok(found) if found.stat.ino == ino => Seen::There,
        Ok(_) => Seen::NotThere,
        Err(e) if is_absent(&e) => Seen::NotThere,
        Err(_) => Seen::Unknown,
    }
}
