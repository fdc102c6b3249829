//! Which of many file rules are asked of a file: those that can speak of its directory and of its owner. What is found out for one file holds
//! for all of the same directory and owner.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::circumstances::Circumstances;
use super::last_use::{covered, last_use};
use super::reach::Reach;
use crate::rule::Rule;
use purge_index::Attributes;
use purge_model::{Clocks, LastUse};

/// The answers are remembered for this number of directories and owners.
const REMEMBERED_MAX: usize = 100_000;

/// What is asked of a file.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Positions of the rules that may take it, in their order.
    pub rules: Vec<u16>,
}

/// The choices of one thread.
pub(super) struct Choices<'r> {
    rules: &'r [(u16, &'r Rule, u64)],
    reach: &'r Reach,
    /// Without any: every rule is asked.
    all: Option<Arc<Chosen>>,
    known: FxHashMap<(u32, u32, u32), Arc<Chosen>>,
    last: Option<((u32, u32, u32), Arc<Chosen>)>,
}

/// With so few rules it takes longer to choose than to ask.
const ASKED_ALL: usize = 2;

impl<'r> Choices<'r> {
    pub fn of(rules: &'r [(u16, &'r Rule, u64)], reach: &'r Reach) -> Self {
        let all = (rules.len() <= ASKED_ALL).then(|| {
            Arc::new(Chosen {
                rules: (0..rules.len()).filter_map(|n| u16::try_from(n).ok()).collect(),
            })
        });
        Self {
            rules,
            reach,
            all,
            known: FxHashMap::default(),
            last: None,
        }
    }

    /// For a file.
    pub fn of_file(&mut self, entry: &Attributes) -> Arc<Chosen> {
        if let Some(all) = &self.all {
            return Arc::clone(all);
        }
        let key = (self.reach.list_of(entry.parent), entry.uid, entry.gid);
        if let Some((of, chosen)) = &self.last
            && *of == key
        {
            return Arc::clone(chosen);
        }
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        let (rules, reach) = (self.rules, self.reach);
        let chosen = self
            .known
            .entry(key)
            .or_insert_with(|| Arc::new(choose(rules, reach.rules(key.0), (key.1, key.2))));
        let chosen = Arc::clone(chosen);
        self.last = Some((key, Arc::clone(&chosen)));
        chosen
    }
}

fn choose(rules: &[(u16, &Rule, u64)], near: &[u16], (uid, gid): (u32, u32)) -> Chosen {
    let mut chosen = Chosen::default();
    let mut near = near.iter().peekable();
    for (n, (_, rule, _)) in (0u16..).zip(rules) {
        let is_near = near.next_if(|next| **next == n).is_some();
        if is_near && rule.scope.admits_owner(uid, gid) {
            chosen.rules.push(n);
        }
    }
    chosen
}

/// The last uses of a file by the clocks of several rules, each found out once.
pub(super) struct Lasts<'e> {
    entry: &'e Attributes,
    access: LastUse,
    at: &'e Circumstances,
    known: Option<(Clocks, LastUse)>,
}

impl<'e> Lasts<'e> {
    pub fn of((entry, access): (&'e Attributes, LastUse), at: &'e Circumstances) -> Self {
        Self {
            entry,
            access,
            at,
            known: None,
        }
    }

    /// By these clocks; an unwatched stretch counts as a use.
    pub fn by(&mut self, clocks: Clocks) -> LastUse {
        if let Some((of, last)) = self.known
            && of == clocks
        {
            return last;
        }
        let last = last_use(
            self.entry,
            covered(self.access, self.at.gap_end),
            clocks,
            self.at.now,
        );
        self.known = Some((clocks, last));
        last
    }

    /// The same without unwatched stretches.
    pub fn seen_by(&self, clocks: Clocks) -> LastUse {
        last_use(self.entry, self.access, clocks, self.at.now)
    }
}
