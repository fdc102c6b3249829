//! The sums that are kept up, against a pass over all files.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rustc_hash::FxHashMap;

use super::super::rows::Rows;
use super::super::snapshot::{Snapshot, fill, units};
use super::*;
use purge_index::sums::{Histogram, bucket_of};
use purge_index::{DirId, Found, Store, VolumeId, testing};
use purge_model::{Clocks, Inode, Kind, LastUse, Source, Stat};
use purge_policy::last_use::{covered, last_use};
use purge_policy::limits::byte_days;

const DAY: u32 = 86_400;
const NOW: u32 = 900 * DAY;

fn stat(ino: Inode, kind: Kind, n: u32) -> Stat {
    Stat {
        allocated: u64::from(n % 50) * 512,
        project: n % 2,
        uid: n % 3,
        gid: n % 4,
        ..testing::stat(ino, kind, u64::from(n) * 1000, NOW - (n % 500) * DAY - n % 7)
    }
}

/// The root and the directories 10, 11 below it and 12 below 11.
fn build(store: &Store) -> Index {
    let mut index = Index::new(store.clone(), VolumeId(1));
    index.set_root(&stat(2, Kind::Directory, 0));
    for (ino, parent) in [(10, 2), (11, 2), (12, 11)] {
        put(&mut index, stat(ino, Kind::Directory, 0), parent, "d");
    }
    index
}

fn put(index: &mut Index, stat: Stat, parent: Inode, name: &str) {
    let Some(parent) = index.dirs().of_inode(parent) else {
        return;
    };
    let name = format!("{name}{}", stat.ino);
    let found = Found {
        stat,
        parent,
        name: name.as_bytes(),
        first_use: LastUse {
            at: stat.birth,
            source: Source::Observed,
        },
    };
    index.upsert(found).unwrap();
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Naive {
    files: u64,
    bytes: u128,
    allocated: u128,
    byte_days: u128,
    ages: Histogram,
    span: Option<(Seconds, Seconds)>,
}

fn naive(index: &Index, by: By, now: Seconds, gap_end: Option<Seconds>) -> FxHashMap<Subject, Naive> {
    let mut all: FxHashMap<Subject, Naive> = FxHashMap::default();
    for page in index.pages() {
        let mut attributes = page.attributes();
        for (rank, _) in page.inodes().enumerate() {
            let a = attributes.next_entry().unwrap();
            if a.kind != Kind::File {
                continue;
            }
            let subject = match by {
                By::User => Subject::Id(a.uid),
                By::Group => Subject::Id(a.gid),
                By::Project => Subject::Id(a.project),
                By::Directory(depth) => {
                    let path = index.dirs().path(a.parent).unwrap_or_default();
                    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').take(depth as usize).collect();
                    let wanted = parts.join(&b'/');
                    let mut dirs = index.dirs().iter();
                    let unit = dirs.find(|(id, _)| index.dirs().path(*id) == Some(wanted.clone()));
                    Subject::Directory(unit.map_or(DirId::ROOT, |(id, _)| id))
                }
            };
            let last = last_use(&a, covered(page.access(rank), gap_end), Clocks::ALL, now).at;
            let sums = all.entry(subject).or_default();
            sums.files += 1;
            sums.bytes += u128::from(a.size);
            sums.allocated += u128::from(a.allocated);
            sums.byte_days += byte_days(a.size, a.birth, now);
            let bucket = &mut sums.ages[bucket_of(last.age_at(now))];
            *bucket = (bucket.0 + 1, bucket.1 + u128::from(a.size));
            let span = sums.span.unwrap_or((last, last));
            sums.span = Some((span.0.min(last), span.1.max(last)));
        }
    }
    all
}

fn kept(index: &Index, by: By) -> FxHashMap<Subject, Naive> {
    let taken = Snapshot::of(index, by, 0, None, true);
    let rows = (0u32..).take(taken.len()).map(|i| {
        let taken = taken.row(i).unwrap();
        let row = Naive {
            files: taken.files,
            bytes: taken.bytes.into(),
            allocated: taken.allocated.into(),
            byte_days: taken.byte_days,
            ages: taken.ages.unwrap().map(|(files, bytes)| (files, bytes.into())),
            span: Some(taken.span),
        };
        (taken.subject, row)
    });
    rows.collect()
}

const ALL: [By; 5] = [
    By::User,
    By::Group,
    By::Project,
    By::Directory(1),
    By::Directory(2),
];

/// Everything but oldest and newest, which are exact only right after a count.
fn without_span(mut rows: FxHashMap<Subject, Naive>) -> FxHashMap<Subject, Naive> {
    rows.values_mut().for_each(|r| r.span = None);
    rows
}

fn step(index: &mut Index, what: u8, ino: Inode, n: u32) {
    let parent = [2, 10, 11, 12][n as usize % 4];
    match what {
        0..=2 => put(index, stat(ino, Kind::File, n), parent, "f"),
        3 => {
            let mut uses = match n % 4 {
                0 => index.uses(),
                _ => index.uses_in_haste(),
            };
            for (i, at) in [(0, n), (3, n), (1, n + 1), (0, n / 2), (40, n)] {
                uses.record(ino + i, Seconds(NOW - at * 3000));
            }
            drop(uses);
            index.settle_some(n as usize % 3);
        }
        4 => index.remove(&[ino]).unwrap(),
        5 => index.refresh(&stat(ino, Kind::File, n)).unwrap(),
        6 => {
            if let Some(parent) = index.dirs().of_inode(parent) {
                let _ = index.move_dir(12, parent, format!("m{n}").as_bytes()).unwrap();
            }
        }
        7 => index.move_uses(Seconds(NOW - n * 3000), Seconds(NOW - n * 2000)),
        8 => index.clamp_uses(Seconds(NOW - n * 100)),
        _ => {
            if let Some(before) = index.record_use(ino, Seconds(NOW)) {
                index.take_back_use(ino, Seconds(NOW), before);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// After any changes, also in the middle of a count, and after a restart: the sums are those of a pass.
    #[test]
    fn sums_equal_a_pass_over_all_files(
        steps in prop::collection::vec((0u8..12, prop_oneof![60u64..68, 60u64..400], 0u32..900), 0..120),
        gap in prop::option::of(0u32..500),
    ) {
        let store = Store::temporary().unwrap();
        let mut index = build(&store);
        let gap_end = gap.map(|days| Seconds(NOW - days * DAY));
        let (mut as_of, mut known_gap) = (Seconds(NOW - DAY), None);
        index.begin_recount(as_of, known_gap);
        while !index.recount_some(1).unwrap() {}
        for (i, (what, ino, n)) in steps.iter().enumerate() {
            match what {
                10 => {
                    // Not the present: what was counted as of it is not counted once more at the end, and the oldest use is that of the count.
                    as_of = Seconds(NOW + 1 + n * 1000);
                    index.begin_recount(as_of, gap_end);
                    // The count is under way while the next steps are taken.
                    if index.recount_some(1 + i % 3).unwrap() {
                        known_gap = gap_end;
                    } else {
                        let (what, ino, n) = steps[(i * 7) % steps.len()];
                        step(&mut index, what % 10, ino, n);
                        while !index.recount_some(1).unwrap() {
                            step(&mut index, (what + 1) % 10, ino + 1, n);
                        }
                        known_gap = gap_end;
                    }
                }
                11 => {
                    index.start_write_back(true).commit().unwrap();
                    index.written_back(true);
                    index = Index::load(store.clone(), VolumeId(1)).unwrap();
                    (as_of, known_gap) = (Seconds::MIN, None);
                }
                _ => step(&mut index, *what, *ino, *n),
            }
            if i % 10 == 0 {
                while index.settle_some(2) {}
                for by in ALL {
                    let expected = without_span(naive(&index, by, as_of, known_gap));
                    prop_assert_eq!(without_span(kept(&index, by)), expected, "{:?}", by);
                }
            }
        }
        let index = RwLock::new(index);
        refresh(&index, &Mutex::new(()), (Seconds(NOW), gap_end)).unwrap();
        let index = index.read();
        for by in ALL {
            prop_assert_eq!(kept(&index, by), naive(&index, by, Seconds(NOW), gap_end), "{:?}", by);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Many rows are packed: what is read from them again is what a few plain ones say.
    #[test]
    fn packed_rows_equal_plain_ones(
        files in prop::collection::vec((60u64..400, 0u32..900), 0..60),
        depth in 0u32..4,
        most in 0usize..6,
        with_ages: bool,
    ) {
        let store = Store::temporary().unwrap();
        let mut index = build(&store);
        for (ino, n) in files {
            put(&mut index, stat(ino, Kind::File, n), [2, 10, 11, 12][n as usize % 4], "f");
        }
        index.begin_recount(Seconds(NOW), None);
        while !index.recount_some(1).unwrap() {}
        let units = units(&index, depth);
        let [plain, packed] = [Rows::none(), Rows::none_of_many(1)].map(|empty| fill(empty, &index, &units, most, with_ages));
        prop_assert_eq!(plain.1, packed.1);
        prop_assert_eq!(plain.0.len(), if most == 0 { plain.1 } else { plain.1.min(most) });
        prop_assert!(plain.0.bytes().eq(packed.0.bytes()));
        for i in 0..=plain.0.len() as u32 {
            prop_assert_eq!(plain.0.subject(i), packed.0.subject(i));
            prop_assert_eq!(plain.0.get(i, with_ages), packed.0.get(i, with_ages));
        }
    }
}

/// A limit takes the heaviest, with the same numbers and with their paths.
#[test]
fn a_limit_takes_the_heaviest() {
    let store = Store::temporary().unwrap();
    let mut index = build(&store);
    for (ino, n) in [(60, 3), (61, 40), (62, 7), (63, 41)] {
        put(
            &mut index,
            stat(ino, Kind::File, n),
            [2, 10, 11, 12][n as usize % 4],
            "f",
        );
    }
    let rows = |most| {
        let taken = Snapshot::of(&index, By::Directory(9), most, None, false);
        assert_eq!(taken.subjects, 3);
        let row = |i: u32| match taken.subject(i).unwrap() {
            Subject::Directory(id) => (taken.path(id).unwrap(), taken.row(i).unwrap().bytes),
            Subject::Id(_) => unreachable!(),
        };
        let mut rows: Vec<_> = (0u32..).take(taken.len()).map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.1));
        rows
    };
    let all = rows(0);
    assert_eq!(
        all,
        [
            (b"d10".to_vec(), 41_000),
            (b"".to_vec(), 40_000),
            (b"d11/d12".to_vec(), 10_000)
        ]
    );
    assert_eq!(rows(2), all[..2]);
}
