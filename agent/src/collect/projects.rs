//! Project ids, asked for only where they are used: most volumes know none, and asking costs a scan a fifth of its time.
//!
//! Directories are always asked. The first that has an id shows that the volume uses them; from then on files are asked as
//! well, and one more scan asks those that were met before it.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::model::Kind;
use crate::sys::project;
use crate::sys::stat::{self, Located};

/// Whether a volume uses project ids.
#[derive(Debug)]
pub struct Projects(AtomicU8);

const UNUSED: u8 = 0;
/// Used, and files that were met earlier must be asked.
const FOUND: u8 = 1;
const USED: u8 = 2;

impl Projects {
    /// `used`: files are asked from the beginning.
    pub fn new(used: bool) -> Self {
        Self(AtomicU8::new(if used { USED } else { UNUSED }))
    }

    /// True once, after the first directory with an id was met.
    pub fn wants_scan(&self) -> bool {
        self.0.compare_exchange(FOUND, USED, Relaxed, Relaxed).is_ok()
    }

    /// The entry `name` of the directory `dir`, as [`stat::entry`] but with its project.
    ///
    /// # Errors
    /// As for [`stat::entry`].
    pub fn entry(&self, dir: impl AsFd, name: &CStr) -> io::Result<Located> {
        let found = stat::entry(&dir, name)?;
        Ok(self.with_project(found, || project::of_entry(dir, name)))
    }

    /// An open file, as [`stat::open_file`] but with its project.
    ///
    /// # Errors
    /// As for [`stat::open_file`].
    pub fn open_file(&self, fd: impl AsFd) -> io::Result<Located> {
        let found = stat::open_file(&fd)?;
        Ok(self.with_project(found, || project::of_open(fd)))
    }

    fn with_project(&self, mut found: Located, ask: impl FnOnce() -> io::Result<u32>) -> Located {
        let asked = match found.stat.kind {
            Kind::Directory => true,
            Kind::File => self.0.load(Relaxed) != UNUSED,
            Kind::Symlink | Kind::Special => false,
        };
        if asked {
            found.stat.project = ask().unwrap_or(0);
            if found.stat.project != 0 {
                let _ = self.0.compare_exchange(UNUSED, FOUND, Relaxed, Relaxed);
            }
        }
        found
    }
}
