//! What a source of uses is to a volume, to `status`, `doctor` and to the code that decides what it is good for.
//!
//! ```text
//!   arming::arm --> Armed          told of every use from now on; nothing is recorded yet
//!   Armed::run  --> Watching       a thread records; asked for barriers, windows, its end
//!                   Source         what it is, what it cannot see: the NFS server's list is one as well
//! ```
//! What may never happen: a source that says it sees what it does not see. [`Profile`] is what plans, the guard and people go by.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::Watched;
use super::error::CollectError;
use super::precision::Windows;
use super::tree::Tree;
use purge_model::Seconds;
pub use purge_model::blind::{Blind, Reads};
use purge_sys::fanotify::Features;

/// What a source is, in a word of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Events of `fanotify(7)`.
    Fanotify,
    /// Events of `inotify(7)`.
    Inotify,
    /// A mount of the agent's, by which users come.
    Fuse,
    /// Scans find what the file system says of its files.
    Scan,
    /// The kernel's NFS server says what its clients hold.
    NfsServer,
}

impl Kind {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fanotify => "fanotify",
            Self::Inotify => "inotify",
            Self::Fuse => "fuse",
            Self::Scan => "scan",
            Self::NfsServer => "nfsd",
        }
    }
}

/// How it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One mark on the file system: everything on it.
    FileSystem,
    /// Events carry a descriptor of the file; names are found by scans.
    Descriptors,
    /// A mark on each directory.
    Directories,
    /// A watch on each directory.
    Watches,
    /// It is asked from time to time.
    Asked,
    /// It scans from time to time.
    Scans,
}

impl Mode {
    /// The contract's word; empty for a source that has only one mode.
    pub const fn word(self) -> &'static str {
        match self {
            Self::FileSystem => "filesystem",
            Self::Descriptors => "descriptors",
            Self::Directories => "directories",
            Self::Watches | Self::Asked | Self::Scans => "",
        }
    }
}

/// What a source knows of who used a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Nothing.
    Unknown,
    /// A process number, which another process may have by now.
    Number,
    /// A process number; and where the process was known before and still lives, that it is the same: its reads may be ignored then, if the
    /// configuration says so.
    Lasting,
    /// A descriptor of exactly that process: its reads may be ignored if the configuration says so.
    Process,
}

/// When "everything that was used before this call is recorded" can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// When the queue was read that far.
    Exact,
    /// After this time: nothing says how much waits.
    Timed(Duration),
    /// As of the last time that it was asked.
    LastLook,
}

/// What a source is and what it can do. It does not change while the source watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// What it is.
    pub kind: Kind,
    /// How it watches.
    pub mode: Mode,
    /// What there is of what a kernel may lack.
    pub features: Features,
    /// It reports changed names. Otherwise only scans find them.
    pub knows_names: bool,
    /// What it knows of who uses a file.
    pub knows_who: Who,
    /// What its barrier is worth.
    pub certainty: Certainty,
    /// It can hide repeated uses, so precision windows are possible.
    pub hides: bool,
    /// Its queue outlives this process where one keeps it: a restart is no gap.
    pub outlives: bool,
    /// How it knows of reads.
    pub reads: Reads,
    /// What it does not see.
    pub blind: &'static [Blind],
}

/// What came of a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// Everything that was used before is in the index, as far as [`Certainty`] goes.
    Passed,
    /// Not in time.
    Late,
    /// The source is dead, or cannot be asked.
    Dead,
}

/// Where uses come from.
pub trait Source: Debug + Send + Sync {
    /// What it is.
    fn profile(&self) -> Profile;

    /// Reports that wait and are not recorded. `u64::MAX` if nothing says how many.
    fn queued(&self) -> u64;

    /// Waits until everything that was used before this call is in the index, for so long at most. What may turn out to be no use is one then,
    /// and names and attributes may be older than the files.
    fn barrier(&self, at_most: Duration) -> Barrier;
}

/// A thread that reads reports, until it is ended.
pub trait Reading {
    /// As [`Watching::sync_while`].
    fn sync_while(&self, goes_on: &dyn Fn() -> bool) -> bool;

    /// As [`Watching::sync_within`].
    fn sync_within(&self, at_most: Duration) -> bool;

    /// As [`Watching::sync_or_give_up`].
    fn sync_or_give_up(&self, at_most: Duration) -> bool;
}

/// A source that a volume stands on: it has a thread, follows names, and can be waited for.
pub trait Watching: Source {
    /// Its thread, where it has one: without, nothing waits to be read.
    fn reading(&self) -> Option<&dyn Reading>;

    /// As [`Source::barrier`], and what can be settled is: for as long as `goes_on` says, which is asked now and then. False: what was used last
    /// may be missing, or the thread is dead.
    fn sync_while(&self, goes_on: &dyn Fn() -> bool) -> bool {
        self.reading().is_none_or(|c| c.sync_while(goes_on))
    }

    /// The same for so long at most.
    fn sync_within(&self, at_most: Duration) -> bool {
        self.reading().is_none_or(|c| c.sync_within(at_most))
    }

    /// The same before the end. After a false one nothing more is read: what still waits is for the next process, or lost. A thread that
    /// has ended has nothing to read.
    fn sync_or_give_up(&self, at_most: Duration) -> bool {
        self.reading().is_none_or(|c| c.sync_or_give_up(at_most))
    }

    /// Ends the thread, and waits for that.
    fn end(&self);

    /// What it has in keeping is for no later process: the file system was unmounted, or is another volume's now.
    fn release(&self);

    /// Whether it is still told: unmounting takes marks away.
    ///
    /// # Errors
    /// When the kernel does not say.
    fn is_watching(&self) -> io::Result<bool>;

    /// Watches once more, where nothing was told any more.
    ///
    /// # Errors
    /// What the kernel says.
    fn watch_again(&self) -> io::Result<()>;

    /// Its precision windows, where it can hide uses.
    fn windows(&self) -> Option<&Windows>;

    /// The agent alone changes names in this directory, and need not be told of it, where the kernel can leave it out. Ask again now and then:
    /// windows end.
    fn hide_own(&self, dir: BorrowedFd<'_>);

    /// The agent alone uses this mount of the volume, and need not be told of it.
    ///
    /// # Errors
    /// Where the kernel cannot leave it out.
    fn hide_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()>;
}

/// Since when an armed source is told of every use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// This moment.
    pub at: Seconds,
    /// It was taken over from an earlier process, with all that was reported meanwhile: nothing was missed.
    pub nothing_missed: bool,
}

/// A source that is told of every use from now on, and records none yet.
pub trait Armed: Debug {
    /// What it is.
    fn profile(&self) -> Profile;

    /// Since when it is told.
    fn since(&self) -> Since;

    /// Which directories it is told of, where it has to be asked to watch each.
    fn tree(&self) -> Option<Arc<Tree>> {
        None
    }

    /// Begins to record. `window_end` is the end of the last precision window of an earlier process: what that hid is corrected first.
    /// `on_error` is called with every error of the thread.
    ///
    /// # Errors
    /// When that cannot be corrected, or the thread cannot be started.
    fn run(
        self: Box<Self>,
        watched: &Arc<Watched>,
        window_end: Seconds,
        on_error: Box<dyn Fn(CollectError) + Send>,
    ) -> Result<Box<dyn Watching>, CollectError>;
}
