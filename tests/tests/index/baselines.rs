//! What access times from before the first look may hide: nothing that was used within its TTL goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use purge_tests::ctl::text;
use purge_tests::elsewhere::Elsewhere;
use purge_tests::files::{assert_same, inode, make, now, read, temp_dir};
use purge_tests::mount::Bind;
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// Mount namespaces of other tests live as long at most.
const LET_GO: Duration = Duration::from_secs(120);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Gives files all their times: each its access time, and `changed` for everything else. The kernel allows no process to set a change time.
fn set_all_times(mount: &mut Mount, files: &[(&PathBuf, i64)], changed: i64) {
    let mut commands = Vec::new();
    for (file, read) in files {
        let ino = inode(file);
        for (field, at) in [
            ("atime", *read),
            ("mtime", changed),
            ("ctime", changed),
            ("crtime", changed),
        ] {
            commands.push(format!("set_inode_field <{ino}> {field} @{at}"));
            commands.push(format!("set_inode_field <{ino}> {field}_extra 0"));
        }
    }
    mount.damage(&commands.iter().map(String::as_str).collect::<Vec<_>>());
}

fn rule(root: &Path, baseline: &str, ttl: &str) -> Config {
    Config::new(root, &format!("baseline = \"{baseline}\"")).rule("old", &format!("ttl = \"{ttl}\""))
}

#[test]
fn a_read_that_relatime_hid_counts() {
    let mut mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 4);
    let [today, earlier, long_ago, never] = files.as_slice() else {
        panic!()
    };
    let at = now();
    let times = [
        (today, at - 20 * HOUR),
        (earlier, at - 5 * DAY),
        (long_ago, at - 40 * DAY),
        (never, at - 60 * DAY),
    ];
    set_all_times(&mut mount, &times, at - 60 * DAY);
    // Relatime leaves the first one's time where it is, and moves the second's.
    read(today);
    read(earlier);
    for baseline in ["auto", "atime"] {
        let agent = Agent::tracking(&rule(&root, baseline, "10h"));
        let expected: BTreeSet<PathBuf> = [long_ago, never].into_iter().cloned().collect();
        assert_same(baseline, &agent.ctl().candidate_files(), &expected);
    }
}

#[test]
fn where_one_of_several_mounts_keeps_no_times_nothing_is_believed() {
    let mut mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 2);
    let at = now();
    let times: Vec<_> = files.iter().map(|f| (f, at - 60 * DAY)).collect();
    set_all_times(&mut mount, &times, at - 60 * DAY);
    let elsewhere = temp_dir();
    for options in ["noatime", "ro"] {
        let bind = need!(Bind::new(&root, elsewhere.path()));
        let mut remount = Command::new("mount");
        remount
            .args(["-o", &format!("remount,bind,{options}")])
            .arg(elsewhere.path());
        sh(&mut remount).unwrap();
        read(&elsewhere.path().join("d/f000000"));
        let agent = Agent::tracking(&rule(&root, "auto", "30d"));
        assert_same(options, &agent.ctl().candidates(), &BTreeSet::new());
        drop(agent);
        drop(bind);
    }
    let agent = Agent::tracking(&rule(&root, "auto", "30d"));
    assert_same(
        "one mount",
        &agent.ctl().candidate_files(),
        &files.iter().cloned().collect(),
    );
}

/// Each subvolume of btrfs has a device of its own, which no table of mounts tells.
#[test]
fn a_second_mount_without_access_times_is_found_on_every_file_system() {
    for fs in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        let mount = need!(Mount::new(fs));
        let root = mount.path();
        sh(Command::new("mount")
            .args(["-o", "remount,atime,relatime"])
            .arg(&root))
        .unwrap();
        let elsewhere = temp_dir();
        let bind = need!(Bind::new(&root, elsewhere.path()));
        let mut remount = Command::new("mount");
        sh(remount.args(["-o", "remount,bind,noatime"]).arg(elsewhere.path())).unwrap();
        let believed = || {
            let agent = Agent::tracking(&rule(&root, "auto", "30d"));
            text(&agent.status(), "baseline").to_owned()
        };
        assert_eq!(believed(), "observed", "{fs:?}");
        drop(bind);
        // Mount namespaces of other tests may have a copy of that mount, and are believed to have readers.
        until(&format!("{fs:?}: one mount"), LET_GO, || {
            (believed() == "atime").then_some(())
        });
    }
}

/// A service that systemd runs with `ProtectSystem=strict` sees the volume read-only, and so do jobs that it starts for users.
#[test]
fn a_sandbox_counts_where_a_user_reads_in_it() {
    let mut mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 2);
    let at = now();
    let times: Vec<_> = files.iter().map(|f| (f, at - 60 * DAY)).collect();
    set_all_times(&mut mount, &times, at - 60 * DAY);
    let sandbox = |user: &str| {
        let root = root.display();
        Elsewhere::new(&format!(
            "mount -o remount,bind,ro {root}\nexec setpriv --reuid {user} --clear-groups sh -c 'echo ready; exec sleep 600'"
        ))
    };
    let all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    for (user, expected) in [("990", &all), ("54321", &BTreeSet::new())] {
        let sandbox = need!(sandbox(user));
        let agent = Agent::tracking(&rule(&root, "auto", "30d"));
        assert_same(user, &agent.ctl().candidate_files(), expected);
        drop(agent);
        drop(sandbox);
    }
}

#[test]
fn a_file_whose_access_time_stands_still_is_not_believed() {
    let mut mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    sh(Command::new("chattr").arg("+A").arg(&files[0])).unwrap();
    let at = now();
    let times: Vec<_> = files.iter().map(|f| (f, at - 60 * DAY)).collect();
    set_all_times(&mut mount, &times, at - 60 * DAY);
    read(&files[0]);
    let agent = Agent::tracking(&rule(&root, "auto", "30d"));
    let expected = files.iter().skip(1).cloned().collect();
    assert_same("all but the one", &agent.ctl().candidate_files(), &expected);
}
