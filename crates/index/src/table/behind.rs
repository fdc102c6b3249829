//! Clocks that moved before the sums did: what a use changes of an owner's ages needs the file's attributes, and decoding those takes
//! longer than recording the use. In a storm of uses the clocks come first.

use std::collections::VecDeque;

use super::Index;
use purge_model::Seconds;

/// At most this number of clocks is ahead of the sums: 4 MB.
const BEHIND_MAX: usize = 1 << 18;

/// What the sums do not know yet, in its order.
pub(super) type Behind = VecDeque<Moved>;

/// A clock that moved, and with it the age of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    slot: u32,
    rank: u8,
    before: Seconds,
    after: Seconds,
}

impl Index {
    /// The sums will follow.
    #[inline]
    pub(super) fn moved(&mut self, slot: u32, rank: usize, before: Seconds, after: Seconds) {
        self.behind.push_back(Moved {
            slot,
            rank: rank as u8,
            before,
            after,
        });
        if self.behind.len() >= BEHIND_MAX {
            self.settle_some(BEHIND_MAX / 16);
        }
    }

    /// The sums follow all clocks. Before anything else of an entry changes: what moved is known by its place in its page.
    pub(super) fn settle_uses(&mut self) {
        if !self.behind.is_empty() {
            self.settle_some(usize::MAX);
        }
    }

    /// The sums follow this number of the clocks that moved first. True if there are more.
    pub fn settle_some(&mut self, count: usize) -> bool {
        let count = count.min(self.behind.len());
        let mut moved: Vec<Moved> = self.behind.drain(..count).collect();
        // What moved twice stays in its order.
        moved.sort_by_key(|moved| (moved.slot, moved.rank));
        for of_page in moved.chunk_by(|one, next| one.slot == next.slot) {
            let slot = of_page.first().map_or(u32::MAX, |moved| moved.slot);
            let Some(page) = self.pages.get(slot as usize) else {
                continue;
            };
            let (mut reader, mut read, mut entry) = (page.reader(), 0, None);
            for moved in of_page {
                while read <= moved.rank {
                    entry = reader.next_entry().ok();
                    read += 1;
                }
                if let Some(attributes) = &entry {
                    self.account.used(slot, attributes, moved.before, moved.after);
                }
            }
        }
        if self.behind.is_empty() {
            // A storm is over: what it took goes back.
            self.behind = Behind::new();
        }
        !self.behind.is_empty()
    }
}
