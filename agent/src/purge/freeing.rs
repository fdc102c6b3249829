//! Frees a directory that went to the trash as a whole and whose grace has ended.
//!
//! A process that had a directory of it open when it was moved can still use what is in it, and can move other things into it. So everything
//! in it is looked at first: what was changed after the move, or is open, was used, and then all of it is kept.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use super::kept::Kept;
use super::trash::{ORIGIN, TREE};
use crate::model::Kind;
use crate::sys::lease::{self, Asked};
use crate::sys::walk::{Listed, Removal, Visitor, walk};
use crate::sys::{beneath, inside, stat};

/// Frees what lies in the directory `name` of `trees`, or keeps it. The answer says what could not be removed.
///
/// # Errors
/// When it cannot be opened or looked at.
pub fn free_tree(trees: &OwnedFd, name: &CStr, kept: &Kept) -> io::Result<Removal> {
    let place = beneath::open_dir(trees, name.to_bytes())?;
    let mut left = Removal::default();
    if let Ok(top) = stat::entry(&place, TREE) {
        // Only the agent changes it, and the last change was the move.
        let moved = rustix::fs::fstat(&place)?;
        let since = (moved.st_mtime, u32::try_from(moved.st_mtime_nsec).unwrap_or(0));
        let freed = match top.stat.kind {
            Kind::Directory => {
                let mut looking = Untouched { since, is_top: true };
                walk(&place, TREE, &mut looking).and_then(|()| Removal::of_unchanged(&place, TREE, since))
            }
            // What was kept by itself.
            _ => inside::unlink(&place, TREE).map(|()| Removal::default()),
        };
        match freed {
            Ok(removal) => left.add(removal),
            Err(error) => {
                let path = inside::read_note(&place, ORIGIN).unwrap_or_default();
                let said = kept.take((&place, TREE), top.stat.ino, &path, &error);
                let path = String::from_utf8_lossy(&path).into_owned();
                tracing::error!(path, error = %said, "not freed: it was used in the trash");
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

/// Ends at the first thing that was used after a moment.
struct Untouched {
    since: (i64, u32),
    is_top: bool,
}

impl Untouched {
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

impl Visitor for Untouched {
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
        if entry.kind == Kind::File {
            // An error is doubt: a file under a user's own lease cannot be opened without waiting.
            if let Asked::Open | Asked::Locked = beneath::open_file(dir, &entry.name).and_then(lease::ask)? {
                return Err(io::Error::other("a process has something in it open"));
            }
        }
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}
