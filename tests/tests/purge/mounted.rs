//! What is in use by a mount of another namespace stays: a mount point, what is mounted elsewhere, and a directory that holds either.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::ctl::{number, tally, text};
use purge_tests::elsewhere::Elsewhere;
use purge_tests::files::{
    age_tree, assert_same, files_and_directories, make, make_one, regular_files, temp_dir,
};
use purge_tests::mount::Bind;
use purge_tests::skip::Unmet;
use purge_tests::wait::let_pass;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// Mounts a file on `point`, a tmpfs on `dir`, and `sources` on files of a tmpfs.
fn script(point: &Path, dir: &Path, sources: &[&Path]) -> String {
    let mut script = format!(
        "mount --bind /etc/hostname {}\nmount -t tmpfs none {}\nmount -t tmpfs none /mnt\n",
        point.display(),
        dir.display()
    );
    for (n, source) in sources.iter().enumerate() {
        let make = if source.is_dir() { "mkdir" } else { "touch" };
        script += &format!("{make} /mnt/{n}\nmount --bind {} /mnt/{n}\n", source.display());
    }
    script
}

/// As a run with a grace, which renames, and as one without, which removes.
fn mounts_of_other_namespaces_stay(filesystem: Fs, keys: &str) {
    let mount = need!(Mount::new(filesystem));
    let root = mount.path();
    let files = make(&root.join("d"), 600);
    let names: Vec<PathBuf> = ["empty", "blank here", "source", "goes"]
        .map(|n| root.join("e").join(n))
        .into();
    names.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
    let (point, subpath) = (files[3].clone(), files[400].clone());
    age_tree(&root);
    let second = need!(Elsewhere::new(&format!(
        "mount -t tmpfs none '{}'",
        names[1].display()
    )));
    let other = need!(Elsewhere::new(&script(&point, &names[0], &[&subpath, &names[2]])));
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let ctl = agent.ctl();
    let because = ctl.explain(&point).to_string();
    let plan = ctl.plan();
    // A directory that holds one is found when it is taken.
    assert!((3..=5).contains(&number(&plan.json, "/mounted")), "{}", plan.json);
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!(number(&run, "/skipped/mounted"), 5, "{run}");
    assert_eq!(
        counts.deleted + number(&run, "/trashed/files") + number(&run, "/trashed/directories"),
        599,
        "{run}"
    );
    let left: BTreeSet<PathBuf> = [
        &point,
        &subpath,
        &names[0],
        &names[1],
        &names[2],
        &root.join("e"),
        &root.join("d"),
    ]
    .into_iter()
    .cloned()
    .collect();
    let mut found = files_and_directories(&root);
    found.remove(&root.join("lost+found"));
    assert_same("what is mounted", &found, &left);
    let table = other.run("cat /proc/self/mountinfo").unwrap();
    assert!(
        table.contains(&point.display().to_string()) && !table.contains("deleted"),
        "{table}"
    );
    assert!(
        second
            .run("cat /proc/self/mountinfo")
            .unwrap()
            .contains("blank\\040here")
    );
    assert!(because.contains("mounted"), "{because}");
    // They end with their namespaces.
    drop((other, second));
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(number(&run, "/skipped/mounted"), 0, "{run}");
    assert_eq!(
        regular_files(&root)
            .iter()
            .filter(|f| f.starts_with(root.join("d")))
            .count(),
        0,
        "{run}"
    );
}

#[test]
fn mounts_of_other_namespaces_stay_on_ext4() {
    mounts_of_other_namespaces_stay(Fs::Ext4, "");
}

#[test]
fn mounts_of_other_namespaces_stay_out_of_the_trash_on_btrfs() {
    mounts_of_other_namespaces_stay(Fs::Btrfs, "grace = \"1d\"");
}

#[test]
fn a_directory_with_a_mount_in_it_stays_as_a_whole() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for name in ["a", "b", "c", "d"] {
        make(&root.join(name).join("sub/deep"), 20);
    }
    age_tree(&root);
    let other = need!(Elsewhere::new(&script(
        &root.join("a/sub/deep/f000003"),
        &root.join("b/sub"),
        &[&root.join("c/sub/deep/f000004")],
    )));
    let before = regular_files(&root);
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        "target = \"directory\"\ndepth = 1",
    ));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!(
        (counts.deleted, number(&run, "/skipped/mounted")),
        (1, 3),
        "{run}"
    );
    let left = before
        .into_iter()
        .filter(|f| !f.starts_with(root.join("d")))
        .collect();
    assert_same("the three with a mount", &regular_files(&root), &left);
    assert!(!other.run("cat /proc/self/mountinfo").unwrap().contains("deleted"));
}

/// A user who is root only in a namespace of their own, with more mounts than are looked at in one go. Root's are seen all the same.
#[test]
fn a_user_with_many_mounts_does_not_hide_those_of_others() {
    let count = if std::env::var_os("PURGE_TESTS_LONG").is_some() {
        50_000
    } else {
        2_000
    };
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 1000);
    let theirs = make_one(&root.join("theirs"));
    age_tree(&root);
    let many = format!(
        "mount --bind /etc/hostname {}\nmount -t tmpfs none /mnt\ntouch /mnt/f\nfor n in $(seq {count}); do mount --bind /mnt/f /mnt/f; done",
        theirs.display()
    );
    let _user = need!(Elsewhere::of_user(1000, &many));
    let _other = need!(Elsewhere::new(&format!(
        "mount --bind /etc/hostname {}",
        files[7].display()
    )));
    // As the packaged unit has it: the agent is not told the number of another user's namespace.
    let config = Config::backdated_with(&root, "remove_empty_dirs = false");
    let agent = Agent::tracking_under(&config, &["setpriv", "--bounding-set=-sys_ptrace"]);
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    println!("{count} mounts of a user: {} s", run["seconds"]);
    assert_eq!(
        (tally(&plan, &run).deleted, number(&run, "/skipped/mounted")),
        (999, 2),
        "{run}"
    );
    assert!(files[7].exists() && theirs.exists());
    assert_eq!(text(&run, "state"), "completed", "{run}");
}

/// In a user namespace of their own a user mounts another user's files, which they can find and not read.
#[test]
fn a_user_who_mounts_files_of_others_keeps_their_own_only() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let (others, theirs) = (make(&root.join("bob"), 50), make_one(&root.join("alice")));
    others.iter().for_each(|file| {
        chown(file, Some(1001), Some(1001)).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    });
    chown(&theirs, Some(1000), Some(1000)).unwrap();
    age_tree(&root);
    let mut script = script(&theirs, &root.join("bob"), &[]);
    for (n, file) in others.iter().enumerate() {
        let mounting = format!("touch /mnt/{n}\nmount --bind {} /mnt/{n}\n", file.display());
        // Before the directory is covered.
        script.insert_str(0, &mounting);
    }
    script.insert_str(0, "mount -t tmpfs none /mnt\n");
    let user = need!(Elsewhere::of_user(1000, &script));
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    let counts = (tally(&plan, &run).deleted, number(&run, "/skipped/mounted"));
    assert_eq!(counts, (50, 1), "{run}");
    assert!(theirs.exists());
    drop(user);
}

/// Nothing goes back into what is mounted at the place now: neither in the agent's namespace, nor, below it, in another.
#[test]
fn a_restore_goes_beneath_the_volume_and_into_no_mount() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for dir in ["here", "there"] {
        make(&root.join(dir), 3);
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        "grace = \"1h\"\nremove_empty_dirs = false",
    ));
    let ctl = agent.ctl();
    let run = ctl.apply(&ctl.plan()).ok().json();
    let covering = temp_dir();
    let over = need!(Bind::new(covering.path(), &root.join("here")));
    let elsewhere = need!(Elsewhere::new(&format!(
        "mount -t tmpfs none {}",
        root.join("there").display()
    )));
    let answer = ctl.run(["restore", text(&run, "run_id")]).ends_with(5);
    assert!(
        answer.text().contains("something is mounted there"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("--to DIR"), "{}", answer.text());
    assert_eq!(fs::read_dir(root.join("here")).unwrap().count(), 0, "the mount");
    // What another namespace has mounted there covers it for that one alone.
    assert_eq!(fs::read_dir(root.join("there")).unwrap().count(), 3);
    let seen = elsewhere
        .run(&format!("ls {}", root.join("there").display()))
        .unwrap();
    assert!(seen.trim().is_empty(), "{seen}");
    drop(over);
    let _ = ctl.run(["restore", text(&run, "run_id")]).ok();
    assert_eq!(fs::read_dir(root.join("here")).unwrap().count(), 3);
}

/// A namespace that lives on by a file that it is mounted on, and that a process joins only later.
#[test]
fn what_is_mounted_in_a_namespace_without_a_process_counts_once_a_process_joins_it() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let (file, place) = (make_one(&root.join("d")), temp_dir());
    let name = place.path().join("namespace");
    fs::write(&name, "").unwrap();
    age_tree(&root);
    let shell = |line: String| sh(Command::new("sh").args(["-c", &line]));
    let kept = format!(
        "mount -t tmpfs none {dir} && mount --make-private {dir} && touch {name} && \
         unshare --mount={name} --propagation private mount --bind /etc/hostname {file}",
        dir = place.path().display(),
        name = name.display(),
        file = file.display()
    );
    let _unmount = Unmount(place.path().to_owned());
    need!(shell(kept).map_err(Unmet));
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    // Looks at the mounts while no process lives there.
    let _ = ctl.plan();
    let mut inside = Command::new("nsenter")
        .arg(format!("--mount={}", name.display()))
        .args(["sleep", "60"])
        .spawn()
        .unwrap();
    let_pass(1);
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert_eq!(number(&run, "/skipped/mounted"), 1, "{run}");
    assert!(file.exists());
}

/// The tmpfs that holds a namespace's file.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = sh(Command::new("umount").args(["-R", "-l"]).arg(&self.0));
    }
}
