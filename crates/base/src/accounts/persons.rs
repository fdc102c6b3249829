//! Whose the uids are that one person may use besides their own: `/etc/subuid` gives each user 65,536 of them by default, for containers
//! (`subuid(5)`). What binds one user must bind all uids of that user together.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::entries;
use purge_sys::trusted;

/// Where the ranges stand.
const SUBUID: &str = "/etc/subuid";
/// A larger file is not believed.
const SUBUID_BYTES_MAX: u64 = 16 << 20;

/// Which uids are one person's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Persons {
    /// Ranges in their order: the first uid, how many there are, and whose they are.
    ranges: Vec<(u32, u32, u32)>,
    /// Accounts of their own, also where a range has their number.
    accounts: HashSet<u32>,
}

impl Persons {
    /// Of this host.
    pub fn of_host() -> Self {
        let text = match trusted::read(Path::new(SUBUID), SUBUID_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => {
                if !error.is_absent() {
                    tracing::warn!(path = SUBUID, %error, "each subordinate uid counts as a user of its own");
                }
                return Self::default();
            }
        };
        Self::read(&text, &fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    /// From lines `NAME:FIRST:COUNT`, where a name may be a uid, and the lines of a user database. Users whom a directory service knows
    /// are not asked for: their ranges belong to the first uid in them.
    pub fn read(subuid: &str, passwd: &str) -> Self {
        let ids: HashMap<&str, u32> = entries(passwd).collect();
        let mut firsts: HashMap<&str, u32> = HashMap::new();
        let mut ranges = Vec::new();
        for line in subuid.lines() {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let [name, first, count] = fields.as_slice() else {
                continue;
            };
            let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else {
                continue;
            };
            let known = ids.get(name).copied().or_else(|| name.parse().ok());
            let person = known.unwrap_or_else(|| *firsts.entry(name).or_insert(first));
            // Root's ranges are for the containers of many.
            if person != 0 && count > 0 {
                ranges.push((first, count, person));
            }
        }
        ranges.sort_unstable();
        Self {
            ranges,
            accounts: ids.into_values().collect(),
        }
    }

    /// The uid that stands for the person who has this one.
    pub fn of(&self, uid: u32) -> u32 {
        let end = self.ranges.partition_point(|(first, _, _)| *first <= uid);
        let range = self.ranges.get(..end).and_then(<[_]>::last);
        match range {
            Some((first, count, person))
                if uid.saturating_sub(*first) < *count && !self.accounts.contains(&uid) =>
            {
                *person
            }
            _ => uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uids_in_the_range_of_a_user_are_that_users() {
        let passwd = "root:x:0:0::/:\nann:x:1000:1000::/:\nbob:x:1001:1001::/:\nodd:x:100005:1::/:\n";
        let subuid = "ann:100000:65536\n1001:165536:65536\nldap user:300000:10\nldap user:400000:10\nroot:500000:10\nbad\nx:y:z\n";
        let persons = Persons::read(subuid, passwd);
        for (uid, person) in [
            (1000, 1000),
            (99_999, 99_999),
            (100_000, 1000),
            (165_535, 1000),
            (165_536, 1001),
            (231_071, 1001),
            (231_072, 231_072),
            (300_009, 300_000),
            (400_000, 300_000),
            (400_010, 400_010),
            (500_000, 500_000),
            // An account of its own.
            (100_005, 100_005),
        ] {
            assert_eq!(persons.of(uid), person, "{uid}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z0-9]{0,4}:[0-9]{0,11}:[0-9]{0,11}\n){0,9}", uid: u32) {
            let _ = Persons::read(&text, "a:x:1:1\n").of(uid);
        }
    }
}
