//! How many descriptors a batch has open at most. Pure.
//!
//! A file that is taken is open for its lease, and so is each directory that a name of it lies in, with that directory's like in the trash. A
//! directory that goes as a whole is walked, and keeps leases on some of what lies in it.

use std::sync::Arc;

use crate::candidate::Candidate;
use purge_policy::evaluate::Shape;
use purge_sys::walk;

/// Of a batch itself: the volume's root, the trash, its lanes, what symbolic links are looked at by, and what is open for a moment.
const OF_A_BATCH: usize = 28;
/// Of a directory that goes as a whole, beside the leases: where it was, where it is, and the latter through the quiet mount.
const OF_A_TREE: usize = 4;
/// Directories that the entries which are removed together lie in, at most.
pub const DIRECTORIES_MAX: usize = 16;
/// Of the one of these that is compared or removed.
const OF_A_WALK: usize = walk::OPEN_MAX + DIRECTORIES_MAX;
/// A directory of the volume, and its like in the trash.
const OF_A_DIRECTORY: usize = 2;
/// Leases of one directory that are kept until it is removed.
pub const LEASES_OF_A_TREE_MAX: usize = 1024;

/// The descriptors that a run's batches may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of them together.
    all: usize,
    /// One batch, unless it is a single candidate.
    batch: usize,
    /// Leases that one directory may keep.
    leases_of_a_tree: usize,
}

impl Room {
    /// `all` for all batches, of workers that have two each at a time.
    pub fn of(all: usize, workers: usize) -> Self {
        let each = all.checked_div(workers.max(1)).unwrap_or(all);
        let fixed = OF_A_BATCH + OF_A_TREE + OF_A_WALK;
        Self {
            all,
            batch: each / 2,
            leases_of_a_tree: each.saturating_sub(fixed).clamp(1, LEASES_OF_A_TREE_MAX),
        }
    }

    /// How many workers `all` is enough for, with batches that are worth while.
    pub fn workers(all: usize, most: u8) -> u8 {
        const WORTH_WHILE: usize = 100;
        let fed = all.checked_div(WORTH_WHILE).unwrap_or(1);
        u8::try_from(fed).unwrap_or(most).clamp(1, most.max(1))
    }

    /// Leases that one directory may keep.
    pub fn leases_of_a_tree(self) -> usize {
        self.leases_of_a_tree
    }

    /// How many of the first candidates have room together; a single one has it in any case.
    pub fn fitting(self, candidates: &[Candidate]) -> usize {
        let mut count = Count::default();
        let fit = candidates.iter().take_while(|candidate| {
            count.add(self, candidate);
            count.sum() <= self.batch
        });
        fit.count().max(1).min(candidates.len())
    }

    /// What these have open at most; no more than there is.
    pub fn needed(self, candidates: &[Candidate]) -> usize {
        let mut count = Count::default();
        candidates.iter().for_each(|candidate| count.add(self, candidate));
        count.sum().min(self.all)
    }

    /// In how many directories the names of one file may lie, where a batch of it has taken `taken` descriptors.
    pub fn directories(taken: usize) -> usize {
        taken.saturating_sub(OF_A_BATCH + 1) / OF_A_DIRECTORY
    }
}

/// What some candidates have open together.
#[derive(Debug, Default)]
struct Count {
    candidates: usize,
    walks: usize,
    dir: Option<Arc<[u8]>>,
}

impl Count {
    fn add(&mut self, room: Room, candidate: &Candidate) {
        let is_new = self.dir.as_ref().is_none_or(|dir| **dir != *candidate.dir);
        let dirs = match (candidate.shape, candidate.links) {
            (Shape::File, 2..) => usize::try_from(candidate.links).unwrap_or(usize::MAX),
            _ => usize::from(is_new),
        };
        let own = match candidate.shape {
            Shape::File | Shape::EmptyDirectory | Shape::Link(_) => 1,
            Shape::Tree => {
                self.walks = OF_A_WALK;
                let leases = usize::try_from(candidate.files).unwrap_or(usize::MAX);
                leases.min(room.leases_of_a_tree).saturating_add(OF_A_TREE)
            }
        };
        let all = dirs.saturating_mul(OF_A_DIRECTORY).saturating_add(own);
        self.candidates = self.candidates.saturating_add(all);
        self.dir = Some(Arc::clone(&candidate.dir));
    }

    fn sum(&self) -> usize {
        self.candidates
            .saturating_add(self.walks)
            .saturating_add(OF_A_BATCH)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::candidate::testing::candidate;
    use proptest::prelude::*;

    fn file(dir: &str, links: u32) -> Candidate {
        Candidate {
            dir: dir.as_bytes().into(),
            links,
            ..candidate(1, 0, 1)
        }
    }

    #[test]
    fn a_directory_counts_once_for_those_that_follow_each_other_and_each_name_of_a_file_for_itself() {
        let room = Room::of(10_000, 1);
        let needed = |files: &[Candidate]| room.needed(files) - OF_A_BATCH;
        assert_eq!(needed(&[file("a", 1), file("a", 1)]), 2 + 2);
        assert_eq!(needed(&[file("a", 1), file("b", 1)]), 2 + 4);
        assert_eq!(needed(&[file("a", 50)]), 1 + 100);
        assert_eq!(room.needed(&[file("a", u32::MAX)]), 10_000);
        assert_eq!(room.fitting(&[file("a", u32::MAX), file("a", 1)]), 1);
        assert_eq!(Room::directories(room.needed(&[file("a", 50)])), 50);
    }

    proptest! {
        #[test]
        fn what_fits_needs_no_more_than_a_batch_may_have(
            all in 48usize..20_000,
            workers in 1usize..5,
            rows in prop::collection::vec((1u32..400, 0u64..5000, 0u8..4), 1..600),
        ) {
            let room = Room::of(all, workers);
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(links, files, dir)| Candidate { links, dir: [dir].into(), ..candidate(1, 0, files) })
                .collect();
            let fits = room.fitting(&rows);
            prop_assert!(fits >= 1);
            let most = if fits > 1 { room.batch } else { all };
            prop_assert!(room.needed(&rows[..fits]) <= most);
        }
    }
}
