//! Another way to watch at a later start: what the queue of the earlier one still holds is read, and the change is no gap.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, make, read};
use purge_tests::mount::Bind;
use purge_tests::once::with_file_server;
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, files, need};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No gap is forgiven.
const KEYS: &str = "baseline = \"mtime\"\nprecision = \"1h\"\n# gap_tolerance is not given";
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";

const FILESYSTEM: (&str, &str) = ("", "filesystem");
const DIRECTORIES: (&str, &str) = ("filesystem_marks", "directories");
const DESCRIPTORS: (&str, &str) = ("filesystem_marks,directory_marks", "descriptors");

fn config(root: &Path, more: &str) -> Config {
    Config::new(root, &format!("{KEYS}\n{more}")).rule("old", RULE)
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Kills the agent's process while it reads nothing, with uses in its queue, and waits for the next one.
fn killed_with_uses_in_its_queue(agent: &Agent, used: &[PathBuf]) {
    let child = agent.below_parent().unwrap();
    let (before, after) = used.split_at(used.len() / 2);
    send(child, Signal::STOP);
    before.iter().for_each(|file| read(file));
    send(child, Signal::KILL);
    after.iter().for_each(|file| read(file));
    until("another one runs", SOON, || {
        agent.below_parent().filter(|now| *now != child)
    });
    until("it answers", SOON, || {
        (agent.ctl().run(["status"]).code == 0).then_some(())
    });
    agent.wait_until_tracking();
}

fn mode(agent: &Agent) -> String {
    text(&agent.status(), "collector_mode").to_owned()
}

fn gaps(status: &Value) -> usize {
    status["gaps"].as_array().map_or(0, Vec::len)
}

fn all_but(files: &[PathBuf], used: &[PathBuf]) -> BTreeSet<PathBuf> {
    files.iter().filter(|f| !used.contains(f)).cloned().collect()
}

/// The program that the parent starts is replaced by one that takes other features for missing.
fn one_way_after_another(from: (&str, &str), to: (&str, &str), files_of: impl Fn(&Path) -> Vec<PathBuf>) {
    with_file_server(false);
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = files_of(&root);
    age_tree(&root);
    let programs = files::temp_dir();
    let (program, script) = (programs.path().join("purge-agent"), programs.path().join("next"));
    fs::copy(binary("purge-agent"), &program).unwrap();
    let next = format!(
        "#!/bin/sh\nPURGE_AGENT_WITHOUT='{}' exec {} \"$@\"\n",
        to.0,
        binary("purge-agent").display()
    );
    fs::write(&script, next).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let start = format!("exec {} \"$@\"", program.display());
    let agent = Agent::prepared(&config(&root, "")).under(&["sh", "-c", &start]);
    let mut agent = agent.with_parent();
    agent.environment("PURGE_AGENT_WITHOUT", Path::new(from.0));
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(mode(&agent), from.1);
    let before = text(&agent.status(), "coverage_since").to_owned();
    let (early, rest) = files.split_at(20);
    let (late, _) = rest.split_at(20);
    early.iter().for_each(|file| read(file));
    let replaced = need!(Bind::new(&script, &program));
    killed_with_uses_in_its_queue(&agent, late);
    let status = agent.status();
    assert_eq!(text(&status, "collector_mode"), to.1, "{status}");
    assert_eq!(gaps(&status), 0, "{status}");
    assert_eq!(text(&status, "coverage_since"), before, "{status}");
    let used = [early, late].concat();
    assert_same(
        "what was not used",
        &agent.ctl().candidate_files(),
        &all_but(&files, &used),
    );
    // What the new way is told counts as well, and the old queue is let go: the next one is no gap either.
    let last = &files[40..50];
    killed_with_uses_in_its_queue(&agent, last);
    let used = [&used, last].concat();
    let status = agent.status();
    assert_eq!(gaps(&status), 0, "{status}");
    assert_same(
        "what was not used by then",
        &agent.ctl().candidate_files(),
        &all_but(&files, &used),
    );
    drop(agent);
    drop(replaced);
}

fn in_two_directories(root: &Path) -> Vec<PathBuf> {
    let mut files = make(&root.join("d/e"), 40);
    files.extend(make(&root.join("other"), 40));
    files
}

#[test]
fn a_mark_of_the_file_system_after_marks_of_directories_is_no_gap() {
    one_way_after_another(DIRECTORIES, FILESYSTEM, in_two_directories);
}

#[test]
fn a_mark_of_the_file_system_after_descriptors_is_no_gap() {
    one_way_after_another(DESCRIPTORS, FILESYSTEM, in_two_directories);
}

#[test]
fn marks_of_directories_after_descriptors_are_no_gap() {
    one_way_after_another(DESCRIPTORS, DIRECTORIES, in_two_directories);
}

/// With accessors to ignore, events name their processes in another way, which takes another queue.
#[test]
fn accessors_that_are_ignored_from_now_on_are_no_gap() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = in_two_directories(&root);
    age_tree(&root);
    let mut agent = Agent::prepared(&config(&root, "")).with_parent();
    agent.launch();
    agent.wait_until_tracking();
    let ignoring = "ignore_accessors = [ { comm = \"find\" } ]";
    let mut used: Vec<PathBuf> = Vec::new();
    for (round, more) in [ignoring, "", ignoring].into_iter().enumerate() {
        agent.write_config(&config(&root, more));
        let now = &files[round * 10..round * 10 + 10];
        killed_with_uses_in_its_queue(&agent, now);
        used.extend_from_slice(now);
        let status = agent.status();
        assert_eq!(gaps(&status), 0, "{status}");
        assert_same(
            "what was not used",
            &agent.ctl().candidate_files(),
            &all_but(&files, &used),
        );
    }
}
