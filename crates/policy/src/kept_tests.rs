//! Every file of a volume is a candidate, lies in one, or stays for one reason: against a model that looks at every file.
#![allow(clippy::unwrap_used)]
use super::tests::{File, NOW, PARENT, build, file, model_last, path_of, rule};
use super::*;
use crate::expiring::expiring;
use crate::forecast::{By, forecast};
use crate::kept::Stays;
use crate::rule::Target;
use proptest::prelude::*;
use purge_model::{Clocks, Inode, Seconds};
use std::collections::BTreeSet;

/// From the root on, without it.
fn chain(dir: usize) -> Vec<usize> {
    match dir {
        0 => Vec::new(),
        d => {
            let mut above = chain(PARENT[d]);
            above.push(d);
            above
        }
    }
}

fn unit_of(dir: usize, depth: u32) -> Option<usize> {
    chain(dir).get(depth as usize - 1).copied()
}

/// A volume and the present.
struct Scene<'a> {
    files: &'a [File],
    held: &'a BTreeSet<Inode>,
}

impl Scene<'_> {
    fn is_held(&self, dir: usize) -> bool {
        chain(dir).iter().any(|d| self.held.contains(&(100 + *d as u64)))
    }

    fn is_file_held(&self, f: &File) -> bool {
        self.held.contains(&f.ino) || self.is_held(f.dir)
    }

    /// Why a directory rule leaves the files of a unit; none: it takes them.
    fn of_unit(&self, rule: &Rule, unit: usize, depth: u32) -> Option<Stays> {
        let inside = |dir: usize| unit_of(dir, depth) == Some(unit);
        let files: Vec<&File> = self.files.iter().filter(|f| inside(f.dir)).collect();
        let newest = files.iter().map(|f| model_last(f, rule.clocks, None)).max();
        let newest = newest.unwrap_or(0).max(NOW - 1000);
        let excluded = rule.scope.exclude.is_some()
            && (files.iter().any(|f| is_excluded(f)) || path_of(unit).starts_with("d1/d3"));
        let held = files.iter().any(|f| self.is_file_held(f)) || (1..6).any(|d| inside(d) && self.is_held(d));
        match () {
            () if u64::from(NOW - newest) <= rule.ttl.unwrap() => Some(Stays::Young),
            () if excluded => Some(Stays::Excluded),
            () if held => Some(Stays::Held),
            () => None,
        }
    }

    /// The same of a file rule and a file.
    fn of_file(&self, rule: &Rule, f: &File) -> Option<Stays> {
        match () {
            () if !rule.scope.admits_attributes(f.uid, 0, f.size) => Some(Stays::OutOfScope),
            () if u64::from(NOW - model_last(f, rule.clocks, None)) <= rule.ttl.unwrap() => {
                Some(Stays::Young)
            }
            () if rule.scope.exclude.is_some() && is_excluded(f) => Some(Stays::Excluded),
            () if self.is_file_held(f) => Some(Stays::Held),
            () => None,
        }
    }
}

fn is_excluded(f: &File) -> bool {
    f.name.ends_with(".tmp") || path_of(f.dir).starts_with("d1/d3")
}

fn target(depth: u32) -> Target {
    match depth {
        0 => Target::File,
        depth => Target::Directory { depth },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Of any rules, in any order, of files and of directories of one depth or of two.
    #[test]
    fn every_file_is_counted_by_its_reason(
        mut files in prop::collection::vec(file(), 0..25),
        depths in prop::collection::vec(0u32..3, 0..4),
        ttls in prop::collection::vec(1u64..250, 4),
        excludes in prop::collection::vec(any::<bool>(), 4),
        users in prop::option::of(prop::collection::vec(0u32..3, 1..3)),
        min_size in 0u64..20,
        held in prop::collection::btree_set(prop::sample::select(vec![101u64, 103, 105, 1000, 1037]), 0..2),
    ) {
        let index = build(&mut files);
        let rules: Vec<Rule> = depths.iter().enumerate().map(|(n, depth)| {
            let restricted = *depth == 0;
            let users = users.clone().filter(|_| restricted);
            let mut one = rule(ttls[n], Clocks::ALL, excludes[n], users, if restricted { min_size } else { 0 }, 0);
            one.target = target(*depth);
            one
        }).collect();
        let at = Circumstances {
            now: Seconds(NOW),
            held: held.iter().copied().collect(),
            ..Circumstances::default()
        };
        let found = evaluate_with(&index, &rules, &at, usize::MAX).unwrap();
        let scene = Scene { files: &files, held: &held };
        let mut order: Vec<usize> = (0..rules.len()).filter(|n| depths[*n] > 0).collect();
        order.sort_by_key(|n| depths[*n]);
        let (mut expected, mut going) = (Kept::default(), 0u64);
        let shortest = rules.iter().map(|rule| rule.ttl.unwrap()).min().unwrap_or(0);
        for f in &files {
            let mut why = Some(Stays::OutOfScope);
            // No rule can take it, so no file rule asks whether it is in its scope.
            if depths.contains(&0) && u64::from(NOW.saturating_sub(f.access)) <= shortest {
                expected.count(Stays::Young, 1);
                continue;
            }
            for n in order.iter().copied().chain((0..rules.len()).filter(|n| depths[*n] == 0)) {
                let said = match depths[n] {
                    0 => scene.of_file(&rules[n], f),
                    depth => match unit_of(f.dir, depth) {
                        Some(unit) => scene.of_unit(&rules[n], unit, depth),
                        None => Some(Stays::OutOfScope),
                    },
                };
                let is_held = depths[n] == 0 && said == Some(Stays::Held);
                why = why.zip(said).map(|(a, b)| a.max(b));
                if why.is_none() || is_held {
                    break;
                }
            }
            match why {
                Some(why) => expected.count(why, 1),
                None => going += 1,
            }
        }
        prop_assert_eq!(found.files(), going);
        prop_assert_eq!(found.kept, expected);
        prop_assert_eq!(found.files() + found.kept.all(), files.len() as u64);
        // Other answers name the same files.
        let due = expiring(&index, &rules, &at, (0, None)).unwrap();
        prop_assert_eq!(due.keys().filter(|ino| **ino >= 1000).count() as u64, going);
        let outlook = forecast(&index, &rules, &at, 1, By::Nothing).unwrap();
        prop_assert_eq!(outlook.days[0].0, going);
        // What goes with directories is what file rules take where there are no others.
        let alone: Vec<Rule> = rules.iter().filter(|r| r.target == Target::File).cloned().collect();
        let alone = evaluate(&index, &alone, &at).unwrap();
        let by_files = found.picks.iter().filter(|p| p.shape == Shape::File).count() as u64;
        let with: u64 = found.gone_with.iter().filter(|((n, _), _)| depths[usize::from(*n)] == 0).map(|(_, n)| n).sum();
        prop_assert_eq!(alone.files(), by_files + with);
    }
}

/// The time between a list and its rule is the owners': no rule after it takes it from them.
#[test]
fn a_directory_that_waits_for_its_list_is_taken_by_no_rule_of_the_same_depth_after_it() {
    let old = NOW - 500;
    let mut files = vec![File {
        ino: 1000,
        dir: 1,
        name: "f".into(),
        size: 1,
        uid: 0,
        access: old,
        mtime: old,
        ctime: old,
        birth: old,
    }];
    let index = build(&mut files);
    let of = |name: &str, announce: u64| {
        let mut one = rule(1, Clocks::ALL, false, None, 0, 0);
        one.target = target(1);
        (one.name, one.announce) = (name.into(), announce);
        one
    };
    let mut at = Circumstances {
        now: Seconds(NOW),
        ..Circumstances::default()
    };
    at.announced.now = at.now;
    let trees = |rules: &[Rule]| {
        let found = evaluate_with(&index, rules, &at, usize::MAX).unwrap();
        (
            found.picks.iter().filter(|p| p.shape == Shape::Tree).count(),
            found.kept.announced,
        )
    };
    let (waits, plain) = (of("waits", 14 * 86_400), of("plain", 0));
    // There are two directories at this depth, and one of them is empty.
    assert_eq!(trees(std::slice::from_ref(&plain)).0, 2);
    assert_eq!(trees(&[waits.clone(), plain.clone()]), (0, 1));
    // What a rule before it takes does not wait.
    assert_eq!(trees(&[plain, waits]).0, 2);
}
