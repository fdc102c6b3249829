//! Without systemd: a parent keeps the event queues over a crash of the agent, and ends with it when it is told to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need, sh};
use rustix::process::{Pid, Signal, kill_process};

/// No gap is forgiven.
const KEYS: &str = "baseline = \"mtime\"\n# gap_tolerance is not given";
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";

/// Some expired files, and an agent with a parent.
fn watched(mount: &Mount) -> (Vec<PathBuf>, Agent) {
    let files = make(&mount.path().join("d"), 60);
    age_tree(&mount.path());
    let config = Config::new(&mount.path(), KEYS).rule("old", RULE);
    let mut agent = Agent::prepared(&config).with_parent();
    agent.launch();
    agent.wait_until_tracking();
    (files, agent)
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn has_ended(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// The agent's process, once it is another than before.
fn started_again(agent: &Agent, before: u32) -> u32 {
    until("the agent is started again", SOON, || {
        agent.below_parent().filter(|pid| *pid != before)
    })
}

#[test]
fn kill_9_of_the_agent_loses_no_use_and_is_no_gap() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (files, agent) = watched(&mount);
    let mut used: BTreeSet<PathBuf> = BTreeSet::new();
    for round in 0..4 {
        let child = agent.below_parent().unwrap();
        let mut read_one = |nth: usize| {
            let file = &files[round * 10 + nth];
            read(file);
            used.insert(file.clone());
        };
        // Before, in the moment, and while no agent is there.
        (0..3).for_each(&mut read_one);
        send(child, Signal::KILL);
        (3..6).for_each(&mut read_one);
        until("it is dead", SOON, || has_ended(child).then_some(()));
        (6..8).for_each(&mut read_one);
        started_again(&agent, child);
        agent.wait_until_well();
        let status = agent.status();
        assert_eq!(status.get("gaps"), Some(&serde_json::json!([])), "{status}");
        let named = agent.ctl().candidate_files();
        let lost: Vec<_> = named.intersection(&used).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        assert_eq!(named.len(), files.len() - used.len(), "nothing else became young");
    }
    let said = agent.ctl().run(["doctor"]).text();
    assert!(said.contains("parent"), "{said}");
}

#[test]
fn an_order_to_end_ends_both_processes_at_either() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (_, mut agent) = watched(&mount);
    let child = agent.below_parent().unwrap();
    agent.terminate();
    assert!(has_ended(child));
    agent.launch();
    let parent = agent.pid();
    send(agent.below_parent().unwrap(), Signal::TERM);
    until("the parent ends as well", SOON, || {
        (!agent.is_running()).then_some(())
    });
    assert!(has_ended(parent));
}

#[test]
fn kill_9_of_the_parent_ends_the_agent_and_what_follows_counts_as_used() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (files, mut agent) = watched(&mount);
    let child = agent.below_parent().unwrap();
    let_pass(1);
    agent.kill();
    until("the agent has ended with its parent", SOON, || {
        has_ended(child).then_some(())
    });
    read(&files[0]);
    let_pass(1);
    agent.launch();
    agent.wait_until_tracking();
    let named = agent.ctl().candidate_files();
    assert!(
        named.is_empty(),
        "of noatime files not one can be told: {named:?}"
    );
}

#[test]
fn signals_are_passed_on_and_a_start_that_fails_is_not_repeated() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (_, mut agent) = watched(&mount);
    let reload = |agent: &Agent| {
        let mut reload = Command::new(binary("purge-agent"));
        reload.args(["reload", "--config"]).arg(agent.config_file());
        sh(reload.args(["--pid", &agent.pid().to_string()]))
    };
    reload(&agent).expect("the agent takes its configuration again");
    agent.terminate();
    let good = std::fs::read_to_string(agent.config_file()).unwrap();
    std::fs::write(agent.config_file(), "nonsense = 1").unwrap();
    let (status, said) = agent.launch_in_vain();
    assert_eq!(
        (status.code(), said.contains("nonsense")),
        (Some(1), true),
        "{said}"
    );
    assert!(!said.contains("started again"), "{said}");
    std::fs::write(agent.config_file(), good).unwrap();
}

#[test]
fn a_volume_that_is_mounted_again_is_watched_by_the_same_process() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let (files, agent) = watched(&mount);
    let child = agent.below_parent().unwrap();
    mount.unmount();
    agent.wait_until_degraded();
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
    assert_eq!(agent.below_parent(), Some(child));
    read(&files[0]);
    assert!(!agent.ctl().candidate_files().contains(&files[0]));
}

#[test]
fn there_is_no_parent_where_it_is_not_wanted_or_another_keeps_descriptors() {
    let mount = need!(Mount::new(Fs::Ext4));
    let config = Config::new(&mount.path(), KEYS).rule("old", RULE);
    let mut agent = Agent::prepared(&config).with_parent();
    let socket = purge_tests::files::temp_dir();
    agent.environment("NOTIFY_SOCKET", &socket.path().join("none"));
    agent.launch();
    assert_eq!(agent.below_parent(), None);
    agent.terminate();
    let mut agent = Agent::prepared(&config).with_parent();
    agent.argument("--single-process");
    agent.launch();
    assert_eq!(agent.below_parent(), None);
}
