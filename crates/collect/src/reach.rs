//! How what a report named is opened: by its handle, or, where the file system gives none that leads anywhere, by the places that the
//! index has of it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::Watched;
use super::event::Node;
use super::places;
use purge_model::Inode;
use purge_sys::{beneath, stat};

/// Opens an inode for a look at it alone (O_PATH). `mount` comes from [`Watched::open_mount`].
///
/// # Errors
/// ESTALE where it is deleted, or lies at none of its known places.
pub fn open(watched: &Watched, mount: &OwnedFd, Node { ino, handle }: Node) -> io::Result<OwnedFd> {
    match places::is_place(&handle) {
        false => handle.open_path(mount),
        true => by_place(watched, mount, ino),
    }
}

fn by_place(watched: &Watched, mount: &OwnedFd, ino: Inode) -> io::Result<OwnedFd> {
    let missing = || io::Error::from(Errno::STALE);
    let unreadable = |_| io::Error::other("the index cannot be read");
    let (path, names) = {
        let index = watched.index.read();
        let dir = index.dirs().of_inode(ino);
        match dir {
            Some(dir) => (Some(index.dirs().path(dir).ok_or_else(missing)?), Vec::new()),
            None => (None, index.names(ino).map_err(unreadable)?),
        }
    };
    if let Some(path) = path {
        return beneath::open_anchor(mount, &path).and_then(|dir| checked(dir, ino));
    }
    for (dir, name) in names {
        let path = watched.index.read().dirs().path(dir);
        let Some(path) = path else { continue };
        let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidFilename)?;
        let opened = beneath::open_anchor(mount, &path);
        let opened = opened.and_then(|dir| beneath::open_entry(dir, name.to_bytes()));
        if let Ok(opened) = opened.and_then(|entry| checked(entry, ino)) {
            return Ok(opened);
        }
    }
    Err(missing())
}

fn checked(opened: OwnedFd, ino: Inode) -> io::Result<OwnedFd> {
    match stat::open_file(opened.as_fd())?.stat.ino == ino {
        true => Ok(opened),
        false => Err(Errno::STALE.into()),
    }
}
