//! A volume that is unmounted and mounted again while the agent goes on: the same process opens it again, and nothing else is disturbed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, assert_same, files_of_users, make, read, temp_dir, trash_is_empty};
use purge_tests::rpc::{call, channel_as, channel_of_a_closed_window, runtime};
use purge_tests::volumes::{gaps_of, volume_named, wait_for_state, whole_status};
use purge_tests::wait::{Ends, LONG, SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// No gap is forgiven.
const STRICT: &str = "baseline = \"mtime\"\n# gap_tolerance is not given";
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";

/// How often the agent has said that a volume is watched again.
fn times_watched_again(agent: &Agent) -> usize {
    agent.said().matches(WATCHED_AGAIN).count()
}

/// Unmounts a volume and mounts it again, and waits until it is watched.
fn remount(agent: &Agent, mount: &mut Mount) {
    let before = times_watched_again(agent);
    mount.unmount();
    mount.mount().unwrap();
    until("it is watched again", LONG, || {
        (times_watched_again(agent) > before).then_some(())
    });
}

/// Another mount of a file system that is away, where no agent watches.
fn read_elsewhere(mount: &Mount, below: &Path) {
    let elsewhere = temp_dir();
    let at = elsewhere.path();
    sh(Command::new("mount")
        .args(["-o", "loop,noatime"])
        .arg(mount.image())
        .arg(at))
    .unwrap();
    read(&at.join(below));
    sh(Command::new("umount").arg(at)).unwrap();
}

/// Asks for `status` over one connection until it is told to end. Counts answers, and the milliseconds of the slowest.
fn keep_asking(agent: &Agent, ends: &AtomicBool, answers: &AtomicU64, slowest: &AtomicU64) {
    let runtime = runtime();
    let channel = channel_as(&runtime, agent, 0, &[]).unwrap();
    while !ends.load(Relaxed) {
        let began = Instant::now();
        runtime
            .block_on(call(&channel, "GetStatus"))
            .expect("an answer over the same connection");
        let took = u64::try_from(began.elapsed().as_millis()).unwrap();
        slowest.fetch_max(took, Relaxed);
        answers.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_agent_goes_on_and_the_other_volume_is_not_disturbed() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let other = need!(Mount::new(Fs::Ext4));
    let files = make(&mount.path().join("d"), 30);
    let others = make(&other.path().join("d"), 30);
    [&mount, &other].iter().for_each(|m| age_tree(&m.path()));
    let config = Config::new(&mount.path(), "baseline = \"mtime\"").rule("old", RULE);
    let agent = {
        let mut agent = Agent::prepared(&config.and_volume("w", &other.path())).with_parent();
        agent.launch();
        agent
    };
    ["v", "w"]
        .iter()
        .for_each(|name| drop(wait_for_state(&agent, name, "tracking")));
    let process = agent.below_parent();
    let (ends, answers, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _ends = Ends(&ends);
        scope.spawn(|| keep_asking(&agent, &ends, &answers, &slowest));
        read(&files[0]);
        mount.unmount();
        wait_for_state(&agent, "v", "degraded");
        read(&others[0]);
        mount.mount().unwrap();
        read(&others[1]);
        agent.wait_until_it_says(WATCHED_AGAIN);
        read(&files[1]);
        read(&others[2]);
        wait_for_state(&agent, "v", "tracking");
    });
    let (answers, slowest) = (answers.into_inner(), slowest.into_inner());
    eprintln!("{answers} answers meanwhile, the slowest after {slowest} ms");
    assert!(answers > 10, "{answers}");
    assert_eq!(agent.below_parent(), process, "{}", agent.last_words());
    let status = whole_status(&agent).unwrap();
    let gaps = |name: &str| gaps_of(&volume_named(&status, name), "unmounted").len();
    assert_eq!((gaps("v"), gaps("w")), (1, 0), "{status}");
    assert_eq!(
        volume_named(&status, "w")["gaps"],
        serde_json::json!([]),
        "{status}"
    );
    let left = |rule: &str, all: &[PathBuf], used: usize| {
        let named = agent.ctl().show(&agent.ctl().plan_with(["--rule", rule]));
        let named: BTreeSet<PathBuf> = named.into_keys().filter(|p| p.is_file()).collect();
        assert_same(rule, &named, &all[used..].iter().cloned().collect());
    };
    left("old", &files, 2);
    left("w", &others, 3);
}

#[test]
fn what_was_used_elsewhere_while_the_volume_was_away_is_not_deleted() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    let agent = Agent::tracking(&Config::new(&root, STRICT).rule("old", RULE));
    let plan = agent.ctl().plan();
    mount.unmount();
    read_elsewhere(&mount, files[3].strip_prefix(&root).unwrap());
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
    let refused = agent.ctl().run(["apply", &plan.id, "--yes"]).ends_with(3);
    assert!(refused.stderr.contains("no agent watched"), "{}", refused.stderr);
    let named = agent.ctl().candidate_files();
    assert!(named.is_empty(), "the gap is a use of every file: {named:?}");
    assert_same("all of them", &files_of_users(&root), &all);
    let gaps = gaps_of(&agent.status(), "unmounted");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["counts"], true, "{gaps:?}");
}

/// Descriptors, threads, and memory that the process alone has, in KiB.
fn holds_of(pid: u32) -> (usize, usize, u64) {
    let count = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let anonymous = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let anonymous = anonymous.unwrap().trim().trim_end_matches(" kB");
    (count("fd"), count("task"), anonymous.parse().unwrap())
}

fn many_remounts_leak_nothing(fs: Fs) {
    const WARM: usize = 2;
    let rounds = if std::env::var_os("PURGE_TESTS_LONG").is_some() {
        20
    } else {
        6
    };
    let mut mount = need!(Mount::new(fs));
    let root = mount.path();
    make(&root.join("d"), 5000);
    age_tree(&root);
    let mut agent = Agent::prepared(&Config::backdated(&root)).with_parent();
    agent.launch();
    agent.wait_until_tracking();
    let process = agent.below_parent().unwrap();
    let settled = || {
        agent.wait_until_well();
        // What is asked for a moment has ended.
        let_pass(2);
        (holds_of(process), holds_of(agent.pid()).0)
    };
    (0..WARM).for_each(|_| remount(&agent, &mut mount));
    let (before, kept_before) = settled();
    (WARM..rounds).for_each(|_| remount(&agent, &mut mount));
    let (after, kept) = settled();
    assert_eq!(kept, kept_before, "the parent keeps what no volume claims");
    eprintln!("descriptors, threads, KiB: {before:?}, then {after:?}");
    assert!(after.0 <= before.0 + 1, "descriptors: {before:?}, then {after:?}");
    assert!(after.1 <= before.1 + 2, "threads: {before:?}, then {after:?}");
    assert!(after.2 <= before.2 + 20_000, "memory: {before:?}, then {after:?}");
    assert_eq!(agent.below_parent(), Some(process), "{}", agent.last_words());
}

#[test]
fn many_remounts_of_one_file_system_leak_nothing() {
    many_remounts_leak_nothing(Fs::Ext4);
}

#[test]
fn many_new_file_systems_at_one_path_leak_nothing() {
    many_remounts_leak_nothing(Fs::Tmpfs);
}

#[test]
fn another_file_system_is_refused_and_the_right_one_goes_on() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let other = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    make(&other.path().join("d"), 10);
    [&mount, &other].iter().for_each(|m| age_tree(&m.path()));
    let agent = Agent::tracking(&Config::backdated(&root));
    let pid = agent.pid();
    mount.unmount();
    sh(Command::new("mount").arg("--bind").arg(other.path()).arg(&root)).unwrap();
    for command in ["status", "doctor"] {
        until(&format!("{command} says what lies there"), SOON, || {
            let said = agent.ctl().run([command]).text();
            said.contains("another file system").then_some(())
        });
    }
    let _ = agent.ctl().run(["plan"]).ends_with(3);
    sh(Command::new("umount").arg(&root)).unwrap();
    assert_eq!(times_watched_again(&agent), 0);
    assert_eq!(files_of_users(&other.path()).len(), 10);
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
    assert_eq!(agent.pid(), pid);
    assert_same(
        "as before",
        &agent.ctl().candidate_files(),
        &files.into_iter().collect(),
    );
}

#[test]
fn a_volume_that_comes_late_is_watched_by_the_process_that_waited_for_it() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let other = need!(Mount::new(Fs::Ext4));
    let files = make(&mount.path().join("d"), 10);
    age_tree(&mount.path());
    let config = Config::backdated(&mount.path()).and_volume("w", &other.path());
    let mut agent = Agent::tracking(&config);
    wait_for_state(&agent, "w", "tracking");
    agent.terminate();
    mount.unmount();
    agent.launch();
    let away = wait_for_state(&agent, "v", "degraded");
    assert!(text(&away, "reason").contains("not watched"), "{away}");
    let asked = agent
        .ctl()
        .run([std::ffi::OsStr::new("explain"), files[0].as_os_str()]);
    assert!(asked.stderr.contains("is not watched now"), "{}", asked.stderr);
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    let back = wait_for_state(&agent, "v", "tracking");
    assert_eq!(back["gaps"].as_array().map(Vec::len), Some(1), "{back}");
    assert!(!agent.said().contains("starting again"), "{}", agent.last_words());
    read(&files[0]);
    let named = agent.ctl().plan_with(["--rule", "old"]);
    let named: BTreeSet<PathBuf> = agent.ctl().show(&named).into_keys().collect();
    assert!(
        !named.contains(&files[0]) && named.contains(&files[1]),
        "{named:?}"
    );
}

#[test]
fn what_a_run_left_in_the_trash_is_counted_and_comes_back_after_a_remount() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        "grace = \"1h\"\nremove_empty_dirs = false",
    ));
    let run = agent.ctl().apply(&agent.ctl().plan()).json();
    assert!(files_of_users(&root).is_empty());
    remount(&agent, &mut mount);
    agent.wait_until_well();
    until("the trash is counted", SOON, || {
        let files = agent.status().pointer("/trash/files")?.as_u64()?;
        (files == 10).then_some(())
    });
    let _ = agent.ctl().run(["restore", text(&run, "run_id")]).ok();
    assert_same(
        "all of them",
        &files_of_users(&root),
        &files.into_iter().collect(),
    );
}

#[test]
fn a_run_that_was_cut_short_is_ended_when_its_volume_comes_late() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let other = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 2000);
    age_tree(&root);
    let config = Config::backdated_with(&root, "remove_empty_dirs = false").and_volume("w", &other.path());
    let mut agent = Agent::tracking(&config);
    wait_for_state(&agent, "w", "tracking");
    let plan = agent.ctl().plan_with(["--rule", "old"]);
    let mut client = agent.ctl().start_apply(&plan, &["--max-rate", "500"]);
    until("the first files are deleted", SOON, || {
        (files_of_users(&root).len() < 2000).then_some(())
    });
    agent.kill();
    client.wait().unwrap();
    mount.unmount();
    agent.launch();
    let run = || {
        let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
        runs.into_iter().find(|r| text(r, "plan_id") == plan.id).unwrap()
    };
    assert_eq!(text(&run(), "state"), "running", "its volume is not there");
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    wait_for_state(&agent, "v", "tracking");
    let run = run();
    assert_eq!(text(&run, "state"), "failed", "{run}");
    let left = u64::try_from(files_of_users(&root).len()).unwrap();
    assert_eq!(number(&run, "/deleted/files") + left, 2000, "{run}");
    assert!(trash_is_empty(&root), "nothing lies half moved");
}

#[test]
fn a_client_that_takes_no_answer_keeps_no_volume_away() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5000);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let runtime = runtime();
    let channel = channel_of_a_closed_window(&runtime, &agent, 0).unwrap();
    let mut client = PurgeAgentClient::new(channel);
    let unread = runtime.block_on(client.find(v1::FindRequest::default())).unwrap();
    remount(&agent, &mut mount);
    agent.wait_until_well();
    drop(unread);
}

#[test]
fn kill_9_while_a_volume_is_opened_again_forgets_no_use() {
    let rounds = if std::env::var_os("PURGE_TESTS_LONG").is_some() {
        30
    } else {
        3
    };
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3000);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    for round in 0..rounds {
        read(&files[round]);
        mount.unmount();
        let _ = agent.wait_until_degraded();
        mount.mount().unwrap();
        // Before it is looked at, while it is opened, or while it is scanned.
        std::thread::sleep(Duration::from_millis(round as u64 * 397 % 1500));
        agent.kill();
        agent.launch();
        agent.wait_until_well();
        let named = agent.ctl().candidate_files();
        assert_same(
            &format!("round {round}"),
            &named,
            &files[round + 1..].iter().cloned().collect(),
        );
    }
}
