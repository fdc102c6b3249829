//! Last uses: recording, moving, taking back.

use std::ops::Deref;

use super::Index;
use crate::checkpoint::Remembered;
use crate::codec::DirId;
use crate::page::place;
use crate::store::StoreError;
use purge_model::{Inode, LastUse, Seconds, Source};

/// Distinct files used during a first scan that are remembered one by one; past this everything found later
/// counts as used at that moment.
pub(super) const EARLY_USES_MAX: usize = 4_000_000;

impl Index {
    /// Whether uses of unknown files are remembered for a scan that may find them.
    pub fn remembers_unknown(&self) -> bool {
        self.scan.is_some() || self.awaits_scan
    }

    /// A first scan will come: uses of files that it has not met are remembered from now on.
    pub fn await_scan(&mut self) {
        self.awaits_scan = true;
    }

    /// Clocks to give back to files that the next whole scan finds, and uses that were read while nothing was known of
    /// their files.
    pub fn recall(&mut self, remembered: Remembered, early: &[(Inode, Seconds)]) {
        self.remembered = remembered;
        for (ino, at) in early {
            let known = self.early.entry(*ino).or_default();
            *known = (*at).max(*known);
        }
    }

    /// No clock lies ahead of `latest` any more: the clock they were taken from was wrong.
    pub fn clamp_uses(&mut self, latest: Seconds) {
        self.change_clocks(|_, last| LastUse {
            at: last.at.min(latest),
            ..last
        });
    }

    /// The files of which `may_be` says so count as used at `at`, as in a gap.
    pub fn use_all_but(&mut self, at: Seconds, may_be: impl Fn(Inode) -> bool) {
        let gap = LastUse {
            at,
            source: Source::Gap,
        };
        self.change_clocks(|ino, last| match at > last.at && may_be(ino) {
            true => gap,
            false => last,
        });
    }

    /// The files of which `is_it` says so, by their inode, the directory of their first name, and their number of names, count as used at `at`.
    /// Returns which.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn use_those(
        &mut self,
        at: Seconds,
        is_it: impl Fn(Inode, DirId, u32) -> bool,
    ) -> Result<Vec<Inode>, StoreError> {
        let mut those = Vec::new();
        for page in &self.pages {
            let mut reader = page.reader();
            for ino in page.inodes() {
                let attributes = reader.next_entry()?;
                if is_it(ino, attributes.parent, attributes.links) {
                    those.push(ino);
                }
            }
        }
        let mut uses = self.uses();
        for ino in &those {
            uses.record(*ino, at);
        }
        Ok(those)
    }

    /// Every observed use at exactly `from` becomes one at `to`.
    pub fn move_uses(&mut self, from: Seconds, to: Seconds) {
        let used = |at| LastUse {
            at,
            source: Source::Observed,
        };
        self.change_clocks(|_, last| if last == used(from) { used(to) } else { last });
    }

    fn change_clocks(&mut self, change: impl Fn(Inode, LastUse) -> LastUse) {
        let mut uses = self.uses();
        for slot in 0..u32::try_from(uses.index.pages.len()).unwrap_or(u32::MAX) {
            let page = uses.index.pages.get(slot as usize);
            let inodes: Vec<Inode> = page.map(|p| p.inodes().collect()).unwrap_or_default();
            for (rank, ino) in inodes.into_iter().enumerate() {
                let page = uses.index.pages.get(slot as usize);
                if let Some(last) = page.and_then(|page| page.last_use(rank))
                    && change(ino, last) != last
                {
                    uses.set(slot, rank, last, change(ino, last));
                }
            }
        }
    }

    /// Records that the file was used. Times never move backwards. Returns the last use before, if the file is
    /// known.
    pub fn record_use(&mut self, ino: Inode, at: Seconds) -> Option<LastUse> {
        self.uses().record(ino, at)
    }

    /// To record many uses, while nothing else of the index changes.
    pub fn uses(&mut self) -> Uses<'_> {
        Uses {
            index: self,
            in_haste: false,
        }
    }

    /// The same for one who has no time for the sums: they follow with [`Index::settle_some`], or before anything else changes.
    pub fn uses_in_haste(&mut self) -> Uses<'_> {
        Uses {
            index: self,
            in_haste: true,
        }
    }

    fn record_early_use(&mut self, ino: Inode, at: Seconds) {
        if self.remembers_unknown() && self.early.len() < EARLY_USES_MAX {
            let known = self.early.entry(ino).or_default();
            *known = at.max(*known);
        }
    }

    /// Restores the last use that [`Index::record_use`] replaced, for a use that turned out to be none. Does
    /// nothing when a later use has been recorded since.
    pub fn take_back_use(&mut self, ino: Inode, recorded: Seconds, before: LastUse) {
        let (number, offset) = place(ino);
        let Some(slot) = self.by_number.get(&number).copied() else {
            return;
        };
        let Some(page) = self.pages.get(slot as usize) else {
            return;
        };
        let Some(rank) = page.rank(offset) else { return };
        let now = LastUse {
            at: recorded,
            source: Source::Observed,
        };
        if page.last_use(rank) == Some(now) {
            self.uses().set(slot, rank, now, before);
        }
    }
}

/// Uses that are recorded one after another. When this goes, the sums follow: the attributes of a page are decoded once for all of its
/// files that were used.
#[derive(Debug)]
pub struct Uses<'a> {
    index: &'a mut Index,
    /// The sums may follow later.
    in_haste: bool,
}

impl Uses<'_> {
    /// As [`Index::record_use`].
    #[inline]
    pub fn record(&mut self, ino: Inode, at: Seconds) -> Option<LastUse> {
        let (number, offset) = place(ino);
        let slot = self.index.by_number.get(&number).copied();
        let found = slot.and_then(|slot| {
            let page = self.index.pages.get(slot as usize)?;
            let rank = page.rank(offset)?;
            Some((slot, rank, page.last_use(rank)?))
        });
        let Some((slot, rank, before)) = found else {
            self.index.record_early_use(ino, at);
            return None;
        };
        if at > before.at || (at == before.at && before.source != Source::Observed) {
            let now = LastUse {
                at,
                source: Source::Observed,
            };
            self.set(slot, rank, before, now);
        }
        Some(before)
    }

    fn set(&mut self, slot: u32, rank: usize, before: LastUse, after: LastUse) {
        let index = &mut *self.index;
        if let Some(page) = index.pages.get_mut(slot as usize) {
            page.set_last_use(rank, after);
            // Also if the page differs from the store already: what was removed may wait, this not.
            index.dirty.insert(slot);
            if !index.account.stays(slot, before.at, after.at) {
                index.moved(slot, rank, before.at, after.at);
            }
        }
    }
}

/// What is known of the files; the sums are those from before.
impl Deref for Uses<'_> {
    type Target = Index;

    fn deref(&self) -> &Index {
        self.index
    }
}

impl Drop for Uses<'_> {
    fn drop(&mut self) {
        if !self.in_haste {
            self.index.settle_uses();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::testing::{empty, found};
    use purge_model::{LastUse, Seconds, Source};

    #[test]
    fn a_use_never_moves_backwards_and_can_be_taken_back_only_at_once() {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        let before = index.record_use(70, Seconds(9)).unwrap();
        assert_eq!(
            index.last_use(70).unwrap(),
            LastUse {
                at: Seconds(9),
                source: Source::Observed
            }
        );
        index.record_use(70, Seconds(7));
        assert_eq!(index.last_use(70).unwrap().at, Seconds(9));
        index.record_use(70, Seconds(11));
        index.take_back_use(70, Seconds(9), before);
        assert_eq!(index.last_use(70).unwrap().at, Seconds(11));
        index.take_back_use(70, Seconds(11), before);
        assert_eq!(index.last_use(70).unwrap(), before);
    }
}
