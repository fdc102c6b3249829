//! Where a run's worker puts what it takes away: a part of the trash.

use std::hash::Hasher;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHasher;

use crate::trash::layout::{LIKE, ORIGIN};
use crate::trash::origin::Origin;
use crate::trash::reserve;
use crate::trash::stranded::Stranded;
use purge_model::Inode;
use purge_sys::likeness::Likeness;
use purge_sys::{beneath, inside};

/// Where a run puts what it takes away.
#[derive(Debug)]
pub struct Bin {
    pub(crate) volume: OwnedFd,
    pub(crate) files: OwnedFd,
    pub(crate) trees: OwnedFd,
    /// Where that is, relative to the volume.
    pub(crate) trees_path: String,
    /// The directory made last, and the one that holds it or its like: candidates come in runs.
    pub(crate) last: Option<Place>,
    pub(crate) above: Option<Place>,
    /// For what cannot be put back.
    pub kept: Stranded,
    /// The trash itself.
    pub(crate) trash: OwnedFd,
    /// Others may need the same directories.
    pub(crate) making: Making,
}

/// Directories that are open together while places are made for them.
const CLIMBED_MAX: usize = 4;

/// Held while a directory of some name is made that is to be like another: until it is, it is like none. Names share locks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Making(Arc<[Mutex<()>; 16]>);

impl Making {
    /// Until the result is dropped, no other worker makes one of this name.
    fn lock(&self, name: &[u8]) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = FxHasher::default();
        hasher.write(name);
        let n = usize::try_from(hasher.finish() >> 60).unwrap_or(0);
        self.0.get(n).map(Mutex::lock)
    }
}

impl Bin {
    /// The place for the files of a directory of the volume, which is open as `like`: it has the same owner and mode.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn place(&mut self, dir: &[u8], like: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        let ino = ino_of(like)?;
        if let Some(fd) = of_path(self.last.as_ref(), dir, ino)? {
            return Ok(fd);
        }
        let (above, name) = split(dir);
        let fd = match name.is_empty() {
            true => rustix::io::dup(&self.files)?,
            false => {
                // Asked of the directory itself: by a path it may be another one's at this moment.
                let parent = beneath::open_parent(like)?;
                let above = self.place_above(above, &parent)?;
                reserve::with_ballast(&self.trash, || made_alike((&self.making, &above), name, like))?
            }
        };
        let fd = Arc::new(fd);
        self.last = Some((dir.to_vec(), ino, Arc::clone(&fd)));
        Ok(fd)
    }

    /// The place of a directory that holds others, and that is open as `like`.
    fn place_above(&mut self, dir: &[u8], like: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        let ino = ino_of(like)?;
        if let Some(fd) = of_path(self.above.as_ref(), dir, ino)? {
            return Ok(fd);
        }
        let fd = match self.found(dir, like)? {
            Some(fd) => fd,
            None => self.make(dir, like)?,
        };
        let fd = Arc::new(fd);
        self.above = Some((dir.to_vec(), ino, Arc::clone(&fd)));
        Ok(fd)
    }

    /// The same if it is there; none: it is to be made.
    fn found(&self, dir: &[u8], like: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let fd = match beneath::open_dir(&self.files, dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let is_of = || match dir.is_empty() {
            true => Ok(ino_of(like)? == ino_of(&self.volume)?),
            false => Likeness::is_of(&fd, like),
        };
        if !is_of()? {
            // Another worker may be making it.
            let _making = self.making.lock(split(dir).1);
            if !is_of()? {
                return Err(another_directory());
            }
        }
        Ok(Some(fd))
    }

    /// Directories like those of the volume, with the same owners and modes: those that are missing of the way to `dir`, which is open as
    /// `like`. The way up from there must be the way that leads down by the names.
    fn make(&self, dir: &[u8], like: &OwnedFd) -> io::Result<OwnedFd> {
        if ino_of(&beneath::open_anchor(&self.volume, dir)?)? != ino_of(like)? {
            return Err(another_directory());
        }
        let mut missing = vec![(split(dir).1, rustix::io::dup(like)?)];
        let (mut at, mut here) = (split(dir).0, None);
        while let Some((_, below)) = missing.last() {
            let level = beneath::open_parent(below)?;
            here = self.found(at, &level)?;
            if here.is_some() {
                break;
            }
            if missing.len() == CLIMBED_MAX {
                return self.make_from_the_root(dir, like);
            }
            let (above, name) = split(at);
            missing.push((name, level));
            at = above;
        }
        let mut here = here.ok_or_else(another_directory)?;
        for (name, level) in missing.iter().rev() {
            here = reserve::with_ballast(&self.trash, || made_alike((&self.making, &here), name, level))?;
        }
        Ok(here)
    }

    /// The same where many are missing: they are not all open at once.
    fn make_from_the_root(&self, dir: &[u8], like: &OwnedFd) -> io::Result<OwnedFd> {
        let mut there = rustix::io::dup(&self.volume)?;
        let mut here = rustix::io::dup(&self.files)?;
        let mut passed = vec![ino_of(&there)?];
        for name in dir.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            there = beneath::open_anchor(&there, name)?;
            here = reserve::with_ballast(&self.trash, || made_alike((&self.making, &here), name, &there))?;
            passed.push(ino_of(&there)?);
        }
        let mut up = rustix::io::dup(like)?;
        for (n, ino) in passed.iter().rev().enumerate() {
            if n > 0 {
                up = beneath::open_parent(&up)?;
            }
            if ino_of(&up)? != *ino {
                return Err(another_directory());
            }
        }
        Ok(here)
    }

    /// The place for a directory that is taken as a whole: its entry there is called [`TREE`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn place_tree(&self, ino: Inode, path: &[u8], origin: &Origin) -> io::Result<OwnedFd> {
        let name = ino.to_string();
        let (dir, is_new) =
            reserve::with_ballast(&self.trash, || inside::make_own_dir(&self.trees, name.as_bytes()))?;
        if !is_new {
            return Err(rustix::io::Errno::EXIST.into());
        }
        // A place that does not say whose it is must not be left: the run could not end.
        reserve::with_ballast(&self.trash, || inside::write_note(&dir, ORIGIN, path)).inspect_err(|_| {
            let _ = inside::remove_dir(&self.trees, &*name);
        })?;
        // The directories of the share that stand for these may be freed before the tree. Without space for a note those must do.
        let _ = inside::write_note(&dir, LIKE, &origin.to_note());
        Ok(dir)
    }

    /// Where the place of a directory is, relative to the volume.
    pub fn path_of_tree(&self, ino: Inode) -> Vec<u8> {
        format!("{}/{ino}", self.trees_path).into_bytes()
    }

    /// The place of a tree that is not there any more.
    pub fn clear_tree(&self, ino: Inode) {
        let name = ino.to_string();
        if let Ok(dir) = beneath::open_anchor(&self.trees, name.as_bytes()) {
            let _ = inside::unlink(&dir, ORIGIN);
            let _ = inside::unlink(&dir, LIKE);
        }
        let _ = inside::remove_dir(&self.trees, name);
    }
}

/// The path of a directory, which it is, and its place.
pub(crate) type Place = (Vec<u8>, Inode, Arc<OwnedFd>);

fn of_path(place: Option<&Place>, path: &[u8], ino: Inode) -> io::Result<Option<Arc<OwnedFd>>> {
    match place.filter(|(of, ..)| of == path) {
        Some((_, known, fd)) if *known == ino => Ok(Some(Arc::clone(fd))),
        Some(_) => Err(another_directory()),
        None => Ok(None),
    }
}

fn ino_of(dir: &OwnedFd) -> io::Result<Inode> {
    Ok(rustix::fs::fstat(dir)?.st_ino)
}

/// A user has put another directory in the place of one: what lies in it stays.
fn another_directory() -> io::Error {
    io::Error::from_raw_os_error(libc::EXDEV)
}

/// The directory that holds a path, and its name there.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(cut) => (path.get(..cut).unwrap_or(&[]), path.get(cut + 1..).unwrap_or(&[])),
        None => (&[], path),
    }
}

/// The directory `name` in another, open for listing; if it is new, it remembers what `like` is like.
fn made_alike((making, here): (&Making, &OwnedFd), name: &[u8], like: &OwnedFd) -> io::Result<OwnedFd> {
    let _making = making.lock(name);
    if let Some(found) = found_alike(here, name, like)? {
        return Ok(found);
    }
    // By a descriptor that can be read: those of the volume are anchors only.
    let like = Likeness::of(&beneath::open_dir(like, b"")?)?;
    let (made, is_new) = inside::make_listable_dir(here, name)?;
    if !is_new {
        return Err(another_directory());
    }
    like.record_in(&made)?;
    Ok(made)
}

/// The same if it is there and like it.
fn found_alike(here: &OwnedFd, name: &[u8], like: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match beneath::open_dir(here, name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(found) => Ok(Likeness::is_of(&found, like)?.then_some(found)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Barrier;

    use super::*;

    /// Until a new place has the owner and the mode of its directory, it looks like that of another.
    #[test]
    fn workers_that_need_the_same_place_at_once_all_have_it() {
        const WORKERS: usize = 4;
        let tmp = tempfile::tempdir().unwrap();
        for dir in ["volume/d", "trash"] {
            fs::create_dir_all(tmp.path().join(dir)).unwrap();
        }
        let root = beneath::open_root(tmp.path()).unwrap();
        let like = beneath::open_anchor(&root, b"volume/d").unwrap();
        let here = beneath::open_anchor(&root, b"trash").unwrap();
        let (making, begin) = (Making::default(), Barrier::new(WORKERS));
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    let place = |n: i32| {
                        begin.wait();
                        made_alike((&making, &here), n.to_string().as_bytes(), &like)
                    };
                    let places: Vec<_> = (0..500).map(place).collect();
                    assert!(places.iter().all(Result::is_ok));
                });
            }
        });
    }

    #[test]
    fn the_place_of_another_directory_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        for dir in ["volume/d", "volume/other", "trash"] {
            fs::create_dir_all(tmp.path().join(dir)).unwrap();
        }
        let root = beneath::open_root(tmp.path()).unwrap();
        let open = |path: &[u8]| beneath::open_anchor(&root, path).unwrap();
        let (making, here) = (Making::default(), open(b"trash"));
        made_alike((&making, &here), b"d", &open(b"volume/d")).unwrap();
        made_alike((&making, &here), b"d", &open(b"volume/d")).unwrap();
        let refused = made_alike((&making, &here), b"d", &open(b"volume/other"));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EXDEV));
    }

    fn bin(tmp: &Path) -> Bin {
        for dir in ["volume", "trash/files", "trash/trees"] {
            fs::create_dir_all(tmp.join(dir)).unwrap();
        }
        let open = |path: &str| beneath::open_root(&tmp.join(path)).unwrap();
        Bin {
            volume: open("volume"),
            files: open("trash/files"),
            trees: open("trash/trees"),
            trees_path: String::new(),
            last: None,
            above: None,
            kept: Stranded::of_run(open("trash"), "run", Arc::default()),
            trash: open("trash"),
            making: Making::default(),
        }
    }

    #[test]
    fn however_many_directories_above_are_missing_each_is_made_like_its_own() {
        for levels in [1, 2, CLIMBED_MAX, CLIMBED_MAX + 1, 3 * CLIMBED_MAX] {
            let tmp = tempfile::tempdir().unwrap();
            let mut bin = bin(tmp.path());
            let way = |levels: usize| "d/".repeat(levels);
            fs::create_dir_all(tmp.path().join("volume").join(way(levels))).unwrap();
            for level in 1..=levels {
                let mode = fs::Permissions::from_mode(0o700 + u32::try_from(level % 8).unwrap());
                fs::set_permissions(tmp.path().join("volume").join(way(level)), mode).unwrap();
            }
            let way_to = way(levels);
            let path = way_to.trim_end_matches('/').as_bytes();
            let like = beneath::open_anchor(&bin.volume, path).unwrap();
            bin.place(path, &like).unwrap();
            for level in 1..=levels {
                let mode = |part: &str| {
                    let path = tmp.path().join(part).join(way(level));
                    fs::metadata(path).unwrap().permissions().mode()
                };
                assert_eq!(mode("trash/files"), mode("volume"), "{level} of {levels}");
            }
        }
    }

    /// While its owner moves directories to and fro.
    #[test]
    fn a_directory_that_lies_elsewhere_by_now_gets_no_place_among_others() {
        for (levels, moved) in [(2, "a/b"), (3, "a/b"), (2, "a"), (CLIMBED_MAX + 2, "a/b")] {
            let tmp = tempfile::tempdir().unwrap();
            let mut bin = bin(tmp.path());
            let path = format!("a/b{}", "/c".repeat(levels));
            fs::create_dir_all(tmp.path().join("volume").join(&path)).unwrap();
            let like = beneath::open_anchor(&bin.volume, path.as_bytes()).unwrap();
            let moved = tmp.path().join("volume").join(moved);
            fs::rename(&moved, tmp.path().join("volume/elsewhere")).unwrap();
            let refused = bin.place(path.as_bytes(), &like);
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
            fs::create_dir_all(tmp.path().join("volume").join(&path)).unwrap();
            let refused = bin.place(path.as_bytes(), &like);
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EXDEV));
            assert_eq!(fs::read_dir(tmp.path().join("trash/files")).unwrap().count(), 0);
        }
    }
}
