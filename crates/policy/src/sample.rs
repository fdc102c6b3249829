//! A few files of each owner, drawn so that they stand for all that goes of them. Pure.
//!
//! Which deleted files a process still keeps on the disk can be asked of each file, but not of a million. So each owner's are drawn by
//! priority: of a file that takes `w`, the priority is `w / u`, `u` being drawn from (0, 1]. Those with the highest are kept, and each stands
//! for the larger of `w` and the first priority that was not kept. The sum over any part of the files is then right on average for
//! files of all sizes, and right exactly where there are few files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use purge_model::Inode;

/// Files that are kept of one owner.
pub const PROBES: usize = 32;
/// Owners whose files are drawn: the first that come.
const OWNERS_MAX: usize = 256;
/// Owners who are kept: those of whom most goes.
const OWNERS_KEPT: usize = 16;
/// What a file counts for besides what it takes: one without a block counts as well.
const OF_AN_INODE: u64 = 4096;
/// The resolution of `u`.
const PARTS: u64 = 1 << 32;

/// A file that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drawn {
    priority: u64,
    /// Which.
    pub ino: Inode,
    /// What it takes on disk.
    pub takes: u64,
    /// What it counts for.
    pub weight: u64,
}

/// Files of one owner.
#[derive(Debug, Default)]
struct OfOwner {
    /// One more than are kept, the lowest first.
    drawn: BinaryHeap<Reverse<Drawn>>,
    weight: u64,
}

/// Files of all owners.
#[derive(Debug)]
pub struct Sample {
    of: FxHashMap<u32, OfOwner>,
    by_bytes: bool,
}

/// What was drawn of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// Whose.
    pub uid: u32,
    /// The first priority that was not kept.
    pub threshold: u64,
    /// The files.
    pub files: Vec<Drawn>,
}

impl Sample {
    /// None yet. Large files are drawn first if it is bytes that matter; otherwise all are alike.
    pub fn new(by_bytes: bool) -> Self {
        Self {
            of: FxHashMap::default(),
            by_bytes,
        }
    }

    /// Counts a file; `luck` is a random number of its own.
    pub fn add(&mut self, uid: u32, (ino, takes): (Inode, u64), luck: u64) {
        if self.of.len() >= OWNERS_MAX && !self.of.contains_key(&uid) {
            return;
        }
        let of = self.of.entry(uid).or_default();
        let weight = match self.by_bytes {
            true => takes.saturating_add(OF_AN_INODE),
            false => OF_AN_INODE,
        };
        of.weight = of.weight.saturating_add(weight);
        let parts = u128::from(luck % PARTS).saturating_add(1);
        let priority = u128::from(weight).saturating_mul(PARTS.into());
        let priority = priority.checked_div(parts).unwrap_or(0);
        of.drawn.push(Reverse(Drawn {
            priority: u64::try_from(priority).unwrap_or(u64::MAX),
            ino,
            takes,
            weight,
        }));
        if of.drawn.len() > PROBES.saturating_add(1) {
            of.drawn.pop();
        }
    }

    /// What was drawn, of the owners of whom most goes.
    pub fn picked(self) -> Vec<Picked> {
        let mut all: Vec<(u32, OfOwner)> = self.of.into_iter().collect();
        all.sort_unstable_by_key(|(uid, of)| (Reverse(of.weight), *uid));
        all.truncate(OWNERS_KEPT);
        let picked = all.into_iter().map(|(uid, mut of)| {
            let is_more = of.drawn.len() > PROBES;
            let first = is_more.then(|| of.drawn.pop()).flatten();
            Picked {
                uid,
                threshold: first.map_or(0, |Reverse(drawn)| drawn.priority),
                files: of.drawn.into_iter().map(|Reverse(drawn)| drawn).collect(),
            }
        });
        picked.collect()
    }
}

/// For how much a file stands: bytes, and files.
pub fn stands_for((takes, weight): (u64, u64), threshold: u64) -> (f64, f64) {
    let files = weight.max(threshold) as f64 / weight.max(1) as f64;
    (takes as f64 * files, files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn draw(files: &[u64], by_bytes: bool, seed: u64) -> Picked {
        let mut sample = Sample::new(by_bytes);
        let mut luck = seed | 1;
        for (ino, takes) in (0u64..).zip(files) {
            // Any generator will do.
            luck = luck
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sample.add(7, (ino, *takes), luck >> 32);
        }
        let mut picked = sample.picked();
        assert_eq!(picked.len(), 1);
        picked.remove(0)
    }

    fn held(picked: &Picked, is_held: impl Fn(Inode) -> bool) -> (f64, f64) {
        let parts = picked.files.iter().filter(|f| is_held(f.ino));
        let parts = parts.map(|f| stands_for((f.takes, f.weight), picked.threshold));
        parts.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    #[test]
    fn few_files_are_counted_exactly() {
        let files: Vec<u64> = (0..32).map(|n| n * 1000).collect();
        let found = held(&draw(&files, true, 1), |ino| ino % 2 == 0).0;
        assert_eq!(found as u64, (0..32).step_by(2).sum::<u64>() * 1000);
    }

    #[test]
    fn only_those_of_whom_most_goes_are_kept_and_of_each_no_more_than_so_many() {
        let mut sample = Sample::new(true);
        for n in 0..5000u64 {
            let uid = u32::try_from(n % 300).unwrap_or(0);
            sample.add(uid, (n, u64::from(uid) * 1000), n * 77_777);
        }
        let picked = sample.picked();
        assert_eq!(picked.len(), OWNERS_KEPT);
        assert!(picked.iter().all(|p| p.files.len() <= PROBES && p.uid >= 200));
    }

    proptest! {
        /// Whether most of what an owner had is held is found out, though the files that are held may be the largest or the smallest.
        #[test]
        fn what_is_held_is_found_out(
            sizes in prop::collection::vec(prop_oneof![Just(0u64), 1u64..100_000, 1_000_000u64..1_000_000_000], 33..400),
            small: bool,
            by_bytes: bool,
            seed: u64,
        ) {
            let mut sorted = sizes.clone();
            sorted.sort_unstable();
            let middle = sorted[sorted.len() / 2];
            let is_held = |ino: Inode| (sizes[usize::try_from(ino).unwrap()] < middle) == small;
            // On the average of many draws.
            let draws = 200u32;
            let all = (0..draws).map(|n| held(&draw(&sizes, by_bytes, seed.wrapping_add(u64::from(n) * 7919)), is_held));
            let sum = all.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
            let part = |ino: u64, size: u64| if by_bytes { (size, is_held(ino)) } else { (1, is_held(ino)) };
            let parts = (0u64..).zip(&sizes).map(|(ino, size)| part(ino, *size));
            let truth: u64 = parts.filter(|(_, is_held)| *is_held).map(|(n, _)| n).sum();
            let whole = match by_bytes {
                true => sizes.iter().map(|s| s + OF_AN_INODE).sum::<u64>(),
                false => sizes.len() as u64,
            };
            let found = if by_bytes { sum.0 } else { sum.1 } / f64::from(draws);
            prop_assert!((found - truth as f64).abs() <= whole as f64 / 8.0, "{found} of {truth}, all {whole}");
        }
    }
}
