//! Quotas and watermarks against a model that sorts all files.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::blocks::Lies;
use crate::sample::Drawn;
use crate::scope::{Globs, Scope};
use crate::watermark::watermark;
use purge_index::{Found, Store, VolumeId, testing};
use purge_model::{Inode, LastUse, Source, Stat};

const DAY: u32 = 86_400;
const NOW: u32 = 400 * DAY;

#[derive(Debug, Clone)]
struct File {
    ino: Inode,
    dir: usize,
    keep: bool,
    size: u64,
    uid: u32,
    used: u32,
    birth: u32,
}

fn file() -> impl Strategy<Value = File> {
    let times = (0u32..20, 0u32..30);
    (0usize..3, prop::bool::weighted(0.1), 0u64..20, 0u32..3, times).prop_map(
        |(dir, keep, size, uid, (idle, more))| File {
            ino: 0,
            dir,
            keep,
            size,
            uid,
            used: NOW - idle * DAY,
            birth: NOW - (idle + more) * DAY,
        },
    )
}

fn stat(ino: Inode, kind: Kind, size: u64, uid: u32, birth: u32) -> Stat {
    Stat {
        uid,
        gid: uid + 10,
        ..testing::stat(ino, kind, size, birth)
    }
}

/// The root and two directories, `d1` and `d2`.
fn build(files: &mut [File]) -> Index {
    let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
    index.set_root(&stat(100, Kind::Directory, 0, 0, 1));
    let mut put = |stat, parent: u64, name: &str, used: u32| {
        let parent = index.dirs().of_inode(parent).unwrap();
        let first_use = LastUse {
            at: Seconds(used),
            source: Source::Observed,
        };
        let name = name.as_bytes();
        index
            .upsert(Found {
                stat,
                parent,
                name,
                first_use,
            })
            .unwrap();
    };
    for d in [101, 102] {
        put(
            stat(d, Kind::Directory, 0, 0, 1),
            100,
            &format!("d{}", d - 100),
            1,
        );
    }
    for (i, f) in files.iter_mut().enumerate() {
        f.ino = 1000 + 37 * i as u64;
        let name = format!("{i}{}", if f.keep { ".keep" } else { "" });
        put(
            stat(f.ino, Kind::File, f.size, f.uid, f.birth),
            100 + f.dir as u64,
            &name,
            f.used,
        );
    }
    index
}

fn rule(sequence: Sequence) -> Rule {
    let mut rule = Rule::everything_older("v", 1);
    let exclude = Some(Globs::compile(&["*.keep".into()]).unwrap());
    rule.scope = Scope {
        exclude,
        ..Scope::all()
    };
    rule.sequence = sequence;
    rule
}

fn sequence() -> impl Strategy<Value = Sequence> {
    prop_oneof![
        Just(Sequence::Oldest),
        Just(Sequence::Largest),
        Just(Sequence::ByteDays)
    ]
}

fn days_of(f: &File) -> u128 {
    u128::from(f.size) * (u128::from((NOW - f.birth) / DAY) + 1)
}

/// Every file that may go, in the order in which it would.
fn in_order(files: &[File], sequence: Sequence, min_age: u32) -> Vec<&File> {
    let mut all: Vec<&File> = files
        .iter()
        .filter(|f| !f.keep && NOW - f.used > min_age)
        .collect();
    all.sort_by(|a, b| {
        let by_age = a.used.cmp(&b.used);
        let by_size = b.size.cmp(&a.size);
        let order = match sequence {
            Sequence::Oldest => by_age.then(by_size),
            Sequence::Largest => by_size.then(by_age),
            Sequence::ByteDays => days_of(b).cmp(&days_of(a)).then(by_age),
        };
        order.then(a.ino.cmp(&b.ino))
    });
    all
}

fn at(held: &[Inode]) -> Circumstances {
    Circumstances {
        now: Seconds(NOW),
        held: held.iter().copied().collect(),
        ..Circumstances::default()
    }
}

fn a_quota(subject: QuotaSubject) -> Quota {
    Quota {
        name: "q".into(),
        volume: "v".into(),
        subject,
        hard: None,
        temporal: None,
        max_age: None,
        action: crate::allowance::QuotaAction::Purge,
        low: 0.9,
        min_age: 1,
        rule: None,
        overrides: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// A quota takes exactly what a model takes that sorts all files, and its last candidate is needed.
    #[test]
    fn quotas_equal_a_naive_model_and_are_minimal(
        mut files in prop::collection::vec(file(), 0..40),
        by in 0usize..3,
        hard in prop::option::of(0u64..200),
        temporal in prop::option::of(0u64..3000),
        max_age in prop::option::weighted(0.3, 1u32..40),
        low in 10u32..=100,
        min_days in 1u32..10,
        sequence in sequence(),
        special in prop::option::of((0u32..3, 0u64..200)),
    ) {
        let index = build(&mut files);
        let mut q = a_quota([QuotaSubject::User, QuotaSubject::Group, QuotaSubject::Directory { depth: 1 }][by]);
        (q.hard, q.temporal, q.low) = (hard, temporal, f64::from(low) / 100.0);
        q.max_age = max_age.map(|d| u64::from(d * DAY));
        q.min_age = u64::from(min_days * DAY);
        q.overrides = special.map(|(who, hard)| crate::allowance::Override {
            whom: crate::whom::Whom::new(&who.to_string(), q.subject, match q.subject {
                QuotaSubject::User | QuotaSubject::Group => vec![who],
                _ => vec![],
            }).unwrap(),
            hard: Some(hard),
            temporal: None,
        }).into_iter().collect();
        let found = quota(&index, (&q, &Named::default()), None, &rule(sequence), &at(&[]), |id| (id % 10).to_string()).unwrap();

        let subject_of = |f: &File| match (by, f.dir) {
            (2, 0) => None,
            (2, d) => Some(format!("d{d}")),
            _ => Some(f.uid.to_string()),
        };
        let subjects: BTreeSet<String> = files.iter().filter_map(subject_of).collect();
        let outstayed = |f: &File| max_age.is_some_and(|d| NOW - f.birth > d * DAY);
        let order = in_order(&files, sequence, min_days * DAY);
        let mut expected: BTreeSet<Inode> = order.iter().filter(|f| outstayed(f)).map(|f| f.ino).collect();
        for subject in subjects {
            let mine = |f: &&File| subject_of(f).as_ref() == Some(&subject);
            let bytes: u128 = files.iter().filter(mine).map(|f| u128::from(f.size)).sum();
            let days: u128 = files.iter().filter(mine).map(days_of).sum();
            let special = special.filter(|(who, _)| who.to_string() == subject).map(|(_, hard)| hard);
            let hard = special.or(hard).filter(|l| bytes > u128::from(*l));
            let temporal = temporal.filter(|l| days > u128::from(*l));
            let goal = |limit: u64| (limit as f64 * q.low) as u128;
            let (mut bytes_left, mut days_left) = (bytes, days);
            let is_over = |b: u128, d: u128| hard.is_some_and(|l| b > goal(l)) || temporal.is_some_and(|l| d > goal(l));
            let mut last = None;
            for f in order.iter().filter(|f| mine(f) && outstayed(f)) {
                bytes_left -= u128::from(f.size);
                days_left -= days_of(f);
            }
            for f in order.iter().filter(|f| mine(f) && !outstayed(f) && f.size > 0) {
                if !is_over(bytes_left, days_left) {
                    break;
                }
                bytes_left -= u128::from(f.size);
                days_left -= days_of(f);
                expected.insert(f.ino);
                last = Some(*f);
            }
            if let Some(f) = last {
                prop_assert!(is_over(bytes_left + u128::from(f.size), days_left + days_of(f)));
            }
        }
        let got: BTreeSet<Inode> = found.evaluation.picks.iter().map(|p| p.ino).collect();
        prop_assert_eq!(&got, &expected);
        let k = found.evaluation.kept;
        let counted = got.len() as u64 + k.all();
        prop_assert_eq!(counted, files.len() as u64);
        for pick in &found.evaluation.picks {
            let f = files.iter().find(|f| f.ino == pick.ino).unwrap();
            prop_assert!(NOW - f.used > min_days * DAY && !f.keep);
            let name = &found.reasons[usize::from(pick.rule)].name;
            let subject = subject_of(f).unwrap_or_default();
            let expected = [format!("q/{subject}"), "q".into()];
            prop_assert!(expected.contains(name), "{} {:?}", name, f);
        }
    }

    /// However often a quota purges, and for any files added meanwhile, it ends: no subject is over it, or nothing old enough is left.
    #[test]
    fn a_quota_ends(
        mut files in prop::collection::vec(file(), 0..40),
        added in prop::collection::vec(prop::collection::vec(file(), 0..6), 0..4),
        hard in 1u64..100,
    ) {
        let mut q = a_quota(QuotaSubject::User);
        (q.hard, q.min_age) = (Some(hard), u64::from(DAY));
        let mut rounds = added.into_iter();
        loop {
            let index = build(&mut files);
            let found = quota(&index, (&q, &Named::default()), None, &rule(Sequence::Oldest), &at(&[]), |u| u.to_string()).unwrap();
            let goes: BTreeSet<Inode> = found.evaluation.picks.iter().map(|p| p.ino).collect();
            let more = rounds.next();
            // With nothing added, what is left is asked once more, and no more.
            if more.is_none() && goes.is_empty() {
                break;
            }
            let before = files.len();
            files.retain(|f| !goes.contains(&f.ino));
            prop_assert_eq!(files.len() + goes.len(), before);
            if more.is_none() {
                let index = build(&mut files);
                let again = quota(&index, (&q, &Named::default()), None, &rule(Sequence::Oldest), &at(&[]), |u| u.to_string()).unwrap();
                prop_assert!(again.evaluation.picks.is_empty(), "one run without new files is the last");
                break;
            }
            files.extend(more.unwrap_or_default());
        }
    }

    /// A watermark takes the first in order until enough is free, and no file that brings nothing.
    #[test]
    fn watermarks_equal_a_naive_model_and_are_minimal(
        mut files in prop::collection::vec(file(), 0..40),
        need in (0u128..8000, 0u128..10),
        min_days in 1u32..10,
        sequence in sequence(),
        held in 0u64..40,
    ) {
        let index = build(&mut files);
        let held = 1000 + 37 * held;
        let min_age = u64::from(min_days * DAY);
        let found = watermark(&index, (&rule(sequence), min_age), need, String::new(), &at(&[held])).unwrap();
        let (mut bytes, mut count) = need;
        let mut expected = BTreeSet::new();
        for f in in_order(&files, sequence, min_days * DAY).into_iter().filter(|f| f.ino != held) {
            if (bytes > 0 && f.size > 0) || count > 0 {
                // What the model's files take on disk.
                bytes = bytes.saturating_sub(f.size.next_multiple_of(512).into());
                count = count.saturating_sub(1);
                expected.insert(f.ino);
            }
        }
        let got: BTreeSet<Inode> = found.evaluation.picks.iter().map(|p| p.ino).collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn the_reason_names_the_quota_and_how_far_over() {
    let mut files = vec![File {
        ino: 0,
        dir: 1,
        keep: false,
        size: 50,
        uid: 7,
        used: NOW - 5 * DAY,
        birth: NOW - 9 * DAY,
    }];
    let index = build(&mut files);
    let mut q = a_quota(QuotaSubject::User);
    (q.hard, q.temporal) = (Some(40), Some(400));
    let found = quota(
        &index,
        (&q, &Named::default()),
        None,
        &rule(Sequence::Oldest),
        &at(&[]),
        |_| "alice".into(),
    )
    .unwrap();
    assert_eq!(
        found.reasons[0].because,
        "quota q: alice uses 50 of 40 bytes, 10 over and 500 of 400 byte-days, 100 over"
    );
    assert_eq!(
        (found.evaluation.picks.len(), found.evaluation.picks[0].rule),
        (1, 0)
    );
}

#[test]
fn a_sparse_file_of_one_makes_no_file_of_the_others_go() {
    let file = |size: u64, uid: u32| File {
        ino: 0,
        dir: 1,
        keep: false,
        size,
        uid,
        used: NOW - 5 * DAY,
        birth: NOW - 9 * DAY,
    };
    let mut files = vec![file(50, 7), file(1_000_000, 8)];
    let mut index = build(&mut files);
    let sparse = Stat {
        allocated: 0,
        ..stat(files[1].ino, Kind::File, 1_000_000, 8, NOW - 9 * DAY)
    };
    index.refresh(&sparse).unwrap();
    let taken = |subject: QuotaSubject| {
        let mut q = a_quota(subject);
        q.hard = Some(100);
        let found = quota(
            &index,
            (&q, &Named::default()),
            None,
            &rule(Sequence::Oldest),
            &at(&[]),
            |_| "alice".into(),
        )
        .unwrap();
        found.evaluation.picks.iter().map(|p| p.ino).collect::<Vec<_>>()
    };
    assert!(taken(QuotaSubject::Directory { depth: 1 }).is_empty());
    assert_eq!(taken(QuotaSubject::User), [files[1].ino], "her own limit is hers");
}

/// What the index says may be shared blocks: what was seen of the files decides, and files that were not seen count for nothing.
#[test]
fn what_was_seen_on_the_disk_decides_where_several_users_share_a_quota() {
    let file = |uid, size| File {
        ino: 0,
        dir: 1,
        keep: false,
        size,
        uid,
        used: NOW - 5 * DAY,
        birth: NOW - 5 * DAY,
    };
    let mut files = [file(1, 1_000_000), file(1, 10), file(1, 20)];
    let index = build(&mut files);
    let certain = |f: &File| Drawn::certain(f.ino, f.size);
    for subject in [QuotaSubject::Group, QuotaSubject::Directory { depth: 1 }] {
        let mut q = a_quota(subject);
        q.hard = Some(100);
        let asked = (&q, &Named::default());
        let taken = |seen: Option<&OnDisk>| {
            let found = quota(&index, asked, seen, &rule(Sequence::Oldest), &at(&[]), |id| {
                id.to_string()
            });
            found.unwrap().evaluation.picks.len()
        };
        assert!(taken(None) > 0);
        let drawn = to_look_at(&index, asked, Seconds(NOW), |id| id.to_string(), |ino| ino).unwrap();
        let all: usize = drawn.iter().map(|kept| kept.files.len()).sum();
        assert_eq!((drawn.len(), all), (1, 3), "{subject:?}");
        assert_eq!(taken(Some(&OnDisk::default())), 0, "nothing is known");
        let mut seen = OnDisk::default();
        let shared = Lies {
            own: 0,
            shared: vec![(0, 50); 20_000],
            is_whole: true,
        };
        let own = Lies {
            is_whole: true,
            ..Lies::default()
        };
        let found = [
            (certain(&files[0]), shared),
            (certain(&files[1]), own.clone()),
            (certain(&files[2]), own),
        ];
        seen.add(found.clone().into_iter(), 0);
        assert_eq!(taken(Some(&seen)), 0, "80 of 100");
        q.hard = Some(70);
        q.low = 1.0;
        let taken = quota(
            &index,
            (&q, &Named::default()),
            Some(&seen),
            &rule(Sequence::Oldest),
            &at(&[]),
            |id| id.to_string(),
        );
        assert_eq!(taken.unwrap().evaluation.picks.len(), 1);
    }
}
