//! The evaluation against naive models that look at every file.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::rule::Target;
use crate::scope::{Globs, Scope};
use proptest::prelude::*;
use purge_index::{Found, Store, VolumeId, testing};
use purge_model::{Clocks, Inode, Kind, LastUse, Seconds, Source, Stat};
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;

pub(super) const NOW: u32 = 1_000_000;

/// A file of the model: everything as it was put in.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub ino: Inode,
    pub dir: usize,
    pub name: String,
    pub size: u64,
    pub uid: u32,
    pub access: u32,
    pub mtime: u32,
    pub ctime: u32,
    pub birth: u32,
}

pub(super) fn file() -> impl Strategy<Value = File> {
    let time = || NOW - 200..NOW;
    let name = prop_oneof![Just("a.tmp"), Just("b.dat"), Just(".keep"), Just("c")];
    (0usize..6, name, 0u64..50, 0u32..3, time(), time(), time(), time()).prop_map(
        |(dir, name, size, uid, access, mtime, ctime, birth)| File {
            ino: 0,
            dir,
            name: name.into(),
            size,
            uid,
            access,
            mtime,
            ctime,
            birth,
        },
    )
}

/// Directories 0 (the root) to 5: 1 and 2 at depth 1, 3 and 4 below 1, 5 below 4.
pub(super) const PARENT: [usize; 6] = [0, 0, 0, 1, 1, 4];

pub(super) fn path_of(dir: usize) -> String {
    match dir {
        0 => String::new(),
        d if PARENT[d] == 0 => format!("d{d}"),
        d => format!("{}/d{d}", path_of(PARENT[d])),
    }
}

fn unit_of(dir: usize) -> Option<usize> {
    match dir {
        0 => None,
        d if PARENT[d] == 0 => Some(d),
        d => unit_of(PARENT[d]),
    }
}

fn stat(ino: Inode, kind: Kind, f: Option<&File>) -> Stat {
    let time = |t: Option<u32>| Seconds(t.unwrap_or(NOW - 1000));
    Stat {
        uid: f.map_or(0, |f| f.uid),
        mtime: time(f.map(|f| f.mtime)),
        ctime: time(f.map(|f| f.ctime)),
        birth: time(f.map(|f| f.birth)),
        ..testing::stat(ino, kind, f.map_or(0, |f| f.size), 0)
    }
}

pub(super) fn build(files: &mut [File]) -> Index {
    let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
    index.set_root(&stat(100, Kind::Directory, None));
    let old = LastUse {
        at: Seconds(NOW - 1000),
        source: Source::Baseline,
    };
    for (d, parent) in PARENT.iter().enumerate().skip(1) {
        let parent = index.dirs().of_inode(100 + *parent as u64).unwrap();
        let name = format!("d{d}");
        let stat = stat(100 + d as u64, Kind::Directory, None);
        index
            .upsert(Found {
                stat,
                parent,
                name: name.as_bytes(),
                first_use: old,
            })
            .unwrap();
    }
    for (i, f) in files.iter_mut().enumerate() {
        // Sparse on purpose: several pages.
        f.ino = 1000 + 37 * i as u64;
        let parent = index.dirs().of_inode(100 + f.dir as u64).unwrap();
        let name = format!("{i}-{}", f.name);
        let first_use = LastUse {
            at: Seconds(f.access),
            source: Source::Observed,
        };
        index
            .upsert(Found {
                stat: stat(f.ino, Kind::File, Some(f)),
                parent,
                name: name.as_bytes(),
                first_use,
            })
            .unwrap();
        f.name = name;
    }
    index
}

pub(super) fn model_last(f: &File, clocks: Clocks, gap_end: Option<u32>) -> u32 {
    let mut all = vec![0];
    if clocks.access {
        all.push(f.access.max(gap_end.unwrap_or(0)));
    }
    all.extend(clocks.modify.then_some(f.mtime));
    all.extend(clocks.change.then_some(f.ctime));
    all.extend(clocks.birth.then_some(f.birth));
    all.into_iter().max().unwrap()
}

pub(super) fn rule(
    ttl: u64,
    clocks: Clocks,
    exclude: bool,
    users: Option<Vec<u32>>,
    min_size: u64,
    max_files: u64,
) -> Rule {
    let mut rule = Rule::everything_older("v", ttl);
    let globs = Globs::compile(&["*.tmp".into(), "/d1/d3".into()]).unwrap();
    rule.scope = Scope {
        exclude: exclude.then_some(globs),
        users,
        min_size,
        ..Scope::all()
    };
    (rule.clocks, rule.max_files) = (clocks, max_files);
    rule
}

fn clocks() -> impl Strategy<Value = Clocks> {
    (1u8..16).prop_map(|bits| Clocks {
        access: bits & 1 != 0,
        modify: bits & 2 != 0,
        change: bits & 4 != 0,
        birth: bits & 8 != 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// File rules take exactly what a model that looks at every file takes, and every file is counted once.
    #[test]
    fn file_rules_equal_a_naive_model(
        mut files in prop::collection::vec(file(), 0..40),
        ttl in 1u64..250,
        clocks in clocks(),
        exclude: bool,
        users in prop::option::of(prop::collection::vec(0u32..3, 1..3)),
        min_size in 0u64..50,
        max_files in 0u64..5,
        gap_end in prop::option::of(NOW - 200..NOW),
        held in prop::collection::btree_set(prop::sample::select(vec![101u64, 103, 105, 1000, 1037, 1074]), 0..2),
    ) {
        let index = build(&mut files);
        let rule = rule(ttl, clocks, exclude, users.clone(), min_size, max_files);
        let at = Circumstances {
            now: Seconds(NOW),
            gap_end: gap_end.map(Seconds),
            held: held.iter().copied().collect(),
            ..Circumstances::default()
        };
        let found = evaluate(&index, std::slice::from_ref(&rule), &at).unwrap();

        let mut expected: Vec<(u32, std::cmp::Reverse<u64>, Inode)> = files.iter().filter(|f| {
            let mut dir = f.dir;
            let mut is_held = held.contains(&f.ino);
            while dir != 0 {
                is_held |= held.contains(&(100 + dir as u64));
                dir = PARENT[dir];
            }
            let excluded = exclude && (f.name.ends_with(".tmp") || path_of(f.dir).starts_with("d1/d3"));
            u64::from(NOW - model_last(f, clocks, gap_end)) > ttl
                && !is_held && !excluded
                && users.as_ref().is_none_or(|u| u.contains(&f.uid))
                && f.size >= min_size
        }).map(|f| (model_last(f, clocks, gap_end), std::cmp::Reverse(f.size), f.ino)).collect();
        expected.sort_unstable();
        let all = expected.len() as u64;
        if max_files > 0 {
            expected.truncate(max_files as usize);
        }
        let expected: BTreeSet<Inode> = expected.into_iter().map(|(_, _, ino)| ino).collect();
        let got: BTreeSet<Inode> =
            found.picks.iter().filter(|p| p.shape == Shape::File).map(|p| p.ino).collect();
        prop_assert_eq!(&got, &expected);
        prop_assert_eq!(found.kept.limit, all - expected.len() as u64);
        let k = found.kept;
        let counted = got.len() as u64 + k.all();
        prop_assert_eq!(counted, files.len() as u64);
        let owned: u64 = found.by_owner.values().map(|owned| owned.files).sum();
        prop_assert_eq!(owned, got.len() as u64);
    }

    /// A directory goes exactly when everything in it, at any depth, has expired.
    #[test]
    fn directory_rules_equal_a_naive_model(
        mut files in prop::collection::vec(file(), 0..12),
        ttl in 1u64..250,
        clocks in clocks(),
        gap_end in prop::option::of(NOW - 400..NOW - 100),
    ) {
        let index = build(&mut files);
        let mut rule = rule(ttl, clocks, false, None, 0, 0);
        rule.target = Target::Directory { depth: 1 };
        let at = Circumstances { now: Seconds(NOW), gap_end: gap_end.map(Seconds), held: FxHashSet::default(), ..Circumstances::default() };
        let found = evaluate(&index, &[rule], &at).unwrap();
        // The directories' own times are 1,000 s old; a gap counts as a use of them too.
        let own = if clocks.access { gap_end.unwrap_or(0) } else { 0 };
        let expected: BTreeSet<Inode> = [1usize, 2].into_iter().filter(|d| {
            let newest = files.iter().filter(|f| unit_of(f.dir) == Some(*d)).map(|f| model_last(f, clocks, gap_end));
            u64::from(NOW - newest.max().unwrap_or(0).max(own).max(NOW - 1000)) > ttl
        }).map(|d| 100 + d as u64).collect();
        let got: BTreeSet<Inode> = found.picks.iter().map(|p| p.ino).collect();
        prop_assert_eq!(got, expected);
    }

    /// Every directory that is picked as empty comes after everything in it, and the root never is.
    #[test]
    fn empty_directories_come_after_what_is_in_them(mut files in prop::collection::vec(file(), 0..30), ttl in 1u64..250) {
        let index = build(&mut files);
        let at = Circumstances { now: Seconds(NOW), ..Circumstances::default() };
        let found = evaluate(&index, &[rule(ttl, Clocks::ALL, false, None, 0, 0)], &at).unwrap();
        let mut gone: BTreeSet<Inode> = BTreeSet::new();
        for pick in &found.picks {
            if pick.shape == Shape::EmptyDirectory {
                let dir = (pick.ino - 100) as usize;
                prop_assert_ne!(dir, 0);
                prop_assert!(files.iter().filter(|f| f.dir == dir).all(|f| gone.contains(&f.ino)));
                for (child, _) in PARENT.iter().enumerate().skip(1).filter(|(_, p)| **p == dir) {
                    prop_assert!(gone.contains(&(100 + child as u64)));
                }
            }
            gone.insert(pick.ino);
        }
    }

    /// Files that are set apart are the same files, found again a few directories at a time.
    #[test]
    fn files_apart_equal_those_that_are_kept_together(
        mut files in prop::collection::vec(file(), 0..40),
        ttl in 1u64..250,
        exclude: bool,
        whole_directories: bool,
        together in 0usize..12,
        most in 1usize..12,
    ) {
        let index = build(&mut files);
        let mut rules = vec![
            rule(ttl.saturating_mul(2), Clocks::ALL, false, None, 0, 0),
            rule(ttl, Clocks::ALL, exclude, None, 0, 0),
        ];
        if whole_directories {
            rules[0].target = Target::Directory { depth: 1 };
        }
        let at = Circumstances { now: Seconds(NOW), ..Circumstances::default() };
        let whole = evaluate(&index, &rules, &at).unwrap();
        let found = evaluate_with(&index, &rules, &at, together).unwrap();
        let is_file = |p: &&Pick| p.shape == Shape::File;
        let mut expected: Vec<Pick> = whole.picks.iter().filter(is_file).copied().collect();
        prop_assert_eq!(found.apart.is_some(), expected.len() > together);
        prop_assert_eq!((found.candidates(), found.files()), (whole.candidates(), whole.files()));
        prop_assert_eq!((found.kept, found.examined, &found.by_owner), (whole.kept, whole.examined, &whole.by_owner));
        if let Some(apart) = &found.apart {
            let others = whole.picks.iter().filter(|p| !is_file(p)).copied().collect::<Vec<_>>();
            prop_assert_eq!(&found.picks, &others);
            prop_assert_eq!(apart.files(), expected.len() as u64);
            let mut got = Vec::new();
            for part in apart.parts(most) {
                let picks = part_of(apart, &index, &rules, &at, part).unwrap();
                let one_directory = picks.iter().all(|p| p.parent == picks[0].parent);
                prop_assert!(picks.len() <= most || one_directory);
                got.extend(picks);
            }
            got.sort_unstable_by_key(|p| p.ino);
            expected.sort_unstable_by_key(|p| p.ino);
            prop_assert_eq!(got, expected);
        }
    }
}
