//! Where a run's worker puts what it takes away: a part of the trash.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};

use super::kept::Kept;
use super::trash::{ORIGIN, make_alike};
use crate::model::Inode;
use crate::sys::beneath;

/// Where a run puts what it takes away.
#[derive(Debug)]
pub struct Bin {
    pub(super) volume: OwnedFd,
    pub(super) files: OwnedFd,
    pub(super) trees: OwnedFd,
    pub(super) flat: Arc<OwnedFd>,
    /// How many names were given there. They are the same in every batch: the kernel finds them in its cache.
    pub(super) given: u32,
    /// The directory made last, and the one that holds it or its like: candidates come in runs.
    pub(super) last: Option<Place>,
    pub(super) above: Option<Place>,
    /// For what cannot be put back.
    pub kept: Kept,
}

impl Bin {
    /// The place and name for a file that is unlinked in a moment. Something that could not be put back may have the name:
    /// ask again then.
    pub fn flat(&mut self) -> (Arc<OwnedFd>, Arc<CStr>) {
        let name = CString::new(self.given.to_string()).unwrap_or_default();
        self.given = self.given.saturating_add(1);
        (Arc::clone(&self.flat), name.into())
    }

    /// The place of those files.
    pub fn lane(&self) -> &Arc<OwnedFd> {
        &self.flat
    }

    /// The place for the files of a directory of the volume, which is open as `like`: it has the same owner and mode.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn place(&mut self, dir: &[u8], like: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = of_path(self.last.as_ref(), dir) {
            return Ok(fd);
        }
        let (above, name) = split(dir);
        let fd = match name.is_empty() {
            true => rustix::io::dup(&self.files)?,
            false => made_alike(&*self.place_above(above)?, name, like)?,
        };
        let fd = Arc::new(fd);
        self.last = Some((dir.to_vec(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// The place of a directory that holds others.
    fn place_above(&mut self, dir: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = of_path(self.above.as_ref(), dir) {
            return Ok(fd);
        }
        let fd = match beneath::open_anchor(&self.files, dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make(dir)?,
            other => other?,
        };
        let fd = Arc::new(fd);
        self.above = Some((dir.to_vec(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Directories like those of the volume: the same owners and modes.
    fn make(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        let mut there = rustix::io::dup(&self.volume)?;
        let mut here = rustix::io::dup(&self.files)?;
        for name in dir.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            there = beneath::open_anchor(&there, name)?;
            here = made_alike(&here, name, &there)?;
        }
        Ok(here)
    }

    /// The place for a directory that is taken as a whole: its entry there is called [`TREE`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn place_tree(&self, ino: Inode, path: &[u8]) -> io::Result<OwnedFd> {
        let name = ino.to_string();
        rustix::fs::mkdirat(&self.trees, &*name, Mode::RWXU)?;
        let dir = beneath::open_anchor(&self.trees, name.as_bytes())?;
        rustix::fs::symlinkat(path, &dir, ORIGIN)?;
        Ok(dir)
    }

    /// The place of a tree that is not there any more.
    pub fn clear_tree(&self, ino: Inode) {
        let name = ino.to_string();
        if let Ok(dir) = beneath::open_anchor(&self.trees, name.as_bytes()) {
            let _ = rustix::fs::unlinkat(&dir, ORIGIN, AtFlags::empty());
        }
        let _ = rustix::fs::unlinkat(&self.trees, name, AtFlags::REMOVEDIR);
    }
}

/// The path of a directory, and its place.
pub(super) type Place = (Vec<u8>, Arc<OwnedFd>);

fn of_path(place: Option<&Place>, path: &[u8]) -> Option<Arc<OwnedFd>> {
    place.filter(|(of, _)| of == path).map(|(_, fd)| Arc::clone(fd))
}

/// The directory that holds a path, and its name there.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(cut) => (path.get(..cut).unwrap_or(&[]), path.get(cut + 1..).unwrap_or(&[])),
        None => (&[], path),
    }
}

/// The directory `name` in another; if it is new, with the owner and mode of `like`.
fn made_alike(here: &OwnedFd, name: &[u8], like: &OwnedFd) -> io::Result<OwnedFd> {
    let model = rustix::fs::fstat(like)?;
    // Nobody but root reaches the trash, whatever the modes in it.
    let made = rustix::fs::mkdirat(here, name, Mode::from_raw_mode(model.st_mode));
    let fd = beneath::open_anchor(here, name)?;
    match made {
        Ok(()) => make_alike(here, name, &model)?,
        Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(fd)
}
