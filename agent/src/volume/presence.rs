//! Whether the file system that is watched is still mounted (`inotify(7)`).
//!
//! Unmounting destroys the marks, silently: after the same file system is mounted again, nothing tells a watched one from one
//! that nobody watches, not even its device. A watch on the root is told: `IN_UNMOUNT`. It does not keep the file system
//! mounted.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// A watch on the volume's root.
#[derive(Debug)]
pub(super) struct Presence {
    watch: Option<OwnedFd>,
    gone: bool,
}

impl Presence {
    /// Begins to watch. Without inotify (its limits are reached) unmounting shows only as long as nothing is mounted.
    pub fn watch(root: &Path) -> Self {
        let watch = begin(root);
        if let Err(error) = &watch {
            tracing::warn!(root = %root.display(), %error, "cannot see whether the volume is unmounted");
        }
        Self {
            watch: watch.ok(),
            gone: false,
        }
    }

    /// Whether the file system was unmounted, or its root removed, since the watch began.
    pub fn is_gone(&mut self) -> bool {
        if let Some(watch) = &self.watch {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 1024];
            let mut reader = Reader::new(watch, &mut buffer);
            while let Ok(event) = reader.next() {
                self.gone |= event
                    .events()
                    .intersects(ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF | ReadFlags::IGNORED);
            }
        }
        self.gone
    }
}

fn begin(root: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, root, WatchFlags::DELETE_SELF)?;
    Ok(watch)
}
