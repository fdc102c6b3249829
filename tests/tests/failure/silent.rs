//! A mount whose server does not answer, below a volume and as a volume: nothing waits for it.

use std::fs;

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, make, regular_files};
use purge_tests::silent::Silent;
use purge_tests::wait::{LONG, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

fn below_a_volume(filesystem: Fs) {
    let mount = need!(Mount::new(filesystem));
    let root = mount.path();
    make(&root.join("d"), 20);
    fs::create_dir_all(root.join("d/dead")).unwrap();
    make(&root.join("e/sub"), 3);
    age_tree(&root);
    let _dead = need!(Silent::new(&root.join("d/dead")));
    // The agent starts, scans, plans and applies.
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    // One that is mounted while it watches, on a directory that an event has just named.
    fs::create_dir(root.join("e/later")).unwrap();
    let _later = need!(Silent::new(&root.join("e/later")));
    let short = |arguments: &[&str]| ctl.run_within(SOON, arguments.iter().copied());
    let dead = root.join("d/dead/x");
    for arguments in [
        ["explain", dead.to_str().unwrap()].as_slice(),
        ["explain", root.join("d/dead").to_str().unwrap()].as_slice(),
        ["hold", "add", dead.to_str().unwrap(), "--reason", "r"].as_slice(),
        ["find", dead.to_str().unwrap()].as_slice(),
    ] {
        let answer = short(arguments);
        assert_eq!(answer.code, 1, "{answer:?}");
    }
    assert_eq!(short(&["rescan"]).code, 0);
    agent.wait_until_tracking();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/files"), 23, "{run}");
    tally(&plan, &run);
    assert!(!root.join("e/sub").exists());
    assert!(ctl.run(["doctor"]).code <= 1);
}

#[test]
fn a_silent_mount_below_a_volume_keeps_nothing_waiting_on_ext4() {
    below_a_volume(Fs::Ext4);
}

#[test]
fn a_silent_mount_below_a_volume_keeps_nothing_waiting_on_xfs() {
    below_a_volume(Fs::Xfs);
}

#[test]
fn a_volume_that_does_not_answer_keeps_no_other_waiting() {
    let mount = need!(Mount::new(Fs::Ext4));
    let place = tempfile::tempdir().unwrap();
    make(&mount.path().join("d"), 5);
    age_tree(&mount.path());
    let dead = need!(Silent::new(place.path()));
    let config = Config::backdated(&mount.path()).and_volume("w", place.path());
    let mut agent = Agent::start(&config);
    agent.wait_until_it_says("does not answer");
    let state = |agent: &Agent| {
        let status = agent.ctl().run(["status", "--output", "json"]).ok().json();
        status.to_string()
    };
    until("the other is tracked", LONG, || {
        state(&agent).contains("\"tracking\"").then_some(())
    });
    assert!(state(&agent).contains("does not answer"), "{}", state(&agent));
    let plan = agent.ctl().plan_with(["--volume", "v"]);
    assert!(tally(&plan, &agent.ctl().apply(&plan).ok().json()).deleted >= 5);
    assert!(regular_files(&mount.path()).is_empty());
    agent.terminate();
    drop(dead);
}
