//! What a rule archives is copied, fetched back and compared, and only then deleted.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use purge_tests::archive::Store;
use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age, age_tree, give, make, make_one, regular_files, shell};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

fn archived(run: &Value) -> (u64, u64) {
    (number(run, "/archived/files"), number(run, "/archived/bytes"))
}

/// Each file of a tree with its bytes.
fn contents(root: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let below = |path: &Path| path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let files = regular_files(root).into_iter();
    files
        .map(|path| (below(&path), fs::read(&path).unwrap()))
        .collect()
}

fn is_copied_compared_and_then_deleted(filesystem: Fs) {
    let mount = need!(Mount::sized(filesystem, 256, 20_000));
    let (root, store) = (mount.path(), Store::new());
    let d = root.join("alice/run 1");
    make(&d, 300);
    fs::write(d.join("large"), vec![7; 5_000_001]).unwrap();
    fs::write(d.join("empty"), "").unwrap();
    fs::write(d.join(OsStr::from_bytes(b"odd\xff\x01\\name ")), "odd").unwrap();
    fs::write(d.join("\u{201b}"), "quote").unwrap();
    fs::create_dir_all(root.join(".purge-agent/x")).unwrap();
    fs::write(root.join(".purge-agent/x/mine"), "a name of the agent's own").unwrap();
    age_tree(&root);
    let before = contents(&root);
    let agent = Agent::tracking(&store.config(&root, ""));
    let plan = agent.ctl().plan();
    assert_eq!(
        plan.json["rule_totals"][0]["archive"]["name"], "cold",
        "{}",
        plan.json
    );
    let run = agent.ctl().apply(&plan).ok().json();
    assert_eq!(text(&run, "state"), "completed", "{run}");
    let bytes: usize = before.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(archived(&run), (before.len() as u64, bytes as u64), "{run}");
    assert_eq!(
        tally(&plan, &run).deleted,
        number(&run, "/deleted/files") + number(&run, "/deleted/directories")
    );
    assert!(regular_files(&root).is_empty());

    // The store alone is enough: each path has an object of its bytes.
    let copies = store.contents();
    for (path, bytes) in &before {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(copies.get(path), Some(&vec![bytes.clone()]), "{shown}");
    }
    // And the tree is the same, but for what cannot be a name there.
    assert_eq!(
        fs::read(store.path().join("alice/run 1/large")).unwrap(),
        vec![7; 5_000_001]
    );
    assert!(
        store
            .path()
            .join("alice/run 1/odd\u{201b}FF\u{1}\\name ")
            .exists()
    );
    // Every directory that was removed with them has a line.
    let directories: BTreeSet<Vec<u8>> = store
        .catalogue()
        .into_iter()
        .filter(|entry| entry.line["kind"] == "directory")
        .map(|entry| entry.path)
        .collect();
    assert!(directories.contains(b"alice/run 1".as_slice()), "{directories:?}");
    let end = format!(".purge-agent/catalogue/v/{}/end.json", text(&run, "run_id"));
    let end: Value = serde_json::from_slice(&fs::read(store.object(&end)).unwrap()).unwrap();
    assert_eq!(
        (&end["state"], &end["files"]),
        (&"completed".into(), &(before.len() as u64).into())
    );

    // The log has a line for each copy, with its hash.
    let log = fs::read_to_string(agent.state_dir().join("audit.jsonl")).unwrap();
    let lines = log.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let of_copies: Vec<Value> = lines
        .filter(|l| l["event"] == "archived" && l["kind"] == "file")
        .collect();
    assert_eq!(of_copies.len(), before.len());
    let sum = shell(store.path(), "sha256sum 'alice/run 1/large'");
    let hash = sum.split_whitespace().next().unwrap();
    assert!(of_copies.iter().any(|l| l["sha256"] == hash), "{hash}");
}

#[test]
fn what_expires_is_copied_compared_and_then_deleted() {
    for filesystem in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        is_copied_compared_and_then_deleted(filesystem);
    }
}

#[test]
fn the_catalogue_has_what_a_copy_has_not() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    let (file, dir) = (make_one(&root.join("f")), root.join("empty"));
    fs::hard_link(&file, root.join("second")).unwrap();
    make_one(&root.join("plain"));
    symlink("plain", root.join("link")).unwrap();
    fs::create_dir(&dir).unwrap();
    give(&dir, 4321, 0o750);
    give(&file, 4321, 0o640);
    rustix::fs::setxattr(&file, "user.note", b"remember", rustix::fs::XattrFlags::empty()).unwrap();
    shell(&root, "setfacl -m u:1234:r f");
    age_tree(&root);
    shell(&root, "touch -d '2020-01-02 03:04:05.678901234 UTC' f");
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    let links = fs::metadata(&file).unwrap().nlink();
    // An empty directory and a link go by their change times, which cannot be set back.
    let keys = "symlinks = \"with-target\"";
    let config = store.config(&root, keys);
    let agent = Agent::tracking(&config);
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    assert_eq!((links, archived(&run).0), (2, 2), "{run}");
    let all = store.catalogue();
    let line = |path: &str| {
        let mut found = all.iter().filter(|entry| entry.path == path.as_bytes());
        found.next().map(|entry| entry.line.clone())
    };
    // A file with two names has one object, and all its names.
    let file = line("f").or_else(|| line("second")).unwrap();
    assert_eq!(file["names"].as_array().unwrap().len(), 2, "{file}");
    assert_eq!((&file["uid"], &file["gid"]), (&4321.into(), &4321.into()));
    assert_eq!(file["mode"], format!("{mode:04o}"));
    assert_eq!(file["mtime"], "2020-01-02T03:04:05.678901234Z");
    assert_eq!(file["xattrs"]["user.note"], "cmVtZW1iZXI=");
    assert!(file["xattrs"]["system.posix_acl_access"].is_string(), "{file}");
    assert_eq!((&file["rule"], &file["volume"]), (&"old".into(), &"v".into()));
    assert_eq!(file["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(line("plain").unwrap()["kind"], "file");
}

#[test]
fn an_identical_copy_completes_the_delete_and_another_is_kept_beside() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    fs::write(root.join("same"), "content").unwrap();
    fs::write(root.join("other"), "new content").unwrap();
    fs::write(store.path().join("same"), "content").unwrap();
    fs::write(store.path().join("other"), "old content").unwrap();
    age_tree(&root);
    let agent = Agent::tracking(&store.config(&root, ""));
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    assert_eq!(
        (archived(&run).0, number(&run, "/deleted/files")),
        (2, 2),
        "{run}"
    );
    // Nothing was replaced.
    assert_eq!(fs::read(store.path().join("other")).unwrap(), b"old content");
    let copies = store.contents();
    assert_eq!(copies[b"other".as_slice()], [b"new content".to_vec()]);
    assert_eq!(copies[b"same".as_slice()], [b"content".to_vec()]);
    let found = |path: &[u8]| {
        let all = store.catalogue();
        let line = &all.iter().find(|entry| entry.path == path).unwrap().line;
        line["found"] == true
    };
    assert!(found(b"same") && !found(b"other"));
}

#[test]
fn what_is_open_or_held_is_neither_copied_nor_deleted() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    let files = make(&root.join("d"), 5);
    age_tree(&root);
    let open = File::options().append(true).open(&files[1]).unwrap();
    let agent = Agent::tracking(&store.config(&root, "remove_empty_dirs = false"));
    let plan = agent.ctl().plan();
    agent.ctl().hold(&files[2], &[]);
    let run = agent.ctl().apply(&plan).ok().json();
    assert_eq!(
        (archived(&run).0, number(&run, "/deleted/files")),
        (3, 3),
        "{run}"
    );
    assert_eq!(number(&run, "/skipped/open"), 1);
    assert_eq!(number(&run, "/skipped/held"), 1);
    assert!(files[1].exists() && files[2].exists());
    assert!(!store.path().join("d/f000001").exists() && !store.path().join("d/f000002").exists());
    drop(open);
}

#[test]
fn with_a_grace_the_file_is_in_the_trash_as_well() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    let file = make_one(&root.join("f"));
    age(&file);
    let agent = Agent::tracking(&store.config(&root, "grace = \"1h\""));
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    assert_eq!(
        (archived(&run).0, number(&run, "/trashed/files")),
        (1, 1),
        "{run}"
    );
    assert!(!file.exists() && store.path().join("f").exists());
    let restored = agent.ctl().run(["restore", text(&run, "run_id")]);
    assert_eq!(restored.code, 0, "{}", restored.text());
    assert!(file.exists());
}

#[test]
fn without_a_store_that_works_nothing_is_deleted() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    let files = make(&root.join("d"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&store.config(&root, ""));
    let plan = agent.ctl().plan();
    // As when it is not mounted.
    fs::remove_dir(store.path()).unwrap();
    let failed = agent.ctl().apply(&plan).ends_with(1);
    assert!(format!("{failed:?}").contains("cold"), "{failed:?}");
    assert!(failed.text().contains("cold"), "{}", failed.text());
    assert!(files.iter().all(|file| file.exists()));
    fs::create_dir(store.path()).unwrap();
}

#[test]
fn a_store_that_fills_up_ends_the_run_and_loses_nothing() {
    let (mount, small) = (
        need!(Mount::new(Fs::Ext4)),
        need!(Mount::sized(Fs::Tmpfs, 4, 400)),
    );
    let root = mount.path();
    for n in 0..20 {
        fs::write(root.join(format!("f{n:02}")), vec![n; 1_000_000]).unwrap();
    }
    age_tree(&root);
    let table = format!(
        "[[archive]]\nname = \"cold\"\nurl = \"file://{}\"",
        small.dir("cold").display()
    );
    let config = Config::backdated_with(&root, "action = \"archive\"").tables(&table);
    let agent = Agent::tracking(&config);
    let plan = agent.ctl().plan();
    let run = agent.ctl().apply(&plan).ends_with(1).json();
    assert!(text(&run, "error").contains("No space left"), "{run}");
    tally(&plan, &run);
    assert_eq!(regular_files(&root).len(), 20, "{run}");
}

#[test]
fn a_plan_whose_archive_has_moved_is_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store, other) = (mount.path(), Store::new(), Store::new());
    let file = make_one(&root.join("f"));
    age(&file);
    let agent = Agent::tracking(&store.config(&root, ""));
    let plan = agent.ctl().plan();
    agent.write_config(&other.config(&root, ""));
    agent.reload();
    let refused = agent.ctl().apply(&plan).ends_with(3);
    assert!(refused.stderr.contains("make a new one"), "{refused:?}");
    assert!(file.exists());
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    assert_eq!(archived(&run).0, 1, "{run}");
    assert!(other.path().join("f").exists() && !store.path().join("f").exists());
}

/// Of a mount that is missing, the directory below it is there.
#[test]
fn a_store_that_is_not_mounted_is_not_taken_for_an_empty_one() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    let files = make(&root.join("d"), 2);
    age(&files[0]);
    let agent = Agent::tracking(&store.config(&root, "remove_empty_dirs = false"));
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    assert_eq!(archived(&run).0, 1, "{run}");
    fs::rename(store.path().join(".purge-agent"), store.path().join("away")).unwrap();
    let other = make_one(&root.join("other"));
    age(&other);
    agent.ctl().run(["rescan"]).ok().text();
    let plan = agent.ctl().plan();
    let refused = agent.ctl().apply(&plan).ends_with(1).text();
    assert!(refused.contains("is it mounted?"), "{refused}");
    assert!(other.exists() && !store.path().join("other").exists());
}

#[test]
fn what_was_archived_is_listed_compared_and_fetched() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, store) = (mount.path(), Store::new());
    let bytes: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/large"), &bytes).unwrap();
    fs::write(root.join("d/small"), "small").unwrap();
    fs::write(root.join("other"), "other").unwrap();
    age_tree(&root);
    let agent = Agent::tracking(&store.config(&root, "remove_empty_dirs = false"));
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    let ctl = agent.ctl();
    let list = |more: &[&str]| {
        let words = ["archive", "list", "--output", "ndjson"].iter().chain(more);
        let all = ctl.run(words).ok().lines();
        all.iter()
            .map(|e| text(e, "path").to_owned())
            .collect::<BTreeSet<_>>()
    };
    let of = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(list(&[]), of(&["d/large", "d/small", "other"]));
    let dir = root.join("d");
    assert_eq!(list(&[dir.to_str().unwrap()]), of(&["d/large", "d/small"]));
    assert_eq!(list(&["--volume", "v", "d/small"]), of(&["d/small"]));
    assert_eq!(list(&["--run", text(&run, "run_id")]).len(), 3);
    assert_eq!(list(&["--run", "r0000000none"]), of(&[]));

    let out = purge_tests::files::temp_dir();
    let to = out.path().join("back");
    let large = root.join("d/large");
    let get = |path: &Path| {
        ctl.run([
            "archive",
            "get",
            path.to_str().unwrap(),
            "-o",
            to.to_str().unwrap(),
        ])
    };
    assert!(get(&large).ok().text().contains("SHA-256"));
    assert_eq!(fs::read(&to).unwrap(), bytes);
    // It replaces nothing.
    assert!(get(&large).ends_with(1).text().contains("exists already"));
    assert!(ctl.run(["archive", "verify"]).ok().text().contains("3 copies"));

    // A copy that has changed is found, and is not handed out.
    fs::write(store.path().join("d/small"), "smaLl").unwrap();
    fs::remove_file(store.path().join("other")).unwrap();
    let wrong = ctl
        .run(["archive", "verify", "--output", "ndjson"])
        .ends_with(5)
        .lines();
    let states: BTreeSet<(&str, &str)> = wrong
        .iter()
        .map(|e| (text(e, "path"), text(e, "state")))
        .collect();
    let expected = [
        ("d/large", "good"),
        ("d/small", "differs"),
        ("other", "unreadable"),
    ];
    assert_eq!(states, BTreeSet::from(expected));
    fs::remove_file(&to).unwrap();
    assert!(
        get(&root.join("d/small"))
            .ends_with(1)
            .text()
            .contains("have changed in the store")
    );
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "no part stays");
    assert!(
        get(&root.join("never"))
            .ends_with(1)
            .text()
            .contains("no copy of this file")
    );
}
