//! What a run needs from the volume around it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use parking_lot::{MutexGuard, RwLockReadGuard};
use rustc_hash::FxHashSet;

use crate::candidate::Candidate;
use purge_model::Inode;

/// What a run needs from the volume around it.
pub trait Surroundings: Sync {
    /// Frees something of the trash before its grace ends, if the configuration allows that. Whether it did.
    fn free_trash(&self) -> bool;
    /// Every use that the kernel has queued reaches the index, in doubt as a use, within so long.
    fn sync(&self, at_most: Duration) -> Seen;
    /// Why nothing may be removed any more: another agent does that.
    fn other_agent(&self) -> Option<String>;
    /// How many uses wait to reach the index, about.
    fn backlog(&self) -> u64;
    /// Names in this directory are changed by this run alone: what the run does there need not come back as events.
    fn hide_own(&self, dir: BorrowedFd<'_>);
    /// This mount of the volume is used by this run alone: what the run does through it need not come back as events.
    ///
    /// # Errors
    /// Where the kernel cannot do that.
    fn hide_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()>;
    /// No hold that is added while the guard lives is in force before it is dropped.
    fn no_new_holds(&self) -> RwLockReadGuard<'_, ()>;
    /// The same for a thread that has one already; none while another waits for that to be dropped.
    fn no_new_holds_at_once(&self) -> Option<RwLockReadGuard<'_, ()>>;
    /// The inodes held now.
    fn held(&self) -> FxHashSet<Inode>;
    /// No other thread makes the trash, or a share or the reserve in it, while the guard lives.
    fn alone_in_the_trash(&self) -> MutexGuard<'_, ()>;
    /// These were taken; what can be restored, until then.
    fn taken(&self, candidates: &[Taken<'_>]);
}

/// What has reached the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Every use that was queued.
    Everything,
    /// A use since the plan may have been missed.
    NotEverything,
    /// That is not known yet: more was queued than could be read in time.
    Late,
}

/// A candidate that was taken.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// Which.
    pub candidate: &'a Candidate,
    /// Until when it lies in the trash, seconds since 1970; none: it does not.
    pub until: Option<u64>,
}
