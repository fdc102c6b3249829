//! What files count for where copies share blocks (reflinks): a block counts once, however many files use it. Pure.
//!
//! `st_blocks` counts shared blocks in full. One file that is made of the same block many times would bring a group over its limit, and the
//! files of all members would pay for it. So the files of a subject over its limit are looked at before anything is deleted:
//!
//! ```text
//!   up to LOOKED_AT_MAX files of each subject are drawn      sample::Few
//!   blocks of this file alone                                stand for those of files that were not drawn
//!   shared blocks                                            count once for all files that were drawn, and stand for nothing else
//!   what could not be looked at                              counts for nothing
//! ```
//! Doubt counts as use: where the look is incomplete, a subject has less, and fewer files are deleted.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::sample::{Drawn, stands_for};
use purge_model::Inode;

/// Files of one subject that are looked at.
pub const LOOKED_AT_MAX: usize = 50_000;
/// Shared ranges that are remembered of one subject: the others count for nothing.
const RANGES_MAX: usize = 1 << 20;

/// Where a file's data lies, as far as it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lies {
    /// Bytes in blocks of this file alone.
    pub own: u64,
    /// Where on the disk its shared blocks lie: start and length.
    pub shared: Vec<(u64, u64)>,
    /// It was looked at to its end.
    pub is_whole: bool,
}

/// What one file counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Together with files that were not drawn.
    pub stands_for: u64,
    /// Alone.
    pub brings: u64,
}

/// What the files that were looked at count for; all others count for nothing.
#[derive(Debug, Clone, Default)]
pub struct OnDisk(FxHashMap<Inode, Counts>);

impl OnDisk {
    /// What a file counts for.
    pub fn of(&self, ino: Inode) -> Counts {
        self.0.get(&ino).copied().unwrap_or_default()
    }

    /// Adds what was seen of one subject's files, which were drawn with this threshold.
    pub fn add(&mut self, files: impl Iterator<Item = (Drawn, Lies)>, threshold: u64) {
        let mut known = Ranges::default();
        for (drawn, lies) in files {
            let own = match lies.is_whole && lies.shared.is_empty() {
                // Data within the inode, and data that is still to be written, has no extents.
                true => drawn.takes,
                false => lies.own.min(drawn.takes),
            };
            let fresh = lies.shared.iter().map(|range| known.add(*range));
            let fresh = fresh.fold(0, u64::saturating_add);
            let scaled = stands_for((own, drawn.weight), threshold).0 as u64;
            let counts = Counts {
                stands_for: scaled.saturating_add(fresh),
                brings: own.saturating_add(fresh),
            };
            self.0.insert(drawn.ino, counts);
        }
    }
}

/// Ranges of bytes that do not overlap.
#[derive(Debug, Default)]
struct Ranges {
    /// Ends by starts.
    known: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds a range; returns how much of it is new.
    fn add(&mut self, (start, length): (u64, u64)) -> u64 {
        if self.known.len() >= RANGES_MAX {
            return 0;
        }
        let (mut start, mut end) = (start, start.saturating_add(length));
        let mut new = end.saturating_sub(start);
        // The last that begins no later than the end, and those before it, as long as they touch.
        while let Some((from, to)) = self.known.range(..=end).next_back().map(|(a, b)| (*a, *b)) {
            if to < start {
                break;
            }
            let common = to.min(end).saturating_sub(from.max(start));
            new = new.saturating_sub(common);
            self.known.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        if end > start {
            self.known.insert(start, end);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn drawn(ino: Inode, takes: u64) -> Drawn {
        Drawn::certain(ino, takes)
    }

    fn shared(ranges: &[(u64, u64)]) -> Lies {
        Lies {
            own: 0,
            shared: ranges.to_vec(),
            is_whole: true,
        }
    }

    #[test]
    fn a_block_that_many_files_use_counts_once() {
        let mut found = OnDisk::default();
        // The same blocks a thousand times within one file, and in another.
        let same = shared(&[(4096, 8192); 1000]);
        let files = [(drawn(1, 8_192_000), same.clone()), (drawn(2, 8_192_000), same)];
        found.add(files.into_iter(), 0);
        assert_eq!(found.of(1).stands_for, 8192);
        assert_eq!((found.of(2), found.of(3)), (Counts::default(), Counts::default()));
    }

    #[test]
    fn shared_blocks_stand_for_nothing_that_was_not_looked_at() {
        let mut found = OnDisk::default();
        let own = Lies {
            own: 4096,
            shared: Vec::new(),
            is_whole: true,
        };
        let files = [(drawn(1, 4096), own), (drawn(2, 4096), shared(&[(0, 4096)]))];
        found.add(files.into_iter(), 40_960);
        assert_eq!((found.of(1).stands_for, found.of(1).brings), (40_960, 4096));
        assert_eq!((found.of(2).stands_for, found.of(2).brings), (4096, 4096));
    }

    #[test]
    fn what_lies_behind_the_look_counts_for_nothing() {
        let mut found = OnDisk::default();
        let front = Lies {
            own: 4096,
            shared: Vec::new(),
            is_whole: false,
        };
        found.add([(drawn(1, 1 << 40), front)].into_iter(), 0);
        assert_eq!(found.of(1).stands_for, 4096);
    }

    proptest! {
        /// However ranges overlap: the new parts together are as many bytes as there are.
        #[test]
        fn ranges_count_each_byte_once(ranges in prop::collection::vec((0u64..200, 0u64..40), 0..60)) {
            let (mut known, mut bytes, mut sum) = (Ranges::default(), BTreeSet::new(), 0);
            for (start, length) in ranges {
                sum += known.add((start, length));
                bytes.extend(start..start + length);
                prop_assert_eq!(sum, bytes.len() as u64);
            }
        }

        #[test]
        fn no_range_makes_it_overflow(ranges in prop::collection::vec((any::<u64>(), any::<u64>()), 0..30)) {
            let mut known = Ranges::default();
            for range in ranges {
                prop_assert!(known.add(range) <= range.1);
            }
        }
    }
}
