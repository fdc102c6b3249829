//! What is different on ZFS: snapshots that hold what is deleted, data sets below a volume, and `.zfs`. They need a kernel with its modules:
//! `tests/run --with-kernels zfs`, which runs most other tests on ZFS as well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{now, regular_files, set_times};
use purge_tests::wait::{LONG, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use serde_json::Value;

const HOUR: i64 = 3600;
const FILE: u64 = 2_000_000;

fn zfs(arguments: &[&str]) -> String {
    sh(Command::new("zfs").args(arguments)).unwrap()
}

fn old_files(dir: &Path, count: i64, bytes: u64) -> Vec<PathBuf> {
    let put = |i: i64| {
        let path = dir.join(format!("f{i:02}"));
        fs::write(&path, vec![7; bytes as usize]).unwrap();
        set_times(&path, now() - (200 - i) * HOUR);
        path
    };
    (0..count).map(put).collect()
}

fn config(root: &Path, rule: &str) -> Config {
    let rule = format!("ttl = \"4h\"\nclock = [\"access\"]\n{rule}");
    Config::new(root, "baseline = \"mtime\"").rule("old", &rule)
}

fn trigger(agent: &Agent) -> Value {
    let status = agent.status();
    let found = status.pointer("/triggers/0").cloned();
    found.unwrap_or_else(|| panic!("no trigger: {status}"))
}

fn until_trigger_is(agent: &Agent, state: &str) -> Value {
    until(&format!("the trigger is {state}"), LONG, || {
        let trigger = trigger(agent);
        (text(&trigger, "state") == state).then_some(trigger)
    })
}

fn use_in_percent(root: &Path) -> u64 {
    let s = rustix::fs::statvfs(root).unwrap();
    (s.f_blocks - s.f_bfree) * 100 / s.f_blocks
}

/// Of a volume with a watermark a bit below what is in use.
fn with_watermark(root: &Path) -> Config {
    let now = use_in_percent(root);
    let keys = format!(
        "rule = \"old\"\nhigh = \"{}%\"\nlow = \"{}%\"\nmin_age = \"5h\"",
        now - 2,
        now - 15
    );
    let rule = "max_fraction = 1.0";
    let rule = format!("ttl = \"365d\"\nclock = [\"access\"]\n{rule}");
    let config = Config::new(root, "baseline = \"mtime\"").rule("old", &rule);
    config.table("watermark", &keys)
}

#[test]
#[ignore = "needs ZFS: tests/run --with-kernels zfs"]
fn snapshots_are_not_entered() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, pool) = (mount.path(), mount.pool().unwrap().to_owned());
    old_files(&root, 3, 10);
    zfs(&["set", "snapdir=visible", &pool]);
    zfs(&["snapshot", &format!("{pool}@before")]);
    assert!(
        fs::read_dir(&root)
            .unwrap()
            .flatten()
            .any(|e| e.file_name() == ".zfs")
    );
    let agent = Agent::tracking(&config(&root, "grace = \"1h\""));
    let _ = agent.ctl().run(["rescan"]).ok();
    agent.wait_until_tracking();
    let plan = agent.ctl().plan();
    assert_eq!(
        agent.ctl().show(&plan).len(),
        3,
        "the files of the snapshot are none of it"
    );
    let _ = agent.ctl().apply(&plan).ok();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(".zfs/snapshot"), "{mounts}");
    assert_eq!(
        fs::read_dir(root.join(".zfs/snapshot/before")).unwrap().count(),
        3
    );
}

#[test]
#[ignore = "needs ZFS: tests/run --with-kernels zfs"]
fn data_sets_below_a_volume_are_left_alone() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (root, pool) = (mount.path(), mount.pool().unwrap().to_owned());
    old_files(&root, 2, 10);
    zfs(&["create", &format!("{pool}/below")]);
    let below = old_files(&root.join("below"), 2, 10);
    assert_ne!(
        root.metadata().unwrap().dev(),
        root.join("below").metadata().unwrap().dev()
    );
    let agent = Agent::tracking(&config(&root, "grace = \"0s\"\nremove_empty_dirs = true"));
    let plan = agent.ctl().plan();
    assert_eq!(agent.ctl().show(&plan).len(), 2);
    let _ = agent.ctl().apply(&plan).ok();
    assert!(below.iter().all(|f| f.exists()));
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains("zfs at "), "{doctor}");
}

#[test]
#[ignore = "needs ZFS: tests/run --with-kernels zfs"]
fn a_watermark_waits_until_zfs_has_freed_what_was_deleted() {
    let mount = need!(Mount::sized(Fs::Ext4, 512, 2000));
    let root = mount.path();
    old_files(&root, 60, FILE);
    sh(&mut Command::new("sync")).unwrap();
    let_pass(8);
    let agent = Agent::tracking(&with_watermark(&root));
    let freed = until("what came free is known", LONG, || {
        let trigger = trigger(&agent);
        (!trigger.pointer("/measured")?.is_null()).then_some(trigger)
    });
    let promised = number(&freed, "/measured/promised_bytes");
    assert!(promised > 10_000_000, "{freed}");
    assert!(number(&freed, "/measured/freed_bytes") * 2 >= promised, "{freed}");
    let left = regular_files(&root).len();
    assert!(
        left > 20 && left < 60,
        "no more went than was asked for: {left} are left"
    );
}

#[test]
#[ignore = "needs ZFS: tests/run --with-kernels zfs"]
fn a_watermark_stops_while_a_snapshot_holds_what_it_deletes() {
    let mount = need!(Mount::sized(Fs::Ext4, 512, 2000));
    let (root, pool) = (mount.path(), mount.pool().unwrap().to_owned());
    old_files(&root, 60, FILE);
    zfs(&["snapshot", &format!("{pool}@holds")]);
    sh(&mut Command::new("sync")).unwrap();
    let_pass(8);
    let mut agent = Agent::tracking(&with_watermark(&root));
    let stopped = until_trigger_is(&agent, "stopped");
    assert!(text(&stopped, "reason").contains("snapshots"), "{stopped}");
    let left = regular_files(&root).len();
    assert!(left > 20 && left < 60, "one run's worth went: {left} are left");
    // Also when it fills up again, and after a restart.
    fs::write(root.join("new"), vec![3; 30_000_000]).unwrap();
    sh(&mut Command::new("sync")).unwrap();
    agent.restart();
    let_pass(15);
    assert_eq!(text(&trigger(&agent), "state"), "stopped");
    assert_eq!(regular_files(&root).len(), left + 1);
    // When the snapshot goes, the space comes free by itself: as much as was promised, and a bit more.
    zfs(&["destroy", &format!("{pool}@holds")]);
    fs::remove_file(root.join("new")).unwrap();
    fs::remove_file(regular_files(&root).first().unwrap()).unwrap();
    until("the trigger goes on", Duration::from_secs(120), || {
        (text(&trigger(&agent), "state") != "stopped").then_some(())
    });
}
