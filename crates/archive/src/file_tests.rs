#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::archive::Archive;
use crate::catalogue;
use crate::copy::{CopyError, copy};
use crate::probe::probe;

struct Ground {
    tmp: tempfile::TempDir,
    store: Directory,
}

impl Ground {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let store = Directory::open(tmp.path()).unwrap();
        Self { tmp, store }
    }

    fn copied(&self, path: &[u8], bytes: &[u8]) -> crate::copy::Copied {
        copy(&self.store, path, &mut Content::of_bytes(bytes.to_vec())).unwrap()
    }

    fn read(&self, key: &str) -> Vec<u8> {
        let mut all = Vec::new();
        self.store.get(key).unwrap().read_to_end(&mut all).unwrap();
        all
    }
}

#[test]
fn a_directory_keeps_what_a_store_promises() {
    let ground = Ground::new();
    probe(&ground.store, "r1").unwrap();
    probe(&ground.store, "r1").unwrap();
}

#[test]
fn the_tree_is_that_of_the_volume_and_roots_alone() {
    let ground = Ground::new();
    let copied = ground.copied(b"alice/run 1/out", b"bytes");
    assert_eq!((copied.key.as_str(), copied.is_found), ("alice/run 1/out", false));
    let file = ground.tmp.path().join("alice/run 1/out");
    assert_eq!(fs::read(&file).unwrap(), b"bytes");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let dir = fs::metadata(ground.tmp.path().join("alice")).unwrap();
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    let sending = ground.tmp.path().join(".purge-agent/sending");
    assert_eq!(fs::read_dir(sending).unwrap().count(), 0);
}

#[test]
fn the_same_content_is_found_and_other_content_is_kept_beside() {
    let ground = Ground::new();
    ground.copied(b"f", b"one");
    assert!(ground.copied(b"f", b"one").is_found);
    let other = ground.copied(b"f", b"two");
    assert!(other.key.starts_with("f~") && !other.is_found);
    // Of the same size or not.
    let longer = ground.copied(b"f", b"three");
    assert!(longer.key.starts_with("f~") && longer.key != other.key);
    assert!(ground.copied(b"f", b"two").is_found);
    assert_eq!(ground.read("f"), b"one");
    assert_eq!(ground.read(&other.key), b"two");
}

#[test]
fn a_damaged_copy_is_never_taken_for_the_file() {
    let ground = Ground::new();
    ground.copied(b"f", b"whole");
    fs::write(ground.tmp.path().join("f"), b"wHole").unwrap();
    let again = ground.copied(b"f", b"whole");
    assert!(again.key.starts_with("f~") && !again.is_found, "{again:?}");
    fs::write(ground.tmp.path().join(&again.key), b"whoLe").unwrap();
    let mut content = Content::of_bytes(b"whole".to_vec());
    let error = copy(&ground.store, b"f", &mut content).unwrap_err();
    assert!(matches!(error, CopyError::Taken(_)), "{error:?}");
}

#[test]
fn what_has_no_place_in_the_tree_lies_by_its_hash() {
    let ground = Ground::new();
    ground.copied(b"a", b"a file");
    // Below a file, over a directory, with a name too long, among the agent's own.
    for path in [
        b"a/b".as_slice(),
        &[0xff; 200],
        b".purge-agent/sending/x",
        &b"deep/".repeat(20_000),
    ] {
        let copied = ground.copied(path, path);
        assert!(copied.key.starts_with(".purge-agent/long/"), "{}", copied.key);
        assert_eq!(ground.read(&copied.key), path);
    }
    ground.copied(b"d/f", b"x");
    assert!(ground.copied(b"d", b"y").key.starts_with(".purge-agent/long/"));
}

#[test]
fn nothing_leads_out_of_the_store() {
    let ground = Ground::new();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), ground.tmp.path().join("link")).unwrap();
    let copied = ground.copied(b"link/f", b"x");
    assert!(copied.key.starts_with(".purge-agent/long/"), "{}", copied.key);
    fs::write(outside.path().join("secret"), b"x").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), ground.tmp.path().join("s")).unwrap();
    assert!(ground.copied(b"s", b"x").key.starts_with(".purge-agent/long/"));
    assert!(ground.store.get("link/secret").is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_changes_while_it_is_sent_leaves_nothing() {
    let ground = Ground::new();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![1; 3 << 20]).unwrap();
    let mut short = Content::of_file(&file, (3 << 20) + 1).unwrap();
    let error = copy(&ground.store, b"f", &mut short).unwrap_err();
    assert!(matches!(error, CopyError::Source(_)), "{error:?}");
    assert_eq!(ground.store.size("f").unwrap(), None);
}

#[test]
fn a_catalogue_is_written_and_listed() {
    let tmp = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Directory::open(tmp.path()).unwrap());
    assert_eq!(
        store.list(&catalogue::of_volume("v")).unwrap(),
        Vec::<String>::new()
    );
    let archive = Archive::over(store.clone(), "v", "r1");
    archive.write_down(b"{}\n".to_vec()).unwrap();
    archive.write_down(b"{}\n{}\n".to_vec()).unwrap();
    archive.end("completed").unwrap();
    let mut keys = store.list(&catalogue::of_volume("v")).unwrap();
    keys.sort();
    let of = |name: &str| format!(".purge-agent/catalogue/v/r1/{name}");
    assert_eq!(keys, [of("000000.ndjson"), of("000001.ndjson"), of("end.json")]);
    // A second run of this name writes nothing over it.
    assert!(
        Archive::over(store, "v", "r1")
            .write_down(b"{}\n".to_vec())
            .is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_path_is_copied_and_read_back(
        names in prop::collection::vec(prop::collection::vec((1u8..=255).prop_filter("no slash", |b| *b != b'/'), 1..60), 1..5),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assume!(names.iter().all(|name| name != b"." && name != b".."));
        let ground = Ground::new();
        let path = names.join(&b'/');
        let copied = ground.copied(&path, &bytes);
        prop_assert_eq!(ground.read(&copied.key), bytes);
        if !copied.key.starts_with(".purge-agent/") {
            prop_assert_eq!(key::path_of(&copied.key), Some(path));
        }
    }
}
