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
/// Owners whose files are drawn by themselves: those of whom most goes. All others' are drawn together.
const OWNERS_KEPT: usize = 16;
/// Files that are kept of all the other owners together.
const PROBES_OF_OTHERS: usize = 256;
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
    /// Whose it is.
    pub owner: u32,
}

impl Drawn {
    /// A file that counts for what it takes, and stands for itself.
    pub fn certain(ino: Inode, takes: u64) -> Self {
        Self {
            priority: u64::MAX,
            ino,
            takes,
            weight: takes.max(1),
            owner: 0,
        }
    }

    /// What decides whether it is kept.
    pub fn priority(&self) -> u64 {
        self.priority
    }
}

/// The files with the highest priorities.
#[derive(Debug)]
pub struct Few {
    max: usize,
    /// One more than are kept, the lowest first.
    drawn: BinaryHeap<Reverse<Drawn>>,
}

/// What was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The first priority that was not kept.
    pub threshold: u64,
    /// The files, the one with the highest priority first.
    pub files: Vec<Drawn>,
}

impl Few {
    /// None yet, and room for `max` of them.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            drawn: BinaryHeap::new(),
        }
    }

    /// Counts a file of some weight; `luck` is a random number of its own.
    pub fn add(&mut self, owner: u32, (ino, takes): (Inode, u64), weight: u64, luck: u64) {
        let parts = u128::from(luck % PARTS).saturating_add(1);
        let priority = u128::from(weight).saturating_mul(PARTS.into());
        let priority = priority.checked_div(parts).unwrap_or(0);
        self.drawn.push(Reverse(Drawn {
            priority: u64::try_from(priority).unwrap_or(u64::MAX),
            ino,
            takes,
            weight,
            owner,
        }));
        if self.drawn.len() > self.max.saturating_add(1) {
            self.drawn.pop();
        }
    }

    /// What was kept.
    pub fn kept(mut self) -> Kept {
        let is_more = self.drawn.len() > self.max;
        let first = is_more.then(|| self.drawn.pop()).flatten();
        let mut files: Vec<Drawn> = self.drawn.into_iter().map(|Reverse(drawn)| drawn).collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        Kept {
            threshold: first.map_or(0, |Reverse(drawn)| drawn.priority),
            files,
        }
    }
}

/// A file of which a few are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Whose it is.
    pub owner: u32,
    /// Which.
    pub ino: Inode,
    /// What it takes on disk.
    pub takes: u64,
    /// A random number of its own.
    pub luck: u64,
}

/// Draws files: some of each owner of whom most goes, and some of all the others together. Large files are drawn first if it is bytes that
/// matter; otherwise all are alike.
pub fn draw(files: &[Candidate], by_bytes: bool) -> Vec<Kept> {
    let weight_of = |file: &Candidate| match by_bytes {
        true => file.takes.saturating_add(OF_AN_INODE),
        false => OF_AN_INODE,
    };
    let mut weights: FxHashMap<u32, u64> = FxHashMap::default();
    for file in files {
        let sum = weights.entry(file.owner).or_default();
        *sum = sum.saturating_add(weight_of(file));
    }
    let mut owners: Vec<(u32, u64)> = weights.into_iter().collect();
    owners.sort_unstable_by_key(|(owner, weight)| (Reverse(*weight), *owner));
    owners.truncate(OWNERS_KEPT);
    let mut of: FxHashMap<u32, Few> = owners
        .iter()
        .map(|(owner, _)| (*owner, Few::new(PROBES)))
        .collect();
    let mut others = Few::new(PROBES_OF_OTHERS);
    for file in files {
        let few = of.get_mut(&file.owner).unwrap_or(&mut others);
        few.add(file.owner, (file.ino, file.takes), weight_of(file), file.luck);
    }
    let kept = owners.iter().filter_map(|(owner, _)| of.remove(owner));
    let kept = kept.chain(std::iter::once(others)).map(Few::kept);
    kept.filter(|kept| !kept.files.is_empty()).collect()
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

    fn draw_one(files: &[u64], by_bytes: bool, seed: u64) -> Kept {
        let mut luck = seed | 1;
        let candidates = (0u64..).zip(files).map(|(ino, takes)| {
            // Any generator will do.
            luck = luck
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            Candidate {
                owner: 7,
                ino,
                takes: *takes,
                luck: luck >> 32,
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let mut picked = draw(&candidates, by_bytes);
        assert_eq!(picked.len(), 1);
        picked.remove(0)
    }

    fn held(picked: &Kept, is_held: impl Fn(Inode) -> bool) -> (f64, f64) {
        let parts = picked.files.iter().filter(|f| is_held(f.ino));
        let parts = parts.map(|f| stands_for((f.takes, f.weight), picked.threshold));
        parts.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    #[test]
    fn few_files_are_counted_exactly() {
        let files: Vec<u64> = (0..32).map(|n| n * 1000).collect();
        let found = held(&draw_one(&files, true, 1), |ino| ino % 2 == 0).0;
        assert_eq!(found as u64, (0..32).step_by(2).sum::<u64>() * 1000);
    }

    fn of_many_owners(owners: u64) -> Vec<Candidate> {
        let file = |n: u64| Candidate {
            owner: u32::try_from(n % owners).unwrap_or(0),
            ino: n,
            takes: (n % owners) * 1000,
            luck: n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32,
        };
        (0..5000).map(file).collect()
    }

    #[test]
    fn those_of_whom_most_goes_are_drawn_by_themselves_and_of_each_no_more_than_that() {
        let picked = draw(&of_many_owners(300), true);
        assert_eq!(picked.len(), OWNERS_KEPT + 1);
        let own = &picked[..OWNERS_KEPT];
        let is_of_one = |p: &Kept| p.files.iter().all(|f| f.owner == p.files[0].owner);
        assert!(
            own.iter()
                .all(|p| is_of_one(p) && p.files.len() <= PROBES && p.files[0].owner >= 200)
        );
        assert_eq!(picked[OWNERS_KEPT].files.len(), PROBES_OF_OTHERS);
    }

    /// However many owners there are, and whichever come first: what some of them hold is found.
    #[test]
    fn no_number_of_owners_hides_what_is_held() {
        for owners in [17u64, 30, 300, 2500] {
            let files = of_many_owners(owners);
            let is_held = |ino: Inode| (ino % owners).is_multiple_of(2);
            let picked = draw(&files, true);
            let found: f64 = picked.iter().map(|p| held(p, is_held).0).sum();
            let truth: u64 = files.iter().filter(|f| is_held(f.ino)).map(|f| f.takes).sum();
            let part = found / truth as f64;
            assert!((0.75..1.25).contains(&part), "{owners} owners: {part}");
        }
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
            let all = (0..draws).map(|n| held(&draw_one(&sizes, by_bytes, seed.wrapping_add(u64::from(n) * 7919)), is_held));
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
