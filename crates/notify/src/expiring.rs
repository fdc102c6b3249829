//! Whose files will expire, and whether they know already. Pure.
//!
//! An owner hears of a file when its expiry comes into sight, and not again until it is used and comes into sight again: the
//! moment up to which expiries were told moves forward only. What lies before that moment and is more than was told then has come
//! there by another way (an old tree unpacked under a rule of modification times), and the owner gets a notice of it as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use purge_model::Seconds;
use purge_policy::evaluate::{Pick, Shape};

/// What one owner was told about one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// How many times: names the next event.
    pub times: u64,
    /// When, seconds since 1970.
    pub at: u32,
    /// Expiries up to here were told.
    pub until: u32,
    /// The number of files and directories that were told.
    pub entries: u64,
    /// The rule as it was then.
    pub rule: u64,
}

/// An owner's files that expire within the time looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    /// Files.
    pub files: u64,
    /// Whole directories.
    pub directories: u64,
    /// Files in those directories.
    pub files_inside: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// The first expiry.
    pub first: Seconds,
    /// Entries that expire after what the owner was told of.
    pub later: u64,
    /// The first to expire, in that order, no more than asked for.
    pub picks: Vec<Pick>,
}

impl Share {
    /// Files and directories.
    pub fn entries(&self) -> u64 {
        self.files.saturating_add(self.directories)
    }
}

/// When a rule takes an entry if no process uses it.
pub fn expires(pick: &Pick, ttl: u64) -> Seconds {
    // Strictly older than the ttl: the second after.
    pick.last.at.plus(ttl).plus(1)
}

/// Shares of owners, each with the `named` entries that expire first. `told` says up to when an owner was told.
pub fn by_owner(
    picks: Vec<Pick>,
    ttl: u64,
    named: usize,
    owner: impl Fn(&Pick) -> Option<u32>,
    told: impl Fn(u32) -> Option<Seconds>,
) -> BTreeMap<u32, Share> {
    let mut all: BTreeMap<u32, Share> = BTreeMap::new();
    for pick in picks {
        let Some(uid) = owner(&pick) else { continue };
        let share = all.entry(uid).or_insert_with(|| Share {
            first: Seconds::MAX,
            ..Share::default()
        });
        match pick.shape {
            Shape::File => share.files = share.files.saturating_add(1),
            Shape::Tree => {
                share.directories = share.directories.saturating_add(1);
                share.files_inside = share.files_inside.saturating_add(pick.files.into());
            }
            Shape::EmptyDirectory | Shape::Link(_) => continue,
        }
        share.bytes = share.bytes.saturating_add(pick.bytes);
        let at = expires(&pick, ttl);
        share.first = share.first.min(at);
        if told(uid).is_none_or(|until| at > until) {
            share.later = share.later.saturating_add(1);
        }
        share.picks.push(pick);
        // Twice as many as are wanted at most, so that memory does not follow the number of files.
        if share.picks.len() > named.saturating_mul(2).max(64) {
            keep_first(&mut share.picks, named);
        }
    }
    for share in all.values_mut() {
        keep_first(&mut share.picks, named);
    }
    all.retain(|_, share| share.entries() > 0);
    all
}

fn keep_first(picks: &mut Vec<Pick>, named: usize) {
    picks.sort_unstable_by_key(|p| (p.last.at, std::cmp::Reverse(p.bytes), p.ino));
    picks.truncate(named);
}

/// Whether there is anything new to tell an owner, who was told that last, at most once in this number of seconds. `rule` changes
/// when the rule does.
pub fn is_news(told: Option<&Told>, share: &Share, rule: u64, now: Seconds, every: u64) -> bool {
    let Some(told) = told else { return true };
    if Seconds(told.at).age_at(now) < every {
        return false;
    }
    let before = share.entries().saturating_sub(share.later);
    told.rule != rule || share.later > 0 || before > told.entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use purge_index::DirId;
    use purge_model::{LastUse, Source};

    fn pick(ino: u64, last: u32, bytes: u64) -> Pick {
        Pick {
            ino,
            parent: DirId::ROOT,
            shape: Shape::File,
            last: LastUse {
                at: Seconds(last),
                source: Source::Observed,
            },
            birth: Seconds(0),
            bytes,
            takes: bytes,
            files: 1,
            rule: 0,
        }
    }

    #[test]
    fn each_owner_has_a_share_with_the_first_to_expire() {
        let picks = (0..1000).map(|i| pick(i, 2000 - i as u32, 10)).collect();
        let all = by_owner(
            picks,
            100,
            3,
            |p| Some((p.ino % 2) as u32),
            |_| Some(Seconds(2000)),
        );
        assert_eq!(all.len(), 2);
        let odd = all.get(&1).cloned().unwrap_or_default();
        assert_eq!((odd.files, odd.bytes), (500, 5000));
        assert_eq!(
            odd.picks.iter().map(|p| p.ino).collect::<Vec<_>>(),
            [999, 997, 995]
        );
        assert_eq!(odd.first, Seconds(1001 + 101));
        assert_eq!(odd.later, 50, "last used after 1899");
    }

    #[test]
    fn an_owner_hears_of_an_expiry_once_and_not_more_than_once_a_day() {
        let share = |files, later| Share {
            files,
            later,
            ..Share::default()
        };
        let told = Told {
            times: 1,
            at: 1000,
            until: 5000,
            entries: 10,
            rule: 7,
        };
        let day = 86_400;
        let tomorrow = Seconds(1000 + 86_400);
        assert!(is_news(None, &share(1, 1), 7, tomorrow, day));
        assert!(!is_news(Some(&told), &share(10, 0), 7, tomorrow, day), "all told");
        assert!(
            !is_news(Some(&told), &share(4, 0), 7, tomorrow, day),
            "some were used"
        );
        assert!(
            is_news(Some(&told), &share(5, 1), 7, tomorrow, day),
            "one came into sight"
        );
        assert!(
            is_news(Some(&told), &share(11, 0), 7, tomorrow, day),
            "one came from aside"
        );
        assert!(
            is_news(Some(&told), &share(10, 0), 8, tomorrow, day),
            "another rule"
        );
        assert!(
            !is_news(Some(&told), &share(99, 9), 7, Seconds(2000), day),
            "told today"
        );
    }
}
