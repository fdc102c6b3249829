//! What a process uses while it lies in the trash is not freed when the grace ends. No path leads there, but a working directory that was
//! moved does, and so does a descriptor that was opened before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, files_in_trash, files_of_users, make, shell};
use purge_tests::wait::{LONG, SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::{Pid, Signal, kill_process};

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

/// The helpers write a tolerance of their own unless its name is there.
const NO_TOLERANCE: &str = "baseline = \"mtime\"\n# gap_tolerance is not given";

impl Taken {
    fn new(mount: &Mount) -> Self {
        Self::with(mount, "baseline = \"mtime\"")
    }

    fn with(mount: &Mount, volume_keys: &str) -> Self {
        Self::by(mount, volume_keys, |agent| agent)
    }

    /// With an agent that is changed before it is started.
    fn by(mount: &Mount, volume_keys: &str, change: impl FnOnce(Agent) -> Agent) -> Self {
        let root = mount.dir("volume");
        make(&root.join("team/project/deep"), 3);
        make(&root.join("team/unused/deep"), 3);
        let single = make(&root.join("a"), 3).remove(1);
        age_tree(&root);
        let trees = format!(
            "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"{GRACE}\"\ntarget = \"directory\"\ndepth = 2"
        );
        let files = format!(
            "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"{GRACE}\"\nremove_empty_dirs = false\ninclude = [\"a/**\"]"
        );
        let config = Config::new(&root, volume_keys);
        let config = config.rule("old", &trees).rule("files", &files);
        let mut agent = change(Agent::prepared(&config));
        agent.launch();
        agent.wait_until_tracking();
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
        self.read_as(OFlags::RDONLY);
    }

    fn read_as(&self, how: OFlags) {
        let mut content = Vec::new();
        let in_tree = openat(&self.working_directory, "f000001", how, Mode::empty()).unwrap();
        File::from(in_tree).read_to_end(&mut content).unwrap();
        let single = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        let single = open(single, how, Mode::empty()).unwrap();
        File::from(single).read_to_end(&mut content).unwrap();
        assert!(!content.is_empty());
    }

    /// Until when what the last run took stays.
    fn until_when(&self) -> String {
        let runs = self.agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
        let last = runs.iter().map(|run| text(run, "trash_until").to_owned());
        last.max().unwrap()
    }

    /// Reads while no agent runs.
    fn read_in_a_gap(&mut self, is_killed: bool, how: OFlags) {
        match is_killed {
            true => self.agent.kill(),
            false => self.agent.terminate(),
        }
        self.read_as(how);
        let_pass(1);
        self.agent.launch();
        self.agent.wait_until_tracking();
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

/// Access times tell of what was read while no agent was running, and of what was not.
fn what_is_read_in_a_gap_is_kept(is_killed: bool) {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let keys = format!("{NO_TOLERANCE}\naccess_times = \"complete\"");
    let mut taken = Taken::with(&mount, &keys);
    // What changed within some seconds of an agent's end may have changed afterwards.
    let_pass(6);
    taken.read_in_a_gap(is_killed, OFlags::RDONLY);
    taken.what_was_used_is_kept();
}

#[test]
fn what_is_read_in_the_trash_while_the_agent_is_stopped_is_kept() {
    what_is_read_in_a_gap_is_kept(false);
}

#[test]
fn what_is_read_in_the_trash_after_a_kill_is_kept() {
    what_is_read_in_a_gap_is_kept(true);
}

/// As the agent writes it.
fn now_in_words() -> String {
    shell(Path::new("/"), "date -u +%Y-%m-%dT%H:%M:%SZ")
        .trim()
        .to_owned()
}

/// The index may still have what went to the trash in the last seconds before a kill.
#[test]
fn what_is_read_in_the_trash_while_the_agent_is_dead_and_its_parent_keeps_the_queue_is_kept() {
    let mount = need!(Mount::new(Fs::Ext4));
    let taken = Taken::by(&mount, NO_TOLERANCE, Agent::with_parent);
    let child = taken.agent.below_parent().unwrap();
    kill_process(Pid::from_raw(child.cast_signed()).unwrap(), Signal::KILL).unwrap();
    taken.read();
    until("the agent is started again", SOON, || {
        taken.agent.below_parent().filter(|pid| *pid != child)
    });
    taken.what_was_used_is_kept();
}

/// No access time tells of it: the grace is counted again from the end of the gap, and the agent says so.
#[test]
fn what_may_have_been_read_unseen_stays_for_another_grace() {
    may_have_been_read_unseen(Fs::Ext4);
}

/// A read with `O_NOATIME` leaves no access time, so what has none may have been read.
#[test]
fn access_times_do_not_shorten_that_unless_the_operator_vouches_for_them() {
    may_have_been_read_unseen(Fs::Ext4Relatime);
}

fn may_have_been_read_unseen(fs: Fs) {
    let mount = need!(Mount::new(fs));
    let mut taken = Taken::with(&mount, NO_TOLERANCE);
    let before = taken.until_when();
    let_pass(3);
    taken.read_in_a_gap(true, OFlags::RDONLY | OFlags::NOATIME);
    let waits = until("the agent says what waits", SOON, || {
        let until = taken.agent.status()["trash_waits_until"].clone();
        until.as_str().map(str::to_owned)
    });
    taken
        .agent
        .wait_until_it_says("may have been used while no agent was watching");
    assert!(waits > before, "{waits} is no later than {before}");
    // The last of the runs, which may have begun a second later.
    assert!(taken.until_when() >= waits, "the run says it as well");
    let all = files_in_trash(&taken.root).len();
    until("the grace is over", LONG, || {
        (now_in_words() > before).then_some(())
    });
    let_pass(2);
    assert_eq!(files_in_trash(&taken.root).len(), all, "nothing is freed yet");
    until("everything is freed once the other grace is over", LONG, || {
        files_in_trash(&taken.root).is_empty().then_some(())
    });
    assert!(now_in_words() >= waits);
    assert!(taken.agent.status()["trash_waits_until"].is_null());
}

/// A volume that needs the space takes nothing that may have been used unseen.
#[test]
fn a_full_volume_frees_nothing_early_that_may_have_been_read_unseen() {
    const FILE: usize = 4 << 20;
    let mount = need!(Mount::sized(Fs::Ext4, 128, 4096));
    let root = mount.path();
    let big = |name: &str| fs::write(root.join(name), vec![7; FILE]).unwrap();
    (0..10).for_each(|n| big(&format!("old{n}")));
    age_tree(&root);
    let rule = "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1h\"";
    let keys = "high = \"50%\"\nlow = \"20%\"\nrule = \"old\"\nmin_age = \"1h\"\nfree_trash = true";
    let config = Config::new(&root, NO_TOLERANCE).rule("old", rule);
    let mut agent = Agent::tracking(&config.table("watermark", keys));
    let ctl = agent.ctl();
    let _ = ctl.apply(&ctl.plan()).ok();
    assert_eq!(files_in_trash(&root).len(), 10);
    agent.terminate();
    (0..10).for_each(|n| big(&format!("young{n}")));
    agent.launch();
    agent.wait_until_it_says("may have been used while no agent was watching");
    // The first look at the watermark comes five seconds after the start.
    let_pass(10);
    assert_eq!(files_in_trash(&root).len(), 10, "the trash is freed early");
}

/// No new place can be made for what the runs keep.
fn nothing_can_be_kept(taken: &Taken, flag: &str) {
    for run in &taken.runs {
        let kept = taken.root.join(format!(".purge-agent-trash/{run}.kept"));
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&kept)
            .unwrap();
        sh(Command::new("chattr").arg(flag).arg(&kept)).unwrap();
    }
}

/// The agent looks at the trash again each few seconds, and what was used is there still; then it is kept as usual.
fn it_stays_until_it_can_be_kept(mut taken: Taken) {
    until("both are told", LONG, || {
        let told = taken.agent.said();
        let is_told = |run: &String| {
            let mut lines = told.lines();
            lines
                .any(|line| line.contains("some of the trash cannot be freed") && line.contains(run.as_str()))
        };
        taken.runs.iter().all(is_told).then_some(())
    });
    let_pass(12);
    let left = files_in_trash(&taken.root);
    assert_eq!(left.len(), 4, "what was used, and all of its tree: {left:?}");
    nothing_can_be_kept(&taken, "-i");
    // What cannot be freed is tried more and more seldom. The next process tries at once.
    taken.agent.terminate();
    taken.agent.launch();
    taken.agent.wait_until_tracking();
    taken.what_was_used_is_kept();
}

#[test]
fn what_was_read_in_the_trash_is_not_freed_where_it_cannot_be_kept_apart() {
    let mount = need!(Mount::new(Fs::Ext4));
    let taken = Taken::new(&mount);
    nothing_can_be_kept(&taken, "+i");
    taken.read();
    it_stays_until_it_can_be_kept(taken);
}

#[test]
fn what_was_open_when_the_grace_ended_is_not_freed_later_where_it_cannot_be_kept_apart() {
    let mount = need!(Mount::new(Fs::Ext4));
    let taken = Taken::new(&mount);
    nothing_can_be_kept(&taken, "+i");
    let single = format!("/proc/self/fd/{}", taken.descriptor.as_raw_fd());
    let in_tree = openat(&taken.working_directory, "f000001", OFlags::RDONLY, Mode::empty()).unwrap();
    let both = (in_tree, open(single, OFlags::RDONLY, Mode::empty()).unwrap());
    taken
        .agent
        .wait_until_it_says("some of the trash cannot be freed");
    let_pass(2);
    drop(both);
    it_stays_until_it_can_be_kept(taken);
}
