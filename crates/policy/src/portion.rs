//! Shares of a volume, as the limits against too much deletion see them. Pure.
//!
//! Two measures count, and the larger decides: the number of files, and what they take on the disk. One user can make each of them large:
//! with many empty files, or with large ones. A limit that a few owners exceed must keep the files of those, and not everyone's.

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

    /// By how much this is more than some share of `whole`: files and what they take, together.
    fn excess(self, whole: Self, limit: f64) -> f64 {
        let of = |part: u64, whole: u64| match (part, whole) {
            (0, _) => 0.0,
            // More than all.
            (_, 0) => 2.0,
            _ => (part as f64 / whole as f64 - limit).max(0.0),
        };
        of(self.files, whole.files) + of(self.takes, whole.takes)
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

/// Owners whose files one plan leaves out at most.
const LEFT_OUT_MAX: usize = 64;

/// The owners without whose files the rest is within the limit, where all of it together is not: as few as are found. None where no such
/// owners are found, or nothing is left without them.
///
/// The rest is compared with what the others have, and not with the volume: a rule that takes all files of all owners is refused, however
/// much of them belongs to one. An owner is a person, with all uids that this person may use.
pub fn owners_too_many(
    limit: f64,
    going: (Portion, &ByOwner),
    volume: Portion,
    has: impl Fn(u32) -> Portion,
) -> Option<Vec<u32>> {
    let (mut rest, mut others) = (going.0, volume);
    if rest.share_of(others) <= limit {
        return None;
    }
    let mut left: Vec<(u32, Portion, Portion)> = going
        .1
        .iter()
        .map(|(uid, part)| (*uid, *part, has(*uid)))
        .collect();
    let mut out = Vec::new();
    while out.len() < LEFT_OUT_MAX && rest.share_of(others) > limit {
        // Without which one least is too much; of several, the one with most.
        let without =
            |(_, part, has): &(u32, Portion, Portion)| rest.minus(*part).excess(others.minus(*has), limit);
        let share = |o: &(u32, Portion, Portion)| o.1.share_of(volume);
        let best = left.iter().enumerate().min_by(|(_, a), (_, b)| {
            without(a)
                .total_cmp(&without(b))
                .then(share(b).total_cmp(&share(a)))
                .then(a.0.cmp(&b.0))
        });
        let (place, _) = best?;
        let one = left.swap_remove(place);
        (rest, others) = (rest.minus(one.1), others.minus(one.2));
        out.push(one);
    }
    let fits = |rest: Portion, others: Portion| others.files > 0 && rest.share_of(others) <= limit;
    // Those who turn out to be within the limit with the rest come back; each of them can make room for more.
    let mut before = usize::MAX;
    while out.len() < before {
        before = out.len();
        out.retain(|(_, part, has)| {
            let (with, all) = (rest.plus(*part), others.plus(*has));
            let comes_back = fits(with, all);
            if comes_back {
                (rest, others) = (with, all);
            }
            !comes_back
        });
    }
    let is_found = rest.files > 0 && fits(rest, others);
    is_found.then(|| out.into_iter().map(|(uid, _, _)| uid).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(files: u64, takes: u64) -> Portion {
        Portion {
            files,
            bytes: takes,
            takes,
        }
    }

    /// By uid: (what goes, what there is).
    fn asked(owners: &[(u32, Portion, Portion)]) -> Option<Vec<u32>> {
        let by_owner: ByOwner = owners.iter().map(|(uid, going, _)| (*uid, *going)).collect();
        let sum = |all: Portion, one: Portion| all.plus(one);
        let all = owners.iter().map(|o| o.1).fold(Portion::default(), sum);
        let volume = owners.iter().map(|o| o.2).fold(Portion::default(), sum);
        let has = |uid| owners.iter().find(|o| o.0 == uid).map_or(of(0, 0), |o| o.2);
        owners_too_many(0.25, (all, &by_owner), volume, has)
    }

    #[test]
    fn many_empty_files_of_one_owner_are_left_out() {
        let others = (2, of(40, 400), of(400, 8000));
        assert_eq!(asked(&[(1, of(300, 0), of(300, 0)), others]), Some(vec![1]));
        assert_eq!(asked(&[(1, of(3, 9000), of(3, 9000)), others]), Some(vec![1]));
        // Within the limit.
        assert_eq!(asked(&[(1, of(10, 0), of(300, 0)), others]), None);
    }

    /// One person may have many uids, which nothing tells to be that person's.
    #[test]
    fn several_owners_are_left_out_where_one_is_not_enough() {
        let honest = (2, of(40, 40_000), of(400, 400_000));
        for uids in [2u32, 3, 40, 64] {
            let mut owners: Vec<_> = (100..100 + uids)
                .map(|uid| (uid, of(400, 0), of(400, 0)))
                .collect();
            owners.push(honest);
            let mut out = asked(&owners).unwrap_or_default();
            out.sort_unstable();
            // The volume is larger with the empty files of those who stay in the plan.
            assert!(!out.contains(&2) && !out.is_empty(), "{uids}: {out:?}");
        }
        // One by the number of files, another by what they take.
        let by_both = [
            (3, of(900, 0), of(900, 0)),
            (4, of(1, 900_000), of(1, 900_000)),
            honest,
        ];
        let mut out = asked(&by_both).unwrap_or_default();
        out.sort_unstable();
        assert_eq!(out, [3, 4]);
    }

    #[test]
    fn an_owner_who_fits_is_not_left_out_because_that_owner_has_most() {
        let most = (2, of(190, 190), of(800, 800));
        assert_eq!(asked(&[most, (1, of(100, 100), of(200, 200))]), Some(vec![1]));
    }

    proptest! {
        /// What goes without those who are left out is within the limit of what the others have, and none is left out without need.
        #[test]
        fn what_goes_is_within_the_limit(
            owners in prop::collection::vec((0u64..500, 0u64..5000, 0u64..500, 0u64..5000), 1..20),
            honest in 0u64..100,
        ) {
            let mut owners: Vec<_> = (1u32..).zip(owners).map(|(uid, (files, takes, more, room))| {
                (uid, of(files, takes), of(files + more, takes + room))
            }).collect();
            owners.push((1000, of(honest, honest), of(1000, 1000)));
            let sum = |of: &dyn Fn(&(u32, Portion, Portion)) -> Portion, left: &[u32]| {
                let stay = owners.iter().filter(|o| !left.contains(&o.0));
                stay.map(of).fold(Portion::default(), Portion::plus)
            };
            let share = |left: &[u32]| sum(&|o| o.1, left).share_of(sum(&|o| o.2, left));
            match asked(&owners) {
                Some(out) => {
                    prop_assert!(!out.is_empty() && share(&[]) > 0.25 && share(&out) <= 0.25);
                    for one in &out {
                        let fewer: Vec<u32> = out.iter().copied().filter(|o| o != one).collect();
                        prop_assert!(share(&fewer) > 0.25, "{one} need not be left out");
                    }
                }
                None => prop_assert!(share(&[]) <= 0.25 || owners.len() > 2 || honest == 0),
            }
        }
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
