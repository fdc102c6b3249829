//! What a process uses while it lies in the trash is not freed when the grace ends. No path leads there, but a working directory that was
//! moved does, and so does a descriptor that was opened before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, files_in_trash, files_of_users, make};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{Mode, OFlags, open, openat};

/// Longer than the agent takes to stop and start.
const GRACE: &str = "12s";

/// A directory that goes as a whole, a file that goes by itself, and how a process still comes to both.
struct Taken {
    agent: Agent,
    root: PathBuf,
    runs: [String; 2],
    working_directory: OwnedFd,
    descriptor: OwnedFd,
}

impl Taken {
    fn new(mount: &Mount) -> Self {
        let root = mount.dir("volume");
        make(&root.join("team/project/deep"), 3);
        make(&root.join("team/unused/deep"), 3);
        let single = make(&root.join("a"), 3).remove(1);
        age_tree(&root);
        let trees = format!("grace = \"{GRACE}\"\ntarget = \"directory\"\ndepth = 2");
        let files = format!(
            "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"{GRACE}\"\nremove_empty_dirs = false\ninclude = [\"a/**\"]"
        );
        let agent = Agent::tracking(&Config::backdated_with(&root, &trees).rule("files", &files));
        let find = |path: &Path| open(path, OFlags::PATH, Mode::empty()).unwrap();
        let (working_directory, descriptor) = (find(&root.join("team/project/deep")), find(&single));
        let ctl = agent.ctl();
        let runs = ["old", "files"].map(|rule| {
            let run = ctl.apply(&ctl.plan_with(["--rule", rule])).ok().json();
            text(&run, "run_id").to_owned()
        });
        assert_same("left", &files_of_users(&root), &BTreeSet::new());
        Self {
            agent,
            root,
            runs,
            working_directory,
            descriptor,
        }
    }

    /// Reads a file of each, and closes it.
    fn read(&self) {
        let mut content = Vec::new();
        let in_tree = openat(&self.working_directory, "f000001", OFlags::RDONLY, Mode::empty()).unwrap();
        File::from(in_tree).read_to_end(&mut content).unwrap();
        let single = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        File::open(single).unwrap().read_to_end(&mut content).unwrap();
        assert!(!content.is_empty());
    }

    /// All but what was used is freed, and that comes back.
    fn what_was_used_is_kept(self) {
        until("everything else is freed", LONG, || {
            let left = files_in_trash(&self.root);
            (left.len() == 4 && left.iter().all(|path| path.contains(".kept/"))).then_some(())
        });
        self.agent.wait_until_it_says("it was used in the trash");
        for run in &self.runs {
            let _ = self.agent.ctl().run(["restore", run]).ok();
        }
        let names = [
            "a/f000001",
            "team/project/deep/f000000",
            "team/project/deep/f000001",
            "team/project/deep/f000002",
        ];
        let expected = names.iter().map(|name| self.root.join(name)).collect();
        assert_same("come back", &files_of_users(&self.root), &expected);
    }
}

#[test]
fn what_is_read_in_the_trash_is_kept_on_ext4() {
    let mount = need!(Mount::new(Fs::Ext4));
    let taken = Taken::new(&mount);
    taken.read();
    taken.what_was_used_is_kept();
}

#[test]
fn what_is_read_in_the_trash_is_kept_on_xfs() {
    let mount = need!(Mount::new(Fs::Xfs));
    let taken = Taken::new(&mount);
    taken.read();
    taken.what_was_used_is_kept();
}

#[test]
fn what_is_read_in_the_trash_is_kept_after_a_restart() {
    let mount = need!(Mount::new(Fs::Ext4));
    let mut taken = Taken::new(&mount);
    taken.read();
    taken.agent.restart();
    taken.what_was_used_is_kept();
}

#[test]
fn what_is_read_in_the_trash_is_kept_after_a_kill_and_if_it_is_read_then() {
    let mount = need!(Mount::new(Fs::Ext4));
    let mut taken = Taken::new(&mount);
    taken.agent.restart();
    taken.read();
    // The collector has read it then.
    assert_eq!(taken.agent.status()["state"], "tracking");
    taken.agent.kill();
    taken.agent.launch();
    taken.what_was_used_is_kept();
}

#[test]
fn what_is_open_at_the_end_of_the_grace_is_kept() {
    let mount = need!(Mount::new(Fs::Ext4));
    let taken = Taken::new(&mount);
    let in_tree = openat(&taken.working_directory, "f000001", OFlags::RDONLY, Mode::empty()).unwrap();
    let single = format!("/proc/self/fd/{}", taken.descriptor.as_raw_fd());
    let single = File::open(single).unwrap();
    taken.what_was_used_is_kept();
    drop((in_tree, single));
}
