//! Directories deeper than any stack: each step of an apply and of what follows it ends, and the agent is there afterwards.
//!
//! The agent's threads have 256 KiB of stack here. 100,000 levels of the walk itself are tested beside it (`crates/sys/src/walk_tests.rs`).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, trash_is_empty};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

/// Deeper than one path can say (PATH_MAX), and than a recursive walk gets with this stack.
const LEVELS: usize = 12_000;
const SMALL_STACK: [(&str, &str); 1] = [("RUST_MIN_STACK", "262144")];

fn open_dir(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

fn below(dir: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, c"d", flags, Mode::empty()).ok()
}

/// A chain of directories in `top`, with an old file in some of them and in the deepest.
fn make_chain(top: &Path, levels: usize) {
    std::fs::create_dir_all(top).unwrap();
    let old = Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: old,
        last_modification: old,
    };
    let mut dir = open_dir(top);
    for level in 1..=levels {
        rustix::fs::mkdirat(&dir, c"d", Mode::RWXU).unwrap();
        dir = below(&dir).unwrap();
        if level % 1000 == 0 || level == levels {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&dir, c"file", flags, Mode::RWXU).unwrap());
            rustix::fs::utimensat(&dir, c"file", &times, AtFlags::empty()).unwrap();
        }
    }
    // What was made in a directory has moved its time.
    let mut dir = open_dir(top);
    while let Some(next) = below(&dir) {
        rustix::fs::utimensat(&dir, c"d", &times, AtFlags::empty()).unwrap();
        dir = next;
    }
    rustix::fs::utimensat(rustix::fs::CWD, top, &times, AtFlags::empty()).unwrap();
}

/// How many levels of the chain there are, and how many files in it.
fn measure(top: &Path) -> (usize, usize) {
    let mut dir = open_dir(top);
    let (mut levels, mut files) = (0, 0);
    while let Some(next) = below(&dir) {
        levels += 1;
        files += usize::from(rustix::fs::statat(&next, c"file", AtFlags::empty()).is_ok());
        dir = next;
    }
    (levels, files)
}

fn agent(config: &Config) -> Agent {
    let environment = SMALL_STACK.map(|(name, value)| (name, Path::new(value)));
    Agent::tracking_in(config, None, &environment)
}

fn mount() -> Result<Mount, purge_tests::skip::Unmet> {
    Mount::sized(Fs::Ext4, 512, 60_000)
}

#[test]
fn old_files_far_down_stop_no_run() {
    let mount = need!(mount());
    let root = mount.path();
    let others: Vec<PathBuf> = make(&root.join("others"), 50);
    age_tree(&root);
    make_chain(&root.join("deep"), LEVELS);
    let mut agent = agent(&Config::backdated_with(&root, "grace = \"1h\""));
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).ok().json();
    assert_eq!(text(&run, "state"), "completed", "{run}");
    assert!(run["failed"].as_array().unwrap().is_empty(), "{run}");
    assert!(others.iter().all(|f| !f.exists()));
    let id = text(&run, "run_id").to_owned();
    let _ = agent.ctl().run(["restore", &id]).ok();
    assert!(others.iter().all(|f| f.exists()));
    assert_eq!(
        measure(&root.join("deep")).1,
        LEVELS / 1000,
        "every file of the chain is back or was kept"
    );
    assert!(agent.is_running());
    let _ = ctl.run(["find", root.to_str().unwrap()]).ok();
    let _ = ctl.run(["usage", "--by", "directory", "--depth", "3"]).ok();
}

#[test]
fn a_deep_tree_goes_and_comes_back_as_a_whole() {
    let mount = need!(mount());
    let root = mount.path();
    let deep = root.join("deep");
    make(&root.join("small"), 3);
    make_chain(&deep, LEVELS);
    age_tree(&root.join("small"));
    let keys = "grace = \"1h\"\ntarget = \"directory\"\ndepth = 1";
    let mut agent = agent(&Config::backdated_with(&root, keys));
    let run = {
        let ctl = agent.ctl();
        ctl.apply(&ctl.plan()).ok().json()
    };
    assert_eq!(text(&run, "state"), "completed", "{run}");
    assert_eq!(number(&run, "/trashed/directories"), 2, "{run}");
    assert!(!root.join("small").exists() && !deep.exists());
    let id = text(&run, "run_id").to_owned();
    let _ = agent.ctl().run(["restore", &id]).ok();
    assert_eq!(measure(&deep), (LEVELS, LEVELS / 1000));
    until("the index has it again", LONG, || {
        let found = agent.ctl().find([deep.to_str().unwrap(), "--type", "f"]);
        (found.len() == LEVELS / 1000).then_some(())
    });
    assert!(agent.is_running());
}

#[test]
fn a_deep_tree_is_freed_when_its_grace_ends() {
    let mount = need!(mount());
    let root = mount.path();
    let deep = root.join("deep");
    make_chain(&deep, LEVELS);
    let keys = "grace = \"2s\"\ntarget = \"directory\"\ndepth = 1";
    let agent = agent(&Config::backdated_with(&root, keys));
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).ok().json();
    assert_eq!(number(&run, "/trashed/directories"), 1, "{run}");
    until("the trash is empty", LONG, || trash_is_empty(&root).then_some(()));
    assert!(!deep.exists());
}
