//! Why a rule takes nothing (values).

use purge_proto::units::{format_count, format_duration};

use super::kept::{Kept, Stays};

/// Why a rule takes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nothing {
    /// Of a directory rule its depth.
    pub depth: Option<u32>,
    /// Its time to live.
    pub ttl: u64,
    /// What there is: files, or directories at its depth.
    pub there: u64,
    /// What of that is in its scope.
    pub in_scope: u64,
    /// Only some of the files were looked at.
    pub is_sample: bool,
    /// That by the reason why it stays.
    pub kept: Kept,
    /// Of a directory rule: the depth at which most directories of its scope lie, if more lie there than at its own, and how many.
    pub near: Option<(u32, u64)>,
}

impl Nothing {
    /// Counts a directory that stays.
    pub(super) fn count(&mut self, why: Stays) {
        self.there = self.there.saturating_add(1);
        if why != Stays::OutOfScope {
            self.in_scope = self.in_scope.saturating_add(1);
            self.kept.count(why, 1);
        }
    }

    /// For a person.
    pub fn in_words(&self) -> String {
        let thing = |n: u64| match (self.depth, n) {
            (Some(_), 1) => "directory",
            (Some(_), _) => "directories",
            (None, 1) => "file",
            (None, _) => "files",
        };
        let looked = if self.is_sample {
            " that were looked at"
        } else {
            ""
        };
        let at = self.depth.map(|d| format!(" at depth {d}")).unwrap_or_default();
        let own = match (self.in_scope, self.depth) {
            (0, Some(_)) => format!("scope matches 0 directories{at}"),
            (0, None) => format!(
                "scope matches 0 of {} {}{looked}",
                format_count(self.there),
                thing(self.there)
            ),
            (n, _) => format!(
                "scope matches {} {}{at}{looked}: {}",
                format_count(n),
                thing(n),
                self.reasons()
            ),
        };
        let near = self.near.map(|(depth, n)| {
            let lie = if n == 1 { "lies" } else { "lie" };
            format!("; {} {lie} at depth {depth}", format_count(n))
        });
        own + &near.unwrap_or_default()
    }

    fn reasons(&self) -> String {
        let k = &self.kept;
        let ttl = format_duration(self.ttl);
        let all = [
            (k.young, format!("used within {ttl}")),
            (k.announced, "announced, not ripe".into()),
            (k.held, "held".into()),
            (k.excluded, "excluded".into()),
            (k.mounted, "mounted".into()),
            (k.uncovered, "not observed long enough".into()),
            (k.limit, "beyond a limit".into()),
        ];
        let some = all.into_iter().filter(|(n, _)| *n > 0);
        let some: Vec<String> = some
            .map(|(n, why)| format!("{} {why}", format_count(n)))
            .collect();
        some.join(", ")
    }
}
