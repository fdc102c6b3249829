//! Who uses how much, and how old it is: one pass over the index.

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::PAGES_AT_ONCE;
use crate::index::{DirId, Index, StoreError};
use crate::model::{Clocks, Kind, Seconds};
use crate::policy::last_use::{covered, last_use};

/// By what the files are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Owner.
    User,
    /// Owning group.
    Group,
    /// Directory at this depth; files above it belong to the root.
    Directory(u32),
}

const DAY: u64 = 86_400;

/// Upper ends of the age histogram, in seconds; what is older comes last.
pub const AGE_BOUNDS: [u64; 6] = [DAY, 7 * DAY, 30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY];

/// What one subject uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// Sum over files of size x (whole days present + 1).
    pub byte_days: f64,
    /// Oldest last use.
    pub oldest: Option<Seconds>,
    /// Newest last use.
    pub newest: Option<Seconds>,
    /// Files and bytes by age, see [`AGE_BOUNDS`]; the last is everything older.
    pub ages: [(u64, u64); AGE_BOUNDS.len() + 1],
}

/// A subject: a uid, a gid, or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// uid or gid.
    Id(u32),
    /// A directory.
    Directory(DirId),
}

/// Usage of every subject of a volume.
///
/// # Errors
/// When the index is damaged.
pub fn usage(
    index: &RwLock<Index>,
    by: By,
    (now, gap_end): (Seconds, Option<Seconds>),
) -> Result<FxHashMap<Subject, Usage>, StoreError> {
    let unit_of = match by {
        By::Directory(depth) => {
            let of = |id, _: &_, (level, unit): (u32, DirId)| {
                let level = level.saturating_add(1);
                (level, if level <= depth { id } else { unit })
            };
            index
                .read()
                .dirs()
                .inherit((0, DirId::ROOT), of)
                .into_iter()
                .map(|(_, unit)| unit)
                .collect()
        }
        By::User | By::Group => Vec::new(),
    };
    let mut all: FxHashMap<Subject, Usage> = FxHashMap::default();
    let mut start = 0;
    loop {
        let index = index.read();
        let pages = index.pages_from(start, PAGES_AT_ONCE);
        if pages.len() == 0 {
            return Ok(all);
        }
        start += PAGES_AT_ONCE;
        for page in pages {
            let mut attributes = page.attributes();
            for (rank, _) in page.inodes().enumerate() {
                let entry = attributes.next_entry()?;
                if entry.kind != Kind::File {
                    continue;
                }
                let subject = match by {
                    By::User => Subject::Id(entry.uid),
                    By::Group => Subject::Id(entry.gid),
                    By::Directory(_) => {
                        Subject::Directory(unit_of.get(entry.parent.index()).copied().unwrap_or(DirId::ROOT))
                    }
                };
                let last = last_use(&entry, covered(page.access(rank), gap_end), Clocks::ALL).at;
                let days = entry.birth.age_at(now) / DAY + 1;
                all.entry(subject).or_default().add(entry.size, days, last, now);
            }
        }
    }
}

impl Usage {
    fn add(&mut self, size: u64, days: u64, last: Seconds, now: Seconds) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.byte_days += size as f64 * days as f64;
        self.oldest = Some(self.oldest.map_or(last, |o| o.min(last)));
        self.newest = Some(self.newest.map_or(last, |n| n.max(last)));
        let age = last.age_at(now);
        let bucket = AGE_BOUNDS
            .iter()
            .position(|bound| age < *bound)
            .unwrap_or(AGE_BOUNDS.len());
        if let Some((files, bytes)) = self.ages.get_mut(bucket) {
            *files += 1;
            *bytes = bytes.saturating_add(size);
        }
    }
}
