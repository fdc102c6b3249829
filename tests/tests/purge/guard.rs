//! A file that a process has open or locked, or that has another name, stays; directories go as a whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, assert_same, make, make_one, read, regular_files, trash_is_empty};
use purge_tests::sys::Mapping;
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

fn skipped(run: &Value, reason: &str) -> u64 {
    number(run, &format!("/skipped/{reason}"))
}

/// Files only: the counts are those of the files then.
fn files_only(root: &Path) -> Config {
    Config::backdated_with(root, "remove_empty_dirs = false")
}

/// Directories directly below the root, as a whole.
fn directories(root: &Path, more: &str) -> Config {
    Config::backdated_with(root, &format!("target = \"directory\"\ndepth = 1\n{more}"))
}

/// The uses themselves lie before the plan, so nothing but the open file keeps it.
fn open_files_stay(filesystem: Fs) {
    let mount = need!(Mount::new(filesystem));
    let root = mount.path();
    let files = make(&root.join("d"), 40);
    let program = root.join("d/program");
    fs::copy("/bin/sleep", &program).unwrap();
    let other_name = root.join("d/other-name");
    fs::hard_link(&files[4], &other_name).unwrap();
    age_tree(&root);
    let opened = [
        File::open(&files[0]).unwrap(),
        File::options().append(true).open(&files[1]).unwrap(),
        File::open(&other_name).unwrap(),
    ];
    let mapped = [
        Mapping::of(File::open(&files[2]).unwrap()),
        Mapping::of(File::options().read(true).write(true).open(&files[3]).unwrap()),
    ];
    let mut running = Command::new(&program)
        .arg("60")
        .stdout(Stdio::null())
        .spawn()
        .expect("the program");
    // Started only now: no agent saw what was opened before.
    let agent = Agent::tracking(&files_only(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 41);
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!((counts.deleted, skipped(&run, "open")), (35, 6), "{run}");
    let mut left: BTreeSet<PathBuf> = files[..5].iter().cloned().collect();
    left.extend([program, other_name]);
    assert_same("what is open, mapped or running", &regular_files(&root), &left);
    // A process that closes a file has used it until then.
    drop((opened, mapped));
    assert_eq!(number(&ctl.plan().json, "/candidates/files"), 0);
}

#[test]
fn what_is_open_mapped_or_running_stays_on_ext4() {
    open_files_stay(Fs::Ext4);
}

#[test]
fn what_is_open_mapped_or_running_stays_on_xfs() {
    open_files_stay(Fs::Xfs);
}

#[test]
fn what_is_open_mapped_or_running_stays_on_btrfs() {
    open_files_stay(Fs::Btrfs);
}

#[test]
fn what_is_open_mapped_or_running_stays_on_tmpfs() {
    open_files_stay(Fs::Tmpfs);
}

/// More files than there are leases for one directory.
#[test]
fn a_large_directory_goes_as_a_whole() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for name in ["a", "b"] {
        make(&root.join(name), 1500);
        make(&root.join(name).join("sub"), 1500);
    }
    age_tree(&root);
    let open = File::open(root.join("b/sub/f001499")).unwrap();
    let agent = Agent::tracking(&directories(&root, ""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, skipped(&run, "open")), (1, 1), "{run}");
    assert!(!root.join("a").exists());
    assert_eq!(regular_files(&root).len(), 3000, "all of the other");
    drop(open);
}

/// A name that goes with a directory must not be one of a file that stays.
#[test]
fn a_directory_with_a_file_of_several_names_goes_if_they_are_all_in_it() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    for name in ["a", "b", "c", "d", "e"] {
        make(&root.join(name), 20);
    }
    fs::create_dir(root.join("a/sub")).unwrap();
    fs::hard_link(root.join("a/f000003"), root.join("a/second")).unwrap();
    fs::hard_link(root.join("a/f000003"), root.join("a/sub/third")).unwrap();
    fs::hard_link(root.join("b/f000003"), outside.join("mine")).unwrap();
    fs::hard_link(root.join("c/f000003"), root.join("d/second")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("e/link")).unwrap();
    fs::hard_link(root.join("e/link"), root.join("e/second")).unwrap();
    age_tree(&root);
    let before = regular_files(&root);
    let agent = Agent::tracking(&directories(&root, ""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, skipped(&run, "hardlinked")), (1, 4), "{run}");
    let left = before
        .into_iter()
        .filter(|p| !p.starts_with(root.join("a")))
        .collect();
    assert_same("all of the others", &regular_files(&root), &left);
    assert!(!root.join("a").exists());
}

#[test]
fn a_file_or_directory_with_a_lock_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let plain = make(&root.join("plain"), 10);
    let below = make(&root.join("locked/sub/deeper"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&files_only(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    // Opening a directory is no use of what is in it; opening the file is one, but the lock is what is named.
    let directory = File::open(root.join("locked")).unwrap();
    flock(&directory, FlockOperation::LockShared).unwrap();
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, skipped(&run, "locked")), (10, 10), "{run}");
    assert!(plain.iter().all(|f| !f.exists()) && below.iter().all(|f| f.exists()));

    drop(directory);
    let file = File::open(&below[0]).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    age_tree(&root);
    // One agent for each volume.
    drop(agent);
    let fresh = Agent::tracking(&files_only(&root));
    let ctl = fresh.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 10);
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(
        (tally(&plan, &run).deleted, skipped(&run, "locked")),
        (9, 1),
        "{run}"
    );
    assert!(below[0].exists());
}

#[test]
fn a_file_with_a_name_outside_the_plan_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    let files = make(&root.join("d"), 10);
    fs::hard_link(&files[0], outside.join("mine")).unwrap();
    fs::create_dir(root.join("keep")).unwrap();
    fs::hard_link(&files[1], root.join("keep/mine")).unwrap();
    fs::hard_link(&files[2], root.join("d/second")).unwrap();
    age_tree(&root);
    let rule = "remove_empty_dirs = false\nexclude = [\"keep/**\"]";
    let agent = Agent::tracking(&Config::backdated_with(&root, rule));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(skipped(&run, "hardlinked"), 1, "{run}");
    let left = [files[0].clone(), files[1].clone(), root.join("keep/mine")];
    assert_same(
        "those with a name elsewhere",
        &regular_files(&root),
        &left.into_iter().collect(),
    );
}

/// One file of a directory is open, and the whole directory is back at its place, or was never away.
#[test]
fn a_directory_goes_as_a_whole_or_not_at_all() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for name in ["a", "b", "c", "e"] {
        make(&root.join(name).join("sub/deep"), 50);
        make(&root.join(name), 50);
        fs::create_dir(root.join(name).join("empty")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join(name).join("link")).unwrap();
    }
    age_tree(&root);
    let before: BTreeSet<PathBuf> = regular_files(&root);
    let open = File::open(root.join("b/sub/deep/f000007")).unwrap();
    let lock = File::open(root.join("c/sub")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let agent = Agent::tracking(&directories(&root, ""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/directories"), 4, "{}", plan.json);
    // Used after the plan.
    read(&root.join("e/sub/deep/f000003"));
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, counts.skipped), (1, 3), "{run}");
    let of = |reason| skipped(&run, reason);
    assert_eq!((of("open"), of("locked"), of("accessed")), (1, 1, 1), "{run}");
    let expected = before
        .into_iter()
        .filter(|p| !p.starts_with(root.join("a")))
        .collect();
    assert_same("the three that are in use", &regular_files(&root), &expected);
    assert!(!root.join("a").exists() && root.join("b/empty").is_dir());
    assert!(trash_is_empty(&root), "nothing is left behind");
    // The index still knows what was put back.
    let again = ctl.plan();
    assert_eq!(
        number(&again.json, "/candidates/directories"),
        2,
        "{}",
        again.json
    );
    drop((open, lock));
}

/// Holds that are added while a run goes on are in force when `hold add` returns.
#[test]
fn a_hold_is_in_force_at_once_in_a_run_that_goes_on() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for n in 0..40 {
        make(&root.join(format!("d{n:02}")), 250);
    }
    age_tree(&root);
    let agent = Agent::tracking(&files_only(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let slowly = [
        "apply",
        &plan.id,
        "--yes",
        "--max-rate",
        "2000",
        "--output",
        "json",
    ];
    std::thread::scope(|scope| {
        let ctl = &ctl;
        let applying = scope.spawn(move || ctl.run(slowly));
        let mut kept = Vec::new();
        for n in (0..40).rev().step_by(3) {
            let dir = root.join(format!("d{n:02}"));
            ctl.hold(&dir, &[]);
            kept.push((dir.clone(), regular_files(&dir)));
        }
        let run = applying.join().unwrap().ok().json();
        tally(&plan, &run);
        assert!(skipped(&run, "held") > 0, "{run}");
        for (dir, there) in kept {
            assert_same(
                "what was there when the hold was made",
                &regular_files(&dir),
                &there,
            );
        }
    });
}

/// A file that a user makes at the place of a file in the trash is not overwritten.
#[test]
fn a_new_file_of_the_same_name_is_left_alone() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&files_only(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    fs::remove_file(&files[0]).unwrap();
    make_one(&files[0]);
    fs::rename(&files[1], &files[2]).unwrap();
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, counts.skipped), (7, 3), "{run}");
    let left = [files[0].clone(), files[2].clone()];
    assert_same("what is new", &regular_files(&root), &left.into_iter().collect());
}
