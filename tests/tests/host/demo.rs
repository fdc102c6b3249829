//! The README's first command.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use purge_tests::files::{age_tree, make, temp_dir, walk};
use purge_tests::wait::{LONG, SOON, until};
use purge_tests::{Fs, Mount, binary, need, sh};
use rustix::process::{Pid, Signal, kill_process};

fn command(temp: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5", "120"])
        .arg(binary("purge-agent"))
        .arg("demo")
        .args(words)
        .env("TMPDIR", temp)
        .stdin(Stdio::null());
    command
}

fn demo(temp: &Path, words: &[&str]) -> Output {
    command(temp, words).output().unwrap()
}

fn said(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// Where an agent could leave something although it was told to use another place.
const USUAL_PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run"];

/// What agents, not tests, have in the usual places, and what they have mounted.
fn elsewhere() -> BTreeSet<String> {
    let dirs = USUAL_PLACES.iter().filter_map(|dir| fs::read_dir(dir).ok());
    let entries = dirs.flatten().filter_map(Result::ok);
    let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with("purge-agent"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = mounts
        .lines()
        .filter(|l| l.contains("purge-agent") && !l.contains("purge-tests-"));
    named
        .map(|e| e.path().to_string_lossy().into_owned())
        .chain(mounted.map(str::to_owned))
        .collect()
}

fn assert_nothing_left(temp: &Path, before: &BTreeSet<String>) {
    // Agents of other tests have a directory there for a moment.
    let more: BTreeSet<String> = elsewhere().difference(before).cloned().collect();
    until("what is there for a moment is left no more", SOON, || {
        let now = elsewhere();
        let left: Vec<_> = more.intersection(&now).collect();
        println!("left behind: {left:?}");
        left.is_empty().then_some(())
    });
    let left: Vec<_> = fs::read_dir(temp)
        .unwrap()
        .filter_map(Result::ok)
        .map(|e| e.path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let temp = temp.to_str().unwrap();
    assert!(!mounts.contains(temp), "something is still mounted:\n{mounts}");
    let loops =
        sh(Command::new("losetup").args(["--list", "--noheadings", "--output", "BACK-FILE"])).unwrap();
    assert!(!loops.contains(temp), "a loop device is still attached:\n{loops}");
}

#[test]
fn the_demo_does_the_main_job_and_leaves_nothing_behind() {
    // The demo makes its own mount; this one only tells whether the host lets it.
    drop(need!(Mount::new(Fs::Ext4)));
    let (temp, elsewhere) = (temp_dir(), elsewhere());
    let out = demo(temp.path(), &[]);
    assert!(out.status.success(), "{}: {}", out.status, said(&out));
    assert!(
        said(&out).lines().count() > 20,
        "shows what it does: {}",
        said(&out)
    );
    assert_nothing_left(temp.path(), &elsewhere);
}

/// Everything that a purge, or carelessness, could change about a tree.
fn picture(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64, i64)> {
    let of = |s: &fs::Metadata| (s.ino(), s.len(), s.mtime(), s.ctime(), s.atime());
    walk(root).into_iter().map(|e| (e.path, of(&e.stat))).collect()
}

#[test]
fn the_demo_on_a_directory_deletes_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("mine");
    make(&root.join("a/b"), 50);
    make(&root.join("c"), 50);
    age_tree(&root);
    let (temp, elsewhere) = (temp_dir(), elsewhere());
    let before = picture(&root);
    let out = demo(temp.path(), &["--volume", root.to_str().unwrap(), "--ttl", "1d"]);
    assert!(out.status.success(), "{}: {}", out.status, said(&out));
    assert_eq!(picture(&root), before, "not even a time has changed");
    assert_nothing_left(temp.path(), &elsewhere);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    drop(need!(Mount::new(Fs::Ext4)));
    let (temp, elsewhere) = (temp_dir(), elsewhere());
    // `timeout` hands the signal on.
    let mut demo = command(temp.path(), &[]);
    let mut running = demo.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the demo has begun", SOON, || {
        fs::read_dir(temp.path()).unwrap().next().map(drop)
    });
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    until("the demo ends", LONG, || running.try_wait().unwrap());
    assert_nothing_left(temp.path(), &elsewhere);
}
