//! Places that events named and that are still to be looked at. Pure.
//!
//! Reading the kernel's queue must keep up with the processes that fill it; a look at a place takes a hundred times as long.
//! So the two are apart: what was read waits here, each place once for each entry that was named there, however many events told of it.
//! Only the last of them counts (see [`super::namespace`]), so a place that is named again goes to the end.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::event::{Changes, Node, Place};
use purge_model::Inode;
use purge_sys::handle::Handle;

/// At most this number of places waits: some 30 MB, with the longest names 50. Beyond that a scan has to look.
pub const PENDING_MAX: usize = 1 << 17;

/// A place to look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Spot {
    /// The directory.
    pub dir: Node,
    /// The name there.
    pub name: Box<[u8]>,
    /// What the events said to have appeared, disappeared or changed there.
    pub target: Option<Inode>,
    /// What they told, all together.
    pub changes: Changes,
    /// The last of them told that it was moved to here.
    pub is_destination: bool,
}

/// What is still to be looked at.
#[derive(Debug, Default)]
pub struct Pending {
    spots: BTreeMap<u64, Spot>,
    /// The same by place and target, with a key that no user can know: names of one hash would make each look at the table a look at all of them.
    by_place: HashTable<u64>,
    keys: RandomState,
    next: u64,
}

impl Pending {
    /// Notes a place. False if there are too many, and this one is not noted.
    pub fn note(
        &mut self,
        place: Place<'_>,
        target: Option<Inode>,
        changes: Changes,
        is_destination: bool,
    ) -> bool {
        let hash = hash_of(&self.keys, &place.dir.handle, place.name, target);
        let spots = &self.spots;
        let is_it = |number: &u64| {
            let spot = spots.get(number);
            spot.is_some_and(|s| s.target == target && s.dir == place.dir && *s.name == *place.name)
        };
        let known = self.by_place.find_entry(hash, is_it).ok();
        let known = known.map(|entry| entry.remove().0);
        let spot = match known.and_then(|number| self.spots.remove(&number)) {
            Some(spot) => Spot {
                changes: spot.changes | changes,
                is_destination,
                ..spot
            },
            None if self.spots.len() >= PENDING_MAX => return false,
            None => Spot {
                dir: place.dir,
                name: place.name.into(),
                target,
                changes,
                is_destination,
            },
        };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.spots.insert(number, spot);
        let (spots, keys) = (&self.spots, &self.keys);
        self.by_place.insert_unique(hash, number, |number| {
            spots
                .get(number)
                .map_or(0, |s| hash_of(keys, &s.dir.handle, &s.name, s.target))
        });
        true
    }

    /// The one that waits longest.
    pub fn take(&mut self) -> Option<Spot> {
        let (number, spot) = self.spots.pop_first()?;
        let hash = hash_of(&self.keys, &spot.dir.handle, &spot.name, spot.target);
        if let Ok(found) = self.by_place.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        Some(spot)
    }

    /// Nothing is to be looked at any more.
    pub fn clear(&mut self) {
        self.spots.clear();
        self.by_place.clear();
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.spots.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    /// A moment: see [`Self::is_past`].
    pub fn mark(&self) -> u64 {
        self.next
    }

    /// Whether everything that was noted before a moment has been taken, or was named again since.
    pub fn is_past(&self, mark: u64) -> bool {
        self.spots
            .first_key_value()
            .is_none_or(|(number, _)| *number >= mark)
    }
}

fn hash_of(keys: &RandomState, dir: &Handle, name: &[u8], target: Option<Inode>) -> u64 {
    keys.hash_one((dir, name, target))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const MADE: Changes = Changes::MADE;

    fn dir(n: u8) -> Node {
        Node {
            ino: n.into(),
            handle: Handle::new(1, &[n; 8]).unwrap(),
        }
    }

    fn place(d: u8, name: &[u8]) -> Place<'_> {
        Place { dir: dir(d), name }
    }

    #[test]
    fn a_storm_in_one_place_is_one_look_and_the_last_word_counts() {
        let mut pending = Pending::default();
        for n in 0..1000u64 {
            assert!(pending.note(place(1, b"a"), Some(7), MADE, n % 2 == 0));
            assert!(pending.note(place(1, b"b"), Some(7), Changes::REMOVED, n % 2 == 1));
        }
        assert_eq!(pending.len(), 2);
        let (first, last) = (pending.take().unwrap(), pending.take().unwrap());
        assert_eq!((&*first.name, first.is_destination), (&b"a"[..], false));
        assert_eq!(
            (&*last.name, last.is_destination, last.changes),
            (&b"b"[..], true, Changes::REMOVED)
        );
        assert!(pending.take().is_none());
    }

    #[test]
    fn more_than_the_bound_is_refused_and_what_is_known_is_still_taken() {
        let mut pending = Pending::default();
        let name = |n: usize| n.to_string().into_bytes();
        for n in 0..PENDING_MAX {
            assert!(pending.note(place(1, &name(n)), None, MADE, false));
        }
        assert!(!pending.note(place(1, b"more"), None, MADE, false));
        assert!(pending.note(place(1, &name(3)), None, MADE, false));
        assert_eq!(pending.len(), PENDING_MAX);
    }

    proptest! {
        /// It holds what a list holds from which an earlier mention is struck out.
        #[test]
        fn it_is_a_list_of_last_mentions(
            steps in prop::collection::vec((0u8..3, 0u8..3, prop::option::of(0u64..3), any::<bool>()), 0..200)
        ) {
            let (mut pending, mut list, mut mark) = (Pending::default(), Vec::new(), None);
            for (d, n, target, takes) in steps {
                if takes {
                    let taken = pending.take().map(|s| (s.dir, s.name[0], s.target));
                    let first = (!list.is_empty()).then(|| list.remove(0));
                    prop_assert_eq!(taken, first);
                    mark.get_or_insert(pending.mark());
                } else {
                    let key = (dir(d), n, target);
                    list.retain(|k| *k != key);
                    list.push(key);
                    pending.note(place(d, &[n]), target, MADE, false);
                }
                prop_assert_eq!(pending.len(), list.len());
            }
            let end = pending.mark();
            while pending.take().is_some() {
                prop_assert!(!pending.is_past(end) || pending.is_empty());
            }
            prop_assert!(pending.is_past(end));
        }
    }
}
