//! Files that are too many to be kept together: only how many of each directory go is kept, and they are found again, some directories
//! at a time, when they are wanted. A plan of ten million files takes no more memory so than one of a million.

use std::ops::Range;

use super::pick::Pick;
use purge_index::DirId;

/// Files of a plan that are kept together: 40 MB.
pub const TOGETHER_MAX: usize = 1 << 20;

/// Files that go, by their directories.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Apart {
    /// By directory: how many of its files go.
    by_directory: Vec<u32>,
    files: u64,
    /// Directories that go as a whole, and all below.
    taken: Vec<bool>,
}

impl Apart {
    /// How many files go.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// How many of each directory go.
    pub(super) fn by_directory(&self) -> impl Iterator<Item = (DirId, u32)> {
        let counts = self.by_directory.iter().enumerate();
        counts.map(|(i, count)| (DirId(u32::try_from(i).unwrap_or(u32::MAX)), *count))
    }

    /// Directories that lie side by side in the index. At most this many of their files go; of a single directory more may go.
    pub fn parts(&self, most: usize) -> Vec<Range<usize>> {
        let (mut parts, mut begun, mut files) = (Vec::new(), 0, 0usize);
        for (place, count) in self.by_directory.iter().enumerate() {
            let count = *count as usize;
            if files > 0 && files.saturating_add(count) > most {
                parts.push(begun..place);
                (begun, files) = (place, 0);
            }
            files = files.saturating_add(count);
        }
        if files > 0 {
            parts.push(begun..self.by_directory.len());
        }
        parts
    }

    /// Directories that go as a whole, by their places in the index.
    pub(super) fn taken(&self) -> &[bool] {
        &self.taken
    }

    /// Where the files are found again: not in the directories that were `taken`.
    pub(super) fn know_taken(&mut self, taken: Vec<bool>) {
        self.taken = taken;
    }

    pub(super) fn add(&mut self, pick: &Pick) {
        self.files = self.files.saturating_add(1);
        self.count(pick.parent, 1);
    }

    fn count(&mut self, directory: DirId, count: u32) {
        let place = directory.index();
        if self.by_directory.len() <= place {
            self.by_directory.resize(place.saturating_add(1), 0);
        }
        if let Some(known) = self.by_directory.get_mut(place) {
            *known = known.saturating_add(count);
        }
    }

    /// Adds the files of another part of the index.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.files = self.files.saturating_add(other.files);
        other
            .by_directory()
            .for_each(|(dir, count)| self.count(dir, count));
    }
}
