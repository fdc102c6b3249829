//! Who may keep a run from removing something by a lock on a directory, and that the run says who does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use purge_tests::ctl::{Plan, number, tally};
use purge_tests::files::{age_tree, make, regular_files, temp_dir};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// A process of a user that has a shared lock on a directory. The one that took it has ended if it is `inherited`.
struct Locker(Child);

/// Locks ranges of bytes of files that it makes in a directory, has a lock on each of some directories, and then many descriptors.
const RANGES: &str = "\
import fcntl, os, resource, struct, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
own, ranges, descriptors = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held = [os.open(dir, os.O_RDONLY) for dir in sys.argv[4:]]
if os.fork() == 0:
    for fd in held:
        fcntl.flock(fd, fcntl.LOCK_SH)
    os._exit(0)
os.wait()
for n in range(0, ranges, 2000):
    fd = os.open(own + '/%d' % n, os.O_RDWR | os.O_CREAT)
    for k in range(2000):
        fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, (1999 - k) * 2, 1, 0))
for n in range(descriptors):
    os.dup(fd)
print('ready', flush=True)
time.sleep(600)
";

impl Locker {
    fn new(uid: u32, dir: &Path, inherited: bool) -> Self {
        let script = match inherited {
            true => format!("exec 9<{}; flock -s 9; echo ready; exec sleep 600", dir.display()),
            false => format!(
                "exec flock -s {} sh -c 'echo ready; exec sleep 600'",
                dir.display()
            ),
        };
        Self::running(uid, &["sh", "-c", &script])
    }

    /// In a program with the set-user-ID bit of root.
    fn in_a_program_of_root(uid: u32, dir: &Path, program: &Path) -> Self {
        let (dir, program) = (dir.display(), program.display());
        Self::running(
            uid,
            &[
                "sh",
                "-c",
                &format!("exec 9<{dir}; flock -s 9; echo ready; exec {program} 600"),
            ],
        )
    }

    /// A process that has locks on directories that another has taken and ended, very many locks on ranges of bytes, and descriptors.
    fn of_ranges(uid: u32, own: &Path, (ranges, descriptors): (u32, u32), dirs: &[PathBuf]) -> Self {
        let (ranges, descriptors) = (ranges.to_string(), descriptors.to_string());
        let own = own.to_str().unwrap();
        let mut command = vec!["/usr/bin/python3", "-c", RANGES, own, &ranges, &descriptors];
        command.extend(dirs.iter().map(|dir| dir.to_str().unwrap()));
        Self::running(uid, &command)
    }

    fn running(uid: u32, command: &[&str]) -> Self {
        let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
        let mut child = Command::new("setpriv")
            .args(ids)
            .arg("--clear-groups")
            .args(command)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("setpriv");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "ready");
        Self(child)
    }
}

use std::os::unix::process::CommandExt;

impl Drop for Locker {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Ten files below each of two directories, of which one belongs to a user, and the agent.
fn volume(mount: &Mount) -> Agent {
    volume_with(mount, 0)
}

/// The same with this number of further directories of the user, each with a file.
fn volume_with(mount: &Mount, directories: usize) -> Agent {
    let root = mount.path();
    make(&root.join("theirs/sub"), 10);
    make(&root.join("roots"), 10);
    for dir in more_of_theirs(&root, directories) {
        make(&dir, 1);
        chown(&dir, Some(1000), Some(1000)).unwrap();
    }
    chown(root.join("theirs"), Some(1000), Some(1000)).unwrap();
    age_tree(&root);
    for dir in [root.clone(), root.join("theirs"), root.join("roots")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let parent = root.parent().unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"))
}

fn more_of_theirs(root: &Path, count: usize) -> impl Iterator<Item = PathBuf> {
    let theirs = root.join("theirs");
    (0..count).map(move |n| theirs.join(format!("d{n}")))
}

fn run(agent: &Agent) -> Value {
    apply(agent, &agent.ctl().plan())
}

fn apply(agent: &Agent, plan: &Plan) -> Value {
    let run = agent.ctl().apply(plan).ok().json();
    tally(plan, &run);
    run
}

#[test]
fn a_user_cannot_hold_up_a_volume_by_a_lock_on_its_root() {
    for inherited in [false, true] {
        let mount = need!(Mount::new(Fs::Ext4));
        let agent = volume(&mount);
        let _lock = Locker::new(1001, &mount.path(), inherited);
        // Nor what belongs to another user.
        let _theirs = Locker::new(1001, &mount.path().join("theirs"), inherited);
        let status = agent.status();
        let named = status
            .pointer("/locked_by/0")
            .and_then(Value::as_str)
            .unwrap_or_default();
        assert!(
            named.contains("uid 1001") && named.contains("keeps nothing"),
            "{status}"
        );
        let doctor = agent
            .ctl()
            .run(["doctor", "--output", "json"])
            .ok()
            .json()
            .to_string();
        assert!(doctor.contains("uid 1001"), "{doctor}");
        let run = run(&agent);
        assert_eq!(
            (number(&run, "/deleted/files"), number(&run, "/skipped/locked")),
            (20, 0),
            "{run}"
        );
        assert!(regular_files(&mount.path()).is_empty());
    }
}

#[test]
fn root_and_owners_can_and_are_named() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let agent = volume(&mount);
    let owner = Locker::new(1000, &mount.path().join("theirs"), true);
    let first = run(&agent);
    assert_eq!(
        (
            number(&first, "/deleted/files"),
            number(&first, "/skipped/locked")
        ),
        (10, 10),
        "{first}"
    );
    let named = first
        .pointer("/locked_by/0")
        .and_then(Value::as_str)
        .unwrap_or_default();
    assert!(named.contains("uid 1000") && named.contains("theirs"), "{first}");
    drop(owner);
    let root = Locker::new(0, &mount.path(), false);
    let second = run(&agent);
    assert_eq!(
        (
            number(&second, "/deleted/files"),
            number(&second, "/skipped/locked")
        ),
        (0, 10),
        "{second}"
    );
    let status = agent.status().to_string();
    assert!(
        status.contains("uid 0") && status.contains("nothing below it is removed"),
        "{status}"
    );
    drop(root);
    assert_eq!(number(&run(&agent), "/deleted/files"), 10);
}

/// A stranger has a lock on each of another user's directories and on the volume's root, and makes the kernel's list of locks long. Then the
/// same with many descriptors of a file with many locks.
#[test]
fn many_locks_of_a_stranger_cost_little_and_keep_nothing() {
    const DIRECTORIES: usize = 50;
    for (ranges, descriptors) in [(20_000, 0), (2_000, 10_000)] {
        let mount = need!(Mount::new(Fs::Tmpfs));
        let agent = volume_with(&mount, DIRECTORIES);
        let (root, own) = (mount.path(), temp_dir());
        chown(own.path(), Some(1001), Some(1001)).unwrap();
        let locked = [root.clone(), root.join("theirs")].into_iter();
        let locked: Vec<PathBuf> = locked.chain(more_of_theirs(&root, DIRECTORIES)).collect();
        let plan = agent.ctl().plan();
        let _hers = Locker::of_ranges(1001, own.path(), (ranges, descriptors), &locked);
        let began = Instant::now();
        let status = agent.status();
        let asked = began.elapsed();
        let run = apply(&agent, &plan);
        let ran = began.elapsed().saturating_sub(asked);
        println!("{ranges} ranges, {descriptors} descriptors: status {asked:?}, apply {ran:?}");
        assert!(status.to_string().contains("keeps nothing"), "{status}");
        assert_eq!(number(&run, "/deleted/files"), 20 + DIRECTORIES as u64, "{run}");
        assert!(regular_files(&root).is_empty());
        assert!(asked < Duration::from_secs(3) && ran < Duration::from_secs(20));
    }
}

#[test]
fn a_stranger_who_starts_a_program_of_root_keeps_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let agent = volume(&mount);
    let tools = need!(Mount::new(Fs::Ext4));
    let sleep = tools.path().join("sleep");
    fs::copy("/usr/bin/sleep", &sleep).unwrap();
    fs::set_permissions(&sleep, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(tools.path().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = mount.path();
    let _locks = [&root, &root.join("theirs")].map(|dir| Locker::in_a_program_of_root(1001, dir, &sleep));
    let run = run(&agent);
    assert_eq!(
        (number(&run, "/deleted/files"), number(&run, "/skipped/locked")),
        (20, 0),
        "{run}"
    );
}

/// What was found of a stranger's lock a moment before decides nothing.
#[test]
fn a_lock_of_root_beside_one_of_a_stranger_counts_at_once() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let agent = volume(&mount);
    let (root, plan) = (mount.path(), agent.ctl().plan());
    let _strangers = [&root, &root.join("roots")].map(|dir| Locker::new(1001, dir, true));
    assert!(agent.status().to_string().contains("keeps nothing"));
    let _roots = Locker::new(0, &root.join("roots"), true);
    let run = apply(&agent, &plan);
    assert_eq!(
        (number(&run, "/deleted/files"), number(&run, "/skipped/locked")),
        (10, 10),
        "{run}"
    );
}
