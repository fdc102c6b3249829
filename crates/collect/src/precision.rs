//! Precision windows: a file that is used again and again costs (nearly) nothing for the rest of a window.
//!
//! ```text
//!   used twice in a window --> its clock is set to the window's end, and that is stored
//!                          --> an ignore mark hides its further opens, reads and closes
//!   the window ends        --> all marks are flushed; only then do the marked files' clocks fall behind
//! ```
//! So a recorded time is late by at most one window and never early, also when the agent dies in between: the time that
//! a hidden use gets was in the store before anything was hidden. Writes and names are never hidden. The marks are
//! evictable where the kernel has such marks: where it needs the memory, it forgets them, and the file's events come again. Elsewhere a mark
//! keeps its file's inode in the kernel's memory until the window ends, so fewer files are marked; the uses of the others are seen.
//!
//! What may never happen: a use is hidden whose file's clock says an earlier time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::event::{Access, Acts, Node};
use super::{Watched, reach, whereabouts};
use purge_base::clock;
use purge_model::{Inode, LastUse, Seconds, Source};
use purge_sys::beneath;
use purge_sys::handle::Handle;
use purge_sys::{memory, stat};

/// Files that are marked at a time: with more, the rest is seen at every use. Some 100 bytes each in the kernel and 16 here.
const MARKS_MAX: usize = 1 << 18;
/// The same where a mark keeps its inode in the kernel's memory: some 90 MB.
const KEPT_MAX: usize = 1 << 16;
/// Such a mark takes this much, with its inode: 1.1 KB (xfs) to 1.4 KB (ext4).
const KEPT_BYTES: u64 = 1400;
/// All of them take no more than the memory that the agent may use, divided by this.
const KEPT_SHARE: u64 = 32;
/// Windows shorter than this hide nothing: a mark costs more than what it could save.
const WINDOW_MIN: u64 = 2;

/// What a source must be able to do for windows.
pub trait Hiding: std::fmt::Debug + Send + Sync {
    /// The [`Acts::REPEATABLE`] uses of this file are not reported from now on. Reports of them may come again at any time. `file` may be an
    /// O_PATH descriptor.
    ///
    /// # Errors
    /// Where the kernel cannot do it.
    fn hide(&self, file: BorrowedFd<'_>) -> io::Result<()>;

    /// Nothing is hidden any more: when this returns, every use of every file is reported.
    ///
    /// # Errors
    /// What the kernel says. Whether anything is still hidden is unknown then.
    fn show_all(&self) -> io::Result<()>;

    /// What is hidden stays in the kernel's memory until [`Hiding::show_all`].
    fn keeps_what_it_hides(&self) -> bool;

    /// Each use that is reported costs the server of the file another one: it is hidden after the first in a window already.
    fn costs_each_use(&self) -> bool {
        false
    }

    /// Tries it on a directory, whose uses no caller asks for. Nothing is left of that.
    ///
    /// # Errors
    /// As for [`Hiding::hide`].
    fn try_on(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.hide(dir)?;
        self.show_all()
    }
}

/// The windows of one volume.
#[derive(Debug)]
pub struct Windows {
    source: Arc<dyn Hiding>,
    /// Seconds; 0: nothing is ever hidden.
    length: u32,
    /// The first use in a window makes a file hot.
    at_once: bool,
    /// When the present window began: the reader asks for each event.
    began: AtomicU32,
    /// Used again in this window, and not marked yet.
    hot: Mutex<FxHashMap<Inode, Option<Handle>>>,
    marked: Mutex<FxHashSet<Inode>>,
    /// Files that may be marked in the present window besides those that are.
    room: AtomicUsize,
    marks_max: usize,
}

/// How the windows are, for status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Precision {
    /// Length of a window in seconds; 0: every use is seen.
    pub window_seconds: u32,
    /// Files whose further uses are hidden now.
    pub marks: u64,
}

/// Whether an event tells that its file is used again and again: a use in this window, in another second than the one
/// before. A single open, read and close lies in one second, or is seen at its end as a second use: both is well.
#[inline]
fn is_repeated(acts: Acts, before: LastUse, now: Seconds, window_began: Seconds) -> bool {
    acts.any(Acts::REPEATABLE)
        && before.source == Source::Observed
        && before.at >= window_began
        && before.at != now
}

impl Windows {
    /// Windows of `precision` seconds. `root` is the volume's: whether the kernel can hide anything is tried on it.
    pub fn new(source: Arc<dyn Hiding>, precision: u64, root: &Path, now: Seconds) -> Self {
        let is_possible = Self::are_possible(precision) && can_hide(&*source, root);
        let length = if is_possible { precision } else { 0 };
        let marks_max = match source.keeps_what_it_hides() {
            false => MARKS_MAX,
            true => kept_max(memory::bound()),
        };
        Self {
            room: AtomicUsize::new(marks_max),
            marks_max,
            at_once: source.costs_each_use(),
            source,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            began: AtomicU32::new(now.0),
            hot: Mutex::default(),
            marked: Mutex::default(),
        }
    }

    /// Whether windows of this length hide anything.
    pub fn are_possible(precision: u64) -> bool {
        precision >= WINDOW_MIN
    }

    /// Whether anything is ever hidden.
    pub fn hide(&self) -> bool {
        !self.is_off()
    }

    /// How it is.
    pub fn precision(&self) -> Precision {
        Precision {
            window_seconds: self.length,
            marks: self.marked.lock().len() as u64,
        }
    }

    fn is_off(&self) -> bool {
        self.length == 0
    }

    /// What every marked file's clock says: the present window's end.
    pub fn end(&self) -> Seconds {
        Seconds(self.began.load(Relaxed)).plus(self.length.into())
    }

    /// A file was used; `before` is what the index said of it until then.
    #[inline]
    pub fn note(&self, access: Access, handle: Option<Handle>, before: LastUse) {
        let began = Seconds(self.began.load(Relaxed));
        let is_hot = match self.at_once {
            true => access.what.any(Acts::REPEATABLE),
            false => is_repeated(access.what, before, access.at, began),
        };
        if self.length != 0 && is_hot {
            self.note_hot(access.inode, handle);
        }
    }

    #[cold]
    fn note_hot(&self, ino: Inode, handle: Option<Handle>) {
        let mut hot = self.hot.lock();
        if hot.len() < self.room.load(Relaxed) {
            hot.insert(ino, handle);
        }
    }

    /// Ends the window if its time has come: nothing is hidden any more when this returns. True if a new one has begun;
    /// its end must be stored before [`Windows::mark_hot`] is called.
    ///
    /// # Errors
    /// When the kernel does not take the marks away.
    pub fn roll(&self, watched: &Watched) -> io::Result<bool> {
        // One second early: clocks have whole seconds.
        if self.is_off() || clock::now().plus(1) < self.end() {
            return Ok(false);
        }
        self.flush(watched)?;
        self.began.store(clock::now().0, Relaxed);
        Ok(true)
    }

    /// The agent's time was set back: the window begins again, and nothing is hidden when this returns.
    ///
    /// # Errors
    /// When the kernel does not take the marks away.
    pub fn begin_again(&self) -> io::Result<()> {
        self.hot.lock().clear();
        self.source.show_all()?;
        self.none_is_marked();
        self.began.store(clock::now().0, Relaxed);
        Ok(())
    }

    /// Takes all marks away, and makes sure that no file's clock says less than this moment.
    fn flush(&self, watched: &Watched) -> io::Result<()> {
        self.hot.lock().clear();
        self.source.show_all()?;
        let now = clock::now().plus(1);
        if now > self.end() {
            // This thread was held up: what was hidden since the window's end happened by now.
            let files: Vec<Inode> = self.marked.lock().iter().copied().collect();
            watched.recorder().hidden_until(now, &files);
        }
        self.none_is_marked();
        Ok(())
    }

    fn none_is_marked(&self) {
        self.marked.lock().clear();
        self.room.store(self.marks_max, Relaxed);
    }

    /// Hides the further uses of the files that were used repeatedly. `store` must make the index durable; when it says
    /// no, nothing is hidden.
    ///
    /// # Errors
    /// When the volume cannot be opened.
    pub fn mark_hot(&self, watched: &Watched, store: impl FnOnce() -> bool) -> io::Result<()> {
        let hot = std::mem::take(&mut *self.hot.lock());
        if hot.is_empty() || self.is_off() {
            return Ok(());
        }
        let root = watched.open_mount()?;
        let files: Vec<Inode> = hot.keys().copied().collect();
        watched.recorder().hidden_until(self.end(), &files);
        if !store() {
            return Ok(());
        }
        let mut marked = self.marked.lock();
        for (ino, handle) in hot {
            if marked.len() >= self.marks_max {
                break;
            }
            // A deleted file needs no mark.
            let Some(fd) = open_hot(watched, &root, ino, handle) else {
                continue;
            };
            // Before the mark: a mark that is not in the table is never corrected.
            marked.insert(ino);
            match self.source.hide(fd.as_fd()) {
                Ok(()) => {}
                // Without memory for it, the file's events go on.
                Err(error) => tracing::debug!(%error, "cannot mark a file"),
            }
        }
        self.room
            .store(self.marks_max.saturating_sub(marked.len()), Relaxed);
        Ok(())
    }
}

/// How many files may be marked where marks keep them in memory, for an agent that may use this number of bytes.
fn kept_max(memory_bytes: u64) -> usize {
    let most = memory_bytes / KEPT_SHARE / KEPT_BYTES;
    usize::try_from(most).unwrap_or(KEPT_MAX).min(KEPT_MAX)
}

/// A file that is to be hidden. Its clock holds for the file that the index knows: another one that has its number by now is told of.
fn open_hot(watched: &Watched, root: &OwnedFd, ino: Inode, handle: Option<Handle>) -> Option<OwnedFd> {
    if let Some(handle) = handle {
        return reach::open(watched, root, Node { ino, handle }).ok();
    }
    let file = whereabouts::open_by_name(watched, ino).ok()??;
    let found = stat::open_file(&file).ok()?;
    let (known, _) = watched.index.read().get(ino)?;
    (!found.keeps_birth || found.stat.birth == known.birth).then_some(file)
}

/// Tries a mark on a directory, whose uses no caller asks for.
fn can_hide(source: &dyn Hiding, root: &Path) -> bool {
    let done = beneath::open_root(root).and_then(|root| source.try_on(root.as_fd()));
    if let Err(error) = &done {
        tracing::info!(%error, "ignore marks of files cannot be had (as on a subvolume of btrfs): every use is recorded by itself");
    }
    done.is_ok()
}

/// Corrects what an earlier process left behind: its marks may have hidden uses until this moment. `end` is the end
/// of its last window as it was stored.
///
/// # Errors
/// When the marks cannot be taken away.
pub fn end_window_of_another(watched: &Watched, source: &dyn Hiding, end: Seconds) -> io::Result<()> {
    source.show_all()?;
    correct_what_another_hid(watched, end);
    Ok(())
}

/// The same where nothing is hidden any more.
pub fn correct_what_another_hid(watched: &Watched, end: Seconds) {
    let now = clock::now().plus(1);
    if now > end {
        watched.recorder().move_window(end, now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::AtomicU32 as Count;

    /// Keeps what it hides.
    #[derive(Debug, Default)]
    struct Keeping(Count);

    impl Hiding for Keeping {
        fn hide(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            self.0.fetch_add(1, Relaxed);
            Ok(())
        }

        fn show_all(&self) -> io::Result<()> {
            self.0.store(0, Relaxed);
            Ok(())
        }

        fn keeps_what_it_hides(&self) -> bool {
            true
        }
    }

    #[test]
    fn where_marks_keep_files_in_memory_there_are_fewer_and_the_rest_is_seen() {
        assert_eq!(kept_max(1 << 40), KEPT_MAX);
        assert_eq!(kept_max(0), 0);
        assert!(kept_max(1 << 30) > 20_000 && kept_max(1 << 30) < KEPT_MAX);
        let root = tempfile::tempdir().unwrap();
        let windows = Windows::new(Arc::new(Keeping::default()), 60, root.path(), Seconds(100));
        let handle = Handle::new(1, &[1; 8]).unwrap();
        let hot = |ino| {
            windows.note_hot(ino, Some(handle));
            windows.hot.lock().contains_key(&ino)
        };
        windows.room.store(2, Relaxed);
        assert_eq!([1, 2, 3].map(hot), [true, true, false]);
        windows.begin_again().unwrap();
        assert!(
            windows.room.load(Relaxed) > 2 && hot(3),
            "a new window has room again"
        );
    }

    #[test]
    fn only_a_second_use_in_the_same_window_makes_a_file_hot() {
        let used = |at, source| LastUse {
            at: Seconds(at),
            source,
        };
        let hot = |before, now| is_repeated(Acts::OPEN, before, Seconds(now), Seconds(100));
        assert!(hot(used(100, Source::Observed), 101));
        assert!(!hot(used(101, Source::Observed), 101), "the same second");
        assert!(!hot(used(99, Source::Observed), 101), "the window before");
        assert!(!hot(used(100, Source::Baseline), 101), "it was not seen");
        assert!(
            hot(used(160, Source::Observed), 101),
            "marked, and the mark was dropped"
        );
        let written = Acts::WRITE | Acts::CLOSE_WRITER;
        assert!(!is_repeated(
            written,
            used(100, Source::Observed),
            Seconds(101),
            Seconds(100)
        ));
    }
}
