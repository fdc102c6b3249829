//! What happens to names: the index follows, and nothing outside the volume is ever in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{
    age, age_tree, assert_same, count_files, files_and_directories, make, make_one, read, regular_files,
    set_times, shell, walk_users,
};
use purge_tests::mount::Bind;
use purge_tests::wait::{SOON, until, until_same};
use purge_tests::ways::Way;
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};

/// Waits until the index names exactly the files and directories below `root`.
fn index_agrees(ctl: &Ctl, root: &Path) {
    let expected = files_and_directories(root);
    until_same("the index agrees with the volume", &expected, || {
        let mut found = ctl.find::<&str>([]);
        found.remove(root);
        found
    });
}

#[test]
fn creates_deletes_and_renames_are_followed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a"), 30);
    make(&root.join("b/c/d"), 30);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    index_agrees(&ctl, &root);

    make(&root.join("new/deep/deeper"), 20);
    shell(
        &root,
        "mkdir -p p/q/r && touch p/q/r/x && mv p/q p/q2 && mv p/q2/r/x p/x",
    );
    shell(
        &root,
        "rm a/f000000 a/f000001 && rm -r b/c/d && mkdir b/c/d && touch b/c/d/again",
    );
    shell(&root, "mv a/f000002 a/renamed && mv a/f000003 b/f000003");
    shell(
        &root,
        "ln a/f000004 b/second-name && ln a/f000005 a/third && rm a/f000005",
    );
    shell(&root, "mv a/f000006 a/f000007");
    index_agrees(&ctl, &root);

    // The same names again and again, faster than the agent can look.
    shell(
        &root,
        "for i in 1 2 3 4 5 6 7 8 9; do touch n; rm n; touch n; mv n m; mv m n; mkdir k; touch k/f; mv k l; mv l k; \
         rm -r k; done; touch n",
    );
    index_agrees(&ctl, &root);
    shell(
        &root,
        "mv a z && mv b a && mv z b && mv new/deep a/deep && rm -r p",
    );
    index_agrees(&ctl, &root);
}

#[test]
fn files_below_a_renamed_tree_are_planned_under_their_new_names() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.path();
    make(&root.join("one/two/three"), 50);
    make(&root.join("target"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    fs::rename(root.join("one/two"), root.join("target/moved")).unwrap();
    fs::rename(root.join("target"), root.join("renamed")).unwrap();
    assert_same(
        "every file, where it lies now",
        &ctl.candidate_files(),
        &regular_files(&root),
    );
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_same("all are deleted", &regular_files(&root), &BTreeSet::new());
}

#[test]
fn one_use_counts_for_every_name_of_a_file() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let root = mount.path();
    let files = make(&root.join("a"), 10);
    fs::create_dir(root.join("b")).unwrap();
    for (i, file) in files.iter().enumerate() {
        fs::hard_link(file, root.join(format!("b/{i}"))).unwrap();
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    read(&root.join("b/3"));
    let plan = ctl.plan();
    assert_eq!(
        number(&plan.json, "/candidates/files"),
        9,
        "a file with two names is one file"
    );
    let planned: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
    assert!(!planned.contains(&files[3]) && !planned.contains(&root.join("b/3")));
    let run = ctl.apply(&plan).json();
    tally(&plan, &run);
    assert!(files[3].exists() && root.join("b/3").exists());
}

#[test]
fn a_file_with_a_name_outside_the_volume_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    let files = make(&root.join("d"), 10);
    fs::hard_link(&files[0], outside.join("still-mine")).unwrap();
    age_tree(&mount.path());
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert!(outside.join("still-mine").exists(), "its other name lies outside");
    assert!(
        files[0].exists(),
        "a file with a name elsewhere is not freed by removing it here"
    );
}

#[test]
fn files_moved_in_and_out_of_a_volume_come_and_go() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    make(&root.join("in"), 10);
    make(&root.join("tree/sub"), 10);
    make(&outside.join("foreign/sub"), 10);
    make(&outside.join("loose"), 3);
    age_tree(&mount.path());
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    assert_same(
        "nothing outside is planned",
        &ctl.candidate_files(),
        &regular_files(&root),
    );

    fs::rename(root.join("in/f000000"), outside.join("gone-out")).unwrap();
    fs::rename(root.join("tree"), outside.join("tree")).unwrap();
    fs::rename(outside.join("foreign"), root.join("came-in")).unwrap();
    fs::rename(outside.join("loose/f000000"), root.join("in/came-in-too")).unwrap();
    index_agrees(&ctl, &root);

    // A file that is moved in is used by that: no source watched it before.
    let expected: BTreeSet<PathBuf> = (1..10).map(|i| root.join(format!("in/f{i:06}"))).collect();
    assert_same(
        "only what was here and still is",
        &ctl.candidate_files(),
        &expected,
    );
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(
        regular_files(&outside).len(),
        1 + 10 + 2,
        "nothing outside was touched"
    );
    assert_eq!(regular_files(&root.join("came-in")).len(), 10);
}

#[test]
fn a_file_renamed_over_another_takes_its_place() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    // As editors save: written beside, renamed over.
    for file in files.iter().take(5) {
        let draft = make_one(&root.join("d/draft"));
        age(&draft);
        fs::rename(&draft, file).unwrap();
    }
    index_agrees(&ctl, &root);
    let expected: BTreeSet<PathBuf> = files.iter().skip(5).cloned().collect();
    assert_same("the new files are young", &ctl.candidate_files(), &expected);
}

#[test]
fn symlinks_are_never_followed_and_stay_where_the_rule_keeps_them() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    make(&outside.join("d"), 10);
    let files = make(&root.join("d"), 2);
    symlink(&outside, root.join("to-directory")).unwrap();
    symlink(outside.join("d/f000000"), root.join("to-file")).unwrap();
    symlink(&files[0], root.join("to-inside")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("..", root.join("d/up")).unwrap();
    age_tree(&mount.path());
    let agent = Agent::tracking(&Config::backdated_with(&root, "symlinks = \"keep\""));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let planned: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
    assert_same("the two files alone", &planned, &files.iter().cloned().collect());
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, 2);
    assert_eq!(regular_files(&outside).len(), 10);
    for link in ["to-directory", "to-file", "to-inside", "dangling", "d/up"] {
        assert!(fs::symlink_metadata(root.join(link)).is_ok(), "{link} is deleted");
    }
}

#[test]
fn sockets_and_fifos_are_never_candidates() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let dir = mount.dir("d");
    let file = make_one(&dir.join("file"));
    let _listener = UnixListener::bind(dir.join("socket")).unwrap();
    shell(&dir, "mkfifo fifo");
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let planned: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
    assert_same("the file alone", &planned, &BTreeSet::from([file]));
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert!(dir.join("socket").exists() && dir.join("fifo").exists());
}

#[test]
fn a_mount_below_the_volume_is_not_entered() {
    let mount = need!(Mount::new(Fs::Ext4));
    let other = need!(Mount::new(Fs::Tmpfs));
    let root = mount.dir("volume");
    let same_fs = mount.dir("outside");
    make(&same_fs, 10);
    make(&other.path().join("d"), 10);
    let mine = make(&root.join("mine"), 5);
    fs::create_dir_all(root.join("mounts/same")).unwrap();
    fs::create_dir_all(root.join("mounts/other")).unwrap();
    age_tree(&mount.path());
    age_tree(&other.path());
    let bound_same = need!(Bind::new(&same_fs, &root.join("mounts/same")));
    let bound_other = need!(Bind::new(&other.path(), &root.join("mounts/other")));
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let mut planned: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
    planned.retain(|p| *p != root.join("mine"));
    assert_same(
        "what lies on the volume itself",
        &planned,
        &mine.iter().cloned().collect(),
    );
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(regular_files(&same_fs).len(), 10);
    assert_eq!(regular_files(&other.path()).len(), 10);
    assert!(root.join("mounts/same").exists() && root.join("mounts/other").exists());
    drop(agent);
    drop((bound_same, bound_other));
}

#[test]
fn a_mount_made_after_the_plan_is_not_entered_by_apply() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let precious = mount.dir("precious");
    make(&precious, 10);
    make(&root.join("d"), 10);
    age_tree(&mount.path());
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    // The same names, in another directory, over the planned ones.
    let bound = need!(Bind::new(&precious, &root.join("d")));
    let run = ctl.apply(&plan).json();
    assert_eq!(tally(&plan, &run).deleted, 0, "{run}");
    assert_eq!(regular_files(&precious).len(), 10);
    drop(agent);
    drop(bound);
}

#[test]
fn files_used_while_the_first_scan_runs_are_in_no_plan() {
    const FILES: usize = 50_000;
    const USED: usize = 200;
    let mount = need!(Mount::sized(Fs::Ext4, 512, 60_000));
    let root = mount.path();
    let mut all = Vec::new();
    for dir in 0..100 {
        all.extend(make(&root.join(format!("d{}/e{dir}", dir % 7)), FILES / 100));
    }
    for file in &all {
        set_times(file, 1_000_000_000);
    }
    let agent = Agent::start(&Config::backdated(&root));
    // Spread over the whole tree, in an order that is not the scan's.
    let used: Vec<&PathBuf> = (0..USED).map(|i| &all[(i * 7919 + 13) % FILES]).collect();
    used.iter().for_each(|f| read(f));
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    let planned = ctl.candidate_files();
    let lost: Vec<_> = used.iter().filter(|f| planned.contains(**f)).collect();
    assert!(lost.is_empty(), "used during the scan and in the plan: {lost:?}");
    assert_eq!(planned.len(), FILES - USED, "all others are in the plan");
}

#[test]
fn files_made_and_moved_while_the_first_scan_runs_are_in_the_index() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
    let root = mount.path();
    for dir in 0..60 {
        make(&root.join(format!("d{}/e{dir}", dir % 7)), 400);
    }
    let agent = Agent::start(&Config::backdated(&root));
    for i in 0..30 {
        make(&root.join(format!("new{i}/sub")), 3);
        fs::rename(
            root.join(format!("d{}/e{i}", i % 7)),
            root.join(format!("moved{i}")),
        )
        .unwrap();
        fs::remove_file(root.join(format!("moved{i}/f000000"))).unwrap();
    }
    agent.wait_until_tracking();
    index_agrees(&agent.ctl(), &root);
}

#[test]
fn a_rescan_changes_nothing_where_nothing_was_missed() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.path();
    let files = make(&root.join("a/b"), 200);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    files.iter().take(20).for_each(|f| read(f));
    let before = ctl.candidate_files();
    assert_eq!(before.len(), 180);
    let _ = ctl.run(["rescan"]).ok();
    agent.wait_until_tracking();
    assert_same("after the rescan", &ctl.candidate_files(), &before);
    index_agrees(&ctl, &root);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// One of 0..sides.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a>(&mut self, from: &'a [PathBuf]) -> &'a Path {
        &from[self.roll(from.len())]
    }
}

/// Makes, links, renames or removes a file or a tree somewhere below `root`.
fn operate(root: &Path, dice: &mut Dice, round: usize) {
    let (dirs, files): (Vec<_>, Vec<_>) = walk_users(root).into_iter().partition(|e| e.stat.is_dir());
    let dirs: Vec<PathBuf> = dirs.into_iter().map(|e| e.path).collect();
    let files: Vec<PathBuf> = files.into_iter().map(|e| e.path).collect();
    let parent = if dirs.is_empty() { root } else { dice.pick(&dirs) };
    let new = parent.join(format!("n{round}"));
    match dice.roll(12) {
        0..=3 => drop(make_one(&new)),
        4 => fs::create_dir(&new).unwrap(),
        5 if !files.is_empty() => fs::remove_file(dice.pick(&files)).unwrap(),
        6 if !files.is_empty() => fs::rename(dice.pick(&files), &new).unwrap(),
        // Also over another name of the same file, where both stay.
        7 if !files.is_empty() => fs::rename(dice.pick(&files), dice.pick(&files)).unwrap(),
        8 | 9 if !files.is_empty() => fs::hard_link(dice.pick(&files), &new).unwrap(),
        10 if !dirs.is_empty() => {
            let dir = dice.pick(&dirs);
            if !new.starts_with(dir) {
                fs::rename(dir, &new).unwrap();
            }
        }
        // Seldom, for it can take a great deal at once.
        11 if !dirs.is_empty() && round.is_multiple_of(5) => {
            fs::remove_dir_all(dice.pick(&dirs)).unwrap();
        }
        _ => drop(make_one(&root.join(format!("r{round}")))),
    }
}

#[test]
fn status_counts_what_is_there_after_a_thousand_random_operations_and_a_rescan() {
    let mount = need!(Mount::new(Fs::Ext4));
    after_a_thousand_random_operations(&mount, Agent::tracking);
}

/// Where names alone say which directory an event is of, one that was moved has no place for a moment.
#[test]
fn the_index_converges_where_directories_are_found_by_their_names() {
    for way in [Way::Places, Way::Inotify] {
        let mount = need!(Mount::new(Fs::Ext4));
        after_a_thousand_random_operations(&mount, |config| way.tracking(config));
    }
}

/// Of a file that is renamed over no report tells where each directory is watched by itself.
#[test]
fn a_file_that_was_renamed_over_is_forgotten_though_what_took_its_name_is_deleted_at_once() {
    for way in [Way::FileSystem, Way::Directories, Way::Places, Way::Inotify] {
        let mount = need!(Mount::new(Fs::Ext4));
        let root = mount.dir("volume");
        let (over, under) = (make(&root.join("a"), 300), make(&root.join("b"), 300));
        let agent = way.tracking(&Config::backdated(&root));
        for (over, under) in over.iter().zip(&under) {
            fs::rename(over, under).unwrap();
            fs::remove_file(under).unwrap();
        }
        println!("{}", way.name());
        index_agrees(&agent.ctl(), &root);
    }
}

/// The agent is told of a place in a directory that is not where it was any more, and what lay there has moved on before it looks again.
#[test]
fn what_passed_through_a_directory_that_was_renamed_is_found_where_it_went() {
    const MOVED: u64 = 60;
    for way in [Way::FileSystem, Way::Directories, Way::Places, Way::Inotify] {
        let mount = need!(Mount::new(Fs::Ext4));
        let root = mount.dir("volume");
        for n in 0..MOVED {
            make(&root.join(format!("from/{n}")), 2);
        }
        make(&root.join("way-0/below"), 1);
        fs::create_dir(root.join("to")).unwrap();
        let agent = way.tracking(&Config::backdated(&root));
        for n in 0..MOVED {
            let below = |n: u64| root.join(format!("way-{n}/below/{n}"));
            let [before, after] = [n, n + 1].map(|n| root.join(format!("way-{n}")));
            fs::rename(root.join(format!("from/{n}")), below(n)).unwrap();
            fs::rename(before, &after).unwrap();
            // The agent looks at what has gathered for some milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(n % 15));
            fs::rename(after.join(format!("below/{n}")), root.join(format!("to/{n}"))).unwrap();
        }
        println!("{}", way.name());
        index_agrees(&agent.ctl(), &root);
    }
}

fn after_a_thousand_random_operations(mount: &Mount, tracking: impl Fn(&Config) -> Agent) {
    let root = mount.dir("volume");
    make(&root.join("a/b"), 20);
    make(&root.join("c"), 20);
    let agent = tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let counts_agree = |when: &str| {
        let naive = count_files(&root);
        let began = std::time::Instant::now();
        while number(&agent.status(), "/files") != naive {
            if began.elapsed() > SOON {
                // This says which.
                index_agrees(&ctl, &root);
                panic!("status does not count {naive} files {when}");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for hundred in 0..10 {
        (0..100).for_each(|i| operate(&root, &mut dice, hundred * 100 + i));
        counts_agree(&format!("after {} operations", (hundred + 1) * 100));
    }
    index_agrees(&ctl, &root);
    let _ = ctl.run(["rescan"]).ok();
    agent.wait_until_tracking();
    counts_agree("after the rescan");
    index_agrees(&ctl, &root);
}

/// What the agent does to look after a volume must not give it more to look after.
#[test]
fn the_agent_makes_no_work_for_itself() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root, 10);
    let agent = Agent::tracking(&Config::backdated(&root));
    let events = || number(&agent.status(), "/events_total");
    read(&root.join("f000001"));
    let mut last = events();
    until("a second without events", SOON, || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let before = std::mem::replace(&mut last, events());
        (before == last).then_some(())
    });
}
