//! The forecast against an evaluation on each of its days.
#![allow(clippy::unwrap_used)]

use purge_model::Inode;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rustc_hash::FxHashSet;

use super::*;
use crate::announced::{Announced, Named};
use crate::evaluate::Survey;
use crate::evaluate::{Shape, evaluate};
use crate::rule::Target;
use crate::scope::Globs;
use purge_index::testing::stat;
use purge_index::{Found, Store, VolumeId};
use purge_model::{Clocks, Kind, LastUse, Source, Stat};

const NOW: u32 = 400 * DAY as u32;

fn found(ino: Inode, kind: Kind, uid: u32, used: u32, parent: DirId, name: &[u8]) -> Found<'_> {
    let at = Seconds(used);
    let stat = Stat {
        uid,
        ..stat(ino, kind, ino, used)
    };
    let first_use = LastUse {
        at,
        source: Source::Observed,
    };
    Found {
        stat,
        parent,
        name,
        first_use,
    }
}

/// Directories 10 and 11 at depth 1, 12 below 11; files as (directory, uid, seconds since the last use, keep).
fn build(files: &[(usize, u32, u32, bool)]) -> Index {
    let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
    index.set_root(&found(2, Kind::Directory, 0, 1, DirId::ROOT, b"").stat);
    for (ino, parent) in [(10, 2), (11, 2), (12, 11)] {
        let parent = index.dirs().of_inode(parent).unwrap();
        let name = format!("d{ino}");
        index
            .upsert(found(ino, Kind::Directory, 7, 1, parent, name.as_bytes()))
            .unwrap();
    }
    for (i, (dir, uid, idle, keep)) in files.iter().enumerate() {
        let parent = index.dirs().of_inode([2, 10, 11, 12][*dir]).unwrap();
        let name = format!("f{i}{}", if *keep { ".keep" } else { "" });
        index
            .upsert(found(
                100 + i as u64,
                Kind::File,
                *uid,
                NOW - idle,
                parent,
                name.as_bytes(),
            ))
            .unwrap();
    }
    index
}

fn rule(name: &str, ttl: u64, clocks: Clocks) -> Rule {
    let mut rule = Rule::everything_older("v", ttl);
    (rule.name, rule.clocks, rule.remove_empty_dirs) = (name.into(), clocks, false);
    rule
}

/// By subject: files and bytes that evaluations as of each day find.
fn naive(index: &Index, rules: &[Rule], at: &Circumstances, days: u32, by: By) -> Vec<BTreeMap<u32, Share>> {
    (0..=days)
        .map(|day| {
            let then = Circumstances {
                now: at.now.plus(u64::from(day) * DAY),
                ..at.clone()
            };
            let mut sums: BTreeMap<u32, Share> = BTreeMap::new();
            for pick in evaluate(index, rules, &then).unwrap().picks {
                assert_ne!(pick.shape, Shape::EmptyDirectory);
                let subject = match by {
                    By::Nothing => 0,
                    By::User => index.get(pick.ino).unwrap().0.uid,
                    By::Directory(1) => {
                        let dirs = index.dirs();
                        let mut dir = dirs.of_inode(pick.ino).unwrap_or(pick.parent);
                        while dir != DirId::ROOT && dirs.get(dir).unwrap().parent != DirId::ROOT {
                            dir = dirs.get(dir).unwrap().parent;
                        }
                        dir.0
                    }
                    By::Directory(_) => unreachable!(),
                };
                let sum = sums.entry(subject).or_default();
                *sum = (sum.0 + u64::from(pick.files), sum.1 + u128::from(pick.bytes));
            }
            sums
        })
        .collect()
}

fn running(days: &[Share]) -> Vec<Share> {
    let mut sum = (0, 0);
    let next = |day: &Share| {
        sum = (sum.0 + day.0, sum.1 + day.1);
        sum
    };
    days.iter().map(next).collect()
}

proptest! {
    #[test]
    fn what_is_due_by_a_day_is_what_an_evaluation_of_that_day_finds(
        files in prop::collection::vec((0usize..4, 0u32..3, 0u32..40 * DAY as u32, prop::bool::weighted(0.1)), 0..60),
        (ttl, other) in (1u64..30 * DAY, 1u64..30 * DAY),
        directories: bool,
        gap in prop::option::of(0u32..20),
        held: bool,
        (announce, named) in (0u64..12 * DAY, 0u32..15 * DAY as u32),
    ) {
        let index = build(&files);
        let mut first = rule("a", ttl, Clocks::ALL);
        first.scope.exclude = Some(Globs::compile(&["*.keep".into()]).unwrap());
        first.announce = announce;
        let mut second = rule("b", other, Clocks { change: false, ..Clocks::ALL });
        second.scope.users = Some(vec![1]);
        let rules = match directories {
            true => {
                first.target = Target::Directory { depth: 1 };
                vec![first]
            }
            false => vec![first, second],
        };
        let gap_end = gap.map(|days| Seconds(NOW - days * DAY as u32));
        // Every other file is named.
        let names = files.iter().enumerate().step_by(2).map(|(i, f)| {
            let birth = Seconds(NOW - f.2);
            (100 + i as u64, birth, birth.max(gap_end.unwrap_or(birth)))
        });
        let list = Named::default().next(names, Seconds(NOW - named));
        let at = Circumstances {
            now: Seconds(NOW),
            gap_end,
            forgiven: Vec::new(),
            survey: Survey::default(),
            announced: Announced {
                now: Seconds(NOW),
                by_rule: [("a".to_owned(), Arc::new(list))].into_iter().collect(),
            },
            held: if held { FxHashSet::from_iter([101, 12]) } else { FxHashSet::default() },
            mounted: Arc::default(),
            ..Circumstances::default()
        };
        for by in [By::Nothing, By::User, By::Directory(1)] {
            let expected = naive(&index, &rules, &at, 20, by);
            let told = forecast(&index, &rules, &at, 20, by).unwrap();
            prop_assert_eq!(told.days.len(), 21);
            let all: Vec<Share> = expected
                .iter()
                .map(|day| day.values().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)))
                .collect();
            prop_assert_eq!(running(&told.days), all);
            for (subject, days) in &told.subjects {
                let theirs: Vec<Share> = expected
                    .iter()
                    .map(|day| day.get(subject).copied().unwrap_or_default())
                    .collect();
                prop_assert_eq!(running(days), theirs);
            }
            let named = expected.last().unwrap().len();
            prop_assert!(by == By::Nothing || told.subjects.len() == named);
        }
    }
}
