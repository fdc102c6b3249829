//! Bad times: a full disk, a volume that goes and comes, lost events, a wall clock that jumps. The agent stays up, says what is
//! wrong, plans nothing in doubt, and is well again when the cause is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, assert_same, make, now, read, regular_files, temp_dir};
use purge_tests::volumes::gaps_of;
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use serde_json::Value;

fn all_but(files: &[PathBuf], used: &[PathBuf]) -> BTreeSet<PathBuf> {
    files.iter().filter(|f| !used.contains(f)).cloned().collect()
}

/// Fills a file system to the last block; removing the file frees it again.
fn fill(root: &Path) -> PathBuf {
    let file = root.join("filler");
    let mut dd = Command::new("dd");
    let _ = dd
        .args([
            "if=/dev/zero",
            "bs=4096",
            "status=none",
            "oflag=append",
            "conv=notrunc",
        ])
        .arg(format!("of={}", file.display()))
        .output();
    file
}

#[test]
fn a_full_disk_under_the_index_is_told_and_forgets_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let disk = need!(Mount::sized(Fs::Ext4, 32, 500));
    let root = mount.path();
    let files = make(&root.join("d"), 300);
    age_tree(&root);
    let config = Config::backdated(&root);
    let mut agent = Agent::tracking_in(&config, Some(disk.dir("state")), &[]);
    let_pass(2);
    let filler = fill(&disk.path());
    // The store takes its space in large pieces: until it needs one, nothing is wrong.
    let mut used = Vec::new();
    let why = until("the full disk is told", SOON * 3, || {
        // Also what the agent gives up of its own.
        fill(&disk.path());
        for file in files.iter().take(200) {
            read(file);
            if !used.contains(file) {
                used.push(file.clone());
            }
        }
        let status = agent.status();
        (text(&status, "state") == "degraded").then(|| text(&status, "reason").to_owned())
    });
    assert!(why.contains("free space"), "{why}");
    assert!(agent.is_running());
    let refused = agent.ctl().run(["plan"]).ends_with(3);
    assert!(refused.stderr.contains("degraded"), "{}", refused.stderr);
    let last = files[250].clone();
    read(&last);
    used.push(last);
    fs::remove_file(filler).unwrap();
    agent.wait_until_well();
    assert_same("healed", &agent.ctl().candidate_files(), &all_but(&files, &used));
    let_pass(3);
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    assert_same(
        "and stored",
        &agent.ctl().candidate_files(),
        &all_but(&files, &used),
    );
}

#[test]
fn a_state_directory_that_becomes_read_only_is_told() {
    let mount = need!(Mount::new(Fs::Ext4));
    let mut disk = need!(Mount::sized(Fs::Ext4, 64, 500));
    let root = mount.path();
    let files = make(&root.join("d"), 50);
    age_tree(&root);
    let mut agent = Agent::tracking_in(&Config::backdated(&root), Some(disk.dir("state")), &[]);
    read(&files[0]);
    let_pass(3);
    disk.abort();
    let why = until("it is told", SOON, || {
        read(&files[1]);
        let status = agent.status();
        (text(&status, "state") == "degraded").then(|| text(&status, "reason").to_owned())
    });
    assert!(why.contains("cannot be"), "{why}");
    assert!(agent.is_running());
    let _ = agent.ctl().run(["plan"]).ends_with(3);
    agent.kill();
    disk.unmount();
    disk.mount().unwrap();
    agent.launch();
    agent.wait_until_tracking();
    assert!(!agent.ctl().candidate_files().contains(&files[0]));
}

#[test]
fn a_volume_that_was_unmounted_is_watched_again_when_it_is_back() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 100);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    read(&files[0]);
    let_pass(2);
    mount.unmount();
    let why = agent.wait_until_degraded();
    assert!(why.contains("unmounted") || why.contains("mounted?"), "{why}");
    let _ = agent.ctl().run(["plan"]).ends_with(3);
    assert_eq!(
        number(&agent.status(), "/files"),
        100,
        "an empty directory: nothing has vanished"
    );
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
    assert!(agent.is_running());
    until("uses are seen again", SOON, || {
        read(&files[1]);
        (!agent.ctl().candidate_files().contains(&files[1])).then_some(())
    });
    assert_same(
        "all others",
        &agent.ctl().candidate_files(),
        &all_but(&files, &files[..2]),
    );
    let status = agent.status();
    assert!(!gaps_of(&status, "unmounted").is_empty(), "{status}");
}

#[test]
fn a_file_system_mounted_over_the_volume_is_no_place_to_purge() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    sh(Command::new("mount").args(["-t", "tmpfs", "over"]).arg(&root)).unwrap();
    let others = make(&root.join("d"), 5);
    let refused = agent.ctl().run(["plan"]).ends_with(3);
    let why = agent.wait_until_degraded();
    sh(Command::new("umount").arg(&root)).unwrap();
    assert!(
        refused.stderr.contains("another file system"),
        "{}",
        refused.stderr
    );
    assert!(why.contains("another file system"), "{why}");
    assert!(!others.is_empty());
    agent.wait_until_well();
    assert_same("as before", &agent.ctl().candidate_files(), &regular_files(&root));
    assert_eq!(files.len(), 20);
}

#[test]
fn lost_events_count_as_a_use_of_every_file_also_after_kill_9() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let root = mount.path();
    let limit: usize = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(
        limit < 35_000,
        "the host's limit is too high for this test: {limit}"
    );
    for i in 0..7 {
        make(&root.join(format!("d{i}")), 5000);
    }
    age_tree(&root);
    let limited = [("PURGE_AGENT_LIMITED_QUEUE", Path::new("1"))];
    let mut agent = Agent::tracking_in(&Config::backdated(&root), None, &limited);
    assert_eq!(agent.ctl().candidate_files().len(), 35_000);
    agent.freeze();
    regular_files(&root).iter().for_each(|f| read(f));
    agent.thaw();
    until("the loss is told", SOON, || {
        gaps_of(&agent.status(), "overflow").first().map(drop)
    });
    // At once: nothing else has written it down yet.
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    let status = agent.status();
    assert!(!gaps_of(&status, "overflow").is_empty(), "{status}");
    assert_same(
        "doubt counts as use",
        &agent.ctl().candidate_files(),
        &BTreeSet::new(),
    );
}

/// Makes a library that shifts the wall clock of a program by the seconds that a file says; no other clock.
fn clock_shifter(dir: &Path) -> (PathBuf, PathBuf) {
    let source = dir.join("shift.c");
    fs::write(
        &source,
        r#"#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *t) {
    long done = syscall(SYS_clock_gettime, which, t);
    if (done == 0 && which == CLOCK_REALTIME) {
        FILE *f = fopen(getenv("CLOCK_SHIFT"), "r");
        long by = 0;
        if (f) { if (fscanf(f, "%ld", &by) != 1) by = 0; fclose(f); }
        t->tv_sec += by;
    }
    return done;
}
"#,
    )
    .unwrap();
    let library = dir.join("shift.so");
    sh(Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source))
    .unwrap();
    let shift = dir.join("shift");
    set_shift(&shift, 0);
    (library, shift)
}

fn set_shift(file: &Path, seconds: i64) {
    let new = file.with_extension("new");
    fs::write(&new, seconds.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn no_step_of_the_wall_clock_makes_anything_expire() {
    let mount = need!(Mount::new(Fs::Ext4));
    let dir = temp_dir();
    let (library, shift) = clock_shifter(dir.path());
    let root = mount.path();
    let files = make(&root.join("d"), 50);
    let rule = "ttl = \"1d\"\nclock = [\"access\", \"modify\", \"change\", \"birth\"]";
    let config = Config::new(&root, "gap_tolerance = \"1h\"").rule("day", rule);
    let environment = [
        ("LD_PRELOAD", library.as_path()),
        ("CLOCK_SHIFT", shift.as_path()),
    ];
    let mut agent = Agent::tracking_in(&config, None, &environment);
    files.iter().step_by(2).for_each(|f| read(f));
    let nothing = BTreeSet::new();
    for days in [30, -30, 4000, 0, -200, 2] {
        set_shift(&shift, days * 86_400);
        assert_same(
            &format!("{days} days off"),
            &agent.ctl().candidate_files(),
            &nothing,
        );
        files.iter().skip(1).step_by(7).for_each(|f| read(f));
        agent.terminate();
        agent.launch();
        agent.wait_until_tracking();
        let last = agent.last_words();
        let logged: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        let off = (chrono_seconds(text(&logged, "timestamp")) - now()) / 86_400;
        assert!(
            (off - days).abs() <= 1,
            "its wall clock is {off} days off, not {days}"
        );
        assert_same(
            &format!("{days} days off, restarted"),
            &agent.ctl().candidate_files(),
            &nothing,
        );
        agent.kill();
        agent.launch();
        agent.wait_until_tracking();
        assert_same(
            &format!("{days} days off, killed"),
            &agent.ctl().candidate_files(),
            &nothing,
        );
        let explained = agent.ctl().explain(&files[0]);
        let at = chrono_seconds(text(&explained, "access"));
        assert!((now() - at).abs() < 300, "times go on: {explained}");
    }
}

/// Seconds since 1970 of an RFC 3339 time, by date(1).
fn chrono_seconds(time: &str) -> i64 {
    let out = sh(Command::new("date").args(["+%s", "-d", time])).unwrap();
    out.trim().parse().unwrap()
}

#[test]
fn a_slow_scan_keeps_to_its_rate_and_raises_no_doubt() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 200);
    age_tree(&root);
    let keys = "baseline = \"mtime\"\nsweep_interval = \"2s\"\nsweep_rate = 100";
    let config = Config::new(&root, keys).rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let agent = Agent::tracking(&config);
    let scans = || number(&agent.status(), "/keeping/scans_total");
    let begun = scans();
    until("the slow scan runs", SOON, || {
        agent.status().get("scan").filter(|s| s.is_object()).map(drop)
    });
    let running = std::time::Instant::now();
    assert_eq!(
        text(&agent.status(), "state"),
        "tracking",
        "it is no reason for doubt"
    );
    until("the slow scan ends", SOON, || (scans() > begun).then_some(()));
    assert!(
        running.elapsed().as_secs_f64() > 1.0,
        "200 entries at 100 a second"
    );
    assert_same(
        "nothing changed",
        &agent.ctl().candidate_files(),
        &all_but(&files, &[]),
    );
}
