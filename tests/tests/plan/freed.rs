//! Nothing goes on deleting when deleting does not help: blocks that are shared, limits over a day, quotas that end.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{now, regular_files, set_times};
use purge_tests::notices::until_told;
use purge_tests::wait::{Ends, LONG, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

const HOUR: i64 = 3600;
/// The first look at a watermark is five seconds after the start, and the effect of a run is known after fifteen.
const LOOK_SECONDS: u64 = 8;

fn config(root: &Path, rule: &str) -> Config {
    let rule = format!("ttl = \"365d\"\nclock = [\"access\"]\n{rule}");
    Config::new(root, "baseline = \"mtime\"").rule("old", &rule)
}

fn watermark(config: Config, high: &str, low: &str) -> Config {
    let keys = format!("rule = \"old\"\nhigh = \"{high}\"\nlow = \"{low}\"\nmin_age = \"5h\"");
    config.table("watermark", &keys)
}

/// A file of `bytes` bytes that was last used `hours` ago.
fn put(path: PathBuf, bytes: usize, hours: i64) -> PathBuf {
    fs::write(&path, vec![7; bytes]).unwrap();
    set_times(&path, now() - hours * HOUR);
    path
}

/// The first of them is the oldest.
fn put_many(dir: &Path, name: &str, count: i64, bytes: usize, hours: i64) -> Vec<PathBuf> {
    let all = (0..count).map(|i| put(dir.join(format!("{name}{i:02}")), bytes, hours - i));
    all.collect()
}

fn share(root: &Path) -> f64 {
    let s = rustix::fs::statvfs(root).unwrap();
    let used = (s.f_blocks - s.f_bfree) as f64;
    used / (used + s.f_bavail as f64)
}

/// Shares of the space in use as the configuration has them, around what is in use now: (high, low).
fn around(root: &Path, below: f64) -> (String, String) {
    let percent = |share: f64| format!("{:.0}%", (share * 100.0).floor());
    let now = share(root);
    (percent(now - 0.02), percent(now - below))
}

fn trigger(agent: &Agent) -> Value {
    let status = agent.status();
    status
        .pointer("/triggers/0")
        .cloned()
        .unwrap_or_else(|| panic!("no trigger: {status}"))
}

fn until_trigger_is(agent: &Agent, state: &str) -> Value {
    until(&format!("the trigger is {state}"), LONG, || {
        let trigger = trigger(agent);
        (text(&trigger, "state") == state).then_some(trigger)
    })
}

fn doctor_says(agent: &Agent) -> Value {
    let found = agent.ctl().run(["doctor", "--output", "json"]).json();
    let findings = found.pointer("/findings").unwrap_or(&found).clone();
    let findings = findings.as_array().unwrap().iter();
    let mut of_triggers = findings.filter(|f| f.get("check").is_some_and(|c| c == "trigger"));
    of_triggers
        .next()
        .cloned()
        .unwrap_or_else(|| panic!("no finding: {found}"))
}

/// What shares its blocks with something else stays; what does not goes, also when it is younger.
fn nothing_goes_that_is_shared(filesystem: Fs, share_all: impl Fn(&Path, &Path)) {
    let mount = need!(Mount::sized(filesystem, 320, 2000));
    let volume = mount.dir("volume");
    let files = put_many(&volume, "f", 40, 3_000_000, 200);
    share_all(&mount.path(), &volume);
    put_many(&volume, "own", 10, 3_000_000, 100);
    sh(Command::new("sync").arg("-f").arg(&volume)).unwrap();
    let (high, low) = around(&volume, 0.25);
    let mut agent = Agent::tracking(&watermark(config(&volume, "max_fraction = 1.0"), &high, &low));
    let shared: BTreeSet<PathBuf> = files.iter().cloned().collect();
    until("what shares nothing goes", LONG, || {
        (regular_files(&volume).len() <= shared.len()).then_some(())
    });
    let freed = until("what came free is known", LONG, || {
        let trigger = trigger(&agent);
        (!trigger.pointer("/measured")?.is_null()).then_some(trigger)
    });
    assert!(number(&freed, "/measured/freed_bytes") > 20_000_000, "{freed}");
    // Enough is free: it fills up once more, and now nothing is left that would help.
    put_many(&volume, "new", 15, 3_000_000, 0);
    sh(Command::new("sync").arg("-f").arg(&volume)).unwrap();
    agent.restart();
    let waiting = until_trigger_is(&agent, "waiting");
    assert!(text(&waiting, "reason").contains("snapshot"), "{waiting}");
    let finding = doctor_says(&agent);
    assert_eq!(text(&finding, "verdict"), "bad", "{finding}");
    let left = regular_files(&volume);
    assert!(shared.is_subset(&left), "{} are left", left.len());
    // To look at the files was no use of them.
    let explained = agent.ctl().explain(&files[0]);
    assert_eq!(text(&explained, "access_source"), "mtime", "{explained}");
}

fn reflink_all(_: &Path, volume: &Path) {
    let copies = volume.parent().unwrap().join("copies");
    let mut copy = Command::new("cp");
    sh(copy.args(["-a", "--reflink=always"]).arg(volume).arg(copies)).unwrap();
}

#[test]
fn copies_by_reflink_on_btrfs_keep_their_files() {
    nothing_goes_that_is_shared(Fs::Btrfs, reflink_all);
}

#[test]
fn copies_by_reflink_on_xfs_keep_their_files() {
    nothing_goes_that_is_shared(Fs::Xfs, reflink_all);
}

#[test]
fn a_snapshot_on_btrfs_keeps_its_files() {
    nothing_goes_that_is_shared(Fs::Btrfs, |root, _| {
        let mut snapshot = Command::new("btrfs");
        snapshot
            .args(["-q", "subvolume", "snapshot"])
            .arg(root)
            .arg(root.join("snapshot"));
        sh(&mut snapshot).unwrap();
    });
}

/// Keeps files that are removed on the disk, without being a use of them that a lease would tell of.
fn keep_files(files: &[PathBuf]) -> Vec<OwnedFd> {
    let open = |f: &PathBuf| rustix::fs::open(f, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    files.iter().map(|f| open(f).unwrap()).collect()
}

/// Takes what comes free at once, outside of the volume and without a file of it: as blocks that a snapshot below the file system keeps.
fn take_what_comes_free(files: &[PathBuf], outside: &Path, bytes: u64, over: &AtomicBool) {
    let mut taken = 0;
    while !over.load(Relaxed) {
        let free = files.iter().filter(|f| !f.exists()).count() as u64 * bytes;
        if free > taken {
            let file = fs::File::options()
                .create(true)
                .append(true)
                .open(outside)
                .unwrap();
            let mode = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, mode, 0, free).unwrap();
            taken = free;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_watermark_stops_when_what_it_deletes_does_not_come_free() {
    const FILE: u64 = 2_000_000;
    let mount = need!(Mount::sized(Fs::Ext4, 128, 2000));
    let root = mount.dir("volume");
    let files = put_many(&root, "f", 40, FILE as usize, 200);
    let outside = root.parent().unwrap().join("outside");
    let (high, low) = around(&root, 0.14);
    // It cannot be reached: the notice waits, and can be looked at.
    let sink = "webhook = { url = \"http://127.0.0.1:9/\" }";
    let config = watermark(config(&root, "max_fraction = 1.0"), &high, &low).notifying(sink);
    let mut agent = Agent::prepared(&config);
    let left = || regular_files(&root).len();
    let over = AtomicBool::new(false);
    let (first, second) = std::thread::scope(|scope| {
        let _over = Ends(&over);
        scope.spawn(|| take_what_comes_free(&files, &outside, FILE, &over));
        agent.launch();
        let stopped = until_trigger_is(&agent, "stopped");
        println!("{stopped}");
        assert!(text(&stopped, "reason").contains("came free"), "{stopped}");
        let promised = number(&stopped, "/measured/promised_bytes");
        assert!(promised > 10_000_000 && number(&stopped, "/measured/freed_bytes") * 2 < promised);
        let first = left();
        assert!(first < 40 && first > 20, "one run's worth went: {first} are left");
        let finding = doctor_says(&agent);
        assert_eq!(text(&finding, "verdict"), "bad", "{finding}");
        assert!(text(&finding, "cure").contains("purgectl resume"), "{finding}");
        let table = agent.ctl().run(["status"]).ok().text();
        assert!(
            table.contains("STOPPED") && table.contains("came free"),
            "{table}"
        );
        until_told(&agent.ctl(), &["trigger-stopped operator"]);
        // No restart lets it go on.
        agent.restart();
        let_pass(LOOK_SECONDS);
        assert_eq!(text(&trigger(&agent), "state"), "stopped");
        assert_eq!(left(), first);
        // An operator does, and it stops again.
        let _ = agent.ctl().run(["resume", "no-such-volume"]).ends_with(1);
        let _ = agent.ctl().run(["resume"]).ok();
        let _ = agent.ctl().run(["resume"]).ends_with(3);
        agent.restart();
        until_trigger_is(&agent, "stopped");
        (first, left())
    });
    assert!(second < first, "{second} of {first} are left");
    // And so does the space itself.
    fs::remove_file(&outside).unwrap();
    sh(Command::new("sync").arg("-f").arg(&root)).unwrap();
    agent.restart();
    until_trigger_is(&agent, "ready");
    let_pass(LOOK_SECONDS);
    assert_eq!(left(), second, "enough is free by now: {}", share(&root));
}

/// The files are all one owner's, so all of that owner's are left alone.
#[test]
fn what_lies_in_the_trash_is_measured_when_its_grace_ends() {
    let mount = need!(Mount::sized(Fs::Ext4, 128, 2000));
    let root = mount.path();
    let files = put_many(&root, "f", 40, 2_000_000, 200);
    let (high, low) = around(&root, 0.14);
    let kept = keep_files(&files);
    let rule = "max_fraction = 1.0\ngrace = \"10s\"";
    let agent = Agent::tracking(&watermark(config(&root, rule), &high, &low));
    let why = until("an owner is left out", LONG, || {
        let trigger = trigger(&agent);
        trigger.pointer("/left_out/0")?.as_str().map(str::to_owned)
    });
    assert!(
        why.contains("uid 0") && why.contains(&format!("process {}", std::process::id())),
        "{why}"
    );
    assert_eq!(number(&agent.status(), "/trash/files"), 0, "it was freed");
    let left = files.iter().filter(|f| f.exists()).count();
    assert!(left > 20 && left < 40, "one run's worth went: {left} are left");
    let finding = doctor_says(&agent);
    assert!(finding.to_string().contains("trigger"), "{finding}");
    let waiting = until_trigger_is(&agent, "waiting");
    assert!(text(&waiting, "reason").contains("keeps them"), "{waiting}");
    assert_eq!(files.iter().filter(|f| f.exists()).count(), left);
    drop(kept);
}

#[test]
fn a_watermark_whose_files_come_free_goes_on_and_says_what_it_freed() {
    for filesystem in [Fs::Ext4, Fs::Xfs, Fs::Btrfs] {
        let mount = need!(Mount::sized(filesystem, 128, 2000));
        let root = mount.path();
        put_many(&root, "f", 40, 2_000_000, 200);
        sh(Command::new("sync").arg("-f").arg(&root)).unwrap();
        let (high, low) = around(&root, 0.10);
        let agent = Agent::tracking(&watermark(config(&root, "max_fraction = 1.0"), &high, &low));
        let trigger = until("what came free is known", LONG, || {
            let trigger = trigger(&agent);
            assert_ne!(text(&trigger, "state"), "stopped", "{trigger}");
            (!trigger.pointer("/measured")?.is_null()).then_some(trigger)
        });
        println!("{filesystem:?}: {trigger}");
        let (promised, freed) = (
            number(&trigger, "/measured/promised_bytes"),
            number(&trigger, "/measured/freed_bytes"),
        );
        assert!(promised > 0 && freed >= promised / 2, "{filesystem:?}: {trigger}");
        assert_eq!(text(&trigger, "state"), "ready");
    }
}

#[test]
fn limits_of_a_rule_bind_all_triggered_plans_of_a_day() {
    for (limits, key, below) in [
        ("max_fraction = 1.0\nmax_files = 10", "max_files", 0.25),
        ("max_fraction = 1.0\nmax_bytes = \"20MB\"", "max_bytes", 0.25),
        ("max_fraction = 0.3", "max_fraction", 0.14),
    ] {
        let mount = need!(Mount::sized(Fs::Ext4, 128, 2000));
        let root = mount.path();
        put_many(&root, "f", 40, 2_000_000, 200);
        let (high, low) = around(&root, below);
        let mut agent = Agent::tracking(&watermark(config(&root, limits), &high, &low));
        until("a run's end", LONG, || {
            let done = number(&trigger(&agent), "/taken_lately/files") > 0;
            (done && text(&trigger(&agent), "state") == "ready").then_some(())
        });
        let left = regular_files(&root).len();
        assert!((28..38).contains(&left), "{key}: {left} are left");
        // It fills up again, within the day.
        put_many(&root, "more", 15, 2_000_000, 100);
        agent.restart();
        let waiting = until_trigger_is(&agent, "waiting");
        assert!(text(&waiting, "reason").contains(key), "{waiting}");
        assert!(text(&waiting, "reason").contains("24 h"), "{waiting}");
        assert_eq!(regular_files(&root).len(), left + 15, "{key}");
        // A person may look, and go on.
        let plan = agent.ctl().plan_with(["--watermark"]);
        assert!(number(&plan.json, "/candidates/files") > 0, "{}", plan.json);
        if key != "max_fraction" {
            assert!(number(&agent.ctl().apply(&plan).ok().json(), "/deleted/files") > 0);
        }
    }
}

#[test]
fn a_quota_that_purges_ends_also_while_files_are_added() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let mine = |name: &str, count, hours| {
        for file in put_many(&root, name, count, 10_000, hours) {
            chown(&file, Some(54_321), Some(54_321)).unwrap();
            set_times(&file, now() - hours * HOUR);
        }
    };
    mine("f", 60, 200);
    let keys = "name = \"user\"\nsubject = \"user\"\nhard = \"200000B\"\nlow = \"90%\"\naction = \"purge\"\nmin_age = \"5h\"";
    let agent = Agent::tracking(&config(&root, "max_fraction = 1.0").table("quota", keys));
    let ctl = agent.ctl();
    // 42 go; six come while they do, and two, and none.
    for (goes, comes) in [(42, 6), (8 - 2, 1), (0, 0)] {
        let plan = ctl.plan_with(["--quota", "user"]);
        assert_eq!(number(&plan.json, "/candidates/files"), goes, "{}", plan.json);
        std::thread::scope(|scope| {
            scope.spawn(|| mine(&format!("more{comes}-"), comes, 100));
            if goes > 0 {
                assert_eq!(number(&ctl.apply(&plan).ok().json(), "/deleted/files"), goes);
            }
        });
    }
    // No more than `low` and what came last, and never below `low`.
    let left = regular_files(&root).len();
    assert!((18..=20).contains(&left), "{left}");
}
