//! Who uses how much, taken out of the index at one moment: sorted and sent afterwards, however long that takes, without holding the index up.

use rustc_hash::FxHashMap;

use super::usage::{By, Subject};
use crate::index::dirs::Paths;
use crate::index::sums::{AGES, DirSums, Sums};
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

/// Files and apparent bytes by age.
pub type Ages = [(u64, u64); AGES];

/// The rows of one volume.
#[derive(Debug)]
pub struct Snapshot {
    lines: Vec<Line>,
    /// Of each line, if asked for.
    ages: Vec<Ages>,
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
        let gathered = match by {
            By::User => of_ids(ledger.users(), only, with_ages),
            By::Group => of_ids(ledger.groups(), only, with_ages),
            By::Project => of_ids(ledger.projects(), only, with_ages),
            By::Directory(depth) => of_directories(index, depth, with_ages),
        };
        let Gathered { lines, ages } = gathered;
        let rows = if most == 0 {
            lines.len()
        } else {
            most.min(lines.len())
        };
        let (order, paths) = std::thread::scope(|scope| {
            let many = matches!(by, By::Directory(_)) && rows > MANY;
            // Where the system gives no thread, they are made one by one.
            let thread = std::thread::Builder::new();
            let all = many
                .then(|| thread.spawn_scoped(scope, || index.dirs().paths()).ok())
                .flatten();
            let order = heaviest(&lines, rows);
            // A panic goes on here: it is contained where any panic of a request is.
            let all = all.map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            (order, all)
        });
        // Of a very deep tree not all were made: then all are made one by one.
        let made = |paths: &Paths| {
            lines
                .iter()
                .all(|l| directory(l).is_none_or(|id| paths.get(id).is_some()))
        };
        let paths = match paths.filter(made) {
            Some(all) => Places::All(all),
            None => {
                let path = |i: &u32| Some((*i, index.dirs().path(directory(lines.get(*i as usize)?)?)?));
                Places::Each(order.iter().filter_map(path).collect())
            }
        };
        Self {
            subjects: lines.len(),
            lines,
            ages,
            order,
            paths,
            as_of: ledger.as_of(),
        }
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
    pub fn ages(&self, i: u32) -> Option<&Ages> {
        self.ages.get(i as usize)
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

/// Lines, and the ages of each if they are wanted.
struct Gathered {
    lines: Vec<Line>,
    ages: Vec<Ages>,
}

fn of_ids(map: &FxHashMap<u32, Sums>, only: Option<u32>, with_ages: bool) -> Gathered {
    let wanted = || map.iter().filter(|(id, _)| only.is_none_or(|uid| uid == **id));
    let line = |(id, sums): (&u32, &Sums)| Line {
        subject: Subject::Id(*id),
        files: sums.files,
        bytes: clip(sums.bytes),
        allocated: clip(sums.allocated),
        byte_days: sums.byte_days,
        span: sums.span.unwrap_or_default(),
    };
    let ages = |(_, sums): (&u32, &Sums)| sums.ages.map(|(files, bytes)| (files, clip(bytes)));
    Gathered {
        lines: wanted().map(line).collect(),
        ages: wanted().filter(|_| with_ages).map(ages).collect(),
    }
}

/// No line yet.
const NONE: u32 = u32::MAX;

/// One pass over the directories in the order in which their sums lie in memory: there may be millions.
fn of_directories(index: &Index, depth: u32, with_ages: bool) -> Gathered {
    let of = |id, _: &_, (level, unit): (u32, DirId)| {
        let level = level.saturating_add(1);
        (level, if level <= depth { id } else { unit })
    };
    let units = index.dirs().inherit((0, DirId::ROOT), of);
    let mut line_of = vec![NONE; units.len().max(1)];
    let mut gathered = Gathered {
        lines: Vec::new(),
        ages: Vec::new(),
    };
    for (dir, sums) in index.ledger().directories() {
        let unit = units.get(dir.index()).map_or(DirId::ROOT, |(_, unit)| *unit);
        let Some(place) = line_of.get_mut(unit.index()) else {
            continue;
        };
        if *place == NONE {
            *place = u32::try_from(gathered.lines.len()).unwrap_or(NONE);
            gathered.lines.push(Line {
                subject: Subject::Directory(unit),
                files: 0,
                bytes: 0,
                allocated: 0,
                byte_days: 0,
                span: sums.span(),
            });
            if with_ages {
                gathered.ages.push(Ages::default());
            }
        }
        if let Some(line) = gathered.lines.get_mut(*place as usize) {
            line.add(sums);
        }
        if let Some(ages) = gathered.ages.get_mut(*place as usize) {
            sums.each_age(|bucket, files, bytes| {
                if let Some(age) = ages.get_mut(bucket) {
                    *age = (age.0.saturating_add(files), age.1.saturating_add(bytes));
                }
            });
        }
    }
    gathered
}

impl Line {
    fn add(&mut self, sums: &DirSums) {
        self.files = self.files.saturating_add(sums.files());
        self.bytes = self.bytes.saturating_add(sums.bytes());
        self.allocated = self.allocated.saturating_add(sums.allocated());
        self.byte_days = self.byte_days.saturating_add(sums.byte_days().into());
        let (oldest, newest) = sums.span();
        self.span = (self.span.0.min(oldest), self.span.1.max(newest));
    }
}

/// The heaviest lines first, so many. Weight and index in one number are sorted in a third of the time that pairs take.
fn heaviest(lines: &[Line], most: usize) -> Vec<u32> {
    let lightness = |line: &Line| u128::from(u64::MAX.saturating_sub(line.bytes));
    let weighed = (0u32..).zip(lines);
    let mut all: Vec<u128> = weighed
        .map(|(i, line)| lightness(line) << u32::BITS | u128::from(i))
        .collect();
    if most < all.len() {
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
