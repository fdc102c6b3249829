//! What the agent still knows after it was stopped, killed, or away for long.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, append, assert_same, make, make_one, read, regular_files};
use purge_tests::wait::{SOON, let_pass, until, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// Every tenth of these files is read.
fn some(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    files.iter().step_by(10).cloned().collect()
}

fn all_but(files: &[PathBuf], used: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    files.iter().filter(|f| !used.contains(*f)).cloned().collect()
}

#[test]
fn a_restart_keeps_every_recorded_access_and_the_coverage() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 1000);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let since = text(&agent.status(), "coverage_since").to_owned();
    let used = some(&files);
    used.iter().for_each(|f| read(f));
    // No question in between: what only the kernel's queue knows must be kept as well.
    agent.restart();
    let ctl = agent.ctl();
    assert_same("after SIGTERM", &ctl.candidate_files(), &all_but(&files, &used));
    let status = agent.status();
    assert_eq!(
        text(&status, "coverage_since"),
        since,
        "observed since the first start"
    );
    assert_eq!(number(&status, "/files"), 1000);
    let explained = ctl.explain(used.first().unwrap());
    assert_eq!(text(&explained, "source"), "observed", "{explained}");
    agent.restart();
    assert_same(
        "and again",
        &agent.ctl().candidate_files(),
        &all_but(&files, &used),
    );
}

#[test]
fn kill_9_loses_no_access_that_is_older_than_the_write_back() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.path();
    let files = make(&root.join("d"), 1000);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    for round in 0..3 {
        let used: Vec<&PathBuf> = files.iter().skip(round).step_by(10).collect();
        used.iter().for_each(|f| read(f));
        // What is older than two seconds is on the disk.
        let_pass(2);
        agent.kill();
        agent.launch();
        agent.wait_until_tracking();
        let planned = agent.ctl().candidate_files();
        let lost: Vec<_> = used.iter().filter(|f| planned.contains(**f)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    assert_eq!(
        agent.ctl().candidate_files().len(),
        700,
        "and nothing else became young"
    );
}

#[test]
fn kill_9_during_the_first_scan_is_followed_by_a_whole_one() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 30_000));
    let root = mount.path();
    for i in 0..20 {
        make(&root.join(format!("d{i}")), 1000);
    }
    age_tree(&root);
    let mut agent = Agent::start(&Config::backdated(&root));
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(agent.ctl().candidate_files().len(), 20_000);
}

#[test]
fn what_changed_while_the_agent_was_away_is_found() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 30);
    make(&root.join("tree/a"), 10);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    assert_eq!(agent.ctl().candidate_files().len(), 40);
    agent.terminate();
    fs::remove_file(&files[0]).unwrap();
    fs::rename(&files[1], root.join("d/renamed")).unwrap();
    fs::rename(root.join("tree"), root.join("moved")).unwrap();
    let made = make_one(&root.join("d/made-meanwhile"));
    append(&files[2]);
    agent.launch();
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    until_same("the index agrees again", &regular_files(&root), || {
        ctl.find(["--type", "f"])
    });
    let planned = ctl.candidate_files();
    assert!(!planned.contains(&made), "made while no agent watched");
    assert!(planned.contains(&files[10]), "a short stop makes nothing young");
    assert!(planned.iter().all(|p| p.exists()));
    let plan = ctl.plan();
    let _ = ctl.apply(&plan).ok();
    assert!(made.exists());
}

#[test]
fn a_stop_beyond_the_tolerance_counts_as_a_use_of_every_file() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"1s\"").rule(
        "old",
        "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false",
    );
    let mut agent = Agent::tracking(&config);
    assert_eq!(agent.ctl().candidate_files().len(), 20);
    agent.terminate();
    let_pass(4);
    agent.launch();
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(
        number(&plan.json, "/candidates/files"),
        0,
        "any process may have used them"
    );
    assert_eq!(number(&plan.json, "/kept/uncovered"), 20, "{}", plan.json);
    let status = agent.status();
    let gaps = status.get("gaps").and_then(Value::as_array).unwrap();
    assert!(!gaps.is_empty(), "the stop is named: {status}");
    assert!(!text(gaps.last().unwrap(), "cause").is_empty());
    let explained = ctl.explain(&files[0]);
    let rules = explained.get("rules").and_then(Value::as_array).unwrap();
    assert!(!text(&rules[0], "because").is_empty());
}

/// It was alive until the end, but what waited in the kernel's queue then was never read: a gap begins where reading stood.
#[test]
fn what_an_agent_that_lagged_behind_had_not_read_when_it_was_killed_counts_as_missed() {
    /// Longer than the agent lets pass until it notes that it is alive.
    const TOLERANCE: u64 = 20;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let config = Config::new(
        &root,
        &format!("baseline = \"mtime\"\ngap_tolerance = \"{TOLERANCE}s\""),
    )
    .rule(
        "old",
        "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false",
    );
    let mut agent = Agent::tracking(&config);
    assert_eq!(agent.ctl().candidate_files().len(), 20);
    let held = agent.hold_collector();
    read(&files[0]);
    let_pass(TOLERANCE + 5);
    assert_eq!(text(&agent.status(), "state"), "tracking", "nothing shows it yet");
    agent.kill_with(held);
    agent.launch();
    agent.wait_until_tracking();
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 0, "one of them was used");
    assert_eq!(number(&plan.json, "/kept/uncovered"), 20, "{}", plan.json);
}

#[test]
fn plans_runs_and_the_rules_survive_a_restart() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 30);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated_with(
        &root,
        "max_files = 10\nremove_empty_dirs = false",
    ));
    let first = agent.ctl().plan();
    let run = agent.ctl().apply(&first).ok().json();
    let second = agent.ctl().plan();
    agent.restart();
    let ctl = agent.ctl();
    let plans = ctl.run(["plans", "--output", "ndjson"]).ok().lines();
    for plan in [&first, &second] {
        assert!(
            plans.iter().any(|p| text(p, "plan_id") == plan.id),
            "{} is forgotten",
            plan.id
        );
    }
    let remembered = ctl
        .run(["run", text(&run, "run_id"), "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&remembered, "/deleted/files"), 10);
    assert_eq!(ctl.show(&second).len(), 10);
    let _ = ctl.apply(&first).ends_with(3);
    let _ = ctl.apply(&second).ok();
    assert_eq!(regular_files(&root).len(), 10);
}

#[test]
fn sigterm_during_an_apply_leaves_a_run_that_adds_up() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 4000);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| ctl.run(["apply", &plan.id, "--yes", "--max-rate", "100"]));
        until("the run has begun", SOON, || {
            (regular_files(&root).len() < 4000).then_some(())
        });
        agent.terminate();
        assert_ne!(slow.join().unwrap().code, 0, "not done");
    });
    let left = regular_files(&root).len() as u64;
    agent.launch();
    agent.wait_until_tracking();
    let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
    assert_eq!(runs.len(), 1);
    assert_ne!(text(&runs[0], "state"), "running", "{}", runs[0]);
    assert_eq!(number(&runs[0], "/deleted/files"), 4000 - left, "{}", runs[0]);
    assert_eq!(number(&agent.status(), "/files"), left);
}

#[test]
fn a_plan_from_before_a_long_gap_is_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"1s\"");
    let mut agent = Agent::tracking(&config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]"));
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 20);
    agent.terminate();
    // No agent watches.
    files.iter().take(5).for_each(|f| read(f));
    let_pass(3);
    agent.launch();
    agent.wait_until_tracking();
    let answer = agent.ctl().run(["apply", &plan.id, "--yes"]).ends_with(3);
    assert!(answer.stderr.contains("make a new one"), "{}", answer.stderr);
    assert_eq!(
        regular_files(&root).len(),
        20,
        "a gap counts as a use of every file"
    );
}

/// A process that an agent had begun to start when it was killed (getent, for a name) holds its socket until it is another program.
#[test]
fn a_socket_that_is_let_go_in_a_moment_is_waited_for_and_another_agents_is_not_taken() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let mut agent = Agent::of_volume(&mount.path(), "10d");
    agent.kill();
    fs::remove_file(agent.socket()).unwrap();
    let held = UnixListener::bind(agent.socket()).unwrap();
    let child = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    agent.launch();
    child.join().unwrap();
    agent.wait_until_tracking();

    agent.kill();
    fs::remove_file(agent.socket()).unwrap();
    let other = UnixListener::bind(agent.socket()).unwrap();
    let (status, said) = agent.launch_in_vain();
    assert!(
        !status.success() && said.contains("another agent listens"),
        "{status} {said}"
    );
    assert!(agent.socket().exists(), "the other's socket is left alone");
    drop(other);
}
