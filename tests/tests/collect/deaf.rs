//! A kernel that tells nothing any more, though the mark is still listed: the agent makes an event itself and hears of none.

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, make, read};
use purge_tests::sys::make_deaf;
use purge_tests::{Agent, Config, Fs, Mount, need};

#[test]
fn an_agent_that_hears_nothing_of_itself_is_degraded_and_watches_again() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let config = Config::backdated(&root);
    let agent = Agent::tracking(&config);
    assert!(!agent.ctl().candidates().is_empty());
    make_deaf(agent.pid(), &root).expect("its group");
    read(&files[3]);
    let reason = agent.wait_until_degraded();
    assert!(reason.contains("tells nothing"), "{reason}");
    agent.wait_until_well();
    // What was read meanwhile was seen by no process: the stretch is a gap.
    let status = agent.status();
    let gap = status.pointer("/gaps/0").expect("a gap");
    assert_eq!(text(gap, "cause"), "collector", "{status}");
    // And from here on each use is seen.
    read(&files[4]);
    let explained = agent.ctl().explain(&files[4]).to_string();
    assert!(explained.contains("observed"), "{explained}");
}
