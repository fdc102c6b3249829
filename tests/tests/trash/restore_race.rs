//! What `restore`, recovery and apply make and change as root, while a user exchanges it for links and for other users' directories: nothing
//! outside the volume, and nothing of another user, is changed, and nothing is put where it is less protected than it was.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, files_in_trash, files_of_users, give, make, set_times, walk};
use purge_tests::wait::{Ends, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{CWD, RenameFlags, XattrFlags, renameat_with};
use std::time::{Duration, Instant};

const MALLORY: u32 = 4001;
const BOB: u32 = 4002;

/// How often something is restored, and how many exchanges there are at least.
fn extent() -> (u64, u64) {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => (120, 100_000),
        false => (2, 1_000),
    }
}

/// How long what was exchanged stays as it is.
const SETTLED: Duration = Duration::from_micros(150);
/// Directories that are made again: each of them can be exchanged in the moment in which it is new.
const DIRS: usize = 40;

/// Everything that must stay as it is of an entry: inode, owner, group, mode, ACL, content.
type Witness = BTreeMap<PathBuf, (u64, u32, u32, u32, Vec<u8>, Vec<u8>)>;

fn witness(root: &Path) -> Witness {
    let mut seen = Witness::new();
    let mut look = |path: &Path| {
        let m = fs::symlink_metadata(path).unwrap();
        let mut acl = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, c"system.posix_acl_access", &mut acl[..]).unwrap_or(0);
        acl.truncate(len);
        let content = match m.is_file() {
            true => fs::read(path).unwrap(),
            false => Vec::new(),
        };
        seen.insert(
            path.strip_prefix(root).unwrap().to_owned(),
            (m.ino(), m.uid(), m.gid(), m.mode(), acl, content),
        );
    };
    look(root);
    for entry in walk(root) {
        look(&entry.path);
    }
    seen
}

/// What lies at a place, found again at the place to which it was exchanged.
fn find_inode(places: &[PathBuf], ino: u64) -> PathBuf {
    let is_it = |p: &&PathBuf| fs::symlink_metadata(p).is_ok_and(|m| m.ino() == ino);
    places
        .iter()
        .find(is_it)
        .expect("it is at one of the places")
        .clone()
}

/// A directory of Mallory's with things to exchange for what root makes in it.
struct Trap {
    dir: PathBuf,
    baits: Vec<PathBuf>,
    inodes: Vec<u64>,
}

impl Trap {
    fn new(root: &Path, outside: &Path) -> Self {
        let dir = root.join("m");
        fs::create_dir(&dir).unwrap();
        let baits: Vec<PathBuf> = ["to-dir", "to-file", "bob"].map(|n| dir.join(n)).into();
        symlink(outside.join("private"), &baits[0]).unwrap();
        symlink(outside.join("secret"), &baits[1]).unwrap();
        make(&baits[2], 5);
        give(&baits[2], BOB, 0o700);
        give(&dir, MALLORY, 0o755);
        let inodes = baits
            .iter()
            .map(|b| fs::symlink_metadata(b).unwrap().ino())
            .collect();
        Self { dir, baits, inodes }
    }

    fn places(&self) -> Vec<PathBuf> {
        self.baits.iter().cloned().chain(self.dirs()).collect()
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        (0..DIRS).map(|n| self.dir.join(format!("d{n}")))
    }

    fn bob(&self) -> PathBuf {
        find_inode(&self.places(), self.inodes[2])
    }

    /// Puts every bait back, and removes what is left of the directory.
    fn set_again(&self) {
        for (bait, ino) in self.baits.iter().zip(&self.inodes) {
            let now = find_inode(&self.places(), *ino);
            if now != *bait && renameat_with(CWD, &now, CWD, bait, RenameFlags::EXCHANGE).is_err() {
                fs::rename(&now, bait).unwrap();
            }
        }
        self.remove();
    }

    /// What is left of the directories that were to go.
    fn remove(&self) {
        for d in self.dirs() {
            if fs::symlink_metadata(&d).is_ok_and(|m| m.is_dir() && m.ino() != self.inodes[2]) {
                let _ = fs::remove_dir_all(&d);
            }
        }
    }

    /// The directories that will be taken, as old as can be.
    fn fill(&self, files: usize) {
        for d in self.dirs() {
            make(&d.join("e"), files);
            for entry in walk(&d) {
                chown(&entry.path, Some(MALLORY), Some(MALLORY)).unwrap();
            }
            give(&d, MALLORY, 0o4777);
            age_tree(&d);
        }
    }

    /// Exchanges what is made for each of the baits in turn until told to stop: at all places, or at the one that is `expected` next.
    fn keep_exchanging(&self, expected: Option<&AtomicUsize>, stop: &AtomicBool, done: &AtomicU64) {
        let dirs: Vec<PathBuf> = self.dirs().collect();
        while !stop.load(Relaxed) {
            let range = expected.map_or(0..dirs.len(), |n| n.load(Relaxed)..n.load(Relaxed) + 1);
            for d in &dirs[range] {
                for bait in &self.baits {
                    for _ in 0..2 {
                        let is_done = renameat_with(CWD, d, CWD, bait, RenameFlags::EXCHANGE).is_ok();
                        done.fetch_add(u64::from(is_done), Relaxed);
                        // Long enough that root does the next thing to what lies there now.
                        let since = Instant::now();
                        while is_done && since.elapsed() < SETTLED {
                            std::hint::spin_loop();
                        }
                    }
                }
            }
        }
    }
}

/// Outside of the volume, on the same file system.
fn make_outside(mount: &Mount) -> PathBuf {
    let outside = mount.dir("outside");
    make(&outside.join("private"), 5);
    give(&outside.join("private"), 0, 0o700);
    fs::write(outside.join("secret"), "root's own").unwrap();
    give(&outside.join("secret"), 0, 0o600);
    outside
}

fn config(root: &Path) -> Config {
    Config::backdated_with(root, "grace = \"1h\"\nexclude = [\"m/bob/**\"]")
}

fn apply_all(agent: &Agent) -> String {
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).json();
    text(&run, "run_id").to_owned()
}

#[test]
fn what_restore_makes_again_cannot_be_exchanged_for_anything_else() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = make_outside(&mount);
    let trap = Trap::new(&root, &outside);
    let (before, before_bob) = (witness(&outside), witness(&trap.bob()));
    let exchanges = AtomicU64::new(0);
    let (mut rounds, mut restored) = (0u64, 0);
    let (rounds_wanted, exchanges_wanted) = extent();
    while rounds < rounds_wanted || exchanges.load(Relaxed) < exchanges_wanted {
        rounds += 1;
        trap.fill(1);
        // A new one believes how old the files are.
        let agent = Agent::tracking(&config(&root));
        let run = apply_all(&agent);
        let (stop, expected) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            let (next, stop, exchanges, trap) = (&expected, &stop, &exchanges, &trap);
            scope.spawn(move || trap.keep_exchanging(Some(next), stop, exchanges));
            // What cannot go back stays in the trash, with a reason.
            for (n, d) in trap.dirs().enumerate() {
                expected.store(n, Relaxed);
                let only = d.to_str().unwrap();
                let answer = agent.ctl().run(["restore", &run, only, "--output", "json"]);
                if matches!(answer.code, 0 | 5) {
                    restored += number(&answer.json(), "/restored/files");
                }
            }
        });
        assert_eq!(witness(&outside), before, "round {rounds}: outside of the volume");
        assert_eq!(
            witness(&trap.bob()),
            before_bob,
            "round {rounds}: another user's directory"
        );
        drop(agent);
        trap.set_again();
        let _ = fs::remove_dir_all(root.join(".purge-agent-trash"));
    }
    assert!(restored > 0, "nothing was restored in {rounds} rounds");
    eprintln!(
        "{rounds} rounds, {} exchanges, {restored} files restored",
        exchanges.load(Relaxed)
    );
}

#[test]
fn what_recovery_makes_again_cannot_be_exchanged_for_anything_else() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = make_outside(&mount);
    let trap = Trap::new(&root, &outside);
    let (before, before_bob) = (witness(&outside), witness(&trap.bob()));
    let exchanges = AtomicU64::new(0);
    let (rounds, _) = extent();
    for round in 0..rounds {
        // Enough that the run is killed before its end.
        trap.fill(12);
        let mut agent = Agent::tracking(&config(&root));
        let plan = agent.ctl().plan();
        let mut client = agent.ctl().start_apply(&plan, &[]);
        until("files go", SOON, || {
            let is_empty = |d: PathBuf| fs::read_dir(d.join("e")).map_or(0, Iterator::count) == 0;
            trap.dirs().any(is_empty).then_some(())
        });
        agent.kill();
        client.wait().unwrap();
        // The user removes them, so that they are made again.
        trap.remove();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            scope.spawn(|| trap.keep_exchanging(None, &stop, &exchanges));
            agent.launch();
            agent.wait_until_tracking();
        });
        assert_eq!(witness(&outside), before, "round {round}: outside of the volume");
        assert_eq!(
            witness(&trap.bob()),
            before_bob,
            "round {round}: another user's directory"
        );
        drop(agent);
        trap.set_again();
        let _ = fs::remove_dir_all(root.join(".purge-agent-trash"));
    }
    eprintln!("{rounds} rounds, {} exchanges", exchanges.load(Relaxed));
}

/// A directory in which every user may make and remove directories.
fn shared_root(mount: &Mount) -> PathBuf {
    let root = mount.dir("volume");
    give(&root, 0, 0o1777);
    root
}

#[test]
fn nothing_goes_back_into_a_directory_that_is_another_users_now() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = shared_root(&mount);
    let alice = root.join("alice");
    make(&alice.join("thesis"), 4);
    for entry in walk(&alice) {
        give(&entry.path, BOB, if entry.path.is_dir() { 0o755 } else { 0o644 });
    }
    give(&alice, BOB, 0o700);
    age_tree(&root);
    let agent = Agent::tracking(&config(&root));
    let run = apply_all(&agent);
    assert!(!alice.exists());

    fs::create_dir(&alice).unwrap();
    give(&alice, MALLORY, 0o755);
    let answer = agent.ctl().run(["restore", &run]).ends_with(5);
    let said = answer.text();
    assert!(said.contains("it belongs to user 4001 now"), "{said}");
    assert!(said.contains("--to DIR"), "the way out: {said}");
    assert_eq!(fs::read_dir(&alice).unwrap().count(), 0);

    // The same owner, and more open than it was.
    give(&alice, BOB, 0o755);
    let answer = agent.ctl().run(["restore", &run]).ends_with(5);
    assert!(answer.text().contains("more open"), "{}", answer.text());
    assert_eq!(fs::read_dir(&alice).unwrap().count(), 0);

    // A link in its place.
    fs::remove_dir(&alice).unwrap();
    let elsewhere = mount.dir("elsewhere");
    symlink(&elsewhere, &alice).unwrap();
    let _ = agent.ctl().run(["restore", &run]).ends_with(5);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    // The way out.
    let to = root.join("restored");
    fs::create_dir(&to).unwrap();
    give(&to, 0, 0o700);
    let _ = agent
        .ctl()
        .run(["restore", &run, "--to", to.to_str().unwrap()])
        .ok();
    let back = to.join("alice");
    let m = fs::metadata(&back).unwrap();
    assert_eq!((m.uid(), m.mode() & 0o7777), (BOB, 0o700), "as it was");
    assert_eq!(fs::read_dir(back.join("thesis")).unwrap().count(), 4);
    until("the index has them", SOON, || {
        (agent.ctl().find([to.to_str().unwrap(), "--type", "f"]).len() == 4).then_some(())
    });

    let far = tempfile::tempdir().unwrap();
    let refused = agent
        .ctl()
        .run(["restore", &run, "--to", far.path().to_str().unwrap()]);
    assert_ne!(refused.code, 0, "{}", refused.text());
}

#[test]
fn part_of_a_tree_comes_back_into_directories_like_those_it_came_from() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let tree = root.join("team/project");
    let files = make(&tree.join("a/b"), 3);
    make(&tree.join("c"), 3);
    for entry in walk(&root) {
        let mode = if entry.path.is_dir() { 0o750 } else { 0o640 };
        give(&entry.path, MALLORY, mode);
    }
    give(&root.join("team"), BOB, 0o755);
    age_tree(&root);
    let keys = "grace = \"1h\"\ntarget = \"directory\"\ndepth = 2";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let run = apply_all(&agent);
    assert!(!tree.exists());
    let _ = fs::remove_dir(root.join("team"));
    let _ = agent
        .ctl()
        .run(["restore", &run, files[0].to_str().unwrap()])
        .ok();
    for (dir, uid, mode) in [
        ("team", BOB, 0o755),
        ("team/project", MALLORY, 0o750),
        ("team/project/a", MALLORY, 0o750),
        ("team/project/a/b", MALLORY, 0o750),
    ] {
        let m = fs::metadata(root.join(dir)).unwrap();
        assert_eq!((m.uid(), m.mode() & 0o7777), (uid, mode), "{dir}");
    }
    assert!(files[0].exists() && !files[1].exists() && !tree.join("c").exists());
    let _ = agent.ctl().run(["restore", &run]).ok();
    assert!(files.iter().all(|f| f.exists()) && tree.join("c").exists());
}

/// An access or default ACL with an entry for one more user.
fn acl(permissions: u16) -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 7, u32::MAX),
        (0x02, permissions, 4242),
        (0x04, 0, u32::MAX),
        (0x10, permissions, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let name = CString::new(name).unwrap();
    let len = rustix::fs::lgetxattr(path, &*name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

fn directories_come_back_as_they_were(filesystem: Fs) {
    let mount = need!(Mount::new(filesystem));
    let root = mount.dir("volume");
    // What is made in the root would get this.
    let set = |path: &Path, name: &str, value: &[u8]| {
        let name = CString::new(name).unwrap();
        rustix::fs::lsetxattr(path, &*name, value, XattrFlags::empty()).unwrap();
    };
    set(&root, "system.posix_acl_default", &acl(7));
    let (plain, rich) = (root.join("plain"), root.join("rich"));
    make(&plain, 3);
    make(&rich.join("below"), 3);
    rustix::fs::removexattr(&plain, c"system.posix_acl_access").unwrap();
    rustix::fs::removexattr(&plain, c"system.posix_acl_default").unwrap();
    give(&plain, MALLORY, 0o700);
    set(&rich, "system.posix_acl_access", &acl(5));
    set(&rich, "system.posix_acl_default", &acl(4));
    set(&rich, "user.project", b"apollo");
    chown(&rich, Some(MALLORY), Some(BOB)).unwrap();
    fs::set_permissions(&rich, fs::Permissions::from_mode(0o3750)).unwrap();
    age_tree(&root);
    set_times(&plain, 1_200_000_000);
    set_times(&rich, 1_300_000_000);
    let look = |path: &Path| {
        let m = fs::metadata(path).unwrap();
        let names = [
            "system.posix_acl_access",
            "system.posix_acl_default",
            "user.project",
        ];
        let attributes = names.map(|name| attribute(path, name));
        (m.uid(), m.gid(), m.mode(), m.mtime(), attributes)
    };
    let before = [look(&plain), look(&rich)];
    let keys = "grace = \"1h\"\nremove_empty_dirs = \"all\"";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let run = apply_all(&agent);
    assert!(!plain.exists() && !rich.exists());
    let _ = agent.ctl().run(["restore", &run]).ok();
    assert_eq!([look(&plain), look(&rich)], before);
}

#[test]
fn directories_come_back_as_they_were_on_ext4() {
    directories_come_back_as_they_were(Fs::Ext4);
}

#[test]
fn directories_come_back_as_they_were_on_xfs() {
    directories_come_back_as_they_were(Fs::Xfs);
}

#[test]
fn directories_come_back_as_they_were_on_btrfs() {
    directories_come_back_as_they_were(Fs::Btrfs);
}

#[test]
fn what_was_changed_in_the_trash_is_kept_and_keeps_nothing_else_there() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make(&root.join("a"), 3);
    make(&root.join("team/project"), 3);
    age_tree(&root);
    let keys = "grace = \"4s\"\ntarget = \"directory\"\ndepth = 2";
    let more = "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"4s\"\ninclude = [\"a/**\"]";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys).rule("files", more));
    let ctl = agent.ctl();
    // A process whose working directory lies in what goes as a whole.
    let inside = fs::File::open(root.join("team/project")).unwrap();
    let _ = ctl.apply(&ctl.plan_with(["--rule", "old"])).ok();
    let _ = ctl.apply(&ctl.plan_with(["--rule", "files"])).ok();
    assert!(!root.join("team/project").exists());
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&inside, "new", flags, rustix::fs::Mode::RWXU).unwrap();
    until("everything else is freed", SOON, || {
        let left = files_in_trash(&root);
        (left.len() == 4 && left.iter().all(|path| path.contains(".kept/"))).then_some(())
    });
    agent.wait_until_it_says("it was used in the trash");
    assert!(files_in_trash(&root).iter().any(|path| path.ends_with("/new")));
}

#[test]
fn what_a_user_moves_into_a_directory_after_the_plan_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    for n in 0..3 {
        make(&root.join(format!("old/d{n}")), 3);
    }
    make(&root.join("other/thesis"), 2);
    make(&root.join("other/kept"), 1);
    age_tree(&root);
    let keys = "target = \"directory\"\ndepth = 2\nexclude = [\"other/**\"]";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    fs::rename(root.join("other/thesis"), root.join("old/d1/thesis")).unwrap();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/directories"), 2, "{run}");
    assert_eq!(fs::read_dir(root.join("old/d1/thesis")).unwrap().count(), 2);
}

/// A process in a tree that was moved makes directories there for as long as a restore comes to them.
#[test]
fn what_is_made_in_the_trash_meanwhile_keeps_no_restore_going() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make(&root.join("alice/old"), 20);
    make(&root.join("bob/old"), 20);
    age_tree(&root);
    let config = Config::backdated_with(&root, "grace = \"1h\"\ntarget = \"directory\"\ndepth = 2");
    let agent = Agent::tracking(&config);
    let inside = fs::File::open(root.join("alice/old")).unwrap();
    let run = apply_all(&agent);
    assert!(!root.join("bob/old").exists());
    // It cannot go back as a whole.
    fs::create_dir(root.join("alice/old")).unwrap();
    let stop = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dir = inside.try_clone().unwrap();
            while !stop.load(Relaxed) {
                if rustix::fs::mkdirat(&dir, "n", rustix::fs::Mode::RWXU).is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                } else if let Ok(below) = rustix::fs::openat(
                    &dir,
                    "n",
                    rustix::fs::OFlags::DIRECTORY,
                    rustix::fs::Mode::empty(),
                ) {
                    dir = below.into();
                }
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        let ends = Ends(&stop);
        let answer = agent.ctl().run(["restore", &run, "--output", "json"]);
        drop(ends);
        answer
    });
    let said = answer.json();
    assert_eq!(files_of_users(&root).len(), 40, "{said}");
    assert!(answer.text().contains("changed in the trash"), "{said}");
    let told = fs::read_to_string(agent.state_dir().join("audit.jsonl")).unwrap();
    let told = told.lines().filter(|line| line.contains("\"restored\"")).count();
    assert_eq!(told, 21, "20 files and a directory");
}
