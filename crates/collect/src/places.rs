//! Which file lies at a name, as far as the index was told: for sources whose reports name a place and no file, or do not tell which file lost
//! its name to a rename.
//!
//! ```text
//!   report: something was used, or changed, at (directory, name) --> the file that was there when the place was last looked at
//! ```
//! That is right as long as each change of a name is told before what is done by the new one: what a look finds at a place that a report named
//! counts as used at that moment ([`super::namespace`]), and so a use by a name that was not known yet is not lost. What is used by a name that
//! a running scan has not met counts when the scan meets it ([`Places::was_used`]).
//!
//! What may never happen: a use at a name that is known, recorded for no file.

use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use purge_model::Inode;
use purge_sys::handle::Handle;

/// Names that were used before a scan met them, at most. With more, each that is met counts as used.
const STRANGERS_MAX: usize = 1 << 18;
/// No file system has such handles: the content is an inode, which is found by the names that the index has of it.
const KIND: i32 = i32::MIN;

/// A handle of the agent's own: what has this inode is found by its place.
pub fn handle(ino: Inode) -> Handle {
    Handle::of_number(KIND, ino)
}

/// Whether a handle is one of these.
pub fn is_place(handle: &Handle) -> bool {
    handle.kind() == KIND
}

/// Names, and what lies there: some 30 bytes for each.
#[derive(Debug, Default)]
pub struct Places {
    keys: Keys,
    names: Mutex<FxHashMap<Key, Inode>>,
    strangers: Mutex<Strangers>,
}

#[derive(Debug, Default)]
struct Strangers {
    used: FxHashSet<Key>,
    too_many: bool,
}

/// A directory and a name, as a hash. Were two places the same, uses of the one would be recorded for the other: a user could choose a name so that
/// the file of another person looks unused. So no user can know the keys of the hash, and it is too long for chance.
type Key = (u64, u64);

#[derive(Debug, Default)]
struct Keys(RandomState, RandomState);

impl Keys {
    fn of(&self, dir: Inode, name: &[u8]) -> Key {
        (self.0.hash_one((dir, name)), self.1.hash_one((dir, name)))
    }
}

impl Places {
    /// A look has found this at a place. What lay there before, if that is another inode.
    pub fn learn(&self, dir: Inode, name: &[u8], ino: Inode) -> Option<Inode> {
        let was = self.names.lock().insert(self.keys.of(dir, name), ino);
        was.filter(|was| *was != ino)
    }

    /// What lay there when it was looked at last.
    pub fn at(&self, dir: Inode, name: &[u8]) -> Option<Inode> {
        self.names.lock().get(&self.keys.of(dir, name)).copied()
    }

    /// Something was used at a name that is not known.
    pub fn note_stranger(&self, dir: Inode, name: &[u8]) {
        let mut strangers = self.strangers.lock();
        match strangers.used.len() < STRANGERS_MAX {
            true => drop(strangers.used.insert(self.keys.of(dir, name))),
            false => strangers.too_many = true,
        }
    }

    /// Whether what a scan meets there may have been used since its directory is watched.
    pub fn was_used(&self, dir: Inode, name: &[u8]) -> bool {
        let strangers = self.strangers.lock();
        strangers.too_many || strangers.used.contains(&self.keys.of(dir, name))
    }

    /// A scan of the whole volume has met all names.
    pub fn all_met(&self) {
        *self.strangers.lock() = Strangers::default();
    }

    /// Forgets inodes that are deleted.
    pub fn prune(&self, is_there: impl Fn(Inode) -> bool) {
        let mut names = self.names.lock();
        names.retain(|_, ino| is_there(*ino));
        names.shrink_to_fit();
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.names.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_belongs_to_what_was_seen_there_last() {
        let places = Places::default();
        assert_eq!(places.learn(1, b"a", 7), None);
        assert_eq!((places.at(1, b"a"), places.at(2, b"a")), (Some(7), None));
        assert_eq!(places.learn(1, b"a", 8), Some(7), "renamed over it");
        assert_eq!(places.at(1, b"a"), Some(8));
        places.note_stranger(1, b"new");
        assert!(places.was_used(1, b"new") && !places.was_used(1, b"b"));
        places.all_met();
        assert!(!places.was_used(1, b"new"));
        places.prune(|ino| ino != 8);
        assert!(places.is_empty());
    }

    /// Who knew the keys could choose a name that is taken for another's.
    #[test]
    fn no_two_agents_call_a_place_by_the_same_key() {
        let (one, other) = (Keys::default(), Keys::default());
        assert_ne!(one.of(1, b"a"), other.of(1, b"a"));
        let (first, second) = one.of(1, b"a");
        assert_ne!(first, second, "of two hashes, each with a key of its own");
    }

    #[test]
    fn with_too_many_unknown_names_each_counts() {
        let places = Places::default();
        for n in 0..=STRANGERS_MAX as u64 {
            places.note_stranger(n, b"x");
        }
        assert!(places.was_used(u64::MAX, b"y"));
    }
}
