//! Which directories lie below one of them, found out a few at a time: the caller gives the index back in between.

use super::codec::DirId;
use super::dirs::{Directories, id_of};

/// Steps up or down a path that are made before the index is given back: some tens of microseconds.
const STEPS_AT_ONCE: usize = if cfg!(test) { 3 } else { 4096 };

/// What is known of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    Unknown,
    Below,
    Elsewhere,
}

/// The directories below one, and that one. What moves while this is found out may be taken for either.
#[derive(Debug)]
pub struct Below {
    top: DirId,
    known: Vec<Lies>,
    /// All before this one are known.
    next: usize,
    /// The way up from it, as far as it has been walked; nothing of it is known.
    way: Vec<DirId>,
    /// What holds for all of that way, once it is known.
    found: Option<Lies>,
}

impl Below {
    /// Nothing is known yet.
    pub fn new(dirs: &Directories, top: DirId) -> Self {
        let mut known = vec![Lies::Unknown; dirs.table_len()];
        if let Some(root) = known.get_mut(DirId::ROOT.index()) {
            *root = Lies::Elsewhere;
        }
        if let Some(place) = known.get_mut(top.index()) {
            *place = Lies::Below;
        }
        Self {
            top,
            known,
            next: 0,
            way: Vec::new(),
            found: None,
        }
    }

    /// Whether all is known.
    pub fn is_known(&self) -> bool {
        self.next >= self.known.len()
    }

    /// Goes on a little. Whether all is known.
    pub fn step(&mut self, dirs: &Directories) -> bool {
        for _ in 0..STEPS_AT_ONCE {
            if self.is_known() {
                break;
            }
            match self.found {
                Some(lies) => self.go_down(lies),
                None => self.go_up(dirs),
            }
        }
        self.is_known()
    }

    /// Whether a directory is the one, or below it. One that came afterwards is not.
    pub fn holds(&self, dir: DirId) -> bool {
        dir == self.top || self.known.get(dir.index()) == Some(&Lies::Below)
    }

    fn go_up(&mut self, dirs: &Directories) {
        let at = match self.way.last() {
            None => id_of(self.next),
            // A directory that was removed meanwhile leads to no place.
            Some(last) => match dirs.get(*last) {
                Some(entry) => entry.parent,
                None => return self.found = Some(Lies::Elsewhere),
            },
        };
        self.found = match self.known.get(at.index()) {
            Some(Lies::Unknown) if self.way.len() <= self.known.len() => {
                self.way.push(at);
                None
            }
            // A circle, which moves in between may show, or one that came afterwards: it leads to no root.
            None | Some(Lies::Unknown) => Some(Lies::Elsewhere),
            Some(lies) => Some(*lies),
        };
    }

    fn go_down(&mut self, lies: Lies) {
        match self.way.pop() {
            Some(dir) => {
                if let Some(place) = self.known.get_mut(dir.index()) {
                    *place = lies;
                }
            }
            None => {
                self.found = None;
                self.next = self.next.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use proptest::prelude::*;

    proptest! {
        /// The same as in one pass, however the tree is made.
        #[test]
        fn what_is_found_in_steps_is_what_one_pass_finds(parents in prop::collection::vec(any::<prop::sample::Index>(), 1..40), top in any::<prop::sample::Index>()) {
            let mut dirs = Directories::default();
            let mut ids = vec![dirs.upsert(2, DirId::ROOT, b"")];
            for (n, parent) in parents.iter().enumerate() {
                let parent = *parent.get(&ids);
                ids.push(dirs.upsert(10 + n as u64, parent, b"d"));
            }
            let top = *top.get(&ids[1..]);
            let mut below = Below::new(&dirs, top);
            while !below.step(&dirs) {}
            let expected = dirs.inherit(false, |id, _, above| above || id == top);
            let found: Vec<bool> = (0..expected.len()).map(|n| below.holds(id_of(n))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
