//! What lies in the trash: counted, and remembered for its uses.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use roaring::RoaringTreemap;

use crate::trash::dir::Trash;
use crate::trash::layout::{FILES, FLAT, ORIGIN, TREE, TREES};
use crate::trash::places;
use crate::trash::share::Share;
use purge_collect::Watched;
use purge_model::{Inode, Kind, Seconds, Stat, Totals};
use purge_sys::walk::{Listed, Visitor, list, walk};
use purge_sys::{beneath, inside, likeness, mark, stat};

impl Trash {
    /// Notes what lies in the shares whose grace will end, so that its uses are known. To be called before the volume's events are read.
    ///
    /// # Errors
    /// When one cannot be listed.
    pub fn remember(&self, watched: &Watched) -> io::Result<()> {
        for share in self.shares()?.iter().filter(|s| !s.is_kept()) {
            let mut contents = Contents {
                watched,
                begun: self.begun(share)?,
                stale: Vec::new(),
            };
            let name = CString::new(share.name()).unwrap_or_default();
            walk(&self.dir, &name, &mut contents)?;
            let forgotten = watched.index.write().remove(&contents.stale);
            forgotten.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The directory that belongs at `path`, relative to the volume, and that a run has taken away to compare it.
    ///
    /// # Errors
    /// When a share cannot be listed.
    pub fn away(&self, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        for share in self.shares()?.iter().filter(|s| s.open) {
            let Some(trees) = self.part(share, TREES)? else {
                continue;
            };
            for name in list(&trees)? {
                // Others come back meanwhile.
                let Ok(Some(place)) = places::open(&trees, &name) else {
                    continue;
                };
                let is_it = inside::read_note(&place, ORIGIN).is_ok_and(|at| at == path);
                if is_it
                    && let Ok(tree) = beneath::open_dir(&place, TREE.to_bytes())
                    && !mark::is_placeholder(&tree)
                {
                    return Ok(Some(tree));
                }
            }
        }
        Ok(None)
    }

    /// Whether a run may be taking something: not all of what is in the trash is decided on.
    ///
    /// # Errors
    /// When the shares cannot be listed.
    pub fn is_open(&self) -> io::Result<bool> {
        Ok(self.shares()?.iter().any(|share| share.open))
    }

    /// What lies in a share: files, links and removed directories by themselves, and the directories that were taken as a whole with the files
    /// in them.
    ///
    /// # Errors
    /// When it cannot be listed, or `is_stopping` says so meanwhile.
    pub fn left_of(&self, share: &Share, is_stopping: &dyn Fn() -> bool) -> io::Result<Totals> {
        let mut left = Totals::default();
        if let Some(trees) = self.part(share, TREES)? {
            for name in list(&trees)? {
                let (dir, name) = match places::open(&trees, &name)? {
                    Some(place) if inside::is_there(&place, TREE)? => (place, TREE.to_owned()),
                    Some(_) => continue,
                    None => (rustix::io::dup(&trees)?, name),
                };
                let is = stat::entry(&dir, &name)?.stat;
                match is.kind {
                    Kind::Directory => {
                        let (inside, _) = files_in((&dir, &name), 0, is_stopping)?;
                        left.add_directory(inside.files, inside.bytes);
                    }
                    kind => left.add(kind, is.size),
                }
            }
        }
        let dir = beneath::open_anchor(&self.dir, share.name().as_bytes())?;
        for part in [FILES, FLAT] {
            let part = CString::new(part).unwrap_or_default();
            // An empty part was removed with the rest.
            if inside::is_there(&dir, &part)? {
                let mut single = Single {
                    left,
                    links: Links::default(),
                    is_stopping,
                };
                walk(&dir, &part, &mut single)?;
                left = single.left;
            }
        }
        Ok(left)
    }
}

/// Files, and their sizes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Their apparent sizes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, is: &Stat) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(is.size);
    }
}

/// The regular files below the directory `name`: all, and those of one user.
///
/// # Errors
/// When something there cannot be listed, or `is_stopping` says so meanwhile.
pub fn files_in(
    (parent, name): (&OwnedFd, &CStr),
    uid: u32,
    is_stopping: &dyn Fn() -> bool,
) -> io::Result<(Amount, Amount)> {
    let mut inside = Inside {
        uid,
        all: Amount::default(),
        theirs: Amount::default(),
        links: Links::default(),
        is_stopping,
    };
    walk(parent, name, &mut inside)?;
    Ok((inside.all, inside.theirs))
}

/// Files of several names that were met.
#[derive(Default)]
struct Links(RoaringTreemap);

impl Links {
    /// Whether this is the first of its names.
    fn is_first(&mut self, is: &Stat) -> bool {
        is.links <= 1 || self.0.insert(is.ino)
    }
}

fn go_on(is_stopping: &dyn Fn() -> bool) -> io::Result<bool> {
    match is_stopping() {
        true => Err(io::ErrorKind::Interrupted.into()),
        false => Ok(true),
    }
}

/// Sums the files of a directory that was taken as a whole.
struct Inside<'s> {
    uid: u32,
    all: Amount,
    theirs: Amount,
    links: Links,
    is_stopping: &'s dyn Fn() -> bool,
}

impl Visitor for Inside<'_> {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> io::Result<bool> {
        go_on(self.is_stopping)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        let is = stat::entry(dir, &entry.name)?.stat;
        if is.kind == Kind::File && self.links.is_first(&is) {
            self.all.add(&is);
            if is.uid == self.uid {
                self.theirs.add(&is);
            }
        }
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what was taken by itself. The directories around it are the trash's own, but for those that stand for a removed one.
struct Single<'s> {
    left: Totals,
    links: Links,
    is_stopping: &'s dyn Fn() -> bool,
}

impl Visitor for Single<'_> {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, dir: &OwnedFd) -> io::Result<bool> {
        if likeness::is_noted_removed(dir) {
            self.left.add(Kind::Directory, 0);
        }
        go_on(self.is_stopping)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        let is = stat::entry(dir, &entry.name)?.stat;
        if self.links.is_first(&is) {
            self.left.add(is.kind, is.size);
        }
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

/// Notes everything that it meets.
struct Contents<'w> {
    watched: &'w Watched,
    /// No use of what lies in the share is earlier.
    begun: Seconds,
    /// The index still knows these: the process before this one was killed before it had written that they went to the trash.
    stale: Vec<Inode>,
}

impl Visitor for Contents<'_> {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> io::Result<bool> {
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        let (trashed, ino) = (&self.watched.trashed, entry.ino);
        trashed.found(ino);
        let Some(access) = self.watched.index.read().last_use(ino) else {
            return Ok(());
        };
        // The journal has told the index of uses in the trash.
        if access.at >= self.begun {
            trashed.note(ino);
        }
        // Another of its names may lie outside.
        if entry.kind != Kind::Directory && stat::entry(dir, &entry.name)?.stat.links <= 1 {
            self.stale.push(ino);
        }
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}
