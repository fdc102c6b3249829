//! Who uses how much, and how old it is: from the sums that the index keeps.

use std::borrow::Cow;
use std::ops::Range;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use crate::index::sums::Sums;
use crate::index::{DirId, Index, StoreError};
use crate::model::Seconds;

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

/// An index with more files is not counted anew while somebody waits for the answer: its days and ages are as of a
/// moment that lies back by [`RECOUNT_EVERY`] or so. Counting takes some 50 ns a file.
const COUNTED_AT_ONCE_MAX: u64 = 500_000;
/// Days and ages are at most so many seconds old while the agent's keeper is alive.
pub const RECOUNT_EVERY: u64 = 60;
/// If they are older than this, whoever asks counts.
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
        // Who waited for somebody else's count takes that.
        if wanted(&index.read()) {
            recount(index, (now, gap_end))?;
        }
    }
    Ok(())
}

/// Counts everything anew as of `now`, a few pages at a time. One at a time.
///
/// # Errors
/// When the index is damaged.
pub fn recount(index: &RwLock<Index>, (now, gap_end): (Seconds, Option<Seconds>)) -> Result<(), StoreError> {
    index.write().begin_recount(now, gap_end);
    while !index.write().recount_some(PAGES_COUNTED_AT_ONCE)? {}
    Ok(())
}

/// The subjects of a volume, those with the most bytes first; of equal ones in no particular order.
#[derive(Debug)]
pub struct Usage<'a> {
    index: &'a Index,
    rows: Vec<Row>,
    /// Sums that were gathered; others are read when they are asked for.
    gathered: Vec<(Subject, Sums)>,
    subjects: usize,
}

/// Where a row's sums are.
#[derive(Debug, Clone, Copy)]
enum Row {
    /// Among those gathered.
    Gathered(u32),
    /// A directory that stands for itself alone.
    Directory(DirId),
}

impl<'a> Usage<'a> {
    /// Of at most so many subjects; 0: of all.
    pub fn of(index: &'a Index, by: By, most: usize) -> Self {
        let ids = |map: &FxHashMap<u32, Sums>| {
            let rows = map.iter().map(|(id, sums)| (Subject::Id(*id), sums.clone()));
            Self::gathered(index, rows.collect(), most)
        };
        match by {
            By::User => ids(index.ledger().users()),
            By::Group => ids(index.ledger().groups()),
            By::Project => ids(index.ledger().projects()),
            By::Directory(depth) => Self::directories(index, depth, most),
        }
    }

    fn gathered(index: &'a Index, gathered: Vec<(Subject, Sums)>, most: usize) -> Self {
        let bytes = |(i, row): (usize, &(Subject, Sums))| (row.1.bytes, small(i));
        let chosen = heaviest(gathered.iter().enumerate().map(bytes).collect(), most);
        Self {
            index,
            rows: chosen.into_iter().map(Row::Gathered).collect(),
            subjects: gathered.len(),
            gathered,
        }
    }

    /// Sums are six times as large as what is kept for a directory, and there may be a million of them: only bytes are
    /// summed up for all, the rest for those that are wanted.
    fn directories(index: &'a Index, depth: u32, most: usize) -> Self {
        let of = |id, _: &_, (level, unit): (u32, DirId)| {
            let level = level.saturating_add(1);
            (level, if level <= depth { id } else { unit })
        };
        let units = index.dirs().inherit((0, DirId::ROOT), of);
        let unit_of = |dir: DirId| units.get(dir.index()).map_or(DirId::ROOT, |(_, unit)| *unit);
        let mut weights: Vec<Weight> = vec![Weight::default(); index.dirs().table_len().max(1)];
        for (dir, sums) in index.ledger().directories() {
            if let Some(weight) = weights.get_mut(unit_of(dir).index()) {
                weight.bytes = weight.bytes.saturating_add(sums.bytes().into());
                weight.only = match weight.directories {
                    0 => dir,
                    _ => weight.only,
                };
                weight.directories = weight.directories.saturating_add(1);
            }
        }
        let used = weights.iter().enumerate().filter(|(_, w)| w.directories > 0);
        let used: Vec<(u128, u32)> = used.map(|(i, w)| (w.bytes, small(i))).collect();
        let subjects = used.len();
        let mut gathered = Vec::new();
        let mut rows = Vec::new();
        for unit in heaviest(used, most) {
            let Some(weight) = weights.get_mut(unit as usize) else {
                continue;
            };
            if weight.directories == 1 && weight.only.0 == unit {
                rows.push(Row::Directory(weight.only));
                continue;
            }
            weight.row = small(gathered.len());
            rows.push(Row::Gathered(weight.row));
            gathered.push((Subject::Directory(DirId(unit)), Sums::default()));
        }
        if !gathered.is_empty() {
            for (dir, sums) in index.ledger().directories() {
                let row = weights.get(unit_of(dir).index()).map_or(NO_ROW, |w| w.row);
                if let Some((_, all)) = gathered.get_mut(row as usize) {
                    sums.add_to(all);
                }
            }
        }
        Self {
            index,
            rows,
            gathered,
            subjects,
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nobody has a file.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many subjects have files, whether they are among the rows or not.
    pub fn subjects(&self) -> usize {
        self.subjects
    }

    /// The rows of a range.
    pub fn rows(&self, range: Range<usize>) -> impl Iterator<Item = (Subject, Cow<'_, Sums>)> {
        let rows = self.rows.get(range).unwrap_or(&[]);
        rows.iter().filter_map(|row| match row {
            Row::Gathered(i) => {
                let (subject, sums) = self.gathered.get(*i as usize)?;
                Some((*subject, Cow::Borrowed(sums)))
            }
            Row::Directory(dir) => {
                let mut sums = Sums::default();
                self.index.ledger().directory(*dir)?.add_to(&mut sums);
                Some((Subject::Directory(*dir), Cow::Owned(sums)))
            }
        })
    }
}

/// No row is wanted.
const NO_ROW: u32 = u32::MAX;

/// What tells how heavy a directory is, with all that counts for it.
#[derive(Debug, Clone, Copy)]
struct Weight {
    bytes: u128,
    /// So many directories count for it, of which this is the first.
    directories: u32,
    only: DirId,
    row: u32,
}

impl Default for Weight {
    fn default() -> Self {
        Self {
            bytes: 0,
            directories: 0,
            only: DirId::ROOT,
            row: NO_ROW,
        }
    }
}

/// The heaviest of these first, at most so many; 0: all.
fn heaviest(mut all: Vec<(u128, u32)>, most: usize) -> Vec<u32> {
    let by_weight = |a: &(u128, u32), b: &(u128, u32)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
    if most > 0 && most < all.len() {
        let _ = all.select_nth_unstable_by(most, by_weight);
        all.truncate(most);
    }
    all.sort_unstable_by(by_weight);
    all.into_iter().map(|(_, i)| i).collect()
}

/// There are fewer than 2^32 subjects: their ids are that long.
fn small(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
