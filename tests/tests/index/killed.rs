//! kill -9 at random moments while files are used: what was read from the kernel's queue is kept, and the index opens
//! every time.
//!
//! What had been read by then is not guessed from the time: the test holds the agent's queue as well, and what is not in it any more when the
//! agent is dead was read. So a slow machine proves less, and never fails.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::config::VOLUME;
use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::Ends;
use purge_tests::{Agent, Config, Fs, Mount, need};

fn rounds(long: usize, short: usize) -> usize {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => long,
        false => short,
    }
}

/// Which of `used` a new plan names.
fn lost<'a>(agent: &Agent, used: impl IntoIterator<Item = &'a PathBuf>) -> Vec<&'a PathBuf> {
    let planned = agent.ctl().candidate_files();
    used.into_iter().filter(|file| planned.contains(*file)).collect()
}

/// Which of `files` no event that is left in the queue tells of.
fn all_read<'a>(files: impl IntoIterator<Item = &'a PathBuf>, unread: &BTreeSet<u64>) -> Vec<&'a PathBuf> {
    let inode = |file: &PathBuf| std::fs::symlink_metadata(file).unwrap().ino();
    let is_read = |file: &&PathBuf| !unread.contains(&inode(file));
    files.into_iter().filter(is_read).collect()
}

/// Nothing is stored before a minute has passed: only the journal has it until then.
fn stored_late(root: &Path) -> Config {
    let keys = "baseline = \"mtime\"\nflush_interval = \"60s\"";
    Config::new(root, keys).rule("old", "ttl = \"1h\"\nclock = [\"access\"]")
}

/// What is stored every minute only is known after kill -9 as well: the journal has it.
#[test]
fn what_was_read_from_the_queue_survives_kill_9_long_before_it_is_stored() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3000);
    age_tree(&root);
    let mut agent = Agent::tracking(&stored_late(&root));
    let mut used: Vec<PathBuf> = Vec::new();
    for round in 0..5 {
        let queues = agent.queues();
        for file in files.iter().skip(round).step_by(10) {
            read(file);
            used.push(file.clone());
        }
        // Not a moment longer.
        queues.wait_until_read();
        agent.kill();
        drop(queues);
        agent.launch();
        agent.wait_until_tracking();
        assert_eq!(lost(&agent, &used), Vec::<&PathBuf>::new(), "round {round}");
        let planned = agent.ctl().candidate_files();
        assert_eq!(
            planned.len(),
            files.len() - used.len(),
            "and nothing else became young"
        );
    }
}

/// The tests of this file see it when a use is lost that was read: one that the agent itself cannot miss.
#[test]
fn a_use_that_was_read_and_then_lost_would_be_seen() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 100);
    age_tree(&root);
    let mut agent = Agent::tracking(&stored_late(&root));
    let queues = agent.queues();
    let used: Vec<PathBuf> = files.iter().step_by(10).cloned().collect();
    used.iter().for_each(|file| read(file));
    queues.wait_until_read();
    agent.kill();
    let unread = queues.unread();
    let kept = agent.state_dir().join("volumes").join(format!("{VOLUME}.d"));
    for entry in std::fs::read_dir(kept).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "accesses" || name.starts_with("uses.") {
            OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(0)
                .unwrap();
        }
    }
    agent.launch();
    agent.wait_until_tracking();
    let read: Vec<&PathBuf> = all_read(&used, &unread);
    assert_eq!(
        (read.len(), lost(&agent, read)),
        (used.len(), used.iter().collect())
    );
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
    let queues = agent.queues();
    let used: Vec<PathBuf> = files.iter().step_by(100).cloned().collect();
    used.iter().for_each(|file| read(file));
    queues.wait_until_read();
    agent.kill();
    drop(queues);
    agent.launch();
    agent.wait_until_tracking();
    let planned = agent.ctl().candidate_files();
    let lost = used.iter().filter(|f| planned.contains(*f)).count();
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
    // Of which the agent had read the use before it was killed.
    let mut known: Vec<&PathBuf> = Vec::new();
    for round in 0..rounds {
        let queues = agent.queues();
        let used: Mutex<Vec<&PathBuf>> = Mutex::default();
        let stop = AtomicBool::new(false);
        let first = usize::try_from(next(STORM as u64)).unwrap();
        let pause = Duration::from_millis(500 + next(800));
        std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            scope.spawn(|| {
                for at in (first..).step_by(7).take_while(|_| !stop.load(Relaxed)) {
                    read(&storm[at % STORM]);
                }
            });
            scope.spawn(|| {
                for path in fresh.iter().skip(round * FRESH).take(FRESH) {
                    if stop.load(Relaxed) {
                        return;
                    }
                    read(path);
                    used.lock().unwrap().push(path);
                    std::thread::sleep(pause / FRESH as u32);
                }
            });
            std::thread::sleep(pause);
            agent.kill();
        });
        let unread = queues.unread();
        known.extend(all_read(used.into_inner().unwrap(), &unread));
        agent.launch();
        agent.wait_until_tracking();
        let lost = lost(&agent, known.iter().copied());
        assert!(
            lost.is_empty(),
            "round {round}: read and lost {lost:?}; the agent says: {}",
            agent.status()
        );
        let planned = agent.ctl().candidate_files();
        let kept = never.iter().filter(|f| planned.contains(*f)).count();
        assert_eq!(kept, never.len(), "round {round}: what is not used stays expired");
    }
    println!("of {} uses the agent had read {}", rounds * FRESH, known.len());
    assert!(known.len() > rounds, "only {} uses had been read", known.len());
}
