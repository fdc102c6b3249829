//! Uses of what lies in the trash with a grace.
//!
//! No user finds it by a path there, but a process may still come to it: from a working directory inside a tree that was moved, by a
//! descriptor that it opened with `O_PATH`, by a handle of an NFS client. The index knows nothing of it any more. Its inodes are remembered
//! here, and which of them were used: those are not freed when the grace ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use roaring::RoaringTreemap;

use purge_index::{Batch, Row, Store, StoreError, VolumeId};
use purge_model::Inode;

/// A row in the store says that its inode was used.
const USED: &[u8] = &[1];

/// The inodes in the trash of a volume, and which of them were used there.
#[derive(Debug, Default)]
pub struct Trashed {
    /// Whether there are any: events are many, and most volumes have none.
    any: AtomicBool,
    inodes: Mutex<Inodes>,
}

#[derive(Debug, Default)]
struct Inodes {
    there: RoaringTreemap,
    used: RoaringTreemap,
    /// Used, and the store does not say so yet.
    unsaved: Vec<Inode>,
    /// Not used or not there any more, and the store may say otherwise.
    obsolete: Vec<Inode>,
}

impl Trashed {
    /// What the store says was used.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(store: &Store, volume: VolumeId) -> Result<Self, StoreError> {
        let mut inodes = Inodes::default();
        store.rows(Row::Trashed, volume, |ino, _| {
            inodes.used.insert(ino);
            Ok(())
        })?;
        Ok(Self {
            any: AtomicBool::new(!inodes.used.is_empty()),
            inodes: Mutex::new(inodes),
        })
    }

    /// An inode went to the trash. `was_used`: since it was last looked at.
    pub fn enter(&self, ino: Inode, was_used: bool) {
        let mut inodes = self.inodes.lock();
        inodes.there.insert(ino);
        if inodes.used.remove(ino) {
            inodes.obsolete.push(ino);
        }
        if was_used {
            let _ = inodes.note(ino);
        }
        self.any.store(true, Relaxed);
    }

    /// An inode was found in the trash at a start: what is known of its uses holds.
    pub fn found(&self, ino: Inode) {
        self.inodes.lock().there.insert(ino);
        self.any.store(true, Relaxed);
    }

    /// These were freed, or are kept without end.
    pub fn leave(&self, gone: &RoaringTreemap) {
        let mut inodes = self.inodes.lock();
        inodes.there -= gone;
        let forgotten = &inodes.used & gone;
        inodes.used -= gone;
        inodes.obsolete.extend(&forgotten);
        self.any.store(!inodes.there.is_empty(), Relaxed);
    }

    /// An inode was used, whether or not the index knows it. Whether that is news of something in the trash.
    pub fn note(&self, ino: Inode) -> bool {
        if !self.any.load(Relaxed) {
            return false;
        }
        let mut inodes = self.inodes.lock();
        inodes.there.contains(ino) && inodes.note(ino)
    }

    /// Whether it was used after it went to the trash.
    pub fn was_used(&self, ino: Inode) -> bool {
        self.inodes.lock().used.contains(ino)
    }

    /// Tells the store what is new.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, store: &Store, volume: VolumeId) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        {
            let mut inodes = self.inodes.lock();
            if inodes.unsaved.is_empty() && inodes.obsolete.is_empty() {
                return Ok(());
            }
            // An inode may be in both, and then the store must say what holds now.
            let mut changed = std::mem::take(&mut inodes.unsaved);
            changed.append(&mut inodes.obsolete);
            for ino in changed {
                let row = if inodes.used.contains(ino) { USED } else { &[] };
                batch.put_row(Row::Trashed, volume, ino, row);
            }
        }
        store.apply(batch)
    }
}

impl Inodes {
    fn note(&mut self, ino: Inode) -> bool {
        let is_news = self.used.insert(ino);
        if is_news {
            self.unsaved.push(ino);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);

    #[test]
    fn a_use_is_known_from_the_move_until_it_is_freed_and_after_a_start() {
        let store = Store::temporary().unwrap();
        let trashed = Trashed::load(&store, VOLUME).unwrap();
        trashed.note(7);
        assert!(!trashed.was_used(7), "it was not in the trash");
        for (ino, was_used) in [(7, false), (8, false), (9, true)] {
            trashed.enter(ino, was_used);
        }
        trashed.note(7);
        trashed.note(7);
        trashed.save(&store, VOLUME).unwrap();
        let used = |t: &Trashed| [7, 8, 9].map(|ino| t.was_used(ino));
        assert_eq!(used(&trashed), [true, false, true]);
        let again = Trashed::load(&store, VOLUME).unwrap();
        assert_eq!(used(&again), [true, false, true]);
        again.found(8);
        again.note(8);
        again.leave(&[7].into_iter().collect());
        // It came back from the trash, and went there once more.
        again.enter(9, false);
        again.save(&store, VOLUME).unwrap();
        assert_eq!(
            used(&Trashed::load(&store, VOLUME).unwrap()),
            [false, true, false]
        );
    }
}
