//! Against a model of the kernel: a tree, the events that changes of it make, and a queue that merges equal ones.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::event::{Node, Place};
use crate::pending::Pending;
use proptest::prelude::*;
use purge_sys::handle::Handle;

/// A directory and a name.
type At = (u8, u8);

/// As the kernel tells it without the id of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Place(Changes, At),
    Itself(Changes, Inode),
}

/// What users do. The directories lie still: how they are followed does not depend on what is tested here.
#[derive(Debug, Clone, Copy)]
enum Does {
    Make(At),
    Link(At, At),
    Rename(At, At),
    Exchange(At, At),
    Unlink(At),
    /// A rename out of the volume, and back to a place.
    Leave(At),
    Come(At),
    /// The collector reads this number of events, looks at this number of places, or settles.
    Read(u8),
    Look(u8),
    Settle,
}

#[derive(Debug, Default)]
struct World {
    tree: BTreeMap<At, Inode>,
    outside: Vec<Inode>,
    next: Inode,
    queue: Vec<Told>,
    pending: Pending,
    doubts: Doubts,
    index: BTreeMap<Inode, BTreeSet<At>>,
    /// Files that the index forgot though they never left the volume, while nothing moved.
    forgotten: Vec<Inode>,
}

fn node(ino: Inode) -> Node {
    let byte = u8::try_from(ino).unwrap();
    Node {
        ino,
        handle: Handle::new(1, &[byte; 8]).unwrap(),
    }
}

fn change(told: Told) -> (Changes, Option<Inode>, Option<At>) {
    match told {
        Told::Place(kinds, at) => (kinds, None, Some(at)),
        Told::Itself(kinds, ino) => (kinds, Some(ino), None),
    }
}

impl World {
    /// A new event merges into an equal one that waits, and keeps its place.
    fn tell(&mut self, told: Told) {
        let (kinds, of, at) = change(told);
        let same = self.queue.iter_mut().find(|waits| {
            let (_, other_of, other_at) = change(**waits);
            (other_of, other_at) == (of, at)
        });
        match same {
            Some(Told::Place(known, _) | Told::Itself(known, _)) => *known = *known | kinds,
            None => self.queue.push(told),
        }
    }

    fn lose(&mut self, ino: Inode) {
        self.tell(Told::Itself(Changes::METADATA, ino));
        // It may have a name outside of the volume still.
        if !self.tree.values().any(|other| *other == ino) && !self.outside.contains(&ino) {
            self.tell(Told::Itself(Changes::DELETED, ino));
        }
    }

    fn rename(&mut self, from: At, to: At) {
        let Some(ino) = self.tree.get(&from).copied() else {
            return;
        };
        if self.tree.get(&to) == Some(&ino) {
            return;
        }
        self.tree.remove(&from);
        let over = self.tree.insert(to, ino);
        self.tell(Told::Place(Changes::MOVED, from));
        self.tell(Told::Place(Changes::MOVED, to));
        self.tell(Told::Itself(Changes::MOVED, ino));
        over.into_iter().for_each(|ino| self.lose(ino));
    }

    fn exchange(&mut self, one: At, two: At) {
        let (Some(first), Some(second)) = (self.tree.get(&one).copied(), self.tree.get(&two).copied()) else {
            return;
        };
        self.tree.insert(one, second);
        self.tree.insert(two, first);
        for (at, ino) in [(one, first), (two, second)] {
            self.tell(Told::Place(Changes::MOVED, at));
            self.tell(Told::Itself(Changes::MOVED, ino));
        }
    }

    fn put(&mut self, at: At, ino: Inode, kinds: Changes) {
        self.tree.insert(at, ino);
        self.tell(Told::Place(kinds, at));
    }

    fn does(&mut self, what: Does) {
        match what {
            Does::Make(at) if !self.tree.contains_key(&at) && self.next < 250 => {
                self.next += 1;
                self.put(at, self.next, Changes::MADE);
            }
            Does::Link(of, at) if !self.tree.contains_key(&at) => {
                let Some(ino) = self.tree.get(&of).copied() else {
                    return;
                };
                self.tell(Told::Itself(Changes::METADATA, ino));
                self.put(at, ino, Changes::MADE);
            }
            Does::Make(_) | Does::Link(..) => {}
            Does::Rename(from, to) => self.rename(from, to),
            Does::Exchange(one, two) => self.exchange(one, two),
            Does::Unlink(at) => {
                let Some(ino) = self.tree.remove(&at) else { return };
                self.tell(Told::Place(Changes::REMOVED, at));
                self.lose(ino);
            }
            Does::Leave(at) => {
                let Some(ino) = self.tree.remove(&at) else { return };
                self.outside.push(ino);
                self.tell(Told::Place(Changes::MOVED, at));
                self.tell(Told::Itself(Changes::MOVED, ino));
            }
            Does::Come(at) if !self.tree.contains_key(&at) => {
                let Some(ino) = self.outside.pop() else { return };
                self.put(at, ino, Changes::MOVED);
                self.tell(Told::Itself(Changes::MOVED, ino));
            }
            Does::Come(_) => {}
            Does::Read(count) => self.read(count.into()),
            Does::Look(count) => self.look(count.into()),
            Does::Settle => self.settle(),
        }
    }

    fn read(&mut self, count: usize) {
        let read: Vec<Told> = self.queue.drain(..count.min(self.queue.len())).collect();
        for told in read {
            let (kinds, of, at) = change(told);
            let name = at.map(|(_, name)| [name]);
            let place = at.zip(name.as_ref()).map(|((dir, _), name)| Place {
                dir: node(dir.into()),
                name,
            });
            if let Some(place) = place {
                assert!(self.pending.note(place, None, kinds, false));
            }
            let change = Change {
                kinds,
                of: of.map(node),
                place,
                old: None,
                new: None,
            };
            assert!(self.doubts.hear(&change));
            // The handle of a file that is deleted leads nowhere.
            if let Some(ino) = of
                && kinds.any(Changes::DELETED)
            {
                self.index.remove(&ino);
            }
        }
    }

    fn look(&mut self, count: usize) {
        for _ in 0..count {
            let Some(spot) = self.pending.take() else { return };
            let at = (u8::try_from(spot.dir.ino).unwrap(), spot.name[0]);
            if let Some(ino) = self.tree.get(&at) {
                self.index.entry(*ino).or_default().insert(at);
                if spot.changes.any(Changes::REMOVED | Changes::MOVED) {
                    self.doubts.note(*ino);
                }
            }
        }
    }

    fn settle(&mut self) {
        let is_quiet = self.queue.is_empty() && self.pending.is_empty();
        for (ino, rounds) in self.doubts.take() {
            let names = self.index.get(&ino).cloned().unwrap_or_default();
            let lies = |at: &At| match self.tree.get(at) == Some(&ino) {
                true => Seen::There,
                false => Seen::NotThere,
            };
            let seen: Vec<Seen> = names.iter().map(lies).collect();
            match judge(&seen, is_quiet, Some(rounds)) {
                Judgement::Remove => {
                    let left: BTreeSet<At> = names.into_iter().filter(|at| lies(at) == Seen::There).collect();
                    let lives = self.tree.values().any(|other| *other == ino);
                    if left.is_empty() && lives && rounds < ROUNDS_MAX && self.index.contains_key(&ino) {
                        self.forgotten.push(ino);
                    }
                    self.index.insert(ino, left);
                }
                Judgement::Again => self.doubts.again(ino, rounds.saturating_add(1)),
                Judgement::Keep => {}
            }
        }
        self.index.retain(|_, names| !names.is_empty());
    }

    fn names(&self) -> BTreeMap<At, Inode> {
        let all = self.index.iter();
        all.flat_map(|(ino, names)| names.iter().map(|at| (*at, *ino)))
            .collect()
    }
}

fn at() -> impl Strategy<Value = At> {
    (0u8..2, 0u8..3)
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        3 => at().prop_map(Does::Make),
        1 => (at(), at()).prop_map(|(of, at)| Does::Link(of, at)),
        3 => (at(), at()).prop_map(|(from, to)| Does::Rename(from, to)),
        1 => (at(), at()).prop_map(|(one, two)| Does::Exchange(one, two)),
        2 => at().prop_map(Does::Unlink),
        1 => at().prop_map(Does::Leave),
        1 => at().prop_map(Does::Come),
        3 => (1u8..6).prop_map(Does::Read),
        3 => (1u8..4).prop_map(Does::Look),
        2 => Just(Does::Settle),
    ]
}

proptest! {
    /// In any order of reading and looking: once all is quiet, index and tree agree, and no file that stayed was forgotten.
    #[test]
    fn names_are_right_when_all_is_quiet(steps in prop::collection::vec(does(), 0..120)) {
        let mut world = World::default();
        for step in steps {
            world.does(step);
        }
        world.read(usize::MAX);
        world.look(usize::MAX);
        world.settle();
        prop_assert_eq!(world.names(), world.tree.clone());
        prop_assert!(world.doubts.is_empty());
        prop_assert!(world.forgotten.is_empty(), "forgotten: {:?}", world.forgotten);
    }
}

#[test]
fn a_file_keeps_its_clock_while_its_new_name_is_not_known_yet() {
    use Seen::{NotThere, There, Unknown};
    assert_eq!(judge(&[NotThere], false, Some(0)), Judgement::Again);
    assert_eq!(
        judge(&[NotThere, NotThere], true, Some(0)),
        Judgement::Remove,
        "it has left"
    );
    assert_eq!(
        judge(&[NotThere, There], false, Some(0)),
        Judgement::Remove,
        "one name was lost"
    );
    assert_eq!(judge(&[NotThere], false, Some(ROUNDS_MAX)), Judgement::Remove);
    assert_eq!(judge(&[NotThere], false, None), Judgement::Again, "a directory");
    assert_eq!(judge(&[NotThere, Unknown], true, Some(0)), Judgement::Again);
    assert_eq!(
        judge(&[NotThere, Unknown], true, Some(ROUNDS_MAX)),
        Judgement::Keep,
        "not seen is not removed"
    );
}

#[test]
fn more_files_than_the_bound_are_refused() {
    let mut doubts = Doubts::default();
    (0..DOUBTS_MAX as Inode).for_each(|ino| assert!(doubts.note(ino)));
    assert!(!doubts.note(DOUBTS_MAX as Inode) && doubts.note(3));
}
