#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::candidate::{Candidate, testing::candidate};
use crate::run::surroundings::Taken;
use proptest::prelude::*;
use purge_policy::evaluate::Shape;

fn file(dir: &str, name: &str, uid: u32) -> Candidate {
    Candidate {
        dir: dir.as_bytes().into(),
        name: std::ffi::CString::new(name).unwrap().into(),
        uid,
        ..candidate(7, 1, 1)
    }
}

fn record(taken: &[(Candidate, Option<u64>)]) -> (tempfile::TempDir, Reader) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("runs")).unwrap();
    let writer = Writer::create(dir.path(), "r1", ["a", "b"].into_iter()).unwrap();
    for (candidate, until) in taken {
        let taken = [Taken {
            candidate,
            until: *until,
        }];
        writer.note(&taken, Seconds(9));
    }
    drop(writer);
    let reader = Reader::open(dir.path(), "r1").unwrap().unwrap();
    (dir, reader)
}

#[test]
fn what_was_taken_is_found_by_its_path_and_by_those_above() {
    let tree = Candidate {
        shape: Shape::Tree,
        files: 12,
        size: 99,
        ..file("x/y", "job", 8)
    };
    let (_dir, reader) = record(&[(file("x/y", "f", 7), Some(50)), (tree, None)]);
    let whats = |path: &str| {
        let found = reader.find(&[hash(path.as_bytes())]).unwrap();
        let mut all: Vec<_> = found
            .iter()
            .map(|f| (f.entry.what, f.entry.uid, f.entry.until))
            .collect();
        all.sort_by_key(|(_, uid, _)| *uid);
        all
    };
    assert_eq!(whats("x/y/f"), [(What::File, 7, 50)]);
    assert_eq!(whats("x/y/job"), [(What::Tree, 8, 0)]);
    assert_eq!(whats("x"), [(What::Above, 7, 0), (What::Above, 8, 0)]);
    assert!(whats("x/y/job/inside").is_empty() && whats("").is_empty());
    let mut asked = [hash(b"x/y/job/inside"), hash(b"x/y/job")];
    asked.sort_unstable();
    let found = reader.find(&asked).unwrap();
    let [tree] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(asked[tree.asked], hash(b"x/y/job"));
    assert_eq!((tree.entry.files, tree.entry.bytes), (12, 99));
    assert_eq!(reader.rule(&tree.entry), Some("b"));
}

#[test]
fn more_than_one_block_is_searched_and_a_torn_one_ends_the_record() {
    let files: Vec<_> = (0..BLOCK_ENTRIES + 100)
        .map(|n| (file("d", &format!("f{n}"), 7), None))
        .collect();
    let (dir, reader) = record(&files);
    let found = |reader: &Reader, n: usize| reader.find(&[hash(format!("d/f{n}").as_bytes())]).unwrap().len();
    assert!(
        [0, 1000, BLOCK_ENTRIES + 99]
            .into_iter()
            .all(|n| found(&reader, n) == 1)
    );
    assert_eq!(found(&reader, BLOCK_ENTRIES + 100), 0);
    let path = path(dir.path(), "r1");
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let torn = Reader::open(dir.path(), "r1").unwrap().unwrap();
    assert_eq!(found(&torn, 0), 1);
    assert!(Reader::open(dir.path(), "r2").unwrap().is_none());
}

#[test]
fn the_same_is_found_however_many_are_asked_for() {
    let files: Vec<_> = (0..100).map(|n| (file("d", &format!("f{n}"), 7), None)).collect();
    let (_dir, reader) = record(&files);
    for count in [1, 99, 100, 101, 5000] {
        let mut asked: Vec<u64> = (0..count).map(|n| hash(format!("d/f{n}").as_bytes())).collect();
        asked.sort_unstable();
        assert_eq!(reader.find(&asked).unwrap().len(), count.min(100));
    }
}

#[test]
fn the_oldest_records_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("runs")).unwrap();
    for (run, bytes) in [("r1", ALL_BYTES_MAX), ("r2", 10), ("r3", 10)] {
        let file = std::fs::File::create(path(dir.path(), run)).unwrap();
        file.set_len(bytes).unwrap();
    }
    assert_eq!(tidy(dir.path()).unwrap(), 20);
    assert!(!path(dir.path(), "r1").exists() && path(dir.path(), "r2").exists());
}

proptest! {
    #[test]
    fn entries_come_back_as_they_were_written(n: [u32; 5], long: [u64; 2], rule: u16, what in 0..WHATS.len()) {
        let entry = Entry {
            what: WHATS[what],
            ino: long[0],
            bytes: long[1],
            files: n[0],
            uid: n[1],
            until: n[2],
            last: Seconds(n[3]),
            at: Seconds(n[4]),
            rule,
        };
        prop_assert_eq!(Entry::decode(&entry.encode()), Some(entry));
    }

    #[test]
    fn damaged_entries_are_none(body: [u8; 20], rest: [u8; 20]) {
        let body: [u8; BODY_BYTES] = [body, rest].concat().try_into().unwrap();
        let _ = Entry::decode(&body);
    }
}
