//! What expires on which of the next days if nothing is used until then. Pure.
//!
//! It is an evaluation as of the last of these days, in which each file counts on the day on which the first rule takes it.
//! What goes with a whole directory counts on that directory's day. The rules' limits of a run are left out: what expires is
//! told, not how many runs it takes.

use rustc_hash::FxHashMap;

use super::circumstances::Circumstances;
use super::expiring::pass;
use super::files::Due;
use super::tables::unit_table;
use crate::rule::Rule;
use purge_index::{DirId, Index, StoreError};
use purge_model::Seconds;

const DAY: u64 = 86_400;

/// By what it is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Not at all.
    Nothing,
    /// Owner.
    User,
    /// Directory at this depth; what lies above it belongs to the root.
    Directory(u32),
}

/// Files and bytes.
pub type Share = (u64, u128);

/// What is due: first now, then on each of the next days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// One more than the days that were asked for.
    pub days: Vec<Share>,
    /// The same by subject: a uid, or a directory's id; empty with [`By::Nothing`].
    pub subjects: FxHashMap<u32, Vec<Share>>,
}

/// What of `rules` is due now and on each of the next `days` days of 24 hours.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn forecast(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    days: u32,
    by: By,
) -> Result<Outlook, StoreError> {
    let units = match by {
        By::Directory(depth) => unit_table(index, depth),
        By::Nothing | By::User => Vec::new(),
    };
    let subject = |uid: u32, dir: DirId| match by {
        By::Nothing => None,
        By::User => Some(uid),
        By::Directory(_) => Some(units.get(dir.index()).copied().unwrap_or(DirId::ROOT).0),
    };
    let count = usize::try_from(days).unwrap_or(usize::MAX).saturating_add(1);
    let mut all = Sum::default();
    let each = |sum: &mut Sum, file: &Due<'_>| {
        let share = (1, file.entry.size.into());
        // A directory that goes as a whole is its owner's.
        let subject = subject(file.with.unwrap_or(file.entry.uid), file.entry.parent);
        sum.add(day_of(file.due, at.now), count, share, subject);
    };
    let within = u64::from(days).saturating_mul(DAY);
    let (trees, parts) = pass(index, rules, at, (within, true), each)?;
    for tree in trees {
        // Its files are told one by one; one without any is told as well.
        let subject = subject(tree.uid, tree.dir);
        all.add(day_of(tree.due, at.now), count, (0, 0), subject);
    }
    parts.into_iter().for_each(|part| all.merge(part, count));
    all.days.resize(count, (0, 0));
    Ok(Outlook {
        days: all.days,
        subjects: all.subjects,
    })
}

/// 0: due now; 1: within the next 24 hours.
fn day_of(due: Seconds, now: Seconds) -> usize {
    let left = u64::from(due.0.saturating_sub(now.0));
    usize::try_from(left.div_ceil(DAY)).unwrap_or(usize::MAX)
}

#[derive(Default)]
struct Sum {
    days: Vec<Share>,
    subjects: FxHashMap<u32, Vec<Share>>,
}

impl Sum {
    fn add(&mut self, day: usize, count: usize, share: Share, subject: Option<u32>) {
        put(&mut self.days, day, count, share);
        if let Some(subject) = subject {
            put(self.subjects.entry(subject).or_default(), day, count, share);
        }
    }

    fn merge(&mut self, other: Self, count: usize) {
        for (day, share) in other.days.into_iter().enumerate() {
            put(&mut self.days, day, count, share);
        }
        for (subject, days) in other.subjects {
            let mine = self.subjects.entry(subject).or_default();
            for (day, share) in days.into_iter().enumerate() {
                put(mine, day, count, share);
            }
        }
    }
}

fn put(days: &mut Vec<Share>, day: usize, count: usize, share: Share) {
    if days.is_empty() {
        days.resize(count, (0, 0));
    }
    if let Some(mine) = days.get_mut(day) {
        *mine = (mine.0.saturating_add(share.0), mine.1.saturating_add(share.1));
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
