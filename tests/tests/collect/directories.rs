//! Volumes whose directories are watched one by one: fanotify with a mark on each, inotify.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{
    age_tree, append, assert_same, make, make_one, read, regular_files, shell, walk_users,
};
use purge_tests::mount::unmount_at_once;
use purge_tests::once::with_file_server;
use purge_tests::wait::{let_pass, until, until_same};
use purge_tests::ways::{Fuse, Overlay, Way};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

const BY_DIRECTORY: [Way; 3] = [Way::Directories, Way::Places, Way::Inotify];
const SOON: Duration = Duration::from_secs(20);

fn set(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    files.iter().cloned().collect()
}

/// What is used is in no plan, what is not is, and what is used after a plan stays.
fn uses_keep_files(way: Way, root: &Path, (keys, applies): (&str, bool)) {
    let files = make(&root.join("d/e"), 40);
    let elsewhere = make(&root.join("other"), 5);
    age_tree(root);
    let config = Config::new(root, &format!("baseline = \"mtime\"\n{keys}"));
    let config = config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let agent = way.tracking(&config);
    let ctl = agent.ctl();
    read(&files[0]);
    append(&files[1]);
    fs::rename(&files[2], root.join("other/moved")).unwrap();
    read(&root.join("other/moved"));
    // Directories that came after the scan.
    fs::create_dir_all(root.join("new/deep")).unwrap();
    let new = make_one(&root.join("new/deep/file"));
    fs::rename(root.join("d"), root.join("renamed")).unwrap();
    let files: Vec<PathBuf> = files
        .iter()
        .map(|f| root.join("renamed/e").join(f.file_name().unwrap()))
        .collect();
    read(&files[3]);
    let unused: BTreeSet<PathBuf> = files[4..].iter().chain(&elsewhere).cloned().collect();
    until_same("what was not used", &unused, || ctl.candidate_files());
    assert!(new.exists());
    if !applies {
        return;
    }
    let plan = ctl.plan();
    read(&files[5]);
    append(&files[6]);
    let run = ctl
        .run(["apply", &plan.id, "--yes", "--output", "json"])
        .ok()
        .json();
    let counts = tally(&plan, &run);
    assert_eq!(counts.deleted + counts.trashed, unused.len() as u64 - 2, "{run}");
    assert!(
        files[3].exists() && files[5].exists() && files[6].exists(),
        "{run}"
    );
    assert!(!files[7].exists() && !elsewhere[0].exists());
    let left = walk_users(root).iter().filter(|e| e.stat.is_file()).count() as u64;
    until("the index has forgotten what was removed", SOON, || {
        (number(&agent.status(), "/files") == left).then_some(())
    });
}

macro_rules! on {
    ($($name:ident: $fs:expr, $way:expr;)+) => { $(
        #[test]
        fn $name() {
            let mount = need!(Mount::new($fs));
            uses_keep_files($way, &mount.path(), ("", true));
        }
    )+ };
}

on! {
    uses_keep_files_on_ext4_by_directory_marks: Fs::Ext4, Way::Directories;
    uses_keep_files_on_xfs_by_directory_marks: Fs::Xfs, Way::Directories;
    uses_keep_files_on_tmpfs_by_directory_marks: Fs::Tmpfs, Way::Directories;
    uses_keep_files_on_ext4_by_names: Fs::Ext4, Way::Places;
    uses_keep_files_on_xfs_by_names: Fs::Xfs, Way::Places;
    uses_keep_files_on_ext4_by_inotify: Fs::Ext4, Way::Inotify;
    uses_keep_files_on_xfs_by_inotify: Fs::Xfs, Way::Inotify;
    uses_keep_files_on_tmpfs_by_inotify: Fs::Tmpfs, Way::Inotify;
}

/// There the kernel itself refuses the better ways.
#[test]
fn an_overlay_is_watched_by_the_marks_of_its_directories() {
    let mount = need!(Mount::new(Fs::Ext4));
    let overlay = need!(Overlay::over(&mount.path()));
    let root = overlay.path().join("volume");
    fs::create_dir(&root).unwrap();
    make(&mount.path().join("lower/below"), 5);
    let agent = Agent::tracking(&Config::new(&overlay.path().join("below"), ""));
    Way::Places.assert_is(&agent);
    let said = agent.ctl().run(["doctor"]).text();
    assert!(said.contains("refused: fanotify (filesystem)"), "{said}");
    drop(agent);
    uses_keep_files(Way::Places, &root, ("", true));
}

#[test]
fn an_overlay_is_watched_by_inotify() {
    let mount = need!(Mount::new(Fs::Ext4));
    let overlay = need!(Overlay::over(&mount.path()));
    uses_keep_files(Way::Inotify, &overlay.path(), ("", true));
}

#[test]
fn a_fuse_file_system_is_watched_by_the_marks_of_its_directories() {
    let mount = need!(Mount::new(Fs::Ext4));
    let fuse = need!(Fuse::of(&mount.path()));
    // It knows no rename that replaces nothing (RENAME_NOREPLACE): names move into the trash in two steps.
    uses_keep_files(Way::Places, &fuse.path(), ("sole_client = true", true));
}

/// It keeps no births: the kernel tells no other way that a directory is the one that had the inode before.
#[test]
fn what_lies_in_a_renamed_directory_keeps_its_clock_on_a_fuse_file_system() {
    let mount = need!(Mount::new(Fs::Ext4));
    let fuse = need!(Fuse::of(&mount.path()));
    let root = fuse.path();
    let files = make(&root.join("dir/below"), 3);
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"\nsole_client = true");
    let config = config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    for way in [Way::Places, Way::Inotify] {
        let agent = way.tracking(&config);
        for (from, to) in [("dir", "renamed"), ("renamed", "dir")] {
            // Times are kept in seconds.
            let_pass(2);
            // What is to be looked at there may be looked at when the directory has its new name.
            let new = make_one(&root.join(from).join("below/new"));
            fs::rename(root.join(from), root.join(to)).unwrap();
            let at = root.join(to).join("below");
            let unused = files.iter().map(|f| at.join(f.file_name().unwrap())).collect();
            until_same("what was not used", &unused, || agent.ctl().candidate_files());
            fs::remove_file(at.join(new.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn status_and_doctor_say_which_way_and_what_it_does_not_see() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    for way in BY_DIRECTORY {
        let agent = way.tracking(&Config::new(&mount.path(), ""));
        let status = agent.status();
        let blind = status["blind"].to_string();
        assert!(
            blind.contains("handles") && blind.contains("links_outside"),
            "{blind}"
        );
        assert_eq!(blind.contains("\"who\""), way == Way::Inotify, "{blind}");
        let doctor = agent.ctl().run(["doctor"]).text();
        assert!(doctor.contains("files that are opened by handle"), "{doctor}");
        assert!(doctor.contains("refused: fanotify (filesystem)"), "{doctor}");
    }
    let config = Config::new(&mount.path(), "collector = \"inotify\"");
    let agent = Agent::tracking(&config);
    Way::Inotify.assert_is(&agent);
    let config = Config::new(
        &mount.path(),
        "collector = \"inotify\"\nignore_accessors = [ { comm = \"find\" } ]",
    );
    agent.write_config(&config);
    let check = agent.check();
    assert!(
        !check.0 && check.1.contains("ignore_accessors has no effect"),
        "{}",
        check.1
    );
}

/// Each directory is made, filled and used faster than it can be marked.
#[test]
fn of_files_in_new_trees_none_is_unknown_and_none_unseen() {
    const TREES: usize = 100;
    for way in BY_DIRECTORY {
        let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
        let root = mount.path();
        let agent = way.tracking(&Config::backdated(&root));
        for n in 0..TREES {
            let deepest = root.join(format!("t{n}/a/b"));
            fs::create_dir_all(&deepest).unwrap();
            for dir in [deepest.as_path(), deepest.parent().unwrap()] {
                for i in 0..50 {
                    fs::write(dir.join(format!("f{i}")), "x").unwrap();
                }
            }
        }
        let all = regular_files(&root);
        assert_eq!(all.len(), TREES * 100);
        until(&format!("{way:?}: all are known"), SOON, || {
            (number(&agent.status(), "/files") == all.len() as u64).then_some(())
        });
        assert!(watches_all(&agent), "{way:?}: a directory is not watched");
        // Made a moment ago: none may look old, though its times are set back.
        age_tree(&root);
        assert_same("none is old", &agent.ctl().candidate_files(), &BTreeSet::new());
        // Each read is told.
        let events = || number(&agent.status(), "/events_total");
        let before = events();
        for file in &all {
            read(file);
        }
        until(&format!("{way:?}: each read is told"), SOON, || {
            (events() >= before + all.len() as u64).then_some(())
        });
    }
}

fn watches_all(agent: &Agent) -> bool {
    !agent
        .ctl()
        .run(["doctor"])
        .text()
        .contains("could not be watched")
}

/// Limits are counted for each user of a user namespace, so that of this one is no other agent's.
fn a_directory_that_cannot_be_watched(way: Way, limit: &str) {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let mut files = Vec::new();
    for n in 0..60 {
        files.extend(make(&root.join(format!("d{n:02}")), 2));
    }
    age_tree(&root);
    let line = format!("echo 30 >/proc/sys/user/{limit} && exec \"$0\" \"$@\"");
    let launcher = ["unshare", "--user", "--map-root-user", "sh", "-c", &line];
    let mut agent = Agent::prepared(&Config::backdated(&root)).under(&launcher);
    agent.environment("PURGE_AGENT_WITHOUT", Path::new(way.without()));
    agent.launch();
    agent.wait_until_tracking();
    way.assert_is(&agent);
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains("directories could not be watched"), "{doctor}");
    let planned = agent.ctl().candidate_files();
    assert!(
        !planned.is_empty() && planned.len() < files.len() - 50,
        "{} of {}",
        planned.len(),
        files.len()
    );
    // What is used where nothing is watched is in no plan, and what is used elsewhere is not either.
    files.iter().for_each(|file| read(file));
    until_same("everything was used", &BTreeSet::new(), || {
        agent.ctl().candidate_files()
    });
    // With a higher limit all are watched; what happened until then is unknown.
    let raise = format!("echo 100000 >/proc/sys/user/{limit}");
    let mut nsenter = Command::new("nsenter");
    nsenter.args([
        "--user",
        "--preserve-credentials",
        "--target",
        &agent.pid().to_string(),
    ]);
    sh(nsenter.args(["sh", "-c", &raise])).unwrap();
    let _ = agent.ctl().run(["rescan"]).ok();
    until("all are watched", SOON, || watches_all(&agent).then_some(()));
    assert_same("none is old", &agent.ctl().candidate_files(), &BTreeSet::new());
}

/// Before a directory is not watched.
#[test]
fn doctor_and_log_tell_of_the_limit_before_it_is_reached() {
    for (way, limit) in [
        (Way::Places, "max_fanotify_marks"),
        (Way::Inotify, "max_inotify_watches"),
    ] {
        let mount = need!(Mount::new(Fs::Ext4));
        let root = mount.path();
        for n in 0..70 {
            fs::create_dir(root.join(format!("d{n:02}"))).unwrap();
        }
        let line = format!("echo 100 >/proc/sys/user/{limit} && exec \"$0\" \"$@\"");
        let launcher = ["unshare", "--user", "--map-root-user", "sh", "-c", &line];
        let mut agent = Agent::prepared(&Config::backdated(&root)).under(&launcher);
        agent.environment("PURGE_AGENT_WITHOUT", Path::new(way.without()));
        agent.launch();
        agent.wait_until_tracking();
        way.assert_is(&agent);
        let doctor = || agent.ctl().run(["doctor"]).text();
        let words = "of 100 that may be";
        assert!(!doctor().contains(words), "{}", doctor());
        for n in 70..85 {
            fs::create_dir(root.join(format!("d{n:02}"))).unwrap();
        }
        until("doctor says that the limit is near", SOON, || {
            doctor().contains(words).then_some(())
        });
        until("all are watched, and listed", SOON, || {
            watches_all(&agent).then_some(())
        });
        assert!(
            agent
                .said()
                .contains("most of the directories that may be watched")
        );
    }
}

#[test]
fn a_directory_that_fanotify_cannot_mark_is_in_no_plan() {
    a_directory_that_cannot_be_watched(Way::Places, "max_fanotify_marks");
}

#[test]
fn a_directory_that_inotify_cannot_watch_is_in_no_plan() {
    a_directory_that_cannot_be_watched(Way::Inotify, "max_inotify_watches");
}

/// With the limit of the queue that processes without privileges have.
#[test]
fn an_overflow_is_a_gap_and_what_it_hid_is_found() {
    for way in BY_DIRECTORY {
        let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
        let root = mount.path();
        // More events wait than may, though those of one file are one.
        let files = make(&root.join("d"), 17_500);
        age_tree(&root);
        let agent = Agent::tracking_in(
            &Config::backdated(&root),
            None,
            &[
                ("PURGE_AGENT_WITHOUT", Path::new(way.without())),
                ("PURGE_AGENT_LIMITED_QUEUE", Path::new("1")),
            ],
        );
        way.assert_is(&agent);
        assert_eq!(agent.ctl().candidate_files().len(), files.len());
        agent.freeze();
        files.iter().for_each(|file| read(file));
        fs::create_dir(root.join("new")).unwrap();
        make(&root.join("new"), 5);
        agent.thaw();
        until(&format!("{way:?}: the overflow is a gap"), SOON, || {
            agent.status()["gaps"]
                .to_string()
                .contains("overflow")
                .then_some(())
        });
        until_same("everything counts as used", &BTreeSet::new(), || {
            agent.ctl().candidate_files()
        });
        until(
            &format!("{way:?}: the scan has found the new directory"),
            SOON,
            || (number(&agent.status(), "/files") == files.len() as u64 + 5).then_some(()),
        );
    }
}

/// In whichever moment it is killed: what was used looks used.
#[test]
fn killed_in_a_storm_nothing_looks_older_than_it_is() {
    for way in BY_DIRECTORY {
        let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
        let root = mount.path();
        let old = make(&root.join("old"), 200);
        age_tree(&root);
        let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"0s\"");
        let mut agent = way
            .tracking(&config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]"))
            .with_parent();
        agent.restart();
        agent.wait_until_tracking();
        for round in 0..4u64 {
            let stop = AtomicBool::new(false);
            let used = std::thread::scope(|scope| {
                let storm = scope.spawn(|| storm(&root, &old, round, &stop));
                std::thread::sleep(Duration::from_millis(70 + 190 * round));
                agent.kill();
                std::thread::sleep(Duration::from_millis(100));
                stop.store(true, Relaxed);
                storm.join().unwrap()
            });
            agent.launch();
            agent.wait_until_tracking();
            way.assert_is(&agent);
            let planned = agent.ctl().candidate_files();
            let lost: Vec<_> = used.iter().filter(|file| planned.contains(*file)).collect();
            assert!(lost.is_empty(), "{way:?}, round {round}: {lost:?}");
        }
    }
}

/// Makes directories, moves them, and reads; which files were used.
fn storm(root: &Path, old: &[PathBuf], round: u64, stop: &AtomicBool) -> Vec<PathBuf> {
    let mut used = Vec::new();
    let mut n = 0;
    while !stop.load(Relaxed) {
        n += 1;
        let dir = root.join(format!("s{round}-{n}"));
        fs::create_dir(&dir).unwrap();
        let file = make_one(&dir.join("f"));
        purge_tests::files::age(&file);
        let moved = root.join(format!("m{round}-{n}"));
        fs::rename(&dir, &moved).unwrap();
        read(&moved.join("f"));
        used.push(moved.join("f"));
        if let Some(file) = old.get((round as usize * 50 + n) % old.len()) {
            read(file);
            used.push(file.clone());
        }
    }
    used
}

#[test]
fn links_outside_are_watched_where_they_were_there_before() {
    for way in BY_DIRECTORY {
        let mount = need!(Mount::new(Fs::Ext4));
        let root = mount.dir("volume");
        let outside = mount.dir("outside");
        let files = make(&root, 10);
        fs::hard_link(&files[0], outside.join("link")).unwrap();
        age_tree(&root);
        let agent = way.tracking(&Config::backdated(&root));
        read(&outside.join("link"));
        until_same("by a link outside", &set(&files[1..]), || {
            agent.ctl().candidate_files()
        });
    }
}

/// A process without privileges has no mark for a file system, no descriptors of processes and no unlimited queue.
#[test]
fn without_capabilities_directories_are_watched_by_name() {
    with_file_server(false);
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let drop_all = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let config = Config::backdated(&root);
    let agent = Agent::tracking_under(&config, &drop_all);
    Way::Places.assert_is(&agent);
    assert!(agent.status()["blind"].to_string().contains("\"who\""));
    read(&files[0]);
    until_same("what was not read", &set(&files[1..]), || {
        agent.ctl().candidate_files()
    });
    let mut agent = agent;
    let config = Config::new(
        &root,
        "ignore_accessors = [ { comm = \"find\" } ]\ncollector = \"fanotify\"",
    );
    agent.write_config(&config);
    agent.terminate();
    let (status, said) = agent.launch_in_vain();
    assert!(
        !status.success() && said.contains("ignore_accessors needs CAP_SYS_ADMIN"),
        "{said}"
    );
}

#[test]
fn an_exported_volume_is_not_watched_by_directory() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    // The tables of exports are those of the mount namespace in which the agent runs.
    let line = format!(
        "mkdir -p /var/lib/nfs; mount -t tmpfs t /var/lib/nfs && echo '{} *(rw)' > /var/lib/nfs/etab && exec \"$0\" \"$@\"",
        root.display()
    );
    let launcher = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", &line];
    let mut agent = Agent::prepared(&Config::new(&root, "")).under(&launcher);
    let without = Path::new("filesystem_marks,descriptors");
    agent.environment("PURGE_AGENT_WITHOUT", without);
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(text(&agent.status(), "collector"), "scan");
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains("is exported by an NFS server"), "{doctor}");
}

/// Directories that the agent makes once it tracks: until then it works in the volume.
const BALLAST: usize = 48;

#[test]
fn an_unmount_is_not_held_up_and_is_a_gap() {
    for way in BY_DIRECTORY {
        let mut mount = need!(Mount::new(Fs::Ext4));
        let root = mount.path();
        make(&root.join("d"), 10);
        let agent = way.tracking(&Config::new(&root, "gap_tolerance = \"0s\""));
        until("the agent is at rest", SOON, || {
            let ballast = fs::read_dir(root.join(".purge-agent-trash/ballast")).ok()?;
            (ballast.count() == BALLAST).then_some(())
        });
        let_pass(1);
        read(&root.join("d/f000000"));
        unmount_at_once(&root);
        until(&format!("{way:?}: it is told"), SOON, || {
            agent.wait_until_degraded().contains("unmounted").then_some(())
        });
        mount.mount().unwrap();
        agent.wait_until_it_says(purge_tests::agent::WATCHED_AGAIN);
        agent.wait_until_tracking();
        way.assert_is(&agent);
        let _ = shell(&root, "true");
        let_pass(1);
    }
}
