//! A volume without a free block or a free inode can be purged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Writes until nothing more goes in, by root: no block is reserved for it then.
fn fill_blocks(root: &Path) {
    let mut ballast = File::create(root.join("ballast")).unwrap();
    for size in [1 << 20, 64 << 10, 4 << 10, 512, 1] {
        let block = vec![0x55; size];
        while ballast.write_all(&block).is_ok() && ballast.sync_data().is_ok() {}
    }
}

/// Makes empty files until there is no inode left.
fn fill_inodes(root: &Path) {
    let dir = root.join("inodes");
    fs::create_dir(&dir).unwrap();
    let made = (0..).take_while(|n| File::create(dir.join(n.to_string())).is_ok());
    assert!(made.count() > 0);
}

/// Waits until the agent has made its reserve.
fn has_reserve(root: &Path) {
    until("the reserve is there", SOON, || {
        root.join(".purge-agent-trash/ballast/47").exists().then_some(())
    });
}

fn a_full_volume_is_purged(filesystem: Fs, fill: fn(&Path), keys: &str, files: u64, directories: u64) {
    let mount = need!(Mount::sized(filesystem, 40, 2000));
    let root = mount.path();
    for n in 0..6 {
        make(&root.join(format!("old/d{n}")), 40);
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    has_reserve(&root);
    fill(&root);
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).json();
    assert_eq!(text(&run, "state"), "completed", "{run}");
    assert_eq!(
        (
            number(&run, "/deleted/files"),
            number(&run, "/deleted/directories")
        ),
        (files, directories),
        "{run}"
    );
    // It is there for the next time.
    has_reserve(&root);
    assert!(root.join(".purge-agent-trash/ready/n").exists());
}

#[test]
fn a_volume_without_a_free_block_is_purged_on_ext4() {
    a_full_volume_is_purged(Fs::Ext4, fill_blocks, "", 240, 7);
}

#[test]
fn a_volume_without_a_free_block_is_purged_on_xfs() {
    a_full_volume_is_purged(Fs::Xfs, fill_blocks, "", 240, 7);
}

#[test]
fn a_volume_without_a_free_block_is_purged_on_btrfs() {
    a_full_volume_is_purged(Fs::Btrfs, fill_blocks, "", 240, 7);
}

#[test]
fn a_volume_without_a_free_block_is_purged_on_tmpfs() {
    a_full_volume_is_purged(Fs::Tmpfs, fill_blocks, "", 240, 7);
}

#[test]
fn a_volume_without_a_free_inode_is_purged() {
    a_full_volume_is_purged(Fs::Ext4, fill_inodes, "", 240, 7);
}

#[test]
fn a_full_volume_is_purged_while_the_state_directory_is_full_as_well() {
    let mount = need!(Mount::sized(Fs::Ext4, 40, 2000));
    let disk = need!(Mount::sized(Fs::Ext4, 64, 500));
    let root = mount.path();
    make(&root.join("old"), 240);
    age_tree(&root);
    let state = disk.dir("state");
    let agent = Agent::tracking_in(&Config::backdated(&root), Some(state.clone()), &[]);
    has_reserve(&root);
    until("the state directory has a reserve", SOON, || {
        state.join("ballast").exists().then_some(())
    });
    fill_blocks(&root);
    fill_blocks(&disk.path());
    agent.wait_until_it_says("its reserve is given up");
    agent.wait_until_well();
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).json();
    assert_eq!(number(&run, "/deleted/files"), 240, "{run}");
    fs::remove_file(disk.path().join("ballast")).unwrap();
    until("it has a reserve again", SOON, || {
        state.join("ballast").exists().then_some(())
    });
}

#[test]
fn directories_go_as_a_whole_from_a_full_volume() {
    let keys = "target = \"directory\"\ndepth = 2";
    a_full_volume_is_purged(Fs::Ext4, fill_blocks, keys, 0, 6);
    a_full_volume_is_purged(Fs::Ext4, fill_inodes, keys, 0, 6);
}
