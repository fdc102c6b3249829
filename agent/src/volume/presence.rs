//! Whether the file system that is watched is still mounted (`inotify(7)`).
//!
//! Unmounting destroys the marks, silently: after the same file system is mounted again, nothing tells a watched one from one
//! that is not watched, not even its device. A watch on the root gets the event `IN_UNMOUNT`. It does not keep the file system
//! mounted. The second way to know is the kernel's list of the marks (`/proc/self/fdinfo`).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Without a watch, the marks are looked for themselves. A look that took long is not taken again before this multiple of its time.
const LOOK_REST: u32 = 20;
/// With a watch they are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A watch on the volume's root.
#[derive(Debug)]
pub(super) struct Presence {
    root: PathBuf,
    watch: Option<OwnedFd>,
    gone: bool,
    /// When the marks are looked for again.
    look_at: Option<Instant>,
}

impl Presence {
    /// Begins to watch. Where inotify gives no watch (its limits are reached), it is asked again, and the marks are looked for meanwhile.
    pub fn watch(root: &Path) -> Self {
        let watch = begin(root);
        if let Err(error) = &watch {
            tracing::warn!(root = %root.display(), %error, "inotify does not tell when the volume is unmounted: its marks are looked for instead");
        }
        Self {
            root: root.to_owned(),
            watch: watch.ok(),
            gone: false,
            look_at: None,
        }
    }

    /// Whether the file system was unmounted, or is not marked any more: `is_marked` looks for that.
    ///
    /// # Errors
    /// When neither inotify nor the kernel's list of marks can tell.
    pub fn is_lost(&mut self, is_marked: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        if self.was_unmounted() {
            return Ok(true);
        }
        // First the watch, then the marks: what is unmounted afterwards, the watch tells.
        let is_blind = self.watch.is_none();
        if is_blind {
            self.watch = begin(&self.root).ok();
        }
        let began = Instant::now();
        if self.look_at.is_some_and(|at| began < at) {
            return Ok(false);
        }
        let is_marked = is_marked()?;
        let rest = began.elapsed().saturating_mul(LOOK_REST);
        let rest = if is_blind { rest } else { rest.max(LOOK_EVERY) };
        self.look_at = began.checked_add(rest);
        self.gone |= !is_marked;
        Ok(self.gone)
    }

    /// Whether the file system was unmounted, or its root removed, since the watch began.
    pub fn was_unmounted(&mut self) -> bool {
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
