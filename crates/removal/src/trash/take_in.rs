//! What comes back from the trash is in the index at once, as used just now.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use purge_base::clock;
use purge_collect::Watched;
use purge_collect::namespace::take_entry_locked;
use purge_index::StoreError;
use purge_model::{Inode, Kind};
use purge_sys::stat;
use purge_sys::walk::{Listed, Visitor, walk};

/// Tells the index of an entry that the agent itself has put where it lies: it was used just now, and so was all that lies in it. The journal
/// says so as well, for a process that is killed before the index is written.
///
/// # Errors
/// When the index cannot be read.
pub fn take_in(watched: &Watched, dir: &OwnedFd, name: &CStr) -> Result<(), StoreError> {
    let Ok(parent) = stat::open_file(dir) else {
        return Ok(());
    };
    let back = Inodes::of(dir, name);
    watched.journal.uses(clock::now(), &back);
    watched.trashed.leave(&back.iter().copied().collect());
    let mut index = watched.index.write();
    // A directory that the index does not know will be listed, and this entry with it.
    let Some(id) = index.dirs().of_inode(parent.stat.ino) else {
        return Ok(());
    };
    match watched.projects.entry(dir, name) {
        Ok(found) => take_entry_locked(watched, &mut index, id, name.to_bytes(), &found, true),
        Err(_) => Ok(()),
    }
}

/// Collects what it meets.
struct Inodes(Vec<Inode>);

impl Inodes {
    /// What has a name, and everything below it.
    fn of(dir: &OwnedFd, name: &CStr) -> Vec<Inode> {
        let Ok(found) = stat::entry(dir, name) else {
            return Vec::new();
        };
        let mut all = Self(vec![found.stat.ino]);
        // What cannot be listed is found by the scan.
        if found.stat.kind == Kind::Directory {
            let _ = walk(dir, name, &mut all);
        }
        all.0
    }
}

impl Visitor for Inodes {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> io::Result<bool> {
        Ok(true)
    }

    fn meet(&mut self, _: &OwnedFd, entry: &Listed) -> io::Result<()> {
        self.0.push(entry.ino);
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}
