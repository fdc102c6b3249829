//! Who may keep a run from removing something by a lock on a directory, and that the run says who does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, make, regular_files};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// A process of a user that has a shared lock on a directory. The one that took it has ended if it is `inherited`.
struct Locker(Child);

impl Locker {
    fn new(uid: u32, dir: &Path, inherited: bool) -> Self {
        let script = match inherited {
            true => format!("exec 9<{}; flock -s 9; echo ready; exec sleep 600", dir.display()),
            false => format!(
                "exec flock -s {} sh -c 'echo ready; exec sleep 600'",
                dir.display()
            ),
        };
        let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
        let mut child = Command::new("setpriv")
            .args(ids)
            .args(["--clear-groups", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("setpriv");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "ready");
        Self(child)
    }
}

use std::os::unix::process::CommandExt;

impl Drop for Locker {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Ten files below each of two directories, of which one belongs to a user, and the agent.
fn volume(mount: &Mount) -> Agent {
    let root = mount.path();
    make(&root.join("theirs/sub"), 10);
    make(&root.join("roots"), 10);
    chown(root.join("theirs"), Some(1000), Some(1000)).unwrap();
    age_tree(&root);
    for dir in [root.clone(), root.join("theirs"), root.join("roots")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let parent = root.parent().unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"))
}

fn run(agent: &Agent) -> Value {
    let plan = agent.ctl().plan();
    let run = agent.ctl().apply(&plan).ok().json();
    tally(&plan, &run);
    run
}

#[test]
fn a_user_cannot_hold_up_a_volume_by_a_lock_on_its_root() {
    for inherited in [false, true] {
        let mount = need!(Mount::new(Fs::Ext4));
        let agent = volume(&mount);
        let _lock = Locker::new(1001, &mount.path(), inherited);
        // Nor what belongs to another user.
        let _theirs = Locker::new(1001, &mount.path().join("theirs"), inherited);
        let status = agent.status();
        let named = status
            .pointer("/locked_by/0")
            .and_then(Value::as_str)
            .unwrap_or_default();
        assert!(
            named.contains("uid 1001") && named.contains("keeps nothing"),
            "{status}"
        );
        let doctor = agent
            .ctl()
            .run(["doctor", "--output", "json"])
            .ok()
            .json()
            .to_string();
        assert!(doctor.contains("uid 1001"), "{doctor}");
        let run = run(&agent);
        assert_eq!(
            (number(&run, "/deleted/files"), number(&run, "/skipped/locked")),
            (20, 0),
            "{run}"
        );
        assert!(regular_files(&mount.path()).is_empty());
    }
}

#[test]
fn root_and_owners_can_and_are_named() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let agent = volume(&mount);
    let owner = Locker::new(1000, &mount.path().join("theirs"), true);
    let first = run(&agent);
    assert_eq!(
        (
            number(&first, "/deleted/files"),
            number(&first, "/skipped/locked")
        ),
        (10, 10),
        "{first}"
    );
    let named = first
        .pointer("/locked_by/0")
        .and_then(Value::as_str)
        .unwrap_or_default();
    assert!(named.contains("uid 1000") && named.contains("theirs"), "{first}");
    drop(owner);
    let root = Locker::new(0, &mount.path(), false);
    let second = run(&agent);
    assert_eq!(
        (
            number(&second, "/deleted/files"),
            number(&second, "/skipped/locked")
        ),
        (0, 10),
        "{second}"
    );
    let status = agent.status().to_string();
    assert!(
        status.contains("uid 0") && status.contains("nothing below it is removed"),
        "{status}"
    );
    drop(root);
    assert_eq!(number(&run(&agent), "/deleted/files"), 10);
}
