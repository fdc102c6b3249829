//! The directories of one worker for files that lie in the trash for a moment.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Workers of one run: renames are one at a time in a whole file system, so that more would only wait.
pub const WORKERS_MAX: u8 = 4;

/// A worker's directories for files that are removed in a moment. There are some, because the kernel reads a directory's names one by one
/// to find one of them.
#[derive(Debug, Clone)]
pub struct Lanes {
    dirs: [Arc<OwnedFd>; Self::COUNT],
    /// How many names were given.
    given: usize,
}

impl Lanes {
    /// A worker has this many.
    pub const COUNT: usize = 8;

    /// In these directories.
    pub fn new(dirs: [Arc<OwnedFd>; Self::COUNT]) -> Self {
        Self { dirs, given: 0 }
    }

    /// The directories.
    pub fn dirs(&self) -> impl Iterator<Item = &OwnedFd> {
        self.dirs.iter().map(|dir| &**dir)
    }

    /// A directory, and a name there that was not given before. Something that could not be put back may have it: ask again then.
    pub fn free(&mut self) -> (Arc<OwnedFd>, Arc<CStr>) {
        let (lane, nth) = (self.given % Self::COUNT, self.given / Self::COUNT);
        self.given = self.given.wrapping_add(1);
        let [first, ..] = &self.dirs;
        let dir = self.dirs.get(lane).unwrap_or(first);
        let name = CString::new(nth.to_string()).unwrap_or_default();
        (Arc::clone(dir), name.into())
    }
}
