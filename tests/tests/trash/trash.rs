//! The trash: what rules with a grace take can be put back until the grace ends.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use purge_tests::ctl::{Ctl, number, tally, text};
use purge_tests::files::{age_tree, assert_same, files_of_users, inode, make, make_one, trash_is_empty};
use purge_tests::wait::{SOON, until, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

const TRASH: &str = ".purge-agent-trash";

fn with_grace(root: &Path, grace: &str, more: &str) -> Config {
    Config::backdated_with(root, &format!("grace = \"{grace}\"\n{more}"))
}

fn apply_all(ctl: &Ctl) -> Value {
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    run
}

fn trashed(agent: &Agent) -> u64 {
    number(&agent.status(), "/trash/files")
}

fn is_empty(root: &Path) -> bool {
    trash_is_empty(root)
}

fn everything_comes_back(filesystem: Fs) {
    let mount = need!(Mount::new(filesystem));
    let root = mount.path();
    let mut files = make(&root.join("a/b"), 300);
    files.extend(make(&root, 20));
    fs::hard_link(&files[0], root.join("a/second-name")).unwrap();
    files.push(root.join("a/second-name"));
    let odd = root.join("a/new\nline \u{1F980}");
    files.push(make_one(&odd));
    chown(&files[3], Some(1234), Some(2345)).unwrap();
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o2751)).unwrap();
    chown(root.join("a/b"), Some(1000), Some(1001)).unwrap();
    age_tree(&root);
    let inodes: Vec<u64> = files.iter().map(|f| inode(f)).collect();
    let agent = Agent::tracking(&with_grace(&root, "1h", "remove_empty_dirs = \"all\""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/grace_seconds"), 3600);
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(number(&run, "/trashed/files"), 321, "{run}");
    assert_eq!(
        number(&run, "/trashed/directories"),
        2,
        "the two directories that were left empty: {run}"
    );
    assert!(files.iter().all(|f| !f.exists()));
    assert!(!root.join("a").exists(), "directories that are left empty go");
    let trash = fs::metadata(root.join(TRASH)).unwrap();
    assert_eq!((trash.uid(), trash.mode() & 0o777), (0, 0o700), "root's alone");

    // Nothing of it is in any answer but the trash's own.
    let status = agent.status();
    assert_eq!(
        (number(&status, "/files"), number(&status, "/trash/files")),
        (0, 321),
        "{status}"
    );
    assert!(ctl.find(["--type", "f"]).is_empty());
    assert_eq!(number(&ctl.plan().json, "/candidates/files"), 0);
    let _ = ctl.run(["rescan"]).ends_with(0);
    assert_eq!(number(&agent.status(), "/files"), 0, "nor does a scan find it");

    let id = text(&run, "run_id");
    let report = ctl.run(["restore", id, "--output", "json"]).ok().json();
    assert_eq!(number(&report, "/restored/files"), 322, "by name: {report}");
    assert_same(
        "everything",
        &files_of_users(&root),
        &files.iter().cloned().collect(),
    );
    assert!(is_empty(&root), "nothing is left in the trash");
    let found: Vec<u64> = files.iter().map(|f| inode(f)).collect();
    assert_eq!(found, inodes, "the very same files");
    let dir = fs::metadata(root.join("a/b")).unwrap();
    assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (1000, 1001, 0o2751));
    assert_eq!(fs::metadata(&files[3]).unwrap().uid(), 1234);
    until("the index has them again", SOON, || {
        (number(&agent.status(), "/files") == 321).then_some(())
    });
    assert_eq!(
        number(&ctl.plan().json, "/candidates/files"),
        0,
        "a restored file counts as used"
    );
    let again = ctl.run(["restore", id]).ends_with(3);
    assert!(
        again.stderr.contains("all of it has been restored"),
        "{}",
        again.stderr
    );
}

#[test]
fn everything_comes_back_on_ext4() {
    everything_comes_back(Fs::Ext4);
}

#[test]
fn everything_comes_back_on_xfs() {
    everything_comes_back(Fs::Xfs);
}

#[test]
fn everything_comes_back_on_btrfs() {
    everything_comes_back(Fs::Btrfs);
}

#[test]
fn everything_comes_back_on_tmpfs() {
    everything_comes_back(Fs::Tmpfs);
}

#[test]
fn parts_are_restored_and_nothing_is_overwritten() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let a = make(&root.join("a"), 10);
    let b = make(&root.join("b/sub"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&with_grace(&root, "1h", ""));
    let ctl = agent.ctl();
    let run = apply_all(&ctl);
    let id = text(&run, "run_id");
    // One file, then a directory in whose place a file lies, then the rest, one name of which is taken.
    let one = [b[4].as_os_str(), b[5].as_os_str()];
    let arguments = ["restore", id].map(std::ffi::OsStr::new);
    let _ = ctl.run(arguments.into_iter().chain(one)).ends_with(0);
    assert_same(
        "two files",
        &files_of_users(&root),
        &b[4..6].iter().cloned().collect(),
    );
    make_one(&root.join("a"));
    let refused = ctl.run(["restore", id, "--output", "json"]).ends_with(5).json();
    assert_eq!(
        (
            number(&refused, "/restored/files"),
            number(&refused, "/failed_total")
        ),
        (8, 11),
        "with the directory itself: {refused}"
    );
    assert!(
        text(&refused["failed"][0], "error").contains("not a directory"),
        "{refused}"
    );
    fs::remove_file(root.join("a")).unwrap();
    fs::create_dir(root.join("a")).unwrap();
    fs::write(&a[0], "another user's new file").unwrap();
    let refused = ctl.run(["restore", id, "--output", "json"]).ends_with(5).json();
    assert_eq!(
        (
            number(&refused, "/restored/files"),
            number(&refused, "/failed_total")
        ),
        (9, 1),
        "{refused}"
    );
    assert_eq!(fs::read(&a[0]).unwrap(), b"another user's new file");
    assert_eq!(trashed(&agent), 1);
    fs::rename(&a[0], root.join("a/moved-away")).unwrap();
    let _ = ctl.run(["restore", id]).ends_with(0);
    assert!(a.iter().chain(&b).all(|f| f.exists()) && is_empty(&root));
}

#[test]
fn directories_come_back_as_a_whole_and_in_parts() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for unit in ["x/one", "x/two"] {
        make(&root.join(unit).join("sub"), 20);
        fs::create_dir(root.join(unit).join("empty")).unwrap();
    }
    age_tree(&root);
    let ino = inode(&root.join("x/one"));
    let config = with_grace(&root, "1h", "target = \"directory\"\ndepth = 2");
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let run = apply_all(&ctl);
    assert_eq!(number(&run, "/trashed/directories"), 2, "{run}");
    assert!(files_of_users(&root).is_empty());
    let _ = fs::remove_dir(root.join("x"));
    let id = text(&run, "run_id");
    let part = root.join("x/two/sub/f000003");
    let _ = ctl.run(["restore", id, part.to_str().unwrap()]).ends_with(0);
    assert_same(
        "one file of a directory",
        &files_of_users(&root),
        &[part].into_iter().collect(),
    );
    let _ = ctl
        .run(["restore", id, root.join("x/one").to_str().unwrap()])
        .ends_with(0);
    assert_eq!(inode(&root.join("x/one")), ino, "the very same directory");
    assert!(root.join("x/one/empty").is_dir());
    assert_eq!(files_of_users(&root).len(), 21);
    until("the index has them again", SOON, || {
        (number(&agent.status(), "/files") == 21).then_some(())
    });
}

#[test]
fn what_is_in_the_trash_goes_when_its_grace_ends_also_after_a_restart() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a"), 50);
    age_tree(&root);
    let mut agent = Agent::tracking(&with_grace(&root, "3s", ""));
    let run = apply_all(&agent.ctl());
    let id = text(&run, "run_id").to_owned();
    agent.terminate();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!is_empty(&root), "no agent has freed it");
    agent.launch();
    until("it is freed", SOON, || is_empty(&root).then_some(()));
    until("the run says so", SOON, || {
        let run = agent.ctl().run(["run", &id, "--output", "json"]).ok().json();
        run["trash_freed_at"].is_string().then_some(())
    });
    assert_eq!(trashed(&agent), 0);
    let late = agent.ctl().run(["restore", &id]).ends_with(3);
    assert!(late.stderr.contains("its grace ended"), "{}", late.stderr);
}

#[test]
fn no_grace_frees_at_once() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a"), 50);
    age_tree(&root);
    let agent = Agent::tracking(&with_grace(&root, "1h", ""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let apply = ["apply", &plan.id, "--yes", "--no-grace", "--output", "json"];
    let run = ctl.run(apply).ok().json();
    assert_eq!(number(&run, "/deleted/files"), 50, "{run}");
    assert!(is_empty(&root));
    let none = ctl.run(["restore", text(&run, "run_id")]).ends_with(3);
    assert!(none.stderr.contains("it had no grace"), "{}", none.stderr);
}

#[test]
fn everything_that_happens_is_in_the_audit_log() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("a"), 5);
    let held = make_one(&root.join("held"));
    age_tree(&root);
    let agent = Agent::tracking(&with_grace(&root, "1h", ""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    ctl.hold(&held, &[]);
    let run = ctl.apply(&plan).ok().json();
    let (id, plan_id) = (text(&run, "run_id"), text(&run, "plan_id"));
    let log = agent.state_dir().join("audit.jsonl");
    fs::rename(&log, agent.state_dir().join("audit.1")).unwrap();
    agent.reload();
    until("the log is opened again", SOON, || log.exists().then_some(()));
    let _ = ctl.run(["restore", id, files[1].to_str().unwrap()]).ends_with(0);
    let read = |path: &Path| -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let lines = read(&agent.state_dir().join("audit.1"));
    let events = |event: &str| lines.iter().filter(|l| text(l, "event") == event).count();
    assert_eq!(
        (
            events("trashed"),
            events("deleted"),
            events("skipped"),
            lines.len()
        ),
        (6, 0, 1, 7),
        "five files, the directory they leave, and the one that is held: {lines:?}"
    );
    let paths: BTreeSet<PathBuf> = lines
        .iter()
        .filter(|l| text(l, "event") == "trashed" && text(l, "kind") == "file")
        .map(|l| text(l, "path").into())
        .collect();
    assert_same("by path", &paths, &files.iter().cloned().collect());
    for line in &lines {
        assert_eq!((text(line, "run_id"), text(line, "plan_id")), (id, plan_id));
        assert_eq!((text(line, "by"), text(line, "rule")), ("uid 0", "old"));
    }
    let skipped = lines.iter().find(|l| text(l, "event") == "skipped").unwrap();
    assert_eq!(
        (text(skipped, "reason"), text(skipped, "path")),
        ("held", held.to_str().unwrap())
    );
    assert_eq!(text(&lines[0], "source"), "mtime");
    let after = read(&log);
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(
        (text(&after[0], "event"), text(&after[0], "path")),
        ("restored", files[1].to_str().unwrap())
    );
}

/// A volume over its watermark: what lies in the trash goes first where that is allowed, and is counted in any case.
#[test]
fn a_watermark_counts_the_trash_and_may_empty_it() {
    const FILE: u64 = 4 << 20;
    let mount = need!(Mount::sized(Fs::Ext4, 128, 4096));
    let root = mount.path();
    let big = |name: &str| {
        let path = root.join(name);
        fs::write(&path, vec![7; FILE as usize]).unwrap();
        path
    };
    let old: Vec<PathBuf> = (0..10).map(|n| big(&format!("old{n}"))).collect();
    age_tree(&root);
    let keys = "high = \"50%\"\nlow = \"20%\"\nrule = \"old\"\nmin_age = \"1h\"\nfree_trash = true";
    let config = with_grace(&root, "1h", "").table("watermark", keys);
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let run = apply_all(&ctl);
    assert_eq!(number(&run, "/trashed/files"), 10, "{run}");
    assert_eq!(number(&agent.status(), "/trash/bytes"), 10 * FILE);
    // Below the watermark with what is in the trash; over it with this.
    let young: Vec<PathBuf> = (0..10).map(|n| big(&format!("young{n}"))).collect();
    until("the trash is emptied", Duration::from_secs(90), || {
        is_empty(&root).then_some(())
    });
    until_same("what is young stays", &young.into_iter().collect(), || {
        files_of_users(&root)
    });
    assert!(old.iter().all(|f| !f.exists()));
    until("status says so", SOON, || (trashed(&agent) == 0).then_some(()));
    let late = ctl.run(["restore", text(&run, "run_id")]).ends_with(3);
    assert!(late.stderr.contains("to make room"), "{}", late.stderr);
}

#[test]
fn a_run_that_took_nothing_says_so() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("a"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&with_grace(&root, "1h", ""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let in_use: Vec<_> = files.iter().map(|f| fs::File::open(f).unwrap()).collect();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/trashed/files"), 0, "{run}");
    drop(in_use);
    let nothing = ctl.run(["restore", text(&run, "run_id")]).ends_with(3);
    assert!(
        nothing.stderr.contains("put nothing into the trash\n"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn what_a_user_puts_in_the_place_of_the_trash_stops_no_run() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let place = root.join(TRASH);
    for (round, what) in ["directory", "file", "link"].iter().enumerate() {
        let files = make(&root.join("old"), 10);
        // What the agent of the round before keeps there.
        let _ = fs::remove_dir_all(&place);
        match *what {
            "directory" => fs::create_dir(&place).unwrap(),
            "file" => fs::write(&place, "mine").unwrap(),
            _ => std::os::unix::fs::symlink(elsewhere.path(), &place).unwrap(),
        }
        std::os::unix::fs::lchown(&place, Some(1234), Some(1234)).unwrap();
        let ino = fs::symlink_metadata(&place).unwrap().ino();
        age_tree(&root.join("old"));
        let agent = Agent::tracking(&with_grace(&root, "1h", "exclude = [\"purge-agent-set-aside*\"]"));
        let run = apply_all(&agent.ctl());
        assert_eq!(number(&run, "/trashed/files"), 10, "{what}: {run}");
        let aside = root.join(format!("purge-agent-set-aside.{round}"));
        let kept = fs::symlink_metadata(aside).unwrap();
        assert_eq!(
            (kept.ino(), kept.uid()),
            (ino, 1234),
            "{what}: it stays the user's"
        );
        agent.wait_until_it_says("it has another name now");
        let _ = agent.ctl().run(["restore", text(&run, "run_id")]).ok();
        assert!(files.iter().all(|f| f.exists()));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}

/// All short names for it are taken beforehand.
#[test]
fn a_user_who_takes_the_names_for_what_is_set_aside_stops_no_run() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let of_user = |name: &str| {
        let path = root.join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(1234), Some(1234)).unwrap();
    };
    of_user(TRASH);
    (0..1000).for_each(|n| of_user(&format!("purge-agent-set-aside.{n}")));
    make(&root.join("old"), 10);
    age_tree(&root.join("old"));
    let agent = Agent::tracking(&with_grace(&root, "1h", "exclude = [\"purge-agent-set-aside*\"]"));
    assert_eq!(number(&apply_all(&agent.ctl()), "/trashed/files"), 10);
}

/// The owner of the volume's root may give a private directory of root's the name of the trash, and can enter neither.
#[test]
fn a_directory_of_roots_under_the_name_of_the_trash_loses_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    chown(&root, Some(1234), Some(1234)).unwrap();
    let own = root.join("roots-own");
    let mut precious = make(&own.join("db.1700000000/f"), 3);
    precious.extend(make(&own.join("new"), 3));
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    let old = make(&root.join("old"), 5);
    age_tree(&root.join("old"));
    let agent = Agent::tracking(&with_grace(&root, "1h", "exclude = [\"/*own/\"]"));
    let _ = apply_all(&agent.ctl());
    assert!(old.iter().all(|f| !f.exists()));
    fs::rename(root.join(TRASH), root.join("elsewhere")).unwrap();
    fs::rename(&own, root.join(TRASH)).unwrap();
    // Freeing, and a run that needs the trash.
    agent.wait_until_it_says("it has another name now");
    let aside = root.join("purge-agent-set-aside.0");
    let moved = |path: &PathBuf| aside.join(path.strip_prefix(&own).unwrap());
    assert!(precious.iter().map(moved).all(|path| path.exists()));
}
