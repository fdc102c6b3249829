//! What runs took by which rule. Rules have their names from the configuration; a quota's or watermark's run goes by the name of
//! that. So there are as many series as an administrator has written down.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Names that are told apart; all others that reloads bring in the life of one process are summed up under [`OTHERS`].
const NAMES_MAX: usize = 1000;
/// A name that no rule can have.
const OTHERS: &str = "(others)";

/// What became of things that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// They are no more.
    Deleted,
    /// They went into the trash.
    Trashed,
}

impl How {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Deleted, Self::Trashed];

    /// In metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Trashed => "trashed",
        }
    }
}

/// Some of what was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Regular files, those in directories that went as a whole included.
    pub files: u64,
    /// Directories that were candidates themselves.
    pub directories: u64,
    /// Apparent sizes.
    pub bytes: u64,
}

impl Amount {
    /// As much more.
    pub fn add(&mut self, more: Self) {
        self.files = self.files.saturating_add(more.files);
        self.directories = self.directories.saturating_add(more.directories);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// What rules took on one volume.
#[derive(Debug, Default)]
pub struct ByRule(Mutex<BTreeMap<String, [Amount; How::ALL.len()]>>);

impl ByRule {
    /// A rule took something.
    pub fn add(&self, rule: &str, how: How, amount: Amount) {
        let mut all = self.0.lock();
        let name = if all.contains_key(rule) || all.len() < NAMES_MAX {
            rule
        } else {
            OTHERS
        };
        let [deleted, trashed] = all.entry(name.to_owned()).or_default();
        match how {
            How::Deleted => deleted.add(amount),
            How::Trashed => trashed.add(amount),
        }
    }

    /// What each rule took; of the rules `known` also those that took nothing.
    pub fn counted<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> Vec<(String, How, Amount)> {
        let mut all = self.0.lock().clone();
        for rule in known {
            if !all.contains_key(rule) && all.len() < NAMES_MAX {
                all.insert(rule.to_owned(), <[Amount; 2]>::default());
            }
        }
        let rows = all.into_iter();
        rows.flat_map(|(rule, amounts)| {
            How::ALL
                .into_iter()
                .zip(amounts)
                .map(move |(how, amount)| (rule.clone(), how, amount))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Amount = Amount {
        files: 1,
        directories: 2,
        bytes: 3,
    };

    #[test]
    fn what_rules_took_adds_up_and_idle_rules_are_named() {
        let by_rule = ByRule::default();
        by_rule.add("a", How::Trashed, ONE);
        by_rule.add("a", How::Trashed, ONE);
        let none = Amount::default();
        let twice = Amount {
            files: 2,
            directories: 4,
            bytes: 6,
        };
        let rows = by_rule.counted(["b"]);
        let expected = [
            ("a", How::Deleted, none),
            ("a", How::Trashed, twice),
            ("b", How::Deleted, none),
            ("b", How::Trashed, none),
        ];
        assert_eq!(
            rows,
            expected.map(|(rule, how, amount)| (rule.to_owned(), how, amount))
        );
    }

    #[test]
    fn names_are_bounded_and_nothing_is_lost() {
        let by_rule = ByRule::default();
        for n in 0..NAMES_MAX + 50 {
            by_rule.add(&format!("r{n}"), How::Deleted, ONE);
        }
        let rows = by_rule.counted(["one-more"]);
        assert!(rows.len() <= (NAMES_MAX + 1) * 2, "{}", rows.len());
        let files: u64 = rows.iter().map(|(_, _, a)| a.files).sum();
        assert_eq!(files, NAMES_MAX as u64 + 50);
    }
}
