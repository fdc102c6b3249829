//! Who uses how much, and how old it is: from the sums that the index keeps.

use parking_lot::{Mutex, RwLock};

use purge_index::{DirId, Index, StoreError};
use purge_model::Seconds;

/// By what the files are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Owner.
    User,
    /// Owning group.
    Group,
    /// Project id.
    Project,
    /// Directory at this depth; files above it belong to the root.
    Directory(u32),
}

/// A subject: a uid, a gid, a project id, or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// uid, gid or project id.
    Id(u32),
    /// A directory.
    Directory(DirId),
}

/// An index with more files is not counted again while a client waits for the answer: its days and ages are as of a
/// moment that lies back by [`RECOUNT_EVERY`] or so. Counting takes some 50 ns a file.
const COUNTED_AT_ONCE_MAX: u64 = 500_000;
/// Days and ages are at most this many seconds old while the agent's keeper is alive.
pub const RECOUNT_EVERY: u64 = 60;
/// If they are older than this, the call that asks counts.
const STALE_AFTER: u64 = 15 * 60;
/// Pages that are counted before the index is let go: about a millisecond's work.
const PAGES_COUNTED_AT_ONCE: usize = 256;

/// Brings days and ages up to `now`, if they are not and it is worth it. Files and bytes are right in any case.
///
/// # Errors
/// When the index is damaged.
pub fn refresh(
    index: &RwLock<Index>,
    counting: &Mutex<()>,
    (now, gap_end): (Seconds, Option<Seconds>),
) -> Result<(), StoreError> {
    let wanted = |index: &Index| {
        let ledger = index.ledger();
        let age = ledger.as_of().age_at(now);
        let small = index.totals().files <= COUNTED_AT_ONCE_MAX;
        ledger.gap_end() != gap_end || ledger.as_of() != now && (small || age >= STALE_AFTER)
    };
    if wanted(&index.read()) {
        let _one = counting.lock();
        // A call that waited for another call's count takes that count.
        if wanted(&index.read()) {
            recount(index, (now, gap_end))?;
        }
    }
    Ok(())
}

/// Counts everything again as of `now`, a few pages at a time. One at a time.
///
/// # Errors
/// When the index is damaged.
pub fn recount(index: &RwLock<Index>, (now, gap_end): (Seconds, Option<Seconds>)) -> Result<(), StoreError> {
    index.write().begin_recount(now, gap_end);
    while !index.write().recount_some(PAGES_COUNTED_AT_ONCE)? {}
    Ok(())
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
