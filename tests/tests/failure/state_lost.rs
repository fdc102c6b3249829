//! The state directory goes away, or its file system fails, under a running agent: that is told with a cure of its own, nothing is planned,
//! and the agent ends when it is told to. Once the directory is back the agent goes on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, make, read};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// A stop may take so long.
const STOPS_WITHIN: Duration = Duration::from_secs(25);

/// Root has an answer within this time, also while the disk does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A volume whose plan is more than the store keeps beside other records: the paths are long.
fn long_paths(root: &Path) -> Vec<PathBuf> {
    let dir = (0..8).fold(root.to_owned(), |dir, n| {
        dir.join(format!("{n}{}", "x".repeat(240)))
    });
    let files = make(&dir, 600);
    age_tree(root);
    files
}

/// Waits until the volume is degraded for this reason, and `doctor` names this cure.
fn is_told(agent: &Agent, reason: &str, cure: &str) {
    until(&format!("it is told: {reason}"), SOON * 2, || {
        let status = agent.status();
        let is_it = text(&status, "state") == "degraded" && text(&status, "reason").contains(reason);
        is_it.then_some(())
    });
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains(cure), "{doctor}");
    let refused = agent.ctl().run(["plan"]).ends_with(3);
    assert!(refused.stderr.contains("degraded"), "{}", refused.stderr);
    agent.wait_until_it_says(cure);
}

fn stops_soon(agent: &mut Agent) {
    let began = Instant::now();
    agent.terminate();
    eprintln!("it ended after {:?}", began.elapsed());
    assert!(
        began.elapsed() < STOPS_WITHIN,
        "it ended after {:?}",
        began.elapsed()
    );
}

#[test]
fn a_state_directory_that_is_removed_keeps_no_client_waiting() {
    let mount = need!(Mount::new(Fs::Ext4));
    long_paths(&mount.path());
    let mut agent = Agent::tracking(&Config::backdated(&mount.path()));
    let_pass(2);
    fs::remove_dir_all(agent.state_dir()).unwrap();
    // The plan would need a new file in the store's directory.
    let refused = agent.ctl().run_within(SOON * 2, ["plan"]).ends_with(3);
    assert!(refused.stderr.contains("was removed"), "{}", refused.stderr);
    is_told(&agent, "was removed or unmounted", "put the state directory back");
    stops_soon(&mut agent);
    assert!(!agent.state_dir().exists(), "nothing is written where it was");
}

#[test]
fn a_state_directory_that_was_unmounted_is_used_again_when_it_is_back() {
    let mount = need!(Mount::new(Fs::Ext4));
    let mut disk = need!(Mount::sized(Fs::Ext4, 64, 500));
    let files = make(&mount.path().join("d"), 60);
    age_tree(&mount.path());
    let state = disk.dir("state");
    let mut agent = Agent::tracking_in(&Config::backdated(&mount.path()), Some(state), &[]);
    let_pass(2);
    sh(Command::new("umount").arg("-l").arg(disk.path())).unwrap();
    read(&files[0]);
    is_told(&agent, "was removed or unmounted", "mount its file system");
    read(&files[1]);
    disk.mount().unwrap();
    agent.wait_until_well();
    read(&files[2]);
    let rest: BTreeSet<PathBuf> = files[3..].iter().cloned().collect();
    assert_same("no use was lost", &agent.ctl().candidate_files(), &rest);
    let_pass(3);
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    assert_same("nor afterwards", &agent.ctl().candidate_files(), &rest);
}

/// Makes the directories of `from` below `to`, without a file.
fn like(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            like(&entry.path(), &to.join(entry.file_name()));
        }
    }
}

/// What is below a directory and is none.
fn contents(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => contents(&path),
        false => vec![path],
    });
    below.collect()
}

#[test]
fn another_state_directory_in_its_place_is_left_alone() {
    let mount = need!(Mount::new(Fs::Ext4));
    let files = make(&mount.path().join("d"), 20);
    age_tree(&mount.path());
    let mut agent = Agent::tracking(&Config::backdated(&mount.path()));
    let_pass(2);
    let (state, aside) = (agent.state_dir(), agent.state_dir().with_extension("aside"));
    fs::rename(&state, &aside).unwrap();
    // Each directory of it is there, so that what is done by a path would succeed.
    like(&aside, &state);
    is_told(&agent, "was replaced", "put the agent's own state directory back");
    read(&files[0]);
    agent.ask_to_reload();
    let_pass(16);
    let found = contents(&state);
    assert!(found.is_empty(), "{found:?}");
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    agent.wait_until_well();
    assert_same(
        "as before",
        &agent.ctl().candidate_files(),
        &files[1..].iter().cloned().collect(),
    );
    stops_soon(&mut agent);
}

#[test]
fn a_state_directory_on_the_file_system_of_a_volume_is_warned_of_loudly() {
    let mount = need!(Mount::new(Fs::Ext4));
    let config = Config::backdated(&mount.path());
    let warned = |state: &Path| {
        let file = mount.path().join("agent.toml");
        fs::write(&file, config.text(state, Path::new("/run/none/agent.sock"))).unwrap();
        let mut check = Command::new(purge_tests::binary("purge-agent"));
        let said = check.args(["check", "--config"]).arg(&file).output().unwrap();
        String::from_utf8_lossy(&said.stderr).contains("LIES ON THE FILE SYSTEM OF THIS VOLUME")
    };
    assert!(warned(&mount.path().join("var/state")), "also before it is made");
    assert!(!warned(Path::new("/var/lib/purge-agent-of-a-test")));
}

#[test]
fn a_state_directory_whose_disk_fails_is_told_and_the_agent_ends() {
    let mount = need!(Mount::new(Fs::Ext4));
    let disk = need!(Mount::sized(Fs::Ext4, 64, 500));
    make(&mount.path().join("d"), 20);
    age_tree(&mount.path());
    let state = disk.dir("state");
    let mut agent = Agent::tracking_in(&Config::backdated(&mount.path()), Some(state), &[]);
    let_pass(2);
    disk.cut_power(false);
    is_told(&agent, "nput/output error", "look for errors of the disk");
    stops_soon(&mut agent);
}

/// An agent with the parent that stands for it, and its state on the disk.
/// A notice waits for a sink that takes none, and is tried again and again.
fn tracking_on(disk: &Mount, config: Config) -> Agent {
    let parent = [("PURGE_AGENT_SINGLE_PROCESS", Path::new("0"))];
    let config = config.notifying("webhook = { url = \"http://127.0.0.1:9/\" }");
    let agent = Agent::tracking_in(&config, Some(disk.dir("state")), &parent);
    agent.ctl().run(["notices", "test", "--sink", "webhook"]);
    let_pass(2);
    agent
}

/// Several answers, each within a few seconds.
fn answers(agent: &Agent) {
    for _ in 0..3 {
        let began = Instant::now();
        let status = agent.ctl().run_within(ANSWERS_WITHIN, ["status"]).ends_with(0);
        assert!(status.stderr.is_empty(), "{}", status.stderr);
        eprintln!("status took {:?}", began.elapsed());
        let_pass(1);
    }
}

fn a_frozen_state_directory_is_told_and_used_again(fs: Fs) {
    let mount = need!(Mount::new(Fs::Ext4));
    let disk = need!(Mount::sized(fs, 330, 500));
    let files = make(&mount.path().join("d"), 60);
    age_tree(&mount.path());
    let mut agent = tracking_on(&disk, Config::backdated(&mount.path()));
    read(&files[0]);
    let_pass(2);
    let frozen = disk.freeze();
    read(&files[1]);
    answers(&agent);
    is_told(&agent, "its file system is frozen", "fsfreeze --unfreeze");
    read(&files[2]);
    answers(&agent);
    drop(frozen);
    agent.wait_until_well();
    read(&files[3]);
    let rest: BTreeSet<PathBuf> = files[4..].iter().cloned().collect();
    assert_same("no use was lost", &agent.ctl().candidate_files(), &rest);
    let_pass(3);
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    assert!(agent.ctl().candidate_files().is_subset(&rest), "nor afterwards");
}

#[test]
fn a_frozen_ext4_with_the_state_is_told_and_used_again() {
    a_frozen_state_directory_is_told_and_used_again(Fs::Ext4);
}

#[test]
fn a_frozen_xfs_with_the_state_is_told_and_used_again() {
    a_frozen_state_directory_is_told_and_used_again(Fs::Xfs);
}

#[test]
fn an_agent_whose_state_is_frozen_ends_when_it_is_told_to() {
    let mount = need!(Mount::new(Fs::Ext4));
    let disk = need!(Mount::sized(Fs::Ext4, 64, 500));
    let files = make(&mount.path().join("d"), 20);
    age_tree(&mount.path());
    let keys = "baseline = \"mtime\"\ngap_tolerance = \"0s\"";
    let config = Config::new(&mount.path(), keys).rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let mut agent = tracking_on(&disk, config);
    let frozen = disk.freeze();
    read(&files[0]);
    let_pass(3);
    let child = agent.below_parent().expect("the agent itself");
    let began = Instant::now();
    agent.ask_to_end();
    until("it ends", STOPS_WITHIN, || (!agent.is_running()).then_some(()));
    eprintln!("it ended after {:?}", began.elapsed());
    drop(frozen);
    let left = PathBuf::from(format!("/proc/{child}"));
    until("the kernel lets go of it", SOON, || {
        (!left.exists()).then_some(())
    });
    agent.launch();
    agent.wait_until_tracking();
    assert!(
        !agent.ctl().candidate_files().contains(&files[0]),
        "what was used last counts"
    );
}

/// Where events are read into is kept by the parent: what an agent that was killed had read is found again.
#[test]
fn a_use_that_was_read_is_kept_by_the_parent_when_the_agent_is_killed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let disk = need!(Mount::sized(Fs::Ext4, 64, 500));
    let files = make(&mount.path().join("d"), 30);
    age_tree(&mount.path());
    let agent = tracking_on(&disk, Config::backdated(&mount.path()));
    let child = agent.below_parent().expect("the agent itself");
    // The collector reads an event and waits for the journal with it.
    let frozen = disk.freeze();
    read(&files[0]);
    let_pass(2);
    sh(Command::new("kill").args(["-KILL", &child.to_string()])).unwrap();
    read(&files[1]);
    let_pass(1);
    drop(frozen);
    until("another agent is there", SOON * 2, || {
        agent.below_parent().filter(|other| *other != child)
    });
    agent.wait_until_well();
    let rest: BTreeSet<PathBuf> = files[2..].iter().cloned().collect();
    assert_same("no use was lost", &agent.ctl().candidate_files(), &rest);
}
