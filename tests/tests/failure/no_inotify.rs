//! A host whose inotify instances are used up. It changes something of the whole machine, so it runs alone.

use std::os::fd::OwnedFd;
use std::time::Duration;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::files::{age_tree, make, read};
use purge_tests::skip::Unmet;
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::inotify::{CreateFlags, init};
use rustix::io::Errno;

/// Takes every instance that this user may have.
fn use_up() -> Result<Vec<OwnedFd>, Unmet> {
    let mut taken = Vec::new();
    loop {
        match init(CreateFlags::CLOEXEC) {
            Ok(instance) => taken.push(instance),
            Err(Errno::MFILE) if taken.len() < 1000 => return Ok(taken),
            Err(error) => return Err(Unmet(format!("inotify instances cannot be used up: {error}"))),
        }
    }
}

#[test]
fn an_unmount_is_seen_though_inotify_gives_no_watch() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let none_left = need!(use_up());
    let mut agent = {
        let agent = Agent::tracking(&Config::backdated(&root));
        assert!(agent.said().contains("inotify does not tell"), "{}", agent.said());
        // It sees that its marks are there, and goes on to without a watch.
        std::thread::sleep(Duration::from_secs(3));
        mount.unmount();
        mount.mount().unwrap();
        agent.wait_until_it_says(WATCHED_AGAIN);
        agent
    };
    drop(none_left);
    agent.wait_until_well();
    until("uses are seen again", LONG, || {
        read(&files[1]);
        (!agent.ctl().candidate_files().contains(&files[1])).then_some(())
    });
    assert!(agent.is_running());
}
