//! `purge-agent once` on a file server that is far away.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use purge_bench::far::{Atimes, Like};
use purge_tests::job::{FarMount, Job, once};
use purge_tests::need;

const LATE: Duration = Duration::from_millis(3);

fn ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * 86_400)
}

/// A tree of directories of files, of which each third was not used for 40 days.
fn filled(like: Like, dirs: usize, each: usize) -> Result<FarMount, purge_tests::skip::Unmet> {
    let mount = FarMount::new(like)?;
    for dir in 0..dirs {
        for n in 0..each {
            let days = if n % 3 == 0 { 40 } else { 2 };
            mount.far.make(&format!("d{dir}/f{n}"), 10, ago(days));
        }
    }
    Ok(mount)
}

#[test]
fn many_are_asked_and_removed_at_a_time() {
    for plus in [true, false] {
        let like = Like {
            delay: LATE,
            plus,
            ..Like::default()
        };
        let mount = need!(filled(like, 20, 150));
        let began = Instant::now();
        let job = Job::run(&mount.path(), &["--ttl", "30d"]).ok();
        let took = began.elapsed();
        assert_eq!(job.number("/files_scanned"), 3_000);
        assert_eq!(job.number("/files_purged"), 1_000);
        assert_eq!(mount.far.files(), 2_000);
        let requests = mount.far.requests();
        let (asked, lookups) = (requests.getattrs.load(Relaxed), requests.lookups.load(Relaxed));
        println!(
            "plus {plus}: {took:?}, {asked} attributes and {lookups} names were asked for: {}",
            job.statistics
        );
        assert!(asked >= 1_000, "the server is asked before each removal");
        assert!(plus || lookups >= 3_000);
        assert!(!plus || lookups < 2_500, "listings tell of entries");
        // One after another: 3,000 names and 1,000 removals of 3 ms each.
        assert!(took < Duration::from_secs(9), "{took:?}");
    }
}

#[test]
fn a_server_whose_reads_leave_nothing_is_refused() {
    let like = Like {
        atimes: Atimes::Off,
        ..Like::default()
    };
    let mount = need!(filled(like, 2, 30));
    let job = Job::run(&mount.path(), &["--ttl", "30d"]);
    assert_eq!(job.code, 3, "{job:?}");
    assert!(job.log.contains("--clock modify,change"), "{}", job.log);
    // A dry run shows what that would mean, and ends as the job would.
    let job = Job::run(&mount.path(), &["--ttl", "30d", "--dry-run"]);
    assert_eq!((job.code, job.number("/files_to_purge")), (3, 20), "{job:?}");
    assert!(job.log.contains("--clock modify,change"), "{}", job.log);
    assert_eq!(mount.far.files(), 60);
    let job = Job::run(&mount.path(), &["--ttl", "30d", "--clock", "modify,change"]).ok();
    assert_eq!(job.number("/files_purged"), 20);
}

/// The scan's answers may be old when a file's turn comes: what was read or written since stays.
#[test]
fn what_is_used_after_the_scan_stays() {
    let like = Like {
        delay: LATE,
        ..Like::default()
    };
    let mount = need!(FarMount::new(like));
    let root = mount.path();
    for n in 0..400 {
        mount.far.make(&format!("d/f{n}"), 10, ago(40));
    }
    // One removal after another: more than two seconds.
    let job = once(&root, &["--ttl", "30d", "--max-concurrency", "1"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while mount.far.requests().unlinks.load(Relaxed) < 5 {
        std::thread::sleep(LATE);
    }
    let began = Instant::now();
    let read: Vec<String> = (380..390).map(|n| format!("d/f{n}")).collect();
    let written: Vec<String> = (390..400).map(|n| format!("d/f{n}")).collect();
    for file in &read {
        assert_eq!(fs::read(root.join(file)).unwrap().len(), 10);
    }
    for file in &written {
        fs::write(root.join(file), "new").unwrap();
    }
    let open = fs::File::open(root.join("d/f379")).unwrap();
    let took = began.elapsed();
    let job = Job::of(&job.wait_with_output().unwrap()).ok();
    println!("{:?} after {took:?}", job.statistics);
    for file in read.iter().chain(&written) {
        assert!(mount.far.has(file), "{file}: {job:?}");
    }
    assert_eq!(
        job.number("/skipped/accessed") + job.number("/skipped/changed"),
        20
    );
    drop(open);
}

#[test]
fn deep_trees_and_empty_directories() {
    let like = Like {
        delay: Duration::from_micros(200),
        ..Like::default()
    };
    let mount = need!(FarMount::new(like));
    let deep = "x/".repeat(300);
    mount.far.make(&format!("{deep}f"), 1, ago(40));
    mount.far.make("y/stays", 1, ago(1));
    let job = Job::run(&mount.path(), &["--ttl", "30d", "--remove-empty-dirs"]).ok();
    assert_eq!(job.number("/files_purged"), 1);
    assert_eq!(job.number("/empty_dirs_removed"), 300);
    assert!(mount.far.has("y/stays") && !mount.far.has("x"));
}
