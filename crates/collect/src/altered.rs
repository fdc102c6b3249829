//! Which files other processes renamed or changed lately, while a run takes files.
//!
//! A lease tells of processes that open a file. A process that renames it to another name and back opens nothing, and when the agent renames
//! the file a moment later, the file's change time is that of the agent. So a run asks here, after a barrier, before it removes what it has moved.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use purge_model::Inode;

/// At least this many files are remembered: some MB.
const REMEMBERED: usize = 1 << 16;

/// The files, while there is a run.
#[derive(Debug, Default)]
pub struct Altered {
    followers: AtomicU32,
    /// Files that were noted, each as often as it was noted.
    noted: AtomicU64,
    inodes: Mutex<Inodes>,
}

/// Two halves: when the newer is full, the older is forgotten.
#[derive(Debug, Default)]
struct Inodes {
    newer: FxHashSet<Inode>,
    older: FxHashSet<Inode>,
    /// How often one was forgotten.
    turns: u64,
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    noted: u64,
    turns: u64,
}

/// As long as there is one, files are noted.
#[derive(Debug)]
pub struct Following<'a>(&'a Altered);

impl Altered {
    /// Begins to note files, until what is returned is dropped.
    pub fn follow(&self) -> Following<'_> {
        self.followers.fetch_add(1, SeqCst);
        Following(self)
    }

    /// Another process has renamed this file, or changed something of it.
    #[inline]
    pub fn note(&self, ino: Inode) {
        if self.followers.load(SeqCst) == 0 {
            return;
        }
        let mut inodes = self.inodes.lock();
        inodes.newer.insert(ino);
        if inodes.newer.len() >= REMEMBERED {
            inodes.older = std::mem::take(&mut inodes.newer);
            inodes.turns = inodes.turns.wrapping_add(1);
        }
        self.noted.fetch_add(1, SeqCst);
    }

    /// Now.
    pub fn since_now(&self) -> Since {
        let inodes = self.inodes.lock();
        Since {
            noted: self.noted.load(SeqCst),
            turns: inodes.turns,
        }
    }

    /// Whether a file was noted since then. True also if more files were noted than are remembered.
    #[inline]
    pub fn has(&self, ino: Inode, since: Since) -> bool {
        if self.noted.load(SeqCst) == since.noted {
            return false;
        }
        let inodes = self.inodes.lock();
        let is_forgotten = inodes.turns.wrapping_sub(since.turns) > 1;
        is_forgotten || inodes.newer.contains(&ino) || inodes.older.contains(&ino)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        // Under the lock, so that one that begins at the same time has what it was told.
        let mut inodes = self.0.inodes.lock();
        if self.0.followers.fetch_sub(1, SeqCst) == 1 {
            inodes.newer = FxHashSet::default();
            inodes.older = FxHashSet::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_noted_while_a_run_follows() {
        let altered = Altered::default();
        let since = altered.since_now();
        altered.note(7);
        assert!(!altered.has(7, since), "no run asks");
        let following = altered.follow();
        let since = altered.since_now();
        altered.note(7);
        assert!(altered.has(7, since));
        assert!(!altered.has(8, since));
        assert!(!altered.has(7, altered.since_now()), "nothing since");
        drop(following);
        let _again = altered.follow();
        altered.note(9);
        assert!(!altered.has(7, since), "of an earlier run");
    }

    #[test]
    fn with_more_than_are_remembered_all_are_in_doubt() {
        let altered = Altered::default();
        let _following = altered.follow();
        altered.note(1);
        let since = altered.since_now();
        (0..REMEMBERED as u64).for_each(|n| altered.note(100 + n));
        assert!(altered.has(1, since), "noted before, and still known");
        assert!(!altered.has(2, since));
        (0..REMEMBERED as u64).for_each(|n| altered.note(1_000_000 + n));
        assert!(altered.has(2, since));
        let later = altered.since_now();
        altered.note(3);
        assert!(altered.has(3, later));
        assert!(!altered.has(2, later));
    }

    #[test]
    fn memory_is_bounded() {
        let altered = Altered::default();
        let _following = altered.follow();
        (0..5 * REMEMBERED as u64).for_each(|n| altered.note(n));
        let inodes = altered.inodes.lock();
        assert!(inodes.newer.len() + inodes.older.len() <= 2 * REMEMBERED);
    }
}
