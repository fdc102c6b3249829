//! What lies in the trash: counted, and remembered for its uses.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use crate::trash::dir::Trash;
use crate::trash::layout::{FILES, FLAT, ORIGIN, TREE, TREES};
use crate::trash::places;
use crate::trash::share::Share;
use purge_collect::Watched;
use purge_model::{Inode, Kind, Seconds, Totals};
use purge_sys::walk::{Listed, Visitor, list, walk};
use purge_sys::{beneath, inside, mark, stat};

impl Trash {
    /// Notes what lies in the shares whose grace will end, so that its uses are known. To be called before the volume's events are read.
    ///
    /// # Errors
    /// When one cannot be listed.
    pub fn remember(&self, watched: &Watched) -> io::Result<()> {
        for share in self.shares()?.iter().filter(|s| !s.is_kept()) {
            let mut lying = Lying {
                watched,
                begun: self.begun(share)?,
                stale: Vec::new(),
            };
            let name = CString::new(share.name()).unwrap_or_default();
            walk(&self.dir, &name, &mut lying)?;
            let forgotten = watched.index.write().remove(&lying.stale);
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

    /// What lies in a share: files with their sizes, and the directories that were taken as a whole.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn left_of(&self, share: &Share) -> io::Result<Totals> {
        let mut left = Left::default();
        if let Some(trees) = self.part(share, TREES)? {
            for name in list(&trees)? {
                match places::open(&trees, &name)? {
                    Some(place) if inside::is_there(&place, TREE)? => left.meet_any(&place, TREE)?,
                    Some(_) => {}
                    None => left.meet_any(&trees, &name)?,
                }
            }
        }
        let trees = left.0;
        let dir = beneath::open_anchor(&self.dir, share.name().as_bytes())?;
        for part in [FILES, FLAT] {
            let part = CString::new(part).unwrap_or_default();
            // An empty part was removed with the rest.
            if inside::is_there(&dir, &part)? {
                walk(&dir, &part, &mut left)?;
            }
        }
        // The directories around single files are the trash's own.
        left.0.directories = trees.directories;
        Ok(left.0)
    }
}

/// Sums what it meets.
#[derive(Default)]
struct Left(Totals);

impl Left {
    fn meet_any(&mut self, dir: &OwnedFd, name: &CStr) -> io::Result<()> {
        let is = stat::entry(dir, name)?.stat;
        match is.kind {
            Kind::Directory => walk(dir, name, self),
            _ => {
                self.add(is.size);
                Ok(())
            }
        }
    }

    fn add(&mut self, bytes: u64) {
        self.0.files = self.0.files.saturating_add(1);
        self.0.bytes = self.0.bytes.saturating_add(bytes);
    }
}

impl Visitor for Left {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> io::Result<bool> {
        self.0.directories = self.0.directories.saturating_add(1);
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        self.add(stat::entry(dir, &entry.name)?.stat.size);
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

/// Notes everything that it meets.
struct Lying<'w> {
    watched: &'w Watched,
    /// No use of what lies in the share is earlier.
    begun: Seconds,
    /// The index still knows these: the process before this one was killed before it had written that they went to the trash.
    stale: Vec<Inode>,
}

impl Visitor for Lying<'_> {
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
