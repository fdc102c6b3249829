//! What the agent keeps is root's alone, with any umask, and also where something was there before.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use purge_tests::files::{age_tree, make, temp_dir, walk};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Everything in the state directory, and the directory: root's, 0700 or 0600.
fn assert_private(state: &Path, when: &str) -> usize {
    let mut all = walk(state);
    let count = all.len();
    all.push(purge_tests::files::Entry {
        path: state.to_owned(),
        stat: fs::symlink_metadata(state).unwrap(),
    });
    let wrong: Vec<String> = all
        .iter()
        .filter(|e| {
            let expected = if e.stat.is_dir() { 0o700 } else { 0o600 };
            e.stat.uid() != 0 || e.stat.mode() & 0o7777 != expected
        })
        .map(|e| format!("{:o} {} {}", e.stat.mode(), e.stat.uid(), e.path.display()))
        .collect();
    assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
    count
}

/// Something of each kind that is kept: plans, runs, ledgers, holds, notices, lists of what is announced, checkpoints.
fn work(agent: &Agent, root: &Path) {
    let ctl = agent.ctl();
    let plan = ctl.plan_with(["--rule", "old"]);
    let _ = ctl.apply(&plan).ok();
    ctl.hold(root, &[]);
    agent.reload();
    let state = agent.state_dir();
    until("something of each kind", SOON, || {
        let names: Vec<String> = walk(&state)
            .iter()
            .map(|e| e.path.strip_prefix(&state).unwrap().display().to_string())
            .collect();
        [
            "clock",
            "reloaded",
            "growth",
            "announced/",
            "notices/n",
            "runs",
            "volumes/v.d/",
        ]
        .iter()
        .all(|part| names.iter().any(|n| n.starts_with(part)))
        .then_some(())
    });
}

fn config(root: &Path, audit: &Path) -> Config {
    Config::backdated_with(root, "announce = \"0s\"\ngrace = \"1h\"")
        .rule(
            "announced",
            "ttl = \"100d\"\nclock = [\"access\"]\nannounce = \"1h\"",
        )
        .notifying("exec = { command = [\"/bin/true\"] }")
        .first(&format!("audit_log = {audit:?}"))
}

#[test]
fn the_state_is_roots_alone_with_any_umask() {
    let mount = need!(Mount::new(Fs::Ext4));
    for umask in ["000", "022", "077"] {
        let root = mount.dir(&format!("umask-{umask}"));
        make(&root.join("d"), 5);
        age_tree(&root);
        let beside = temp_dir();
        let audit = beside.path().join("audit.jsonl");
        let launcher = format!("umask {umask}; exec \"$@\"");
        let agent = Agent::tracking_under(&config(&root, &audit), &["sh", "-c", &launcher, "sh"]);
        work(&agent, &root);
        let count = assert_private(&agent.state_dir(), umask);
        assert!(count > 15, "{count} entries");
        assert_eq!(
            fs::metadata(&audit).unwrap().mode() & 0o7777,
            0o600,
            "the audit log"
        );
        let socket = fs::metadata(agent.socket()).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.mode() & 0o7777, 0o660, "the socket is not for root alone");
    }
}

#[test]
fn what_was_looser_is_tightened_and_what_is_anothers_is_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("v");
    make(&root.join("d"), 5);
    age_tree(&root);
    let beside = temp_dir();
    let audit = beside.path().join("audit.jsonl");
    let mut agent = Agent::tracking(&config(&root, &audit));
    work(&agent, &root);
    agent.terminate();
    let state = agent.state_dir();
    let loosen = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for entry in walk(&state) {
        loosen(&entry.path, if entry.stat.is_dir() { 0o777 } else { 0o644 });
    }
    // What others can write itself is refused before anything is changed.
    loosen(&state, 0o755);
    loosen(&audit, 0o640);
    agent.launch();
    agent.wait_until_tracking();
    assert_private(&state, "after the start");
    assert_eq!(fs::metadata(&audit).unwrap().mode() & 0o7777, 0o600);
    assert!(
        agent.said().contains("it is root's alone now"),
        "{}",
        agent.said()
    );

    // Another's file, and another's directory.
    agent.terminate();
    for name in ["clock", "notices"] {
        chown(state.join(name), Some(54_321), None).unwrap();
        let (status, words) = agent.launch_in_vain();
        assert!(!status.success());
        assert!(
            words.contains(name)
                && words.contains("belongs to uid 54321")
                && words.contains("chown -R root:root"),
            "{words}"
        );
        chown(state.join(name), Some(0), None).unwrap();
    }
    // A link to a file of the system does not lead there.
    let outside = beside.path().join("outside");
    fs::write(&outside, "theirs").unwrap();
    loosen(&outside, 0o755);
    std::os::unix::fs::symlink(&outside, state.join("link")).unwrap();
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_directory_of_the_system_is_no_state_directory() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("v");
    let shared = temp_dir();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut agent = Agent::tracking_in(&Config::backdated(&root), None, &[]);
    agent.terminate();
    agent.environment("PURGE_AGENT_STATE_DIR", shared.path());
    let (status, words) = agent.launch_in_vain();
    let refused = ["can be written by others", "is not for the agent alone"];
    assert!(
        !status.success() && refused.iter().any(|r| words.contains(r)),
        "{words}"
    );
    assert_eq!(fs::metadata(shared.path()).unwrap().mode() & 0o7777, 0o1777);
}
