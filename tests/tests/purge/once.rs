//! `purge-agent once` on local file systems: what it takes, what it leaves, and what it refuses.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use purge_tests::files::{
    assert_same, files_and_directories, give, make, make_one, read, set_times, temp_dir,
};
use purge_tests::job::{Job, once};
use purge_tests::wait::let_pass;
use purge_tests::{Agent, Config, Fs, Mount, binary, need};
use rustix::fs::{FlockOperation, flock};

const TTL: [&str; 2] = ["--ttl", "2s"];

fn names(root: &Path) -> BTreeSet<PathBuf> {
    files_and_directories(root)
}

#[test]
fn what_was_not_used_goes_and_all_else_stays() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let old = make(&root.join("a/deep"), 40);
    let held = make_one(&root.join("a/held"));
    let linked = make_one(&root.join("a/linked"));
    fs::hard_link(&linked, root.join("other")).unwrap();
    let half = make_one(&root.join("half"));
    fs::create_dir_all(root.join("empty/er")).unwrap();
    fs::create_dir_all(root.join("locked/in")).unwrap();
    let locked = make_one(&root.join("locked/in/it"));
    symlink("a/deep", root.join("link")).unwrap();
    let used = make_one(&root.join("used"));
    let_pass(4);
    read(&used);
    fs::hard_link(&half, root.join("half-2")).unwrap();
    let young = make_one(&root.join("young"));
    let lock = File::open(root.join("locked")).unwrap();
    flock(&lock, FlockOperation::LockShared).unwrap();
    let open = File::open(&held).unwrap();

    let before = names(&root);
    let dry = Job::run(&root, &[&TTL[..], &["--dry-run"]].concat()).ok();
    assert_same("a dry run", &names(&root), &before);
    assert_eq!(dry.number("/files_to_purge"), 43, "{dry:?}");
    assert_eq!(dry.number("/files_purged"), 0);

    let job = Job::run(&root, &[&TTL[..], &["--remove-empty-dirs"]].concat()).ok();
    for path in old.iter().chain([
        &linked,
        &root.join("other"),
        &root.join("empty"),
        &root.join("a/deep"),
    ]) {
        assert!(!path.exists(), "{} is there: {job:?}", path.display());
    }
    for stays in [&held, &used, &young, &locked, &half] {
        assert!(stays.exists(), "{} is not there: {job:?}", stays.display());
    }
    assert!(root.join("link").is_symlink());
    assert_eq!(job.number("/files_purged"), 41);
    assert_eq!(job.number("/empty_dirs_removed"), 3);
    assert_eq!(job.number("/skipped/open"), 1);
    assert_eq!(job.number("/skipped/locked"), 1);
    drop((lock, open));
    let left: Vec<_> = names(&root)
        .into_iter()
        .filter(|p| p.to_string_lossy().contains(".purge-agent"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What one worker meets of it is more than it may hold back: it goes into the plan in several parts.
#[test]
fn a_directory_of_many_long_names_goes_as_a_whole() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let dir = mount.dir("large");
    let name = |n: usize| dir.join(format!("{n:06}{}", "x".repeat(200)));
    for n in 0..9_000 {
        fs::write(name(n), "").unwrap();
    }
    let_pass(4);
    let young = make_one(&dir.join("young"));
    let job = Job::run(&mount.path(), &TTL).ok();
    assert_eq!(job.number("/files_purged"), 9_000, "{job:?}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert!(young.exists());
}

#[test]
fn where_reads_leave_no_access_time_the_job_must_be_told_which_clocks_count() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("a"), 5);
    let_pass(4);
    let job = Job::run(&root, &TTL);
    assert_eq!(job.code, 3, "{job:?}");
    assert!(job.log.contains("--clock modify,change"), "{}", job.log);
    assert!(files.iter().all(|file| file.exists()));
    let job = Job::run(&root, &[&TTL[..], &["--clock", "modify,change"]].concat()).ok();
    assert_eq!(job.number("/files_purged"), 5);
}

#[test]
fn a_user_without_privileges_purges_what_is_theirs() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let own = root.join("own");
    let files = make(&own, 5);
    let others = make_one(&own.join("others"));
    files.iter().for_each(|file| give(file, 4711, 0o600));
    give(&own, 4711, 0o755);
    // Where every user may come.
    let programs = temp_dir();
    let copy = programs.path().join("purge-agent");
    fs::copy(binary("purge-agent"), &copy).unwrap();
    for dir in [copy.as_path(), programs.path(), &root, root.parent().unwrap()] {
        give(dir, 0, 0o755);
    }
    let_pass(4);
    let out = Command::new("setpriv")
        .args([
            "--reuid=4711",
            "--regid=4711",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(&copy)
        .args(["once", "--volume"])
        .arg(&own)
        .args(TTL)
        .output()
        .unwrap();
    let job = Job::of(&out);
    assert_eq!(job.number("/files_purged"), 5, "{job:?}");
    // Without a lease, which only its owner gets, it stays.
    assert!(others.exists());
    assert_eq!(job.code, 5, "{job:?}");
}

#[test]
fn a_volume_that_an_agent_watches_is_the_agents() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("a"), 5);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let_pass(3);
    // Its token is there once it has looked.
    let _ = agent.ctl().plan();
    let job = Job::run(&root, &TTL);
    assert_eq!(job.code, 3, "{job:?}");
    assert!(job.log.contains("an agent watches this volume"), "{}", job.log);
    assert!(files.iter().all(|file| file.exists()));
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let code = |arguments: &[&str]| once(&root, arguments).output().unwrap().status.code();
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["--ttl", "0s"]), Some(2));
    assert_eq!(code(&["--ttl", "2s", "--clock", "acces"]), Some(2));
    let there = Job::run(Path::new("/"), &["--ttl", "100d", "--dry-run"]);
    assert_eq!(there.code, 2, "{there:?}");
    let nothing = Job::run(&root.join("nothing"), &TTL);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    symlink(&root, root.join("link")).unwrap();
    assert_eq!(Job::run(&root.join("link"), &TTL).code, 1);
}

/// Other processes save files as editors do, by a rename over the old one, while a job removes the old ones.
#[test]
fn a_file_that_takes_the_place_of_an_old_one_is_never_removed() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("a"), 3_000);
    let_pass(4);
    let over = AtomicBool::new(false);
    let mut saved = Vec::new();
    std::thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let mut saved = Vec::new();
            for (n, file) in files.iter().rev().enumerate() {
                let fresh = root.join(format!("a/.{n}.tmp"));
                fs::write(&fresh, "fresh").unwrap();
                fs::rename(&fresh, file).unwrap();
                saved.push(file);
                if over.load(Relaxed) {
                    break;
                }
            }
            saved
        });
        let job = Job::run(&root, &TTL);
        over.store(true, Relaxed);
        saved = saver.join().unwrap();
        println!("{} saved while {} went", saved.len(), job.number("/files_purged"));
        assert_eq!(job.code, 0, "{job:?}");
    });
    for file in saved {
        assert_eq!(
            fs::read_to_string(file).unwrap_or_default(),
            "fresh",
            "{}",
            file.display()
        );
    }
}

#[test]
fn empty_directories_are_removed_from_below_and_no_more_than_was_said() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    for n in 0..10 {
        fs::create_dir_all(root.join(format!("a/{n}/b/c"))).unwrap();
    }
    let_pass(4);
    fs::create_dir(root.join("young")).unwrap();
    let arguments = ["--ttl", "2s", "--remove-empty-dirs", "--max-empty-dirs", "25"];
    let job = Job::run(&root, &arguments).ok();
    assert_eq!(job.number("/empty_dirs_removed"), 25);
    assert!(root.join("young").exists() && root.join("a").exists());
    let arguments = ["--ttl", "2s", "--remove-empty-dirs", "--max-empty-dirs", "0"];
    let_pass(4);
    let job = Job::run(&root, &arguments).ok();
    // The one that was young has grown old meanwhile.
    assert_eq!(job.number("/empty_dirs_removed"), 7);
    assert!(!root.join("a").exists());
}

#[test]
fn a_signal_ends_it_with_the_code_of_an_interruption() {
    let mount = need!(Mount::sized(Fs::Tmpfs, 256, 0));
    let root = mount.path();
    for n in 0..60 {
        make(&root.join(n.to_string()), 1_000);
    }
    let arguments = ["--ttl", "1s", "--clock", "modify", "--max-concurrency", "1"];
    set_times(&root, 0);
    let_pass(3);
    let child = once(&root, &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let job = Job::of(&child.wait_with_output().unwrap());
    // A fast machine may be done by then.
    assert!([130, 0].contains(&job.code), "{job:?}");
    println!(
        "ended with {} after {} of 60,000",
        job.code,
        job.number("/files_purged")
    );
}
