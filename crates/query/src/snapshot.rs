//! Who uses how much, taken out of the index at one moment: sorted and sent afterwards, however long that takes, without holding the index up.

use rustc_hash::FxHashMap;

use super::rows::{PLAIN_MAX, Row, Rows};
use super::usage::{By, Subject};
use purge_index::dirs::Tree;
use purge_index::sums::Sums;
use purge_index::{DirId, Index};
use purge_model::Seconds;

/// The rows of one volume, in no particular order.
#[derive(Debug)]
pub struct Snapshot {
    rows: Rows,
    paths: Paths,
    with_ages: bool,
    /// How many subjects have files, whether they are among the rows or not.
    pub subjects: usize,
    /// The moment of days and ages.
    pub as_of: Seconds,
}

/// Where the directories of the rows are.
#[derive(Debug)]
enum Paths {
    /// Of a few.
    Each(FxHashMap<DirId, Vec<u8>>),
    /// Of many they are made when they are wanted.
    All(Tree),
}

impl Snapshot {
    /// At most `most` rows (0: all), those with the most bytes; with `only`, that user's alone.
    pub fn of(index: &Index, by: By, most: usize, only: Option<u32>, with_ages: bool) -> Self {
        let ledger = index.ledger();
        match by {
            By::User => Self::of_ids(index, ledger.users(), most, only, with_ages),
            By::Group => Self::of_ids(index, ledger.groups(), most, only, with_ages),
            By::Project => Self::of_ids(index, ledger.projects(), most, only, with_ages),
            By::Directory(depth) => Self::of_directories(index, depth, most, with_ages),
        }
    }

    fn of_ids(
        index: &Index,
        map: &FxHashMap<u32, Sums>,
        most: usize,
        only: Option<u32>,
        with_ages: bool,
    ) -> Self {
        let wanted = map.iter().filter(|(id, _)| only.is_none_or(|uid| uid == **id));
        let all: Vec<Row> = wanted
            .map(|(id, sums)| Row::of_id(*id, sums, with_ages))
            .collect();
        let subjects = all.len();
        let rows = if most == 0 || subjects <= most {
            all
        } else {
            let heaviest = heaviest(all.iter().map(|row| row.bytes), most);
            let rows = heaviest.into_iter().filter_map(|i| all.get(i as usize).cloned());
            rows.collect()
        };
        Self {
            rows: Rows::Plain(rows),
            paths: Paths::Each(FxHashMap::default()),
            with_ages,
            subjects,
            as_of: index.ledger().as_of(),
        }
    }

    /// There may be millions of directories: two threads share the work where there are many rows.
    fn of_directories(index: &Index, depth: u32, most: usize, with_ages: bool) -> Self {
        let dirs = index.dirs();
        let units = units(index, depth);
        let possible = units.iter().enumerate().filter(|(i, unit)| *i == unit.index());
        let possible = match (possible.count(), most) {
            (units, 0) => units,
            (units, most) => units.min(most),
        };
        std::thread::scope(|scope| {
            // Where the system gives no thread, they are copied afterwards.
            let copy = (possible > PLAIN_MAX)
                .then(|| {
                    std::thread::Builder::new()
                        .spawn_scoped(scope, || dirs.tree())
                        .ok()
                })
                .flatten();
            let empty = match possible {
                ..=PLAIN_MAX => Rows::none(),
                _ => Rows::none_of_many(possible),
            };
            let (rows, subjects) = fill(empty, index, &units, most, with_ages);
            // A panic goes on here: it is contained where any panic of a request is.
            let copy = copy.map(|copy| copy.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            let paths = match (copy, &rows) {
                (Some(tree), _) => Paths::All(tree),
                (None, Rows::Packed(_)) => Paths::All(dirs.tree()),
                (None, Rows::Plain(rows)) => {
                    let ids = rows.iter().filter_map(|row| directory(row.subject));
                    Paths::Each(ids.filter_map(|id| Some((id, dirs.path(id)?))).collect())
                }
            };
            Self {
                rows,
                paths,
                with_ages,
                subjects,
                as_of: index.ledger().as_of(),
            }
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Apparent bytes of each row, the first one's first.
    pub fn bytes(&self) -> impl Iterator<Item = u64> {
        self.rows.bytes()
    }

    /// One row.
    pub fn row(&self, i: u32) -> Option<Row> {
        self.rows.get(i, self.with_ages)
    }

    /// Whose it is.
    pub fn subject(&self, i: u32) -> Option<Subject> {
        self.rows.subject(i)
    }

    /// The path of a directory of a row below the volume, empty for the root.
    pub fn path(&self, id: DirId) -> Option<Vec<u8>> {
        match &self.paths {
            Paths::Each(paths) => paths.get(&id).cloned(),
            Paths::All(tree) => tree.path(id),
        }
    }
}

fn directory(subject: Subject) -> Option<DirId> {
    match subject {
        Subject::Directory(id) => Some(id),
        Subject::Id(_) => None,
    }
}

/// To which directory's row each directory belongs: its own, or where it lies deeper than was asked for, that of the one above it.
pub(super) fn units(index: &Index, depth: u32) -> Vec<DirId> {
    let of = |id, _: &_, (level, unit): (u32, DirId)| {
        let level = level.saturating_add(1);
        (level, if level <= depth { id } else { unit })
    };
    let units = index.dirs().inherit((0, DirId::ROOT), of);
    units.into_iter().map(|(_, unit)| unit).collect()
}

/// No row.
const NONE: u32 = u32::MAX;

/// The rows, and how many there would be without a limit. Sums are passed over in the order in which they lie in memory: once if all
/// rows are wanted, and otherwise a first time to see which ones are.
pub(super) fn fill(
    mut rows: Rows,
    index: &Index,
    units: &[DirId],
    most: usize,
    with_ages: bool,
) -> (Rows, usize) {
    let unit_of = |dir: DirId| units.get(dir.index()).copied().unwrap_or(DirId::ROOT);
    let mut row_of = vec![NONE; units.len().max(1)];
    let mut subjects = 0;
    if most > 0 {
        // One more than the bytes: 0 means that there are no files.
        let mut weights = vec![0u64; row_of.len()];
        for (dir, sums) in index.ledger().directories() {
            if let Some(weight) = weights.get_mut(unit_of(dir).index()) {
                *weight = (*weight).max(1).saturating_add(sums.bytes());
            }
        }
        subjects = weights.iter().filter(|weight| **weight > 0).count();
        for unit in heaviest(weights, most) {
            // Those without files come last.
            if rows.len() < subjects
                && let Some(row) = row_of.get_mut(unit as usize)
            {
                *row = rows.push(DirId(unit), with_ages).unwrap_or(NONE);
            }
        }
    }
    for (dir, sums) in index.ledger().directories() {
        let unit = unit_of(dir);
        let Some(row) = row_of.get_mut(unit.index()) else {
            continue;
        };
        if *row == NONE && most == 0 {
            subjects = subjects.saturating_add(1);
            *row = rows.push(unit, with_ages).unwrap_or(NONE);
        }
        rows.add(*row, sums, with_ages);
    }
    (rows, subjects)
}

/// The numbers of the `most` heaviest, the heaviest first.
fn heaviest(weights: impl IntoIterator<Item = u64>, most: usize) -> Vec<u32> {
    // Weight and number in one are sorted in a third of the time that pairs take. A few more than wanted are kept, for a million
    // need not lie in memory to find a thousand.
    let room = most.saturating_mul(2);
    let mut light_first: Vec<u128> = Vec::new();
    let mut enough = u128::MAX;
    for (i, weight) in (0u32..).zip(weights) {
        let key = lightness(weight) | u128::from(i);
        if key >= enough {
            continue;
        }
        light_first.push(key);
        if light_first.len() >= room {
            let (_, nth, _) = light_first.select_nth_unstable(most);
            enough = *nth;
            light_first.truncate(most);
        }
    }
    light_first.sort_unstable();
    light_first.into_iter().take(most).map(|key| key as u32).collect()
}

/// The more bytes, the smaller; the lower half is free for a number.
pub fn lightness(bytes: u64) -> u128 {
    u128::from(u64::MAX.saturating_sub(bytes)) << u64::BITS
}
