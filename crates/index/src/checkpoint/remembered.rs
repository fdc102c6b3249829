//! Clocks that were remembered, until a scan finds their files again.

use rustc_hash::FxHashMap;

use crate::journal::Entry;
use crate::page::place;
use purge_model::{Inode, LastUse, Seconds, Source};

/// Clocks that were remembered, until a scan finds their files again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    pub(super) pages: FxHashMap<u64, Clocks>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clocks {
    pub(super) present: u64,
    pub(super) births: Box<[u32]>,
    pub(super) clocks: Box<[u32]>,
    pub(super) sources: Box<[u8]>,
}

impl Clocks {
    fn rank(&self, ino: Inode) -> Option<usize> {
        let bit = 1u64 << place(ino).1;
        (self.present & bit != 0).then(|| (self.present & (bit - 1)).count_ones() as usize)
    }
}

impl Remembered {
    /// The last use of the file with this inode and birth.
    pub fn last_use(&self, ino: Inode, birth: Seconds) -> Option<LastUse> {
        let page = self.pages.get(&place(ino).0)?;
        let rank = page.rank(ino)?;
        if *page.births.get(rank)? != birth.0 {
            return None;
        }
        Some(LastUse {
            at: Seconds(*page.clocks.get(rank)?),
            source: Source::from_u8(*page.sources.get(rank)?)?,
        })
    }

    /// Uses that came after the checkpoint. `late` is how long a use may have been hidden by a precision window; nothing
    /// is put later than `now`.
    pub fn replay(&mut self, entry: &Entry, late: u64, now: Seconds) {
        let Entry::Uses(at, inodes) = entry else { return };
        let at = at.plus(late).min(now);
        for ino in inodes {
            let Some(page) = self.pages.get_mut(&place(*ino).0) else {
                continue;
            };
            let Some(rank) = page.rank(*ino) else { continue };
            if let (Some(clock), Some(source)) = (page.clocks.get_mut(rank), page.sources.get_mut(rank))
                && *clock <= at.0
            {
                (*clock, *source) = (at.0, Source::Observed as u8);
            }
        }
    }

    /// Observed uses after `since` may have been followed by hidden ones: they count as `late` seconds later, but not
    /// later than `now`; nothing else lies ahead of `now` either.
    pub fn delay(&mut self, since: Seconds, late: u64, now: Seconds) {
        for page in self.pages.values_mut() {
            for (clock, source) in page.clocks.iter_mut().zip(&page.sources) {
                if *source == Source::Observed as u8 && *clock >= since.0 {
                    *clock = Seconds(*clock).plus(late).0;
                }
                *clock = (*clock).min(now.0);
            }
        }
    }

    /// How many files are remembered.
    pub fn len(&self) -> usize {
        self.pages.values().map(|p| p.present.count_ones() as usize).sum()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Remembers one file.
    #[cfg(test)]
    pub(super) fn put(&mut self, ino: Inode, birth: u32, last: LastUse) {
        let page = Clocks {
            present: 1 << place(ino).1,
            births: [birth].into(),
            clocks: [last.at.0].into(),
            sources: [last.source as u8].into(),
        };
        self.pages.insert(place(ino).0, page);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn later_uses_are_replayed_late_but_never_ahead_of_now() {
        let mut remembered = Remembered::default();
        let last = LastUse {
            at: Seconds(50),
            source: Source::Mtime,
        };
        remembered.put(70, 5, last);
        remembered.replay(&Entry::Uses(Seconds(60), vec![70, 71]), 10, Seconds(1000));
        assert_eq!(remembered.last_use(70, Seconds(5)).unwrap().at, Seconds(70));
        remembered.delay(Seconds(65), 100, Seconds(120));
        assert_eq!(remembered.last_use(70, Seconds(5)).unwrap().at, Seconds(120));
    }
}
