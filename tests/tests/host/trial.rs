//! `check` says what `run` does: each condition that a volume must meet is asked in one way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use purge_tests::files::{make_one, temp_dir};
use purge_tests::mount::Bind;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

#[test]
fn what_run_refuses_check_refuses_with_the_same_words() {
    let mount = need!(Mount::new(Fs::Ext4));
    let config = Config::new(&mount.path(), "collector = \"fanotify\"");
    let mut agent = Agent::prepared(&config);
    // As on a kernel that tells of no file at all.
    agent.environment("PURGE_AGENT_WITHOUT", Path::new("ids,descriptors"));
    let (good, said) = agent.check();
    assert!(!good && !said.contains(": good"), "{said}");
    let (status, words) = agent.launch_in_vain();
    assert!(!status.success());
    let why = said.lines().find(|l| l.contains("volume v")).unwrap();
    assert!(words.contains(why), "check: {why}\nrun: {words}");
}

#[test]
fn a_path_that_is_a_link_is_refused_with_the_cure() {
    let mount = need!(Mount::new(Fs::Ext4));
    let dir = temp_dir();
    let link = dir.path().join("link");
    symlink(mount.path(), &link).unwrap();
    let mut agent = Agent::prepared(&Config::backdated(&link));
    let (good, said) = agent.check();
    assert!(!good && said.contains("is a symbolic link"), "{said}");
    agent.launch();
    let status = agent.status();
    assert!(status.to_string().contains("is a symbolic link"), "{status}");
}

#[test]
fn what_may_come_is_a_warning() {
    let mount = need!(Mount::new(Fs::Ext4));
    let dir = temp_dir();
    let absent = dir.path().join("absent");
    let file = make_one(&dir.path().join("file"));
    for (path, words) in [(&absent, "cannot be read"), (&file, "is no directory")] {
        let (good, said) = Agent::prepared(&Config::backdated(path)).check();
        assert!(
            good && said.contains("warning: volume v") && said.contains(words),
            "{said}"
        );
    }
    let whole = Agent::prepared(&Config::backdated(&mount.path()));
    let (good, said) = whole.check();
    assert!(good && !said.contains("warning"), "{said}");
    let bind = dir.path().join("bind");
    fs::create_dir(&bind).unwrap();
    let _bind = need!(Bind::new(&mount.path(), &bind));
    sh(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&bind)).unwrap();
    let (good, said) = Agent::prepared(&Config::backdated(&bind)).check();
    assert!(good && said.contains("read-only"), "{said}");
}
