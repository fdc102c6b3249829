//! A volume whose file system was replaced on purpose takes the new one by one command, and keeps its name, rules and holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::ctl::number;
use purge_tests::files::{age_tree, assert_same, make};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// Another file system at the volume's path, until it is dropped.
struct Over(PathBuf);

impl Over {
    fn put(new: &Path, at: &Path) -> Self {
        sh(Command::new("mount").arg("--bind").args([new, at])).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        let _ = sh(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn set_aside(agent: &Agent) -> usize {
    let all = fs::read_dir(agent.state_dir().join("volumes")).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".before-")).count()
}

#[test]
fn a_replaced_volume_keeps_its_name_rules_and_holds() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let other = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let config = Config::backdated(&root);
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let _ = ctl.hold(&files[0], &[]);
    let same = ctl.run(["volume", "reset", "v", "--yes"]).ends_with(3);
    assert!(same.stderr.contains("nothing to reset"), "{}", same.stderr);
    let _ = ctl.run(["volume", "reset", "w", "--yes"]).ends_with(1);

    mount.unmount();
    let _ = agent.wait_until_degraded();
    let bare = ctl.run(["volume", "reset", "v", "--yes"]).ends_with(3);
    assert!(bare.stderr.contains("mount the new one first"), "{}", bare.stderr);
    make(&other.path().join("d"), 5);
    age_tree(&other.path());
    let _over = Over::put(&other.path(), &root);
    let unasked = ctl.run(["volume", "reset", "v"]).ends_with(2);
    assert!(unasked.stderr.contains("not a terminal"), "{}", unasked.stderr);
    assert_eq!(set_aside(&agent), 0);
    let done = ctl
        .run(["volume", "reset", "v", "--yes", "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&done, "/holds"), 1, "{done}");
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
    assert_eq!(number(&agent.status(), "/files"), 5);
    assert_eq!(set_aside(&agent), 1);
    let expected: BTreeSet<PathBuf> = files[1..5].iter().cloned().collect();
    assert_same("all but what is held", &ctl.candidate_files(), &expected);
}
