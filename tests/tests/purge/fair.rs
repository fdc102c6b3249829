//! What one user does with his own files never stops the purge of other users' files: the run completes, and says why his stay.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age, age_tree, count_files, make, make_one, regular_files};
use purge_tests::mount::Bind;
use purge_tests::notices::{ALICE, BOB};
use purge_tests::wait::Ends;
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need, sh};
use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps, mkdirat, openat};
use serde_json::Value;

/// Files of others in each plan: with fewer of them, a few failures would be less than `max_errors`.
const OTHERS: usize = 300;
/// The promise to openers is one second. The rest is for a machine that does other things as well.
const WAIT_MAX: Duration = Duration::from_secs(2);

fn skipped(run: &Value, reason: &str) -> u64 {
    number(run, &format!("/skipped/{reason}"))
}

fn files_only(root: &Path, more: &str) -> Config {
    Config::backdated_with(root, &format!("remove_empty_dirs = false\n{more}"))
}

/// `count` files in each of `dirs` directories of hers below `alice`.
fn hers(root: &Path, dirs: usize, count: usize) -> Vec<PathBuf> {
    let dirs = (0..dirs).map(|n| root.join(format!("alice/d{n:03}")));
    let all: Vec<PathBuf> = dirs.flat_map(|dir| make(&dir, count)).collect();
    sh(Command::new("chown")
        .args(["-R", &ALICE.to_string()])
        .arg(root.join("alice")))
    .unwrap();
    all
}

/// Files of others, before and after hers in every order.
fn of_others(root: &Path) {
    for (dir, uid) in [("aaron", BOB), ("zoe", 0)] {
        for file in make(&root.join(dir), OTHERS / 2) {
            chown(file, Some(uid), Some(uid)).unwrap();
        }
    }
}

/// Applies all rules and holds that nothing failed and that no file of others is left.
fn apply(ctl: &Ctl, root: &Path) -> Value {
    let plan = ctl.plan();
    let began = Instant::now();
    let run = ctl.apply(&plan).ok().json();
    println!("apply took {:?}", began.elapsed());
    let counts = tally(&plan, &run);
    assert_eq!(text(&run, "state"), "completed", "{run}");
    assert_eq!((counts.failed, skipped(&run, "cancelled")), (0, 0), "{run}");
    assert_eq!(run["failed_by_owner"], serde_json::json!([]), "{run}");
    for dir in ["aaron", "zoe"] {
        assert_eq!(count_files(&root.join(dir)), 0, "all of {dir}'s files go: {run}");
    }
    run
}

/// A process of hers that holds leases on her files, until it is dropped.
struct Holder(Child);

/// Leases the files that its input names, for writing those in the first directory, and says when it is done.
const LEASES: &str = "\
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
os.setresuid(*[int(sys.argv[1])] * 3)
held = []
for line in sys.stdin:
    if line == '\\n':
        break
    kind, path = line.rstrip('\\n').split(' ', 1)
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK if kind == 'w' else fcntl.F_RDLCK)
    held.append(fd)
print('held', flush=True)
sys.stdin.read()
";

impl Holder {
    fn of(files: impl Iterator<Item = (char, PathBuf)>) -> Self {
        use std::io::Write as _;
        let mut child = Command::new("/bin/sh")
            .args([
                "-c",
                "ulimit -n 16384; exec /usr/bin/python3 -c \"$0\" \"$1\"",
                LEASES,
            ])
            .arg(ALICE.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let input = child.stdin.as_mut().unwrap();
        let lines: String = files
            .map(|(kind, path)| format!("{kind} {}\n", path.display()))
            .collect();
        input.write_all(lines.as_bytes()).unwrap();
        input.write_all(b"\n").unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// To open one of them for what a lease excludes waits for `fs.lease-break-time`, 45 seconds. The agent never does.
#[test]
fn thousands_of_own_leases_are_skipped_at_once() {
    const WRITE: usize = 3000;
    const READ: usize = 100;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    let leased = hers(&root, 10, (WRITE + READ) / 10);
    age_tree(&root);
    let kinds = (0..).map(|n| if n < WRITE { 'w' } else { 'r' });
    let holder = Holder::of(kinds.zip(leased));
    let agent = Agent::tracking(&files_only(&root, ""));
    let began = Instant::now();
    let run = apply(&agent.ctl(), &root);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    // A read lease is granted only to a process that has the file open, and hinders no reader.
    let counts = (skipped(&run, "leased"), skipped(&run, "open"));
    assert_eq!(counts, (WRITE as u64, READ as u64), "{run}");
    let told = agent.ctl().run(["run", text(&run, "run_id")]).ok().text();
    assert!(told.contains("leased by another process"), "{told}");
    drop(holder);
}

#[test]
fn directories_with_a_leased_file_are_skipped_as_a_whole() {
    const DIRS: usize = 40;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for n in 0..DIRS {
        make(&root.join(format!("other{n:02}")), 8);
    }
    let mut leased = Vec::new();
    for n in 0..DIRS {
        let all = make(&root.join(format!("hers{n:02}")), 3);
        chown(&all[0], Some(ALICE), Some(ALICE)).unwrap();
        leased.push(all[0].clone());
    }
    age_tree(&root);
    let holder = Holder::of(leased.into_iter().map(|path| ('w', path)));
    let config = Config::backdated_with(&root, "target = \"directory\"\ndepth = 1");
    let agent = Agent::tracking(&config);
    let run = apply_trees(&agent.ctl());
    let counts = (skipped(&run, "leased"), number(&run, "/deleted/directories"));
    assert_eq!(counts, (DIRS as u64, DIRS as u64), "{run}");
    assert_eq!(count_files(&root), 3 * DIRS as u64, "they are back");
    drop(holder);
}

/// Applies all rules and holds that nothing failed.
fn apply_trees(ctl: &Ctl) -> Value {
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).failed, 0, "{run}");
    assert_eq!(text(&run, "state"), "completed", "{run}");
    run
}

fn chattr(flags: &[&str], path: &Path) {
    sh(Command::new("chattr").args(flags).arg(path)).unwrap();
}

#[test]
fn immutable_and_append_only_files_are_skipped_and_named_in_the_audit_log() {
    for grace in ["", "grace = \"1d\""] {
        let mount = need!(Mount::new(Fs::Ext4));
        let root = mount.path();
        of_others(&root);
        hers(&root, 3, 100);
        age_tree(&root);
        chattr(&["-R", "+i"], &root.join("alice/d000"));
        chattr(&["-R", "+a"], &root.join("alice/d001"));
        // A directory that lets nothing go.
        chattr(&["+i"], &root.join("alice/d002"));
        let agent = Agent::tracking(&files_only(&root, grace));
        let run = apply(&agent.ctl(), &root);
        assert_eq!(skipped(&run, "protected"), 300, "{run}");
        assert_eq!(count_files(&root.join("alice")), 300);
        let audit = fs::read_to_string(agent.state_dir().join("audit.jsonl")).unwrap();
        assert_eq!(audit.matches("\"reason\":\"protected\"").count(), 300);
    }
}

/// They are found before anything in it is removed.
#[test]
fn a_directory_with_an_immutable_file_stays_whole() {
    const DIRS: usize = 40;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for n in 0..DIRS {
        make(&root.join(format!("other{n:02}")), 8);
        let mine = root.join(format!("protected{n:02}"));
        make(&mine, 5);
        fs::create_dir(mine.join("sub")).unwrap();
        make_one(&mine.join("sub/file"));
    }
    age_tree(&root);
    for n in 0..DIRS {
        let which = if n % 2 == 0 { "sub/file" } else { "sub" };
        chattr(&["+i"], &root.join(format!("protected{n:02}/{which}")));
    }
    let config = Config::backdated_with(&root, "target = \"directory\"\ndepth = 1");
    let agent = Agent::tracking(&config);
    let run = apply_trees(&agent.ctl());
    let counts = (skipped(&run, "protected"), number(&run, "/deleted/directories"));
    assert_eq!(counts, (DIRS as u64, DIRS as u64), "{run}");
    assert_eq!(regular_files(&root).len(), 6 * DIRS, "they are whole");
}

/// A chain of directories below an open one; returns the lowest.
fn dig(from: &Path, names: impl Iterator<Item = String>) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut dir = openat(CWD, from, flags, Mode::empty()).unwrap();
    for name in names {
        mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    dir
}

/// Makes an old file in an open directory.
fn put_old(dir: &OwnedFd, name: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(openat(dir, name, flags, Mode::from_raw_mode(0o644)).unwrap());
    set_old(dir, name);
}

fn set_old(dir: &OwnedFd, name: &str) {
    let at = Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: at,
        last_modification: at,
    };
    rustix::fs::utimensat(dir, name, &times, rustix::fs::AtFlags::empty()).unwrap();
}

/// They go, or are left alone as too deep.
#[test]
fn trees_of_many_levels_do_not_fail() {
    const OTHER: usize = 40;
    const DEEP: usize = 12;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let others = (0..OTHER).map(|n| root.join(format!("other{n:02}")));
    let others: Vec<PathBuf> = others.inspect(|dir| drop(make(dir, 8))).collect();
    for n in 0..DEEP {
        let deep = root.join(format!("deep{n:02}"));
        fs::create_dir(&deep).unwrap();
        put_old(&dig(&deep, (0..700).map(|_| "d".into())), "f");
    }
    age_tree(&root);
    let config = Config::backdated_with(&root, "target = \"directory\"\ndepth = 1");
    let agent = Agent::tracking(&config);
    let run = apply_trees(&agent.ctl());
    let counts = skipped(&run, "deep") + number(&run, "/deleted/directories");
    assert_eq!(counts, (OTHER + DEEP) as u64, "{run}");
    assert!(others.iter().all(|dir| !dir.exists()), "{run}");
}

/// The trash cannot say of a directory where it was, if its path is longer than a link takes.
/// The kernel and the agent have to look at each name of a file, while openers of other files of its batch wait.
#[test]
fn names_at_the_ends_of_long_paths_keep_no_opener_waiting() {
    const FILES: usize = 60;
    const NAMES: usize = 30;
    const LEVELS: usize = 110;
    let mount = need!(Mount::sized(Fs::Ext4, 600, 40_000));
    let root = mount.path();
    let level = || "d".repeat(250);
    let leaves: Vec<OwnedFd> = (0..NAMES)
        .map(|n| {
            dig(
                &root,
                std::iter::once(format!("alice{n}")).chain((0..LEVELS).map(|_| level())),
            )
        })
        .collect();
    let others = make(&root.join("others"), OTHERS);
    for n in 0..FILES {
        let name = format!("f{n}");
        put_old(&leaves[0], &name);
        for leaf in &leaves[1..] {
            rustix::fs::linkat(&leaves[0], &name, leaf, &name, rustix::fs::AtFlags::empty()).unwrap();
        }
    }
    drop(leaves);
    others.iter().for_each(|file| age(file));
    let agent = Agent::tracking(&files_only(&root, "grace = \"1h\""));
    let plan = agent.ctl().plan();
    let next = AtomicUsize::new(0);
    let longest = longest_wait_beside(
        || drop(fs::File::open(&others[next.fetch_add(1, Relaxed) % OTHERS])),
        || {
            let run = agent.ctl().apply(&plan).json();
            // The run as a whole is megabytes of paths.
            assert_eq!(number(&run, "/failed_total"), 0);
        },
    );
    assert!(longest < WAIT_MAX, "{longest:?}");
}

/// A large directory is compared for seconds. One of another user is not away for that long.
#[test]
fn large_trees_keep_no_opener_in_another_tree_waiting() {
    const TREES: usize = 8;
    const DIRECTORIES: usize = 3000;
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let root = mount.path();
    let file = make(&root.join("bob"), 1).remove(0);
    for tree in 0..TREES {
        let tree = root.join(format!("z{tree}"));
        (0..DIRECTORIES).for_each(|n| fs::create_dir_all(tree.join(n.to_string())).unwrap());
        make(&tree, 1);
    }
    age_tree(&root);
    let dir = openat(CWD, file.parent().unwrap(), OFlags::PATH, Mode::empty()).unwrap();
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        "target = \"directory\"\ndepth = 1",
    ));
    let plan = agent.ctl().plan();
    let is_moved = || !file.exists();
    let longest = longest_wait_beside(
        // Not before: it would be in use.
        || drop(is_moved().then(|| openat(&dir, "f000000", OFlags::RDONLY, Mode::empty()))),
        || {
            let run = agent.ctl().apply(&plan).json();
            assert_eq!(
                number(&run, "/deleted/directories") + skipped(&run, "accessed") + skipped(&run, "open"),
                1 + TREES as u64
            );
        },
    );
    assert!(longest < WAIT_MAX, "{longest:?}");
}

/// How long the slowest of many calls took that were made while something else ran.
fn longest_wait_beside(call: impl Fn() + Sync, work: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Relaxed) {
                let began = Instant::now();
                call();
                longest = longest.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            longest
        });
        let ends = Ends(&stop);
        work();
        drop(ends);
        let longest = caller.join().unwrap();
        println!("the longest wait: {longest:?}");
        longest
    })
}

#[test]
fn directories_with_a_path_that_is_too_long_do_not_fail() {
    const DIRS: usize = 20;
    const LEVELS: usize = 24;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    age_tree(&root);
    let above = dig(&root, (1..LEVELS).map(|n| format!("{n:03}{}", "x".repeat(197))));
    for n in 0..DIRS {
        let name = format!("leaf{n:02}{}", "y".repeat(190));
        mkdirat(&above, &name, Mode::from_raw_mode(0o755)).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let leaf = openat(&above, &name, flags, Mode::empty()).unwrap();
        put_old(&leaf, "f");
        set_old(&above, &name);
    }
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule(
            "whole",
            &format!("ttl = \"1h\"\nclock = [\"access\"]\ntarget = \"directory\"\ndepth = {LEVELS}"),
        )
        .rule(
            "files",
            "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false\nexclude = [\"001*\"]",
        );
    let agent = Agent::tracking(&config);
    let run = apply(&agent.ctl(), &root);
    let counts = skipped(&run, "deep") + number(&run, "/deleted/directories");
    assert_eq!(counts, DIRS as u64, "{run}");
}

/// Becomes another program to which the kernel refuses to give anything to one user, as ext4 does when his quota of inodes is used up
/// and the process lacks CAP_SYS_RESOURCE: fchown(2) and fchownat(2) end with EDQUOT.
const OVER_QUOTA: &str = "\
import ctypes, os, struct, sys
fchown, fchownat, user, refused = (int(word) for word in sys.argv[1:5])
low = lambda argument: 16 + 8 * argument
code = [(0x20, 0, 0, 0), (0x15, 0, 2, fchown), (0x20, 0, 0, low(1)), (0x05, 0, 0, 2), (0x15, 0, 3, fchownat), (0x20, 0, 0, low(2)),
        (0x15, 0, 1, user), (0x06, 0, 0, 0x00050000 | refused), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *c) for c in code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
    sys.exit('prctl: ' + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[5], sys.argv[5:])
";

#[test]
fn a_user_whose_quota_is_used_up_does_not_stop_the_purge() {
    const DIRS: usize = 150;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    hers(&root, DIRS, 2);
    age_tree(&root);
    let words = [
        libc::SYS_fchown.to_string(),
        libc::SYS_fchownat.to_string(),
        ALICE.to_string(),
        libc::EDQUOT.to_string(),
    ];
    let mut launcher = vec!["/usr/bin/python3", "-c", OVER_QUOTA];
    launcher.extend(words.iter().map(String::as_str));
    let agent = Agent::tracking_under(&files_only(&root, "grace = \"1d\""), &launcher);
    let run = apply(&agent.ctl(), &root);
    // What the trash makes for her may be made without her being charged.
    let hers = skipped(&run, "quota") + number(&run, "/trashed/files");
    assert_eq!(hers, (OTHERS + 2 * DIRS) as u64, "{run}");
}

#[test]
fn files_with_something_mounted_on_them_are_skipped() {
    const MOUNTED: usize = 60;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    let hers = hers(&root, 1, MOUNTED);
    age_tree(&root);
    let agent = Agent::tracking(&files_only(&root, ""));
    // A scan leaves out what is mounted.
    let mut binds = Vec::new();
    for file in &hers {
        binds.push(need!(Bind::new(file, file)));
    }
    let run = apply(&agent.ctl(), &root);
    assert_eq!(skipped(&run, "mounted"), MOUNTED as u64, "{run}");
}

/// Files that no process can open: their attributes lie in a damaged block of the disk (EUCLEAN).
fn damaged(mount: &mut Mount, root: &Path, count: usize) {
    let files = hers(root, 1, count);
    for file in &files {
        // The group's rights make the kernel read them.
        fs::set_permissions(file, fs::Permissions::from_mode(0o660)).unwrap();
        age(file);
    }
    mount.spoil(&files);
}

#[test]
fn faults_of_the_system_end_a_run_and_the_run_says_whose_files_failed() {
    const DAMAGED: usize = 60;
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    age_tree(&root);
    damaged(&mut mount, &root, DAMAGED);
    let agent = Agent::tracking(&files_only(&root, "max_errors = 0.05"));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ends_with(5).json();
    let failed = tally(&plan, &run).failed;
    assert_eq!(text(&run, "state"), "partial", "{run}");
    assert!(failed > 10, "{run}");
    let error = text(&run, "error");
    let owner = format!("{failed} of {ALICE}");
    assert!(error.contains("max_errors") && error.contains(&owner), "{error}");
    assert!(error.contains("Structure needs cleaning"), "{error}");
    let by_owner = serde_json::json!([{ "uid": ALICE, "owner": ALICE.to_string(), "failed": failed }]);
    assert_eq!(run["failed_by_owner"], by_owner, "{run}");
    let told = ctl.run(["run", text(&run, "run_id")]).ok().text();
    assert!(told.contains(&owner), "{told}");
}
