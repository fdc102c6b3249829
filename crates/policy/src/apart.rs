//! Files that are too many to be kept together: only how many of each directory go is kept, and they are found again, some directories
//! at a time, when they are wanted. A plan of ten million files takes no more memory so than one of a million.

use std::ops::Range;

use super::evaluate::{Circumstances, Evaluation, Pick, Shape, Tables};
use super::files::FilePass;
use crate::rule::Rule;
use purge_index::{DirId, Index, StoreError};

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

    /// Directories that lie side by side in the index, with so many files that go at most; of a directory alone it may be more.
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

    /// The files that go of some of the directories, as the index says now.
    ///
    /// # Errors
    /// As for [`evaluate`](super::evaluate::evaluate).
    pub fn part(
        &self,
        index: &Index,
        rules: &[Rule],
        at: &Circumstances,
        directories: Range<usize>,
    ) -> Result<Vec<Pick>, StoreError> {
        let tables = Tables::new(index, at);
        let pass = FilePass::new(index, rules, at, &tables, &self.taken).within(directories);
        let mut picks = Vec::new();
        for found in pass.run()? {
            picks.extend(found.picks);
        }
        Ok(picks)
    }

    fn add(&mut self, pick: &Pick) {
        self.files = self.files.saturating_add(1);
        self.add_to(pick.parent, 1);
    }

    fn add_to(&mut self, directory: DirId, count: u32) {
        let place = directory.index();
        if self.by_directory.len() <= place {
            self.by_directory.resize(place.saturating_add(1), 0);
        }
        if let Some(known) = self.by_directory.get_mut(place) {
            *known = known.saturating_add(count);
        }
    }
}

impl Evaluation {
    /// Takes a file, and sets files apart if there are more than `most` by then.
    pub(super) fn take(&mut self, pick: Pick, most: usize) {
        match &mut self.apart {
            Some(apart) => apart.add(&pick),
            None => {
                self.picks.push(pick);
                if self.picks.len() > most {
                    self.set_files_apart();
                }
            }
        }
    }

    /// Where they are to be found again: not in the directories that were `taken`.
    pub(super) fn know_taken(&mut self, taken: Vec<bool>) {
        if let Some(apart) = &mut self.apart {
            apart.taken = taken;
        }
    }

    /// Adds the files of another part of the index, which may be set apart there.
    pub(super) fn take_all(&mut self, picks: Vec<Pick>, apart: Option<Apart>) {
        if self.apart.is_none() && apart.is_none() {
            self.picks.extend(picks);
            return;
        }
        self.set_files_apart();
        let Some(all) = &mut self.apart else { return };
        picks.iter().for_each(|pick| all.add(pick));
        if let Some(apart) = apart {
            all.files = all.files.saturating_add(apart.files);
            apart
                .by_directory()
                .for_each(|(dir, count)| all.add_to(dir, count));
        }
    }

    fn set_files_apart(&mut self) {
        let apart = self.apart.get_or_insert_default();
        self.picks.retain(|pick| {
            let is_file = pick.shape == Shape::File;
            if is_file {
                apart.add(pick);
            }
            !is_file
        });
        self.picks.shrink_to_fit();
    }
}
