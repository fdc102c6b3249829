//! What was known of things in the trash, or of what came back from there, holds after a restore and after a kill.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use purge_tests::ctl::{purgectl_for_users, text};
use purge_tests::files::{age_tree, files_in_trash, inode, make};
use purge_tests::wait::{LONG, SOON, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, Signal, kill_process};

const ALICE: u32 = 4001;
const BOB: u32 = 4002;
const TREE: &str = "grace = \"8s\"\ntarget = \"directory\"\ndepth = 2";

/// Some trees in the trash, one of which a process has its working directory in.
struct Taken {
    agent: Agent,
    root: PathBuf,
    run: String,
    inside: OwnedFd,
}

impl Taken {
    fn new(mount: &Mount, keys: &str) -> Self {
        let root = mount.dir("volume");
        make(&root.join("b/t/sub"), 3);
        make(&root.join("b/t"), 3);
        make(&root.join("b/other"), 3);
        age_tree(&root);
        let rule = format!("ttl = \"1h\"\nclock = [\"access\"]\n{keys}");
        let config = Config::new(&root, "baseline = \"mtime\"\n# gap_tolerance is not given");
        // The parent keeps the queue, so that a kill leaves no gap in which everything counts as used.
        let mut agent = Agent::prepared(&config.rule("old", &rule)).with_parent();
        agent.launch();
        agent.wait_until_tracking();
        let inside = File::open(root.join("b/t")).unwrap().into();
        let ctl = agent.ctl();
        let run = ctl.apply(&ctl.plan()).ok().json();
        let run = text(&run, "run_id").to_owned();
        assert!(!root.join("b/t").exists());
        Self {
            agent,
            root,
            run,
            inside,
        }
    }

    fn write(&self, name: &str) {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
        let file = openat(&self.inside, name, flags, Mode::RWXU).unwrap();
        rustix::io::write(file, b"made in the trash").unwrap();
    }

    fn read(&self, name: &str) {
        let file = openat(&self.inside, name, OFlags::RDONLY, Mode::empty()).unwrap();
        File::from(file).read_to_end(&mut Vec::new()).unwrap();
    }

    fn restore(&self, path: &str) {
        let path = self.root.join(path);
        let _ = self
            .agent
            .ctl()
            .run(["restore", &self.run, path.to_str().unwrap()]);
    }

    /// SIGKILL of the process below the parent. `meanwhile` happens when it is dead.
    fn kill(&self, meanwhile: impl FnOnce()) {
        let child = self.agent.below_parent().unwrap();
        let pid = Pid::from_raw(child.cast_signed()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        until("it is dead", SOON, || {
            (!Path::new(&format!("/proc/{child}")).exists()).then_some(())
        });
        meanwhile();
        until("the next one is there", SOON, || {
            self.agent.below_parent().filter(|pid| *pid != child)
        });
        self.agent.wait_until_well();
        let status = self.agent.status();
        assert_eq!(status.get("gaps"), Some(&serde_json::json!([])), "{status}");
    }

    /// What is left when everything else is freed.
    fn left(&self) -> Vec<String> {
        let is_over = |left: &[String]| left.iter().all(|path| path.contains(".kept/"));
        until("the grace is over, and what was not used is freed", LONG, || {
            let first = files_in_trash(&self.root);
            // What moves while it is listed may be missed.
            let again = is_over(&first).then(|| files_in_trash(&self.root));
            again.filter(|again| *again == first)
        })
    }
}

fn has(left: &[String], end: &str) -> bool {
    left.iter().any(|path| path.ends_with(end))
}

#[test]
fn a_restore_of_something_else_forgives_no_use_in_the_trash() {
    for (fs, keys) in [(Fs::Xfs, TREE), (Fs::Ext4, TREE)] {
        let mount = need!(Mount::new(fs));
        let taken = Taken::new(&mount, keys);
        rustix::fs::mkdirat(&taken.inside, "newdir", Mode::RWXU).unwrap();
        taken.write("new");
        taken.restore("b/t/sub/f000001");
        assert!(taken.root.join("b/t/sub/f000001").exists());
        // And after it.
        taken.restore("b/t/sub/f000002");
        let left = taken.left();
        assert!(has(&left, "/new"), "{left:?}");
        assert_eq!(left.len(), 5, "all that is left of the tree: {left:?}");
    }
}

#[test]
fn a_restore_that_refuses_what_was_changed_forgives_nothing() {
    let mount = need!(Mount::new(Fs::Xfs));
    let taken = Taken::new(&mount, TREE);
    taken.write("new");
    // It cannot go back as a whole.
    fs::create_dir(taken.root.join("b/t")).unwrap();
    let answer = taken.agent.ctl().run(["restore", &taken.run]);
    assert!(
        answer.text().contains("changed in the trash"),
        "{}",
        answer.text()
    );
    let left = taken.left();
    assert!(has(&left, "/new"), "{left:?}");
}

#[test]
fn what_is_left_by_a_restore_and_was_not_used_is_freed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let taken = Taken::new(&mount, TREE);
    for file in ["b/t/sub/f000001", "b/t/sub/f000002", "b/t/f000000"] {
        taken.restore(file);
        assert!(taken.root.join(file).exists(), "{file}");
    }
    let left = taken.left();
    assert!(left.is_empty(), "{left:?}");
}

/// Both names of a file lie in the tree, and to put one back changes the other.
#[test]
fn a_file_with_two_names_in_a_tree_comes_back_with_both() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let first = make(&root.join("b/t/sub"), 2).remove(0);
    let second = root.join("b/t/second");
    fs::hard_link(&first, &second).unwrap();
    age_tree(&root);
    let keys = "grace = \"1h\"\ntarget = \"directory\"\ndepth = 2";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).ok().json();
    fs::create_dir(root.join("b/t")).unwrap();
    let _ = ctl.run(["restore", text(&run, "run_id")]).ok();
    assert_eq!(inode(&first), inode(&second));
}

/// The index is written every ten seconds: what it has not written of a run must not hide a use.
#[test]
fn a_use_in_the_trash_right_before_a_kill_is_known_after_it() {
    let mount = need!(Mount::new(Fs::Xfs));
    let taken = Taken::new(&mount, TREE);
    taken.read("f000001");
    // The collector has read it then.
    let _ = taken.agent.ctl().run(["find", taken.root.to_str().unwrap()]);
    taken.kill(|| {});
    let left = taken.left();
    assert_eq!(left.len(), 6, "all of the tree: {left:?}");
}

#[test]
fn a_use_in_the_trash_while_the_process_is_dead_is_known_by_the_next_one() {
    let mount = need!(Mount::new(Fs::Xfs));
    let taken = Taken::new(&mount, TREE);
    taken.kill(|| taken.read("f000001"));
    let left = taken.left();
    assert_eq!(left.len(), 6, "all of the tree: {left:?}");
}

/// What came back is young, also if the process is killed then.
fn what_is_restored_is_young_after_a_kill(keys: &str) {
    let mount = need!(Mount::new(Fs::Xfs));
    let taken = Taken::new(&mount, keys);
    let _ = taken.agent.ctl().run(["restore", &taken.run]).ok();
    assert!(taken.root.join("b/t/sub/f000001").exists());
    taken.kill(|| {});
    let plan = taken.agent.ctl().candidates();
    assert!(plan.is_empty(), "{plan:?}");
}

#[test]
fn files_that_are_restored_are_young_after_a_kill() {
    what_is_restored_is_young_after_a_kill("grace = \"1h\"");
}

#[test]
fn a_tree_that_is_restored_is_young_after_a_kill() {
    what_is_restored_is_young_after_a_kill("grace = \"1h\"\ntarget = \"directory\"\ndepth = 2");
}

/// An empty directory has the name of a tree that a run compares: a hold of that name, or of one below it, means the tree.
fn what_is_held_while_it_is_away_stays(held: &str) {
    const DIRS: usize = 4000;
    let mount = need!(Mount::sized(Fs::Ext4, 256, 20_000));
    let mut is_met = false;
    let (_copy, program) = purgectl_for_users();
    for round in 0..4 {
        let root = mount.dir(&format!("v{round}"));
        let tree = root.join("m/t");
        make(&tree, 1);
        (0..DIRS).for_each(|n| fs::create_dir(tree.join(format!("d{n}"))).unwrap());
        age_tree(&root);
        let keys = "target = \"directory\"\ndepth = 2";
        // Each name belongs to a user.
        for path in [root.join("m"), tree.clone(), tree.join("f000000")] {
            chown(path, Some(ALICE), Some(ALICE)).unwrap();
        }
        let config = Config::backdated_with(&root, keys).access("self = true");
        let agent = Agent::tracking(&config);
        agent.reachable();
        let alice = agent.ctl().as_user(ALICE, &program);
        let (plan, before) = (agent.ctl().plan(), inode(&tree));
        let mut client = agent.ctl().start_apply(&plan, &[]);
        let since = Instant::now();
        let is_away = || fs::symlink_metadata(&tree).map_or(true, |_| inode(&tree) != before);
        while !is_away() && since.elapsed() < SOON {
            std::thread::sleep(Duration::from_micros(200));
        }
        is_met |= tree.exists();
        let path = root.join(held);
        // The owner asks as well as an administrator.
        let who = if round % 2 == 0 { agent.ctl() } else { alice };
        let answer = who.run(["hold", "add", path.to_str().unwrap(), "--reason", "legal"]);
        assert!(
            !(answer.stderr.contains("owns nothing") && tree.exists()),
            "the owner is told that it is another's: {}",
            answer.text()
        );
        client.wait().unwrap();
        eprintln!("hold add: {} {}", answer.code, answer.stderr);
        assert!(
            answer.code != 0 || tree.join("f000000").exists(),
            "the hold was accepted, and what it holds was deleted: {}",
            answer.text()
        );
        let _ = fs::remove_dir_all(&root);
    }
    assert!(is_met, "no placeholder was met");
}

#[test]
fn a_directory_that_is_held_while_it_is_away_stays() {
    what_is_held_while_it_is_away_stays("m/t");
}

#[test]
fn a_file_that_is_held_while_its_tree_is_away_stays() {
    what_is_held_while_it_is_away_stays("m/t/f000000");
}

/// Its owner can rename what has the name of a directory that is away. It stays then, and the agent says what it is.
#[test]
fn a_placeholder_that_a_run_left_is_said_to_be_one() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let (above, left) = (root.join("m"), root.join("m/left"));
    fs::create_dir_all(&left).unwrap();
    let mark = c"trusted.purge_agent.placeholder";
    rustix::fs::setxattr(&left, mark, b"1", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o000)).unwrap();
    chown(&above, Some(ALICE), Some(ALICE)).unwrap();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).unwrap();
    let agent = Agent::tracking(&Config::backdated(&root).access("self = true"));
    agent.reachable();
    let (_copy, program) = purgectl_for_users();
    let ask = |ctl: &Ctl, path: &Path| {
        let answer = ctl.run(["hold", "add", path.to_str().unwrap(), "--reason", "mine"]);
        assert_ne!(answer.code, 0, "{}", answer.text());
        answer.stderr
    };
    let (alice, bob) = (
        agent.ctl().as_user(ALICE, &program),
        agent.ctl().as_user(BOB, &program),
    );
    for path in [left.clone(), left.join("f")] {
        for ctl in [&agent.ctl(), &alice] {
            let told = ask(ctl, &path);
            assert!(told.contains("m/left") && told.contains("rmdir"), "{told}");
        }
        let told = ask(&bob, &path);
        assert!(told.contains("owns nothing"), "{told}");
    }
}
