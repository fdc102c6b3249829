//! Names that were moved into the trash, their way back, and what came of a batch.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::candidate::Candidate;
use crate::fate::Fate;
use crate::take::guard::{Ground, Leased, Name};
use crate::trash::lanes::Lanes;
use purge_index::codec::Attributes;
use purge_model::{Inode, Seconds, Stat};
use purge_sys::{stat, vacant};

/// A name that was moved, and where it is.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) from: Name,
    pub(crate) place: Arc<OwnedFd>,
    pub(crate) there: Arc<CStr>,
    pub(crate) in_lane: bool,
    /// What lay there the moment before.
    pub(crate) was: Stat,
}

impl Move {
    /// Whether only the move itself has changed what lies in the trash.
    pub(crate) fn has_changed_nothing_of(&self, found: &Stat) -> bool {
        let told = |s: &Stat| (s.ino, s.size, s.mtime, s.atime, s.links, s.uid, s.gid);
        told(found) == told(&self.was)
    }
}

/// A batch whose end has come.
#[derive(Debug, Default)]
pub struct Finished {
    /// What became of each.
    pub fates: Vec<Fate>,
    /// Those of which something else became than was decided, by position.
    pub amended: Vec<usize>,
    /// Inodes that are no more at their places. Their leases keep them from being given to new files.
    pub gone: Vec<Inode>,
    /// The same of what lies in the trash now, and the last use of it that was known when it was decided on.
    pub trashed: Vec<(Inode, Seconds)>,
    /// To be dropped once the index has forgotten those.
    pub leases: Vec<Leased>,
    /// What was removed and may have left its inode to a new file by now.
    pub freed: Vec<Freed>,
}

/// An inode that was removed, and what the index knew of it then.
#[derive(Debug, Clone, Copy)]
pub struct Freed {
    /// Which.
    pub ino: Inode,
    /// What has the same inode and is not this is something new.
    pub known: Attributes,
}

/// Moves a name into a lane, and says where it is and what it is called there.
pub(crate) fn into_a_lane(lanes: Option<&mut Lanes>, from: &Name) -> io::Result<(Arc<OwnedFd>, Arc<CStr>)> {
    // Without lanes everything is kept.
    let lanes = lanes.ok_or(io::ErrorKind::NotFound)?;
    loop {
        let (place, there) = lanes.free();
        match rename(from, &place, &there) {
            // Something is stranded there.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| (place, there)),
        }
    }
}

pub(crate) fn rename(from: &Name, place: &OwnedFd, there: &CStr) -> io::Result<()> {
    vacant::take(&from.dir, &from.name, place, there)
}

/// Puts every name back, or keeps what cannot go back.
pub(crate) fn put_back(ground: &Ground<'_>, candidate: &Candidate, moved: &[Move]) -> io::Result<()> {
    let mut result = Ok(());
    for m in moved.iter().rev() {
        let back = vacant::give(&m.place, &m.there, &m.from.dir, &m.from.name);
        if let Err(e) = back {
            let from = (&*m.place, &*m.there);
            let kept =
                ground
                    .bin
                    .kept
                    .take(from, candidate.ino, (&m.from.full(), Some(&m.from.origin())), &e);
            result = Err(kept);
        }
    }
    // The renames have moved its change time.
    if let Some(m) = moved.first()
        && let Ok(found) = stat::entry(&m.from.dir, &m.from.name)
    {
        ground.refresh(found.stat)?;
    }
    result
}
