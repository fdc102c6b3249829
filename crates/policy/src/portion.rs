//! Shares of a volume, as the limits against too much deletion see them. Pure.
//!
//! Two measures count, and the larger decides: the number of files, and what they take on the disk. One user can make each of them large:
//! with many empty files, or with large ones. A limit that one owner alone exceeds must keep that owner's files, and not everyone's.

use rustc_hash::FxHashMap;

/// Some files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Portion {
    /// How many.
    pub files: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// Of each file the smaller of its size and its space on the disk.
    pub takes: u64,
}

/// Files by the uid of their owner.
pub type ByOwner = FxHashMap<u32, Portion>;

impl Portion {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
            takes: self.takes.saturating_add(other.takes),
        }
    }

    /// Without those.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_sub(other.files),
            bytes: self.bytes.saturating_sub(other.bytes),
            takes: self.takes.saturating_sub(other.takes),
        }
    }

    /// Which share of `whole` this is: of the files or of what they take, whichever is more.
    pub fn share_of(self, whole: Self) -> f64 {
        let share = |part: u64, whole: u64| match whole {
            0 => 0.0,
            whole => part as f64 / whole as f64,
        };
        share(self.files, whole.files).max(share(self.takes, whole.takes))
    }
}

/// The owner without whose files the rest is within the limit, where all of it together is not; none where one owner has everything.
///
/// The rest is compared with what the others have, and not with the volume: a rule that takes all files of all owners is refused, however
/// much of them belongs to one.
pub fn one_owner_too_many(
    limit: f64,
    going: (Portion, &ByOwner),
    volume: Portion,
    has: impl Fn(u32) -> Portion,
) -> Option<u32> {
    let (all, by_owner) = going;
    if all.share_of(volume) <= limit {
        return None;
    }
    let fits_without = |(uid, part): &(&u32, &Portion)| {
        let (rest, others) = (all.minus(**part), volume.minus(has(**uid)));
        others.files > 0 && rest.share_of(others) <= limit
    };
    let share = |part: &Portion| part.share_of(volume);
    let found = by_owner.iter().filter(fits_without);
    let most = found.max_by(|a, b| share(a.1).total_cmp(&share(b.1)).then(b.0.cmp(a.0)));
    most.map(|(uid, _)| *uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: u64, takes: u64) -> Portion {
        Portion {
            files,
            bytes: takes,
            takes,
        }
    }

    /// By uid: (what goes, what there is).
    fn asked(owners: &[(u32, Portion, Portion)]) -> Option<u32> {
        let by_owner: ByOwner = owners.iter().map(|(uid, going, _)| (*uid, *going)).collect();
        let sum = |all: Portion, one: Portion| all.plus(one);
        let all = owners.iter().map(|o| o.1).fold(Portion::default(), sum);
        let volume = owners.iter().map(|o| o.2).fold(Portion::default(), sum);
        let has = |uid| owners.iter().find(|o| o.0 == uid).map_or(of(0, 0), |o| o.2);
        one_owner_too_many(0.25, (all, &by_owner), volume, has)
    }

    #[test]
    fn many_empty_files_of_one_owner_are_left_out() {
        let others = (2, of(40, 400), of(400, 8000));
        assert_eq!(asked(&[(1, of(300, 0), of(300, 0)), others]), Some(1));
        assert_eq!(asked(&[(1, of(3, 9000), of(3, 9000)), others]), Some(1));
        // Within the limit.
        assert_eq!(asked(&[(1, of(10, 0), of(300, 0)), others]), None);
    }

    #[test]
    fn a_rule_that_takes_too_much_of_everyone_is_refused_as_it_was() {
        // One owner has most of the volume; the others' small part goes as a whole.
        let others = (2, of(40, 400), of(40, 400));
        assert_eq!(asked(&[(1, of(900, 9000), of(900, 9000)), others]), None);
        // There is one owner.
        assert_eq!(asked(&[(1, of(300, 0), of(400, 8000))]), None);
    }

    #[test]
    fn shares_of_nothing_are_nothing() {
        assert!(of(1, 1).share_of(of(0, 0)).abs() < f64::EPSILON);
    }
}
