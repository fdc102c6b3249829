//! Last uses: recording, moving, taking back.

use super::Index;
use crate::index::checkpoint::Remembered;
use crate::index::page::place;
use crate::model::{Inode, LastUse, Seconds, Source};

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
        for (slot, page) in self.pages.iter_mut().enumerate() {
            for rank in 0..page.clocks.len() {
                if let Some(last) = page.last_use(rank).filter(|last| last.at > latest) {
                    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                    let now = LastUse { at: latest, ..last };
                    page.set_last_use(rank, now);
                    self.account.used(slot, page, rank, (last, now));
                    self.dirty.insert(slot);
                }
            }
        }
    }

    /// Records that the file was used. Times never move backwards. Returns the last use before, if the file is
    /// known.
    #[inline]
    pub fn record_use(&mut self, ino: Inode, at: Seconds) -> Option<LastUse> {
        let (number, offset) = place(ino);
        let slot = self.by_number.get(&number).copied();
        let found = slot.and_then(|slot| {
            let page = self.pages.get_mut(slot as usize)?;
            let rank = page.rank(offset)?;
            let before = page.last_use(rank)?;
            Some((slot, page, rank, before))
        });
        let Some((slot, page, rank, before)) = found else {
            self.record_early_use(ino, at);
            return None;
        };
        if at > before.at || (at == before.at && before.source != Source::Observed) {
            let now = LastUse {
                at,
                source: Source::Observed,
            };
            page.set_last_use(rank, now);
            self.account.used(slot, page, rank, (before, now));
            // Also if the page differs from the store already: what was removed may wait, this not.
            self.dirty.insert(slot);
        }
        Some(before)
    }

    fn record_early_use(&mut self, ino: Inode, at: Seconds) {
        if self.remembers_unknown() && self.early.len() < EARLY_USES_MAX {
            let known = self.early.entry(ino).or_default();
            *known = at.max(*known);
        }
    }

    /// Every observed use at exactly `from` becomes one at `to`.
    pub fn move_uses(&mut self, from: Seconds, to: Seconds) {
        let used = |at| LastUse {
            at,
            source: Source::Observed,
        };
        for (slot, page) in self.pages.iter_mut().enumerate() {
            for rank in 0..page.clocks.len() {
                if page.last_use(rank) == Some(used(from)) {
                    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                    page.set_last_use(rank, used(to));
                    self.account.used(slot, page, rank, (used(from), used(to)));
                    self.dirty.insert(slot);
                }
            }
        }
    }

    /// Restores the last use that [`Index::record_use`] replaced, for a use that turned out to be none. Does
    /// nothing when a later use has been recorded since.
    pub fn take_back_use(&mut self, ino: Inode, recorded: Seconds, before: LastUse) {
        let (number, offset) = place(ino);
        let Some(slot) = self.by_number.get(&number).copied() else {
            return;
        };
        let Some(page) = self.pages.get_mut(slot as usize) else {
            return;
        };
        let Some(rank) = page.rank(offset) else { return };
        let now = LastUse {
            at: recorded,
            source: Source::Observed,
        };
        if page.last_use(rank) == Some(now) {
            page.set_last_use(rank, before);
            self.account.used(slot, page, rank, (now, before));
            self.dirty.insert(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::index::testing::{empty, found};
    use crate::model::{LastUse, Seconds, Source};

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
