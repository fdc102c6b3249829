//! What a user has made and what lies in the trash by a race is never believed: neither its notes nor its names. It is kept.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_removal::trash::origin::Origin;
use purge_sys::beneath;
use purge_tests::ctl::text;
use purge_tests::files::{age_tree, files_in_trash, files_of_users, give, inode, make, walk};
use purge_tests::wait::{Ends, LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const MALLORY: u32 = 4001;
const BOB: u32 = 4002;
const TRASH: &str = ".purge-agent-trash";
const PRECIOUS: &str = "another user's";
/// The file that root is to be made to move, and where to.
const TARGET: &str = "bob/.bash_profile";

/// Bob's home, which only he may write to.
fn home(root: &Path) {
    make(&root.join("bob"), 1);
    give(&root.join("bob"), BOB, 0o755);
}

/// A note that names Bob's home as the directory that something came from.
fn note_of_home(root: &Path) -> PathBuf {
    let open = beneath::open_dir(beneath::open_root(root).unwrap(), b"bob").unwrap();
    PathBuf::from(String::from_utf8(Origin::of(&open, b"bob").to_note()).unwrap())
}

/// What may come to lie among the places of a share: not made by the agent, and looking like its own.
fn forge(root: &Path, trees: &Path) -> usize {
    let file = |path: &Path| fs::write(path, PRECIOUS).unwrap();
    let dir = |name: &str, uid, mode| {
        let path = trees.join(name);
        fs::create_dir(&path).unwrap();
        give(&path, uid, mode);
        path
    };
    // As a race has left it, with a file or a directory as what was taken.
    file(&dir("1001.name", MALLORY, 0o755).join("t"));
    let tree = dir("1002.name", BOB, 0o700).join("t");
    fs::create_dir(&tree).unwrap();
    file(&tree.join("data"));
    // Named like a place.
    let evil = dir("1003", MALLORY, 0o700);
    file(&evil.join("t"));
    symlink(TARGET, evil.join("at")).unwrap();
    symlink(note_of_home(root), evil.join("was")).unwrap();
    // Root's, and another name.
    let evil = dir("1004.evil", 0, 0o700);
    file(&evil.join("t"));
    symlink(format!("{TARGET}.2"), evil.join("at")).unwrap();
    symlink(note_of_home(root), evil.join("was")).unwrap();
    // Root's, and open to others.
    let evil = dir("1005", 0, 0o711);
    file(&evil.join("t"));
    symlink(format!("{TARGET}.3"), evil.join("at")).unwrap();
    file(&trees.join("1006"));
    symlink("/etc", trees.join("1007")).unwrap();
    age_tree(trees);
    6
}

fn precious(root: &Path) -> Vec<PathBuf> {
    let all = walk(root).into_iter().filter(|e| e.stat.is_file());
    all.map(|e| e.path)
        .filter(|path| fs::read(path).is_ok_and(|content| content == PRECIOUS.as_bytes()))
        .collect()
}

fn nothing_is_in_bobs_home(root: &Path) {
    let names = fs::read_dir(root.join("bob")).unwrap();
    assert_eq!(names.count(), 1, "something was put into Bob's home");
}

fn share_of(root: &Path, run: &str) -> PathBuf {
    let shares = fs::read_dir(root.join(TRASH)).unwrap().map(|e| e.unwrap().path());
    let mut mine = shares.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(run));
    mine.next().expect("the run's share")
}

/// A tree of a user's that went to the trash, and the run.
fn with_a_tree_in_the_trash(root: &Path, grace: &str) -> (Agent, String) {
    make(&root.join("m/old"), 3);
    home(root);
    age_tree(root);
    let keys = format!("grace = \"{grace}\"\ntarget = \"directory\"\ndepth = 2\ninclude = [\"/m/old\"]");
    let agent = Agent::tracking(&Config::backdated_with(root, &keys));
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).ok().json();
    (agent, text(&run, "run_id").to_owned())
}

#[test]
fn what_only_looks_like_a_place_is_kept_when_the_grace_ends() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    let (agent, run) = with_a_tree_in_the_trash(&root, "4s");
    let count = forge(&root, &share_of(&root, &run).join("d"));
    until("everything else is freed", LONG, || {
        let left = files_in_trash(&root);
        let is_over = !left.is_empty() && left.iter().all(|path| path.contains(".kept/"));
        (is_over || left.is_empty()).then_some(())
    });
    assert_eq!(precious(&root).len(), count, "{:?}", files_in_trash(&root));
    agent.wait_until_it_says("the agent did not put it there");
    // An operator can have it, at the root of the volume.
    let _ = agent.ctl().run(["restore", &run]).ok();
    nothing_is_in_bobs_home(&root);
    assert_eq!(precious(&root).len(), count);
    assert!(files_in_trash(&root).is_empty(), "{:?}", files_in_trash(&root));
    let names = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name());
    let found = names.filter(|n| n.to_string_lossy().starts_with("purge-agent-found."));
    assert_eq!(found.count(), count + 1, "the symbolic link as well");
}

#[test]
fn a_restore_believes_no_note_that_the_agent_has_not_written() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let (agent, run) = with_a_tree_in_the_trash(&root, "1h");
    let count = forge(&root, &share_of(&root, &run).join("d"));
    let answer = agent.ctl().run(["restore", &run]).ends_with(5);
    assert!(
        answer.text().contains("the agent did not put it there"),
        "{}",
        answer.text()
    );
    nothing_is_in_bobs_home(&root);
    assert_eq!(precious(&root).len(), count);
    assert!(root.join("m/old").exists(), "the rest is back");
}

#[test]
fn a_start_believes_no_note_that_the_agent_has_not_written() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let (mut agent, run) = with_a_tree_in_the_trash(&root, "1h");
    agent.terminate();
    // As a run that was killed leaves it.
    let share = root.join(TRASH).join(format!("{run}.0.open"));
    fs::create_dir(&share).unwrap();
    ["f", "d", "n"]
        .iter()
        .for_each(|part| fs::create_dir(share.join(part)).unwrap());
    let count = forge(&root, &share.join("d"));
    agent.launch();
    agent.wait_until_tracking();
    nothing_is_in_bobs_home(&root);
    assert_eq!(precious(&root).len(), count);
    let is_kept = |path: &PathBuf| path.to_string_lossy().contains(".kept/");
    assert!(precious(&root).iter().all(is_kept), "{:?}", precious(&root));
    assert!(!share.exists(), "the run has come to its end");
}

/// How many trees are taken, and how often.
fn extent() -> (usize, usize) {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => (80, 12),
        false => (40, 1),
    }
}

/// Puts Bob's directory in the place of each placeholder in the moment in which the agent looks at it, and then takes the name that Bob's
/// directory had there. Returns how often an exchange came in time.
fn exchange_placeholders(dir: &Path, trees: usize, stop: &AtomicBool) -> usize {
    let bob = dir.join("bobdir");
    let bobs = inode(&bob);
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watch, dir, WatchFlags::OPEN | WatchFlags::MOVED_FROM).unwrap();
    (0..trees).for_each(|n| fs::create_dir(dir.join(format!("s{n}"))).unwrap());
    let mut buffer = [MaybeUninit::uninit(); 1 << 14];
    let (mut moved, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut exchanged = 0;
    let mut events = Reader::new(&watch, &mut buffer);
    while !stop.load(Relaxed) {
        let Ok(event) = events.next() else { continue };
        let name = event.file_name().map(|n| n.to_string_lossy().into_owned());
        let Some(name) = name.filter(|n| n.starts_with('t')) else {
            continue;
        };
        if event
            .events()
            .contains(rustix::fs::inotify::ReadFlags::MOVED_FROM)
        {
            moved.insert(name);
            continue;
        }
        if !moved.contains(&name) || !seen.insert(name.clone()) {
            continue;
        }
        let at = dir.join(&name);
        if renameat_with(CWD, &at, CWD, &bob, RenameFlags::EXCHANGE).is_err() {
            continue;
        }
        exchanged += 1;
        let taker = dir.join(name.replace('t', "s"));
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(2) {
            if renameat_with(CWD, &taker, CWD, &at, RenameFlags::NOREPLACE).is_ok() {
                break;
            }
        }
        // It goes back to its own name, to be exchanged again.
        if fs::symlink_metadata(&at).is_ok() && inode(&at) == bobs {
            let _ = renameat_with(CWD, &at, CWD, &bob, RenameFlags::EXCHANGE);
        }
        if fs::symlink_metadata(&bob).map_or(true, |_| inode(&bob) != bobs) {
            return exchanged;
        }
    }
    exchanged
}

/// The race itself.
#[test]
fn no_directory_of_a_user_comes_to_lie_among_the_agents_places() {
    let (trees, rounds) = extent();
    let mount = need!(Mount::new(Fs::Xfs));
    let mut exchanged = 0;
    for round in 0..rounds {
        let root = mount.dir(&format!("v{round}"));
        let dir = root.join("m");
        (0..trees).for_each(|n| drop(make(&dir.join(format!("t{n}")), 1)));
        make(&dir.join("bobdir/t"), 1);
        age_tree(&root);
        let keys = "grace = \"1h\"\ntarget = \"directory\"\ndepth = 2\ninclude = [\"/m/t*\"]";
        let agent = Agent::tracking(&Config::backdated_with(&root, keys));
        let (ctl, bobs) = (agent.ctl(), inode(&dir.join("bobdir")));
        let plan = ctl.plan();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Ends(&stop);
            let racing = scope.spawn(|| exchange_placeholders(&dir, trees, &stop));
            std::thread::sleep(Duration::from_millis(200));
            let _ = ctl.apply(&plan);
            drop(ends);
            exchanged += racing.join().unwrap();
        });
        let is_bobs = |path: &PathBuf| inode(path) == bobs;
        let places: Vec<PathBuf> = walk(&root).into_iter().map(|e| e.path).filter(is_bobs).collect();
        let [at] = &*places else {
            panic!("Bob's directory lies at {places:?}")
        };
        assert!(!at.starts_with(root.join(TRASH)), "round {round}: {at:?}");
        assert!(at.join("t").exists() && !files_of_users(&root).is_empty());
        let runs = ctl.run(["runs", "--output", "ndjson"]).ok().lines();
        let states: Vec<&str> = runs.iter().map(|run| text(run, "state")).collect();
        assert!(!states.contains(&"failed"), "round {round}: {runs:?}");
    }
    eprintln!("{rounds} rounds, {exchanged} exchanges in the moment of a look");
}
