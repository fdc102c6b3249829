//! What a plan takes although it may have been used in a stretch that was not watched, because `gap_tolerance` forgives it. Pure.

use super::last_use::is_expired;
use crate::rule::Rule;
use purge_model::Seconds;

/// The forgiven stretches that a plan rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgiven {
    /// How many.
    pub stretches: u64,
    /// How long they were in all.
    pub seconds: u64,
    /// Candidates that may have been used in one of them.
    pub taken: u64,
}

/// Whether a use within the stretch would keep a file from the rule.
pub fn decides(rule: &Rule, (_, to): (Seconds, Seconds), now: Seconds) -> bool {
    // A quota or a watermark takes the oldest, regardless of their age.
    rule.clocks.access && rule.ttl.is_none_or(|ttl| !is_expired(to, now, ttl))
}

/// What of `gaps` decides over the candidates: `taken` has for each rule how many they are.
pub fn forgiven<'a>(
    gaps: &[(Seconds, Seconds)],
    now: Seconds,
    taken: impl Iterator<Item = (&'a Rule, u64)> + Clone,
) -> Forgiven {
    let concerned = |rule: &Rule| gaps.iter().any(|gap| decides(rule, *gap, now));
    let taken = taken.filter(|(_, count)| *count > 0);
    let mut found = Forgiven {
        taken: taken
            .clone()
            .filter(|(rule, _)| concerned(rule))
            .fold(0, |sum, (_, count)| sum.saturating_add(count)),
        ..Forgiven::default()
    };
    for gap in gaps {
        if taken.clone().any(|(rule, _)| decides(rule, *gap, now)) {
            found.stretches = found.stretches.saturating_add(1);
            found.seconds = found.seconds.saturating_add(gap.0.age_at(gap.1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use purge_model::Clocks;

    fn rule(ttl: Option<u64>, clocks: Clocks) -> Rule {
        Rule {
            ttl,
            clocks,
            ..Rule::everything_older("v", 1)
        }
    }

    #[test]
    fn only_what_a_use_in_the_stretch_would_have_kept_is_named() {
        let gaps = [(Seconds(100), Seconds(110)), (Seconds(900), Seconds(924))];
        let (short, long) = (rule(Some(200), Clocks::ALL), rule(Some(5000), Clocks::ALL));
        let unread = Clocks {
            access: false,
            ..Clocks::ALL
        };
        let (blind, quota) = (rule(Some(5000), unread), rule(None, Clocks::ALL));
        let of = |taken: &[(&Rule, u64)]| {
            let found = forgiven(&gaps, Seconds(1000), taken.iter().copied());
            (found.stretches, found.seconds, found.taken)
        };
        assert_eq!(of(&[(&short, 7)]), (1, 24, 7));
        assert_eq!(of(&[(&short, 7), (&long, 3)]), (2, 34, 10));
        assert_eq!(of(&[(&short, 7), (&long, 0)]), (1, 24, 7));
        assert_eq!(of(&[(&blind, 7)]), (0, 0, 0));
        assert_eq!(of(&[(&quota, 7)]), (2, 34, 7));
        assert_eq!(of(&[]), (0, 0, 0));
    }
}
