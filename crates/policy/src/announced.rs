//! Rules that announce what they will take: a file goes only if a list that is old enough named it. Pure.
//!
//! A list names what has expired or will within `announce`. What is named stays named from list to list as long as it is the
//! same file with the same last use. A file that was used, held, or out of the rule's scope meanwhile begins again.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::last_use::expires_at;
use crate::rule::Rule;
use purge_model::{Inode, Seconds};

/// A file that the lists of a rule name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Which.
    pub ino: Inode,
    /// Its birth, which tells it from a later file with this inode.
    pub birth: Seconds,
    /// Its last use as the rule sees it.
    pub last: Seconds,
    /// When it was named first.
    pub at: Seconds,
}

/// Everything that the last list of a rule named, by inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named(Vec<Name>);

impl Named {
    /// From a stored list.
    pub fn new(mut names: Vec<Name>) -> Self {
        names.sort_unstable();
        Self(names)
    }

    /// All, by inode.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Since when a file is named without a break.
    pub fn since(&self, ino: Inode, birth: Seconds, last: Seconds) -> Option<Seconds> {
        let place = self.0.binary_search_by_key(&ino, |name| name.ino).ok()?;
        let name = self.0.get(place)?;
        (name.birth == birth && name.last == last).then_some(name.at)
    }

    /// The list that follows: `present` is what it names, with birth and last use.
    pub fn next(&self, present: impl Iterator<Item = (Inode, Seconds, Seconds)>, now: Seconds) -> Self {
        let names = present.map(|(ino, birth, last)| Name {
            ino,
            birth,
            last,
            // A clock that was set back makes lists of the future.
            at: self.since(ino, birth, last).map_or(now, |at| at.min(now)),
        });
        Self::new(names.collect())
    }
}

/// What the last lists of all announcing rules named.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    /// The present, which a list that is still to come cannot lie before.
    pub now: Seconds,
    /// By rule.
    pub by_rule: FxHashMap<String, Arc<Named>>,
}

impl Announced {
    /// Since when the rule's lists name a file.
    pub fn since(&self, rule: &Rule, ino: Inode, birth: Seconds, last: Seconds) -> Option<Seconds> {
        self.by_rule.get(&rule.name)?.since(ino, birth, last)
    }

    /// The first second at which the rule may take a file, regardless of its age.
    pub fn allows_from(&self, rule: &Rule, ino: Inode, birth: Seconds, last: Seconds) -> Seconds {
        if rule.announce == 0 {
            return Seconds::MIN;
        }
        let since = self.since(rule, ino, birth, last).unwrap_or(self.now);
        expires_at(since, rule.announce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_named_until_it_is_used_or_missing_from_a_list() {
        let at = Seconds;
        let first = Named::default().next([(7, at(1), at(5)), (3, at(1), at(4))].into_iter(), at(100));
        assert_eq!(first.since(7, at(1), at(5)), Some(at(100)));
        // 3 was used, 7 was not.
        let second = first.next([(3, at(1), at(90)), (7, at(1), at(5))].into_iter(), at(200));
        assert_eq!(second.since(7, at(1), at(5)), Some(at(100)));
        assert_eq!(second.since(3, at(1), at(90)), Some(at(200)));
        assert_eq!(second.since(3, at(1), at(4)), None);
        assert_eq!(second.since(7, at(2), at(5)), None, "another file has the inode");
        // 7 was held for one list.
        let third = second.next([(3, at(1), at(90))].into_iter(), at(300));
        let fourth = third.next([(7, at(1), at(5))].into_iter(), at(400));
        assert_eq!(fourth.since(7, at(1), at(5)), Some(at(400)));
        // The clock was set back.
        assert_eq!(
            fourth
                .next([(7, at(1), at(5))].into_iter(), at(50))
                .since(7, at(1), at(5)),
            Some(at(50))
        );
    }

    #[test]
    fn a_rule_takes_what_was_named_for_longer_than_it_announces() {
        let mut rule = Rule::everything_older("v", 1);
        let named = Named::default().next([(7, Seconds(1), Seconds(5))].into_iter(), Seconds(100));
        let announced = Announced {
            now: Seconds(150),
            by_rule: [(rule.name.clone(), Arc::new(named))].into_iter().collect(),
        };
        let from = |rule: &Rule, last| announced.allows_from(rule, 7, Seconds(1), Seconds(last));
        assert_eq!(from(&rule, 5), Seconds::MIN);
        rule.announce = 60;
        assert_eq!(from(&rule, 5), Seconds(161));
        assert_eq!(from(&rule, 6), Seconds(211), "no list names it yet");
    }
}
