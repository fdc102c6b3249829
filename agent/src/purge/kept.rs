//! What somebody came for while it was being taken, and what cannot be put back because its name is another's by now or
//! its directory is gone: it is kept apart, it says itself where it belongs, and the agent never frees it.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::fs::{Mode, RenameFlags};

use super::trash::{NAME, ORIGIN, Share, TREE, TREES};
use crate::model::Inode;
use crate::sys::beneath;

/// As many names of one file are kept, no more: with that many something else is wrong.
const NAMES_MAX: u32 = 1000;

/// Where a run's things are kept.
#[derive(Debug)]
pub struct Kept {
    trash: OwnedFd,
    share: Share,
    failed: Arc<AtomicBool>,
}

impl Kept {
    /// Below an open trash. `failed` is set when something cannot even be kept: nothing of the run may be freed then.
    pub fn of_run(trash: OwnedFd, run: &str, failed: Arc<AtomicBool>) -> Self {
        let share = Share {
            run: run.into(),
            until: Share::KEPT,
            open: false,
        };
        Self { trash, share, failed }
    }

    /// Keeps what lies at `name` in a directory of the trash and belongs at `path`, relative to the volume, where it
    /// could not go because of `error`. Returns what to tell of it.
    pub fn take(
        &self,
        (dir, name): (&OwnedFd, &CStr),
        ino: Inode,
        path: &[u8],
        error: &io::Error,
    ) -> io::Error {
        let what = format!("it may have been used while it was being taken, and cannot be put back: {error}");
        match self.place(ino, path).and_then(|place| {
            let flags = RenameFlags::NOREPLACE;
            Ok(rustix::fs::renameat_with(dir, name, place, TREE, flags)?)
        }) {
            Ok(()) => io::Error::other(format!(
                "{what}; it is kept in {NAME}/{}: move away what has its name, then `purgectl restore {}`",
                self.share.name(),
                self.share.run
            )),
            Err(e) => {
                self.failed.store(true, SeqCst);
                io::Error::other(format!("{what}; it stays in {NAME} ({e})"))
            }
        }
    }

    /// A new directory that says where what will lie in it belongs.
    fn place(&self, ino: Inode, path: &[u8]) -> io::Result<OwnedFd> {
        let mut at = self.trash.try_clone()?;
        for part in [&*self.share.name(), TREES] {
            make(&at, part)?;
            at = beneath::open_anchor(&at, part.as_bytes())?;
        }
        let free = (0..NAMES_MAX).find_map(|n| {
            let name = if n == 0 {
                ino.to_string()
            } else {
                format!("{ino}.{n}")
            };
            match rustix::fs::mkdirat(&at, &*name, Mode::RWXU) {
                Ok(()) => Some(Ok(name)),
                Err(rustix::io::Errno::EXIST) => None,
                Err(e) => Some(Err(e)),
            }
        });
        let name = free.ok_or(io::ErrorKind::AlreadyExists)??;
        let place = beneath::open_anchor(&at, name.as_bytes())?;
        rustix::fs::symlinkat(path, &place, ORIGIN)?;
        Ok(place)
    }
}

fn make(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
