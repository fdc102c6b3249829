//! Frees what lies in the trash and whose grace has ended.
//!
//! A process that had a directory of it open when it was moved can still use what is in it, and can move other things into it; a file can
//! be opened again by a descriptor that a process has, or by a handle. So everything is looked at first: what was used or changed after the
//! move, or is open, is kept. Of a directory that went as a whole all is kept then.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use purge_proto::shown;
use roaring::RoaringTreemap;
use rustc_hash::FxHashSet;

use super::kept::Kept;
use super::trash::{ORIGIN, TREE};
use crate::collect::trashed::Trashed;
use crate::model::{Inode, Kind};
use crate::sys::lease::{self, Asked};
use crate::sys::walk::{Listed, Removal, Visitor, walk};
use crate::sys::{beneath, inside, stat};

/// Inodes that are in use by mounts.
pub type Busy = Arc<FxHashSet<Inode>>;

/// Frees the files below the directory `part` of a share, each by itself. What was used is kept, and what is busy stays.
///
/// # Errors
/// When the walk cannot go on.
pub fn free_files(
    share: &OwnedFd,
    part: &CStr,
    (kept, trashed): (&Kept, &Trashed),
    busy: &Busy,
) -> io::Result<Removal> {
    let mut freeing = Freeing {
        removal: Removal::sparing(Arc::clone(busy)),
        kept,
        uses: Uses::of(trashed),
        path: Vec::new(),
        levels: Vec::new(),
    };
    walk(share, part, &mut freeing)?;
    freeing.uses.end(&freeing.removal);
    Ok(freeing.removal)
}

/// Frees what lies in the directory `name` of `trees`, or keeps it. What is busy stays. The answer says what could not be removed.
///
/// # Errors
/// When it cannot be opened or looked at.
pub fn free_tree(
    trees: &OwnedFd,
    name: &CStr,
    (kept, trashed): (&Kept, &Trashed),
    busy: &Busy,
) -> io::Result<Removal> {
    let place = beneath::open_dir(trees, name.to_bytes())?;
    let mut left = Removal::default();
    if let Ok(top) = stat::entry(&place, TREE) {
        // Only the agent changes it, and the last change was the move.
        let moved = rustix::fs::fstat(&place)?;
        let since = (moved.st_mtime, u32::try_from(moved.st_mtime_nsec).unwrap_or(0));
        let freed = match top.stat.kind {
            Kind::Directory => {
                let mut looking = Untouched {
                    since,
                    is_top: true,
                    uses: Uses::of(trashed),
                };
                walk(&place, TREE, &mut looking)
                    .and_then(|()| Removal::of_unchanged(&place, TREE, since, Arc::clone(busy)))
                    .inspect(|removal| looking.uses.end(removal))
            }
            _ if busy.contains(&top.stat.ino) => return Err(rustix::io::Errno::BUSY.into()),
            // What was kept by itself.
            _ => inside::unlink(&place, TREE).map(|()| Removal::default()),
        };
        match freed {
            Ok(removal) => left.add(removal),
            Err(error) => {
                let path = inside::read_note(&place, ORIGIN).unwrap_or_default();
                let said = kept.take((&place, TREE), top.stat.ino, &path, &error);
                match stat::entry(&place, TREE) {
                    Ok(found) => left.leave_behind(TREE.to_bytes(), why_it_stays(found.protected, error)),
                    Err(_) => tell_kept(&path, &said),
                }
            }
        }
    }
    if inside::is_there(&place, TREE)? {
        return Ok(left);
    }
    let _ = inside::unlink(&place, ORIGIN);
    if let Err(error) = inside::remove_dir(trees, name) {
        left.leave_behind(name.to_bytes(), error);
    }
    Ok(left)
}

/// Asks of each file whether it was used in the trash.
struct Uses<'t> {
    trashed: &'t Trashed,
    /// What was asked about.
    asked: RoaringTreemap,
}

impl<'t> Uses<'t> {
    fn of(trashed: &'t Trashed) -> Self {
        Self {
            trashed,
            asked: RoaringTreemap::new(),
        }
    }

    /// An error says how it is used. One of the file system is doubt: a file under a user's own lease cannot be opened without waiting.
    fn check(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        self.asked.insert(entry.ino);
        if entry.kind != Kind::File {
            return Ok(());
        }
        if self.trashed.was_used(entry.ino) {
            return Err(io::Error::other("a process used it after it went to the trash"));
        }
        match beneath::open_file(dir, &entry.name).and_then(lease::ask)? {
            Asked::Open | Asked::Locked => Err(io::Error::other("a process has it open")),
            _ => Ok(()),
        }
    }

    /// All that was asked about is free, or kept without end, unless something is left for another time.
    fn end(&self, removal: &Removal) {
        if removal.stuck_total == 0 {
            self.trashed.leave(&self.asked);
        }
    }
}

/// Removes files one by one.
struct Freeing<'k> {
    removal: Removal,
    kept: &'k Kept,
    uses: Uses<'k>,
    /// Where the directory that is visited was in the volume, with a slash at its end, and the lengths of those above it.
    path: Vec<u8>,
    levels: Vec<usize>,
}

impl Visitor for Freeing<'_> {
    type Stop = io::Error;

    fn enter(&mut self, parent: &OwnedFd, name: &CStr, dir: &OwnedFd) -> io::Result<bool> {
        // The part itself is no directory of the volume.
        if !self.levels.is_empty() {
            self.path.extend_from_slice(name.to_bytes());
            self.path.push(b'/');
        }
        self.levels.push(self.path.len());
        self.removal.enter(parent, name, dir)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        let Err(error) = self.uses.check(dir, entry) else {
            return self.removal.meet(dir, entry);
        };
        let path = [&self.path, entry.name.to_bytes()].concat();
        let said = self.kept.take((dir, &entry.name), entry.ino, &path, &error);
        match stat::entry(dir, &entry.name) {
            Ok(found) => self
                .removal
                .is_stuck(&entry.name, why_it_stays(found.protected, error)),
            Err(_) => tell_kept(&path, &said),
        }
        Ok(())
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        self.levels.pop();
        self.path.truncate(self.levels.last().copied().unwrap_or(0));
        self.removal.leave(parent, name)
    }

    fn refused(&mut self, parent: &OwnedFd, name: &CStr, error: io::Error) -> io::Result<()> {
        self.removal.refused(parent, name, error)
    }
}

/// Why something could neither be freed nor kept apart: not even root moves what is immutable.
fn why_it_stays(is_protected: bool, error: io::Error) -> io::Error {
    match is_protected {
        true => rustix::io::Errno::PERM.into(),
        false => error,
    }
}

fn tell_kept(path: &[u8], said: &io::Error) {
    let path = shown::cut(path, shown::LOGGED_MAX);
    let path = String::from_utf8_lossy(&path).into_owned();
    tracing::error!(path, error = %said, "not freed: it was used in the trash");
}

/// Ends at the first thing that was used after a moment.
struct Untouched<'t> {
    since: (i64, u32),
    is_top: bool,
    uses: Uses<'t>,
}

impl Untouched<'_> {
    fn check(&self, found: io::Result<stat::Located>) -> io::Result<()> {
        let s = found?.stat;
        match (s.ctime.unix(), s.ctime_nanos) > self.since {
            true => Err(io::Error::other(
                "something in it was changed after it went to the trash",
            )),
            false => Ok(()),
        }
    }
}

impl Visitor for Untouched<'_> {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, dir: &OwnedFd) -> io::Result<bool> {
        // The move itself has changed the first one.
        if !std::mem::take(&mut self.is_top) {
            self.check(stat::open_file(dir))?;
        }
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        self.check(stat::entry(dir, &entry.name))?;
        self.uses.check(dir, entry)
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}
