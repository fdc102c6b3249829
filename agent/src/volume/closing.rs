//! Access times that tell what was not used in a gap, so that the gap need not count as a use of every file.
//!
//! The first scan after the gap looks at each file. A read moves the access time of a relatime mount if that is older than
//! a day, or older than the last change; so a file whose access time would have been moved, and was not, was not read. Any other file
//! counts as used at the gap's end, whether the scan meets it or not, as it does without this.
//!
//! That holds only where nothing else can read without a trace. The agent sees mounts and file servers ([`AtimeKeeping`]). It does not see
//! who reads with `O_NOATIME`, or through a mapping that was made before the gap. So the operator must vouch for that
//! (`access_times = "complete"`).

use std::ffi::CStr;
use std::os::fd::AsFd;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::Volume;
use super::coverage::VolumeRecord;
use purge_collect::atimes::{AtimeKeeping, was_unused_since};
use purge_index::codec::PAGE_INODES;
use purge_model::{Inode, Kind, Seconds, Stat};
use purge_sys::project;

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
            .recorder()
            .used_in_gap(closing.to, |ino| !is_unused(ino));
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
