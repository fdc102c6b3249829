//! Who uses how much, taken out of the index at one moment: sorted and sent afterwards, however long that takes, without holding the index up.

use rustc_hash::FxHashMap;

use super::ages::{Ages, AgesOfLines};
use super::usage::{By, Subject};
use crate::index::dirs::Paths;
use crate::index::sums::{DirSums, Sums};
use crate::index::{DirId, Index};
use crate::model::Seconds;

/// Of more rows than this, the paths of all directories are made at once.
const MANY: usize = 10_000;

/// What a subject has.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Who or what.
    pub subject: Subject,
    /// Regular files.
    pub files: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Size-days.
    pub byte_days: u128,
    /// Oldest and newest last use.
    pub span: (Seconds, Seconds),
}

/// The rows of one volume.
#[derive(Debug)]
pub struct Snapshot {
    lines: Vec<Line>,
    /// Of each line that is a row, if asked for.
    ages: Option<AgesOfLines>,
    /// Those with the most bytes first; of equal ones in no particular order.
    order: Vec<u32>,
    paths: Places,
    /// How many subjects have files, whether they are among the rows or not.
    pub subjects: usize,
    /// The moment of days and ages.
    pub as_of: Seconds,
}

/// Where the directories of the lines are.
#[derive(Debug)]
enum Places {
    /// Of those lines that are rows.
    Each(FxHashMap<u32, Vec<u8>>),
    All(Paths),
}

impl Snapshot {
    /// At most so many rows (0: all); with `only`, that user's alone.
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
        let wanted: Vec<(&u32, &Sums)> = wanted.collect();
        let lines: Vec<Line> = wanted.iter().map(|(id, sums)| Line::of_id(**id, sums)).collect();
        let ages = with_ages.then(|| {
            let mut ages = AgesOfLines::of(lines.len());
            for (line, (_, sums)) in (0u32..).zip(&wanted) {
                let of_each = sums.ages.iter().enumerate().filter(|(_, age)| age.0 > 0);
                ages.add(
                    line,
                    of_each.map(|(bucket, (files, bytes))| (bucket, *files, clip(*bytes))),
                );
            }
            ages
        });
        Self {
            subjects: lines.len(),
            order: heaviest(&lines, most),
            lines,
            ages,
            paths: Places::Each(FxHashMap::default()),
            as_of: index.ledger().as_of(),
        }
    }

    /// There may be millions of directories: two threads share the work where there are many rows.
    fn of_directories(index: &Index, depth: u32, most: usize, with_ages: bool) -> Self {
        let dirs = index.dirs();
        let many = dirs.len() > MANY && !(1..=MANY).contains(&most);
        std::thread::scope(|scope| {
            // Where the system gives no thread, they are made one by one.
            let thread = std::thread::Builder::new();
            let all = many
                .then(|| thread.spawn_scoped(scope, || dirs.paths(depth)).ok())
                .flatten();
            let (lines, line_of) = lines_of_directories(index, depth);
            let order = heaviest(&lines, most);
            let ages = with_ages.then(|| ages_of_directories(index, &line_of, lines.len(), &order));
            // A panic goes on here: it is contained where any panic of a request is.
            let all = all.map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            // Of a very deep tree not all were made: then all are made one by one.
            let made = |paths: &Paths| {
                lines
                    .iter()
                    .all(|l| directory(l).is_none_or(|id| paths.get(id).is_some()))
            };
            let paths = match all.filter(made) {
                Some(all) => Places::All(all),
                None => {
                    let path = |i: &u32| Some((*i, dirs.path(directory(lines.get(*i as usize)?)?)?));
                    Places::Each(order.iter().filter_map(path).collect())
                }
            };
            Self {
                subjects: lines.len(),
                lines,
                ages,
                order,
                paths,
                as_of: index.ledger().as_of(),
            }
        })
    }

    /// The lines that are rows, those with the most bytes first; of equal ones in no particular order.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// One of them.
    pub fn line(&self, i: u32) -> Option<&Line> {
        self.lines.get(i as usize)
    }

    /// By age, if that was asked for.
    pub fn ages(&self, i: u32) -> Option<Ages> {
        self.ages.as_ref()?.get(i)
    }

    /// The path of a directory below the volume, empty for the root.
    pub fn path(&self, i: u32) -> Option<&[u8]> {
        match &self.paths {
            Places::Each(paths) => paths.get(&i).map(Vec::as_slice),
            Places::All(paths) => paths.get(directory(self.line(i)?)?),
        }
    }
}

fn directory(line: &Line) -> Option<DirId> {
    match line.subject {
        Subject::Directory(id) => Some(id),
        Subject::Id(_) => None,
    }
}

/// No line.
const NONE: u32 = u32::MAX;

/// The lines, and to which one each directory with files belongs: its own, or where it lies deeper than was asked for, that of
/// the one above it. One pass in the order in which the sums lie in memory.
fn lines_of_directories(index: &Index, depth: u32) -> (Vec<Line>, Vec<u32>) {
    let of = |id, _: &_, (level, unit): (u32, DirId)| {
        let level = level.saturating_add(1);
        (level, if level <= depth { id } else { unit })
    };
    let units = index.dirs().inherit((0, DirId::ROOT), of);
    let mut line_of = vec![NONE; units.len().max(1)];
    let mut lines: Vec<Line> = Vec::new();
    for (dir, sums) in index.ledger().directories() {
        let unit = units.get(dir.index()).map_or(DirId::ROOT, |(_, unit)| *unit);
        let mut line = line_of.get(unit.index()).copied().unwrap_or(NONE);
        if line == NONE {
            line = u32::try_from(lines.len()).unwrap_or(NONE);
            lines.push(Line::empty(Subject::Directory(unit), sums.span()));
        }
        for id in [unit, dir] {
            if let Some(place) = line_of.get_mut(id.index()) {
                *place = line;
            }
        }
        if let Some(line) = lines.get_mut(line as usize) {
            line.add(sums);
        }
    }
    (lines, line_of)
}

/// A second pass, for ages are wanted of the rows alone, and which lines are rows is known only now.
fn ages_of_directories(index: &Index, line_of: &[u32], lines: usize, rows: &[u32]) -> AgesOfLines {
    let mut is_row = vec![rows.len() == lines; lines];
    for row in rows {
        if let Some(is_row) = is_row.get_mut(*row as usize) {
            *is_row = true;
        }
    }
    let mut ages = AgesOfLines::of(lines);
    for (dir, sums) in index.ledger().directories() {
        let line = line_of.get(dir.index()).copied().unwrap_or(NONE);
        if is_row.get(line as usize) == Some(&true) {
            ages.add(line, sums.ages());
        }
    }
    ages
}

impl Line {
    fn empty(subject: Subject, span: (Seconds, Seconds)) -> Self {
        Self {
            subject,
            files: 0,
            bytes: 0,
            allocated: 0,
            byte_days: 0,
            span,
        }
    }

    fn of_id(id: u32, sums: &Sums) -> Self {
        Self {
            files: sums.files,
            bytes: clip(sums.bytes),
            allocated: clip(sums.allocated),
            byte_days: sums.byte_days,
            ..Self::empty(Subject::Id(id), sums.span.unwrap_or_default())
        }
    }

    fn add(&mut self, sums: &DirSums) {
        self.files = self.files.saturating_add(sums.files());
        self.bytes = self.bytes.saturating_add(sums.bytes());
        self.allocated = self.allocated.saturating_add(sums.allocated());
        self.byte_days = self.byte_days.saturating_add(sums.byte_days().into());
        let (oldest, newest) = sums.span();
        self.span = (self.span.0.min(oldest), self.span.1.max(newest));
    }
}

/// The heaviest lines first, so many (0: all). Weight and index in one number are sorted in a third of the time that pairs take.
fn heaviest(lines: &[Line], most: usize) -> Vec<u32> {
    let lightness = |line: &Line| u128::from(u64::MAX.saturating_sub(line.bytes));
    let weighed = (0u32..).zip(lines);
    let mut all: Vec<u128> = weighed
        .map(|(i, line)| lightness(line) << u32::BITS | u128::from(i))
        .collect();
    if (1..all.len()).contains(&most) {
        let _ = all.select_nth_unstable(most);
        all.truncate(most);
    }
    all.sort_unstable();
    all.into_iter().map(|n| n as u32).collect()
}

/// Nobody has more than 18 exabytes.
fn clip(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
