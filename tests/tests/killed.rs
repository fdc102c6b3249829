//! kill -9 at random moments while files are used: what was read from the kernel's queue is kept, and the index opens
//! every time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::Ends;
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Uses older than this when the agent is killed must be known: the reader gathers events for some milliseconds, and
/// the machine is shared.
const READ_BY_THEN: Duration = Duration::from_millis(500);

fn rounds(long: usize, short: usize) -> usize {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => long,
        false => short,
    }
}

/// What is stored every minute only is known after kill -9 as well: the journal has it.
#[test]
fn what_was_read_from_the_queue_survives_kill_9_long_before_it_is_stored() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3000);
    age_tree(&root);
    let keys = "baseline = \"mtime\"\nflush_interval = \"60s\"";
    let config = Config::new(&root, keys).rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let mut agent = Agent::tracking(&config);
    let mut used: Vec<PathBuf> = Vec::new();
    for round in 0..5 {
        for file in files.iter().skip(round).step_by(10) {
            read(file);
            used.push(file.clone());
        }
        std::thread::sleep(READ_BY_THEN);
        agent.kill();
        agent.launch();
        agent.wait_until_tracking();
        let planned = agent.ctl().candidate_files();
        let lost = used.iter().filter(|f| planned.contains(*f)).count();
        assert_eq!(lost, 0, "round {round}");
        assert_eq!(
            planned.len(),
            files.len() - used.len(),
            "and nothing else became young"
        );
    }
}

/// Uses of files that the first scan has not met yet, of a scan that is killed and begins again.
#[test]
fn a_use_during_a_first_scan_that_is_killed_is_no_secret() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
    let root = mount.path();
    let mut files = Vec::new();
    for i in 0..50 {
        files.extend(make(&root.join(format!("d{i}")), 1000));
    }
    age_tree(&root);
    let mut agent = Agent::start(&Config::backdated(&root));
    let used: Vec<&PathBuf> = files.iter().step_by(100).collect();
    used.iter().for_each(|f| read(f));
    std::thread::sleep(Duration::from_millis(100));
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    let planned = agent.ctl().candidate_files();
    let lost = used.iter().filter(|f| planned.contains(**f)).count();
    assert_eq!((lost, planned.len()), (0, files.len() - used.len()));
}

/// Files that are used for the first time in a round: only of these it can be told whether the use was kept.
const FRESH: usize = 20;
/// Files that the storm reads again and again.
const STORM: usize = 5_000;

#[test]
fn kill_9_at_random_moments_of_a_storm_loses_no_use_and_the_index_always_opens() {
    let rounds = rounds(1000, 12);
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let root = mount.path();
    let storm = make(&root.join("storm"), STORM);
    let never = make(&root.join("never"), 1000);
    let fresh = make(&root.join("fresh"), rounds * FRESH);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut known_used = vec![false; fresh.len()];
    for round in 0..rounds {
        let used: Mutex<Vec<(usize, Instant)>> = Mutex::default();
        let stop = AtomicBool::new(false);
        let first = usize::try_from(next(STORM as u64)).unwrap();
        let pause = Duration::from_millis(500 + next(800));
        let killed_at = std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            scope.spawn(|| {
                for at in (first..).step_by(7).take_while(|_| !stop.load(Relaxed)) {
                    read(&storm[at % STORM]);
                }
            });
            scope.spawn(|| {
                for (file, path) in fresh.iter().enumerate().skip(round * FRESH).take(FRESH) {
                    if stop.load(Relaxed) {
                        return;
                    }
                    read(path);
                    used.lock().unwrap().push((file, Instant::now()));
                    std::thread::sleep(pause / FRESH as u32);
                }
            });
            std::thread::sleep(pause);
            let killed_at = Instant::now();
            agent.kill();
            killed_at
        });
        for (file, at) in used.lock().unwrap().iter() {
            known_used[*file] |= *at + READ_BY_THEN < killed_at;
        }
        agent.launch();
        agent.wait_until_tracking();
        let planned = agent.ctl().candidate_files();
        let lost = fresh
            .iter()
            .zip(&known_used)
            .filter(|(f, used)| **used && planned.contains(*f));
        let lost: Vec<_> = lost.map(|(file, _)| file).collect();
        let ages: Vec<_> = used
            .lock()
            .unwrap()
            .iter()
            .filter(|(file, _)| lost.contains(&&fresh[*file]))
            .map(|(_, at)| killed_at - *at)
            .collect();
        assert!(
            lost.is_empty(),
            "round {round}: lost {lost:?}, so long before the kill: {ages:?}; the agent says: {}",
            agent.status()
        );
        let kept = never.iter().filter(|f| planned.contains(*f)).count();
        assert_eq!(kept, never.len(), "round {round}: what nobody used stays expired");
    }
    let proven = known_used.iter().filter(|u| **u).count();
    assert!(
        proven > rounds,
        "only {proven} uses were old enough to be told from a gap"
    );
}
