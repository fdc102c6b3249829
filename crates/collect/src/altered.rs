//! Which of the files that a run takes were renamed or changed by other processes meanwhile.
//!
//! A lease tells of processes that open a file. A process that renames it to another name and back opens nothing, and when the agent renames
//! the file a moment later, the file's change time is that of the agent. So a run asks here, after a barrier, before it removes what it has moved.
//!
//! Only files that a run has named are remembered: however many others a user changes meanwhile, these stay known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use roaring::RoaringTreemap;

use purge_model::Inode;

/// Who follows files now.
#[derive(Debug, Default)]
pub struct Altered {
    count: AtomicUsize,
    followers: Mutex<Vec<Arc<Mutex<Files>>>>,
}

#[derive(Debug, Default)]
struct Files {
    followed: RoaringTreemap,
    altered: RoaringTreemap,
}

/// Follows files until it is dropped.
#[derive(Debug)]
pub struct Follower<'a> {
    all: &'a Altered,
    files: Arc<Mutex<Files>>,
}

impl Altered {
    /// One that follows no file yet.
    pub fn follower(&self) -> Follower<'_> {
        let files = Arc::default();
        let mut followers = self.followers.lock();
        followers.push(Arc::clone(&files));
        self.count.store(followers.len(), SeqCst);
        drop(followers);
        Follower { all: self, files }
    }

    /// Whether a run takes this file now.
    pub fn is_followed(&self, ino: Inode) -> bool {
        self.count.load(SeqCst) > 0
            && self
                .followers
                .lock()
                .iter()
                .any(|files| files.lock().followed.contains(ino))
    }

    /// Another process has renamed this file, or changed something of it.
    #[inline]
    pub fn note(&self, ino: Inode) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        for files in self.followers.lock().iter() {
            let mut files = files.lock();
            if files.followed.contains(ino) {
                files.altered.insert(ino);
            }
        }
    }
}

impl Follower<'_> {
    /// From now on it is known whether others alter this file. To be called before the file is compared: what was done to it before is seen
    /// by that.
    pub fn follow(&self, ino: Inode) {
        self.files.lock().followed.insert(ino);
    }

    /// Whether others have altered a file since it is followed, as far as the last barrier tells.
    pub fn has_seen(&self, ino: Inode) -> bool {
        self.files.lock().altered.contains(ino)
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        let mut followers = self.all.followers.lock();
        followers.retain(|files| !Arc::ptr_eq(files, &self.files));
        self.all.count.store(followers.len(), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_noted_while_it_is_followed() {
        let altered = Altered::default();
        altered.note(7);
        let (one, other) = (altered.follower(), altered.follower());
        altered.note(7);
        one.follow(7);
        assert!(!one.has_seen(7), "that was before");
        altered.note(7);
        altered.note(8);
        assert!(one.has_seen(7) && !one.has_seen(8) && !other.has_seen(7));
        drop(one);
        other.follow(9);
        altered.note(9);
        assert!(other.has_seen(9));
        drop(other);
        assert!(altered.followers.lock().is_empty() && altered.count.load(SeqCst) == 0);
    }

    #[test]
    fn however_many_other_files_are_altered_those_that_are_followed_stay_known() {
        let altered = Altered::default();
        let follower = altered.follower();
        (1..100).for_each(|ino| follower.follow(ino));
        altered.note(5);
        (1000..500_000).for_each(|ino| altered.note(ino));
        let seen: Vec<Inode> = (1..100).filter(|ino| follower.has_seen(*ino)).collect();
        assert_eq!(seen, [5]);
        assert_eq!(
            follower.files.lock().altered.len(),
            1,
            "and memory is that of the run"
        );
    }
}
