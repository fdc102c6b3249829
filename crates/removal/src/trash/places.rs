//! The places in which directories lie that went as a whole: `d/INODE` in a share, with the notes beside them.
//!
//! What a place says is believed: root moves what lies in it to where its note says, and frees it when the grace ends. So only a directory
//! that the agent has made is a place: it belongs to root, it is closed to all other users, and it is named after an inode. Anything else that
//! lies there is a user's. It is kept, and never believed.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use purge_model::{Inode, Seconds, Stat};
use purge_sys::absence::Absence;
use purge_sys::{beneath, mark, stat};

/// What a user's file or directory is called whose name was lost with the run that took it; its inode follows.
pub const FOUND: &str = "purge-agent-found.";

/// Where something goes back that lies where only places lie.
pub fn path_of_foreign(ino: Inode) -> Vec<u8> {
    format!("{FOUND}{ino}").into_bytes()
}

/// What is said of it.
pub fn foreign() -> io::Error {
    io::Error::other("it lies in the trash, and the agent did not put it there")
}

/// Opens the place `name` of `trees`; none: what lies there is not a place.
///
/// # Errors
/// When it cannot be opened or looked at.
pub fn open(trees: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let place = match beneath::open_dir(trees, name.to_bytes()) {
        Ok(place) => place,
        Err(e) if Absence::of(&e) == Some(Absence::Replaced) => return Ok(None),
        Err(e) => return Err(e),
    };
    let is = rustix::fs::fstat(&place)?;
    let is_own = is.st_uid == rustix::process::geteuid().as_raw() && is.st_mode & 0o077 == 0;
    Ok((is_own && is_name(name.to_bytes())).then_some(place))
}

/// An inode, or an inode and a number.
fn is_name(name: &[u8]) -> bool {
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let mut parts = name.splitn(2, |b| *b == b'.');
    parts.all(is_number)
}

/// A directory that lies in its place, and since when.
#[derive(Debug)]
pub struct Whole {
    /// Seconds and nanoseconds since 1970. What was changed later was used.
    since: (i64, u32),
    /// What a directory of it says in which the agent has changed something: that is no use of it.
    word: String,
}

impl Whole {
    /// Only the agent changes the place, and the last change was the move. Nothing may ever move this moment: what was used before would
    /// count as unused.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn at(place: &OwnedFd) -> io::Result<Self> {
        let moved = rustix::fs::fstat(place)?;
        Ok(Self {
            since: (moved.st_mtime, u32::try_from(moved.st_mtime_nsec).unwrap_or(0)),
            word: format!("{}.{}.{}", moved.st_ino, moved.st_mtime, moved.st_mtime_nsec),
        })
    }

    /// When it was moved.
    pub fn moved(&self) -> Seconds {
        Seconds::from_unix(self.since.0)
    }

    /// Whether something in it was changed since.
    pub fn is_changed(&self, s: &Stat) -> bool {
        (s.ctime.unix(), s.ctime_nanos) > self.since
    }

    /// Whether a directory in it was changed since by anything but the agent.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn is_changed_directory(&self, dir: &OwnedFd) -> io::Result<bool> {
        Ok(self.is_changed(&stat::open_file(dir)?.stat) && !mark::is_freeing(dir, &self.word))
    }

    /// The agent is about to change a directory in it.
    pub fn will_change(&self, dir: &OwnedFd) {
        mark::set_freeing(dir, &self.word);
    }
}

/// What lies in a place was found to be used: it stays so, also if what told of it goes away.
pub fn note_used(place: &OwnedFd) {
    mark::set_used(place);
}

/// Whether that was noted.
pub fn is_noted_used(place: &OwnedFd) -> bool {
    mark::is_used(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_after_inodes() {
        for name in ["7", "18446744073709551615", "7.1"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", ".", "7.", ".7", "7.name", "7.1.2", "t", "7a"] {
            assert!(!is_name(name.as_bytes()), "{name}");
        }
    }
}
