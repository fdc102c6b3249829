//! The file system behind the mount.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{OFlags, Statx};
use rustix::io::Errno;

use crate::nodes::{Leads, TOP};
use crate::protocol::answer::BELIEVED;
use purge_sys::backing;
use purge_sys::handle::Handle;

/// The top, and what is known of its file system.
#[derive(Debug)]
pub struct Ground {
    top: OwnedFd,
    device: (u32, u32),
    ino: u64,
    has_handles: bool,
    /// A name at the top that users do not see: the trash.
    hidden: CString,
    lately: Lately,
}

/// Directories that were reached lately: the next name is often looked for in the same one.
#[derive(Debug, Default)]
struct Lately(Mutex<Vec<(Handle, Arc<OwnedFd>, Instant)>>);

impl Lately {
    /// One for each who is busy.
    const MANY: usize = 8;

    fn find(&self, handle: &Handle) -> Option<Arc<OwnedFd>> {
        let all = self.0.lock();
        let found = all.iter().find(|(of, ..)| of == handle);
        // One that was deleted behind the mount is not known for longer than its name.
        let found = found.filter(|(_, _, since)| since.elapsed() < BELIEVED);
        found.map(|(_, dir, _)| Arc::clone(dir))
    }

    fn keep(&self, handle: Handle, dir: &Arc<OwnedFd>) {
        let mut all = self.0.lock();
        all.retain(|(of, ..)| *of != handle);
        if all.len() >= Self::MANY {
            all.remove(0);
        }
        all.push((handle, Arc::clone(dir), Instant::now()));
    }
}

/// A file that is open for a look.
#[derive(Debug)]
pub enum Reached<'a> {
    /// The top.
    Top(BorrowedFd<'a>),
    /// Opened for this.
    Opened(OwnedFd),
    /// Held open.
    Held(Arc<OwnedFd>),
}

impl AsFd for Reached<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Top(fd) => fd.as_fd(),
            Self::Opened(fd) => fd.as_fd(),
            Self::Held(fd) => fd.as_fd(),
        }
    }
}

/// A file that was looked at.
#[derive(Debug)]
pub struct Met {
    /// Its number.
    pub number: u64,
    /// Tells it from others that had the number.
    pub generation: u64,
    /// What is said of it.
    pub found: Statx,
    /// How it is found again; none: it is the top.
    pub leads: Option<Leads>,
}

impl Ground {
    /// Of the directory at a path.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn at(path: &Path, hidden: &CStr) -> io::Result<Self> {
        let top = backing::open_top(path)?;
        let found = backing::attributes(&top)?;
        let leads_back = |handle: Handle| handle.open_path(&top).is_ok();
        let has_handles = Handle::of_open(&top).is_ok_and(leads_back);
        Ok(Self {
            top,
            device: (found.stx_dev_major, found.stx_dev_minor),
            ino: found.stx_ino,
            has_handles,
            hidden: hidden.to_owned(),
            lately: Lately::default(),
        })
    }

    /// Whether files are found by their handles.
    pub fn has_handles(&self) -> bool {
        self.has_handles
    }

    /// The top.
    pub fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Opens a file for a look.
    ///
    /// # Errors
    /// ESTALE when it is deleted.
    pub fn reach(&self, leads: Option<&Leads>) -> io::Result<Reached<'_>> {
        Ok(match leads {
            None => Reached::Top(self.top.as_fd()),
            Some(Leads::Handle(handle)) => match self.lately.find(handle) {
                Some(dir) => Reached::Held(dir),
                None => Reached::Opened(handle.open_path(&self.top)?),
            },
            Some(Leads::Held(held)) => Reached::Held(Arc::clone(held)),
        })
    }

    /// The same for a directory in which something is looked for or changed.
    ///
    /// # Errors
    /// As [`Self::reach`].
    pub fn reach_dir(&self, leads: Option<&Leads>) -> io::Result<Reached<'_>> {
        let Some(Leads::Handle(handle)) = leads else {
            return self.reach(leads);
        };
        let dir = match self.reach(leads)? {
            Reached::Opened(dir) => Arc::new(dir),
            known => return Ok(known),
        };
        self.lately.keep(*handle, &dir);
        Ok(Reached::Held(dir))
    }

    /// Opens a file as it was asked for. EWOULDBLOCK: a process has a lease on it.
    ///
    /// # Errors
    /// ESTALE when it is deleted, and what `open(2)` says.
    pub fn open(&self, leads: Option<&Leads>, flags: OFlags) -> io::Result<OwnedFd> {
        match leads {
            None => backing::reopen(&self.top, flags),
            Some(Leads::Handle(handle)) => handle.open_as(&self.top, flags),
            Some(Leads::Held(held)) => backing::reopen(held, flags),
        }
    }

    /// Whether users do not see this name.
    pub fn hides(&self, dir: u64, name: &CStr) -> bool {
        dir == TOP && name == self.hidden.as_c_str()
    }

    /// What the kernel calls the file of this inode.
    pub fn number_of(&self, ino: u64) -> u64 {
        if ino == self.ino { TOP } else { ino }
    }

    /// Looks at what is open for a look.
    ///
    /// # Errors
    /// EXDEV for what lies on another file system.
    pub fn meet(&self, node: OwnedFd) -> io::Result<Met> {
        let (found, handle) = self.look_at(&node)?;
        // Held open its number belongs to no other file.
        self.met(found, handle, || Ok(node))
    }

    /// Looks at what is open as a user asked for it.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub fn meet_open(&self, file: &OwnedFd) -> io::Result<Met> {
        let (found, handle) = self.look_at(file)?;
        self.met(found, handle, || backing::reopen(file, OFlags::PATH))
    }

    fn look_at(&self, node: &OwnedFd) -> io::Result<(Statx, Option<Handle>)> {
        let found = backing::attributes(node)?;
        if (found.stx_dev_major, found.stx_dev_minor) != self.device {
            return Err(Errno::XDEV.into());
        }
        if found.stx_ino != self.ino && matches!(found.stx_ino, TOP | 0) {
            // The kernel would take it for the top.
            return Err(Errno::IO.into());
        }
        let handle = self.has_handles.then(|| Handle::of_open(node)).transpose()?;
        Ok((found, handle))
    }

    fn met(
        &self,
        found: Statx,
        handle: Option<Handle>,
        held: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<Met> {
        if found.stx_ino == self.ino {
            return Ok(Met {
                number: TOP,
                generation: 0,
                found,
                leads: None,
            });
        }
        let (leads, generation) = match handle {
            Some(handle) => (Leads::Handle(handle), generation(&handle)),
            None => (Leads::Held(Arc::new(held()?)), 0),
        };
        Ok(Met {
            number: found.stx_ino,
            generation,
            found,
            leads: Some(leads),
        })
    }
}

/// The same for the same file in each process, and another for another file of the same number (FNV-1a).
fn generation(handle: &Handle) -> u64 {
    handle
        .content()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
