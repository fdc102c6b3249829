//! Access times that tell what was not used in a gap, so that the gap need not count as a use of every file.
//!
//! The first scan after the gap looks at each file. A read moves the access time of a relatime mount if that is older than
//! a day, or older than the last change; so a file whose access time would have been moved, and was not, was not read. Whatever
//! else the scan meets, or does not meet, counts as used at the gap's end, as it does without this.
//!
//! That holds only where nothing else can read without a trace ([`AtimeKeeping`]).

use std::ffi::CStr;
use std::os::fd::AsFd;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::Volume;
use super::coverage::VolumeRecord;
use crate::collect::atimes::AtimeKeeping;
use crate::index::codec::PAGE_INODES;
use crate::model::{Inode, Kind, Seconds, Stat};
use crate::sys::project;

/// relatime moves an access time that is as old as this.
const DAY: u64 = 24 * 3600;
/// The file system's clock and the agent's agree before the gap and after it: within 2 s each time, and stamps are cut off.
const CLOCKS_DIFFER_MAX: u64 = 5;

/// A gap that the scan may close.
#[derive(Debug)]
pub(super) struct Closing {
    from: Seconds,
    to: Seconds,
    /// End of the last gap before it that counts.
    earlier_end: u32,
    /// By the page of the index: a bit for each file that was not used in the gap.
    unused: Mutex<FxHashMap<u64, u64>>,
}

impl Closing {
    /// For the gap that `record` has just got, when access times were kept before it and after it in the same way.
    pub fn of(
        record: &VolumeRecord,
        earlier_end: u32,
        before: &str,
        now: Option<&AtimeKeeping>,
    ) -> Option<Self> {
        let gap = record.gaps.last().filter(|gap| gap.is_a_stop())?;
        now.filter(|now| now.word() == before)?;
        Some(Self {
            from: Seconds(gap.from),
            to: Seconds(gap.to),
            earlier_end,
            unused: Mutex::default(),
        })
    }

    /// The scan has met the entry `name` of `dir`.
    pub fn met(&self, dir: impl AsFd, name: &CStr, stat: &Stat) {
        // Listing a directory is no use of it.
        let leaves_traces =
            || stat.kind == Kind::Directory || project::moves_atime(dir, name).unwrap_or(false);
        if was_unused_since(stat, self.from) && leaves_traces() {
            let (page, bit) = place(stat.ino);
            *self.unused.lock().entry(page).or_default() |= bit;
        }
    }
}

fn place(ino: Inode) -> (u64, u64) {
    (ino / PAGE_INODES, 1u64 << (ino % PAGE_INODES))
}

/// Whether the times of a file show that it was not read since `from`. Pure.
fn was_unused_since(stat: &Stat, from: Seconds) -> bool {
    let from = from.minus(CLOCKS_DIFFER_MAX);
    // A change hides what was before it: an access time can be set.
    let changed = stat.ctime.max(stat.mtime).max(stat.birth);
    let is_moved_by_any_read = stat.atime < stat.ctime.max(stat.mtime) || stat.atime.plus(DAY) < from;
    match stat.kind {
        Kind::File => changed < from && stat.atime < from && is_moved_by_any_read,
        Kind::Directory => changed < from,
        Kind::Symlink | Kind::Special => false,
    }
}

impl Volume {
    /// After the first scan: each file that may have been used in the gap has been, and the gap itself does not count any more.
    pub(super) fn close_gap(&self) {
        let Some(closing) = &self.closing else { return };
        let unused = std::mem::take(&mut *closing.unused.lock());
        // A checkpoint has the clocks from before with the gap that counts, or those from afterwards.
        let _no_checkpoint = self.checkpoint.lock();
        let is_unused = |ino| {
            let (page, bit) = place(ino);
            unused.get(&page).is_some_and(|bits| bits & bit != 0)
        };
        self.watched
            .index
            .write()
            .use_all_but(closing.to, |ino| !is_unused(ino));
        // Without the clocks in the store the gap goes on counting.
        if !self.write_back() {
            return;
        }
        let mut health = self.health.lock();
        health
            .record
            .close_gap(closing.from, closing.to, closing.earlier_end);
        health.urgent = true;
        let files: u64 = unused.values().map(|bits| u64::from(bits.count_ones())).sum();
        tracing::info!(volume = %self.config.name, files, "access times show what was not used while the agent was stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: u32 = 1_000_000;

    fn file(atime: u32, changed: u32) -> Stat {
        Stat {
            ino: 7,
            kind: Kind::File,
            size: 1,
            allocated: 512,
            project: 0,
            uid: 0,
            gid: 0,
            links: 1,
            atime: Seconds(atime),
            mtime: Seconds(changed),
            ctime: Seconds(changed),
            ctime_nanos: 0,
            birth: Seconds(changed),
        }
    }

    /// What a relatime mount does when a file is read at `at`.
    fn after_read(mut stat: Stat, at: u32) -> Stat {
        let age = i64::from(at) - i64::from(stat.atime.0);
        if stat.mtime >= stat.atime || stat.ctime >= stat.atime || age >= 24 * 3600 {
            stat.atime = Seconds(at);
        }
        stat
    }

    #[test]
    fn an_access_time_within_a_day_hides_a_read() {
        let since = |atime, changed| was_unused_since(&file(atime, changed), Seconds(FROM));
        assert!(since(FROM - 90_000, 5));
        assert!(!since(FROM - 80_000, 5), "relatime would not have moved it");
        assert!(
            since(FROM - 80_000, FROM - 70_000),
            "a later change: it would have"
        );
        assert!(!since(FROM + 1, 5), "read");
        assert!(!since(FROM - 90_000, FROM + 1), "changed");
    }

    proptest! {
        #[test]
        fn no_read_in_a_gap_goes_unseen(
            atime in FROM - 200_000..FROM + 100,
            changed in FROM - 200_000..FROM + 100,
            later in 0u32..200_000,
        ) {
            let read = after_read(file(atime, changed), FROM + later);
            prop_assert!(!was_unused_since(&read, Seconds(FROM)));
        }
    }
}
