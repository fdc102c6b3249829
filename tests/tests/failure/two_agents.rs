//! Two agents on one volume, each with a state directory of its own: the second says so and removes nothing, until the first has ended.

use std::os::unix::fs::symlink;
use std::path::Path;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, make, regular_files};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Seconds instead of minutes.
const STALE: &[(&str, &str)] = &[("PURGE_AGENT_TOKEN_SECONDS", "4")];

fn soon() -> Vec<(&'static str, &'static Path)> {
    STALE
        .iter()
        .map(|(name, value)| (*name, Path::new(*value)))
        .collect()
}

#[test]
fn the_second_agent_of_a_volume_says_so_and_removes_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let config = Config::backdated_with(&root, "remove_empty_dirs = false");
    let mut first = Agent::tracking_in(&config, None, &soon());
    first.ctl().hold(&files[3], &[]);
    let waiting = first.ctl().plan();

    let second = Agent::start_in(&config, None, &soon());
    let reason = second.wait_until_degraded();
    assert!(reason.contains("another agent"), "{reason}");
    assert!(second.said().contains("another agent"), "the log");
    let answer = second.ctl().run(["plan", "--output", "json"]);
    assert_ne!(answer.code, 0, "{answer:?}");
    let doctor = second
        .ctl()
        .run(["doctor", "--output", "json"])
        .json()
        .to_string();
    assert!(doctor.contains("another agent"), "{doctor}");
    assert_eq!(regular_files(&root).len(), 20);
    // The first is not kept from anything.
    let run = first.ctl().apply(&waiting).ok().json();
    assert_eq!(
        (tally(&waiting, &run).deleted, number(&run, "/failed_total")),
        (19, 0),
        "{run}"
    );
    assert_eq!(text(&first.status(), "state"), "tracking");

    // Killed, it is followed when its token is left over for long enough.
    first.kill();
    until("the second takes over", LONG, || {
        (text(&second.status(), "state") == "tracking").then_some(())
    });
    let plan = second.ctl().plan();
    let run = second.ctl().apply(&plan).ok().json();
    assert_eq!(text(&run, "state"), "completed", "{run}");
    // And the first, back, is the second now.
    let first = Agent::start_in(&config, None, &soon());
    assert!(first.wait_until_degraded().contains("another agent"));
}

/// A volume that was copied, or whose agent is no more, has a token that is renewed by no process.
#[test]
fn a_token_that_is_left_over_keeps_no_agent_out() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5);
    age_tree(&root);
    let config = Config::backdated(&root);
    let mut before = Agent::tracking(&config);
    before.ctl().plan();
    before.kill();
    // Of a process of this host that has ended: at once.
    let mut after = Agent::tracking(&config);
    let plan = after.ctl().plan();
    assert!(tally(&plan, &after.ctl().apply(&plan).ok().json()).deleted > 0);
    after.terminate();
    // Of a process namespace that cannot be looked into: after a while.
    let token = root.join(".purge-agent-trash/agent");
    assert!(!token.is_symlink(), "taken away at a stop");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    symlink(format!("1234 {} 1 1 elsewhere", &boot[..4]), &token).unwrap();
    let copy = Agent::start_in(&config, None, &soon());
    let reason = copy.wait_until_degraded();
    assert!(reason.contains("process 1 on host elsewhere"), "{reason}");
    copy.wait_until_well();
}
