//! Ignore marks of files beside marks of directories: taking all away at once (`FAN_MARK_FLUSH`) would take those of the directories, so each is
//! taken away by itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::precision::Hiding;
use purge_sys::absence::Absence;
use purge_sys::beneath;
use purge_sys::fanotify::{Feature, Group};
use purge_sys::handle::Handle;

/// Of a group.
#[derive(Debug)]
pub(super) struct OneByOne {
    group: Arc<Group>,
    root: PathBuf,
    /// What has an ignore mark, or had one that the kernel dropped.
    hidden: Mutex<Vec<Handle>>,
}

impl OneByOne {
    /// `left`: what an earlier process has hidden.
    pub fn new(group: Arc<Group>, root: PathBuf, left: Vec<Handle>) -> Self {
        Self {
            group,
            root,
            hidden: Mutex::new(left),
        }
    }

    /// A file that is deleted has no mark, and a mark that the kernel dropped is none.
    fn show(&self, mount: BorrowedFd<'_>, handle: &Handle) -> io::Result<()> {
        let shown = handle
            .open_path(mount)
            .and_then(|file| self.group.show(file.as_fd()));
        match shown {
            Err(e) if matches!(Absence::of(&e), Some(Absence::Missing | Absence::Stale)) => Ok(()),
            other => other,
        }
    }
}

impl Hiding for OneByOne {
    fn hide(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let handle = Handle::of_open(file)?;
        // Before the mark: one that is not in the list would never be taken away.
        self.hidden.lock().push(handle);
        self.group.ignore(file)
    }

    fn show_all(&self) -> io::Result<()> {
        let mount = beneath::open_mount(&self.root)?;
        let mut hidden = self.hidden.lock();
        while let Some(handle) = hidden.last() {
            self.show(mount.as_fd(), handle)?;
            hidden.pop();
        }
        hidden.shrink_to_fit();
        Ok(())
    }

    fn keeps_what_it_hides(&self) -> bool {
        !self.group.features().has(Feature::Evictable)
    }

    // The root has a mark that excludes this one. That files can be hidden was found out with another group.
    fn try_on(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}
