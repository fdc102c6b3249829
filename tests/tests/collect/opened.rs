//! Volumes whose events carry descriptors, because the kernel or the file system gives no file ids: overlayfs and FUSE as they are, and disks as
//! on an older kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use purge_bench::far::{Far, Like};
use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, append, assert_same, make, read, read_mapped, regular_files};
use purge_tests::job::FarMount;
use purge_tests::mount::{Bind, Overlay};
use purge_tests::volumes::gaps_of;
use purge_tests::wait::{Ends, LONG, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::process::{Pid, Signal, kill_process};

/// A window that is over soon.
const KEYS: &str = "baseline = \"mtime\"\nprecision = \"3s\"\nsole_client = true";
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";
/// As on kernels from 4.20 on; from 6.13; below 4.20.
const ON_DISKS: [&str; 3] = ["ids,fd_error", "ids", "ids,filesystem_marks,fd_error,evictable"];

fn config(root: &Path) -> Config {
    Config::new(root, KEYS).rule("old", RULE)
}

fn tracking(root: &Path, without: &str) -> Agent {
    let without = [("PURGE_AGENT_WITHOUT", Path::new(without))];
    let agent = Agent::tracking_in(&config(root), None, &without);
    let status = agent.status();
    assert_eq!(text(&status, "collector"), "fanotify");
    assert_eq!(text(&status, "collector_mode"), "descriptors", "{status}");
    agent
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Which of these are candidates.
fn planned<'a>(agent: &Agent, files: impl IntoIterator<Item = &'a PathBuf>) -> Vec<&'a PathBuf> {
    let planned = agent.ctl().candidate_files();
    files.into_iter().filter(|file| planned.contains(*file)).collect()
}

/// What was used stays, what was not goes, and what is new is found by a scan.
fn uses_are_seen(root: &Path, without: &str) {
    let files = make(&root.join("d"), 300);
    age_tree(root);
    let agent = tracking(root, without);
    let ctl = agent.ctl();
    let before = ctl.candidate_files().len();
    assert!(before >= 300, "everything has expired");
    let blind = agent.status()["blind"].to_string();
    assert!(blind.contains("names") && blind.contains("attributes"), "{blind}");
    let doctor = ctl.run(["doctor"]).text();
    assert!(
        doctor.contains("descriptors") && doctor.contains("names that change between two scans"),
        "{doctor}"
    );
    for file in &files[..20] {
        read(file);
    }
    for file in &files[20..30] {
        read_mapped(file);
    }
    for file in &files[30..40] {
        append(file);
    }
    let plan = ctl.plan();
    assert_eq!(
        number(&plan.json, "/candidates/files"),
        before as u64 - 40,
        "{}",
        plan.json
    );
    assert_eq!(text(&plan.json, "guard"), "grace", "{}", plan.json);
    // After the plan: the run finds it.
    read(&files[40]);
    let began = Instant::now();
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!(counts.deleted + counts.trashed, before as u64 - 41, "{run}");
    assert_eq!(number(&run, "/skipped/accessed"), 1, "{run}");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "a lease of the run was broken by the queue"
    );
    assert!(files[..41].iter().all(|file| file.exists()));
    // No name is told: a scan finds it, and it counts as used then.
    let new = make(&root.join("new"), 5);
    let _ = ctl.run(["rescan"]).ok();
    agent.wait_until_tracking();
    let known = || ctl.find(["--type", "f"]);
    until("the scan has found them", SOON, || {
        new.iter().all(|file| known().contains(file)).then_some(())
    });
    assert!(planned(&agent, &new).is_empty());
}

fn on_a_disk(fs: Fs) {
    for without in ON_DISKS {
        let mount = need!(Mount::new(fs));
        uses_are_seen(&mount.path(), without);
    }
}

#[test]
fn what_was_used_stays_on_ext4() {
    on_a_disk(Fs::Ext4);
}

#[test]
fn what_was_used_stays_on_xfs() {
    on_a_disk(Fs::Xfs);
}

#[test]
fn what_was_used_stays_on_btrfs() {
    on_a_disk(Fs::Btrfs);
}

#[test]
fn what_was_used_stays_on_tmpfs() {
    on_a_disk(Fs::Tmpfs);
}

#[test]
fn what_was_used_stays_on_overlay_whose_lower_layer_has_the_files() {
    let mount = need!(Mount::new(Fs::Ext4));
    let lower = mount.dir("lower");
    make(&lower.join("below"), 10);
    age_tree(&lower);
    let overlay = need!(Overlay::new(&mount.path()));
    uses_are_seen(overlay.path(), "directory_marks");
}

#[test]
fn what_was_used_stays_on_fuse() {
    let mount = need!(FarMount::new(Like::default()));
    uses_are_seen(&mount.path(), "directory_marks");
}

#[test]
fn a_mount_that_is_marked_alone_is_not_believed_without_a_word_of_the_operator() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let keys = "baseline = \"mtime\"\nprecision = \"3s\"";
    let alone = Config::new(&root, keys).rule("old", RULE);
    let without = [("PURGE_AGENT_WITHOUT", Path::new("ids,filesystem_marks"))];
    let mut agent = Agent::tracking_in(&alone, None, &without);
    let refused = agent.ctl().run(["plan"]);
    assert_eq!(refused.code, 3, "{}", refused.text());
    assert!(refused.text().contains("sole_client"), "{}", refused.text());
    assert!(agent.status()["blind"].to_string().contains("bypass"));
    agent.write_config(&config(&root));
    agent.restart();
    agent.wait_until_tracking();
    // That is what it does not see.
    let elsewhere = mount.dir("elsewhere");
    let bind = need!(Bind::new(&root.join("d"), &elsewhere));
    read(&elsewhere.join(files[0].file_name().unwrap()));
    read(&files[1]);
    assert_eq!(planned(&agent, &files[..2]), [&files[0]]);
    drop(bind);
}

#[test]
fn whole_directories_and_windows_of_no_length_are_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5);
    age_tree(&root);
    let without = [("PURGE_AGENT_WITHOUT", Path::new("ids"))];
    let whole = "ttl = \"1h\"\nclock = [\"access\"]\ntarget = \"directory\"\ndepth = 1";
    let config = Config::new(&root, KEYS).rule("whole", whole);
    let agent = Agent::tracking_in(&config, None, &without);
    let refused = agent.ctl().run(["plan"]);
    assert_eq!(refused.code, 3, "{}", refused.text());
    assert!(refused.text().contains("whole directories"), "{}", refused.text());
    drop(agent);
    // With "auto" another way is taken then.
    let keys = "collector = \"fanotify\"\nprecision = \"0s\"";
    let mut agent = Agent::prepared(&Config::new(&root, keys).rule("old", RULE));
    agent.environment("PURGE_AGENT_WITHOUT", Path::new("ids"));
    let (status, said) = agent.launch_in_vain();
    assert!(!status.success() && said.contains("precision"), "{said}");
}

/// After the first use in a window, the server is asked as often as without the agent.
#[test]
fn a_file_that_is_used_again_costs_the_server_no_open_of_the_agents() {
    let mount = need!(FarMount::new(Like::default()));
    for n in 0..50 {
        mount.far.make(
            &format!("f{n}"),
            10,
            SystemTime::now() - Duration::from_secs(40 * 86_400),
        );
    }
    let root = mount.path();
    let keys = "precision = \"1h\"\nsole_client = true";
    let config = Config::new(&root, keys).rule("old", RULE);
    let without = [("PURGE_AGENT_WITHOUT", Path::new("directory_marks"))];
    let agent = Agent::tracking_in(&config, None, &without);
    let opens = || mount.far.requests().opens.load(Relaxed);
    let files: Vec<PathBuf> = (0..50).map(|n| root.join(format!("f{n}"))).collect();
    let before = opens();
    files.iter().for_each(|file| read(file));
    until("all of them are hidden", LONG, || {
        let marks = agent.status()["ignore_marks"].as_u64();
        (marks == Some(50)).then_some(())
    });
    let first = opens() - before;
    assert!(
        (50..=50 * 4).contains(&first),
        "{first} opens for the first uses of 50 files"
    );
    let before = opens();
    for _ in 0..20 {
        files.iter().for_each(|file| read(file));
    }
    std::thread::sleep(Duration::from_millis(200));
    let hidden = opens() - before;
    assert_eq!(hidden, 1000, "what is hidden costs nothing");
}

/// An agent below its parent, which keeps its queue.
fn below_parent(config: &Config, without: &str) -> Agent {
    let mut agent = Agent::prepared(config).with_parent();
    agent.environment("PURGE_AGENT_WITHOUT", Path::new(without));
    agent.launch();
    agent.wait_until_tracking();
    agent
}

/// Waits for the one that follows a killed one.
fn wait_for_the_next(agent: &Agent, killed: u32) {
    until("another one runs", SOON, || {
        agent.below_parent().filter(|now| *now != killed)
    });
    until("it answers", SOON, || {
        (agent.ctl().run(["status"]).code == 0).then_some(())
    });
    agent.wait_until_tracking();
}

/// kill -9 at random moments: what the dead agent had taken from the queue and not recorded is known to be unknown.
#[test]
fn no_file_that_was_used_in_a_storm_is_a_candidate_after_kill_9() {
    for without in ["ids", "ids,fd_error"] {
        let mount = need!(Mount::new(Fs::Ext4));
        let root = mount.path();
        let files = make(&root.join("d"), 3000);
        age_tree(&root);
        let keys = "baseline = \"mtime\"\nprecision = \"1h\"\nflush_interval = \"60s\"";
        let config = Config::new(&root, keys).rule("old", RULE);
        let mut agent = below_parent(&config, without);
        for round in 0..3 {
            let used: Mutex<BTreeSet<&PathBuf>> = Mutex::default();
            let over = AtomicBool::new(false);
            let (ours, _) = files.split_at(300 * (round + 1));
            std::thread::scope(|scope| {
                let ends = Ends(&over);
                for part in 0..2 {
                    let (over, used) = (&over, &used);
                    scope.spawn(move || {
                        for file in ours.iter().skip(part).step_by(2).cycle() {
                            if over.load(Relaxed) {
                                return;
                            }
                            read(file);
                            used.lock().unwrap().insert(file);
                        }
                    });
                }
                until("files are used", SOON, || {
                    (used.lock().unwrap().len() > 50).then_some(())
                });
                std::thread::sleep(Duration::from_millis(53 * round as u64));
                let killed = agent.below_parent().expect("an agent below its parent");
                send(killed, Signal::KILL);
                drop(ends);
                wait_for_the_next(&agent, killed);
            });
            let used = used.into_inner().unwrap();
            assert_eq!(planned(&agent, used), Vec::<&PathBuf>::new(), "round {round}");
        }
        agent.terminate();
    }
}

/// What waited when the agent was killed is read by the next one.
#[test]
fn what_waits_in_the_queue_is_taken_over() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 50);
    age_tree(&root);
    let agent = below_parent(&config(&root), "ids");
    let killed = agent.below_parent().expect("an agent below its parent");
    send(killed, Signal::STOP);
    files[..10].iter().for_each(|file| read(file));
    send(killed, Signal::KILL);
    wait_for_the_next(&agent, killed);
    let candidates = agent.ctl().candidate_files();
    assert_same(
        "only what was used is young",
        &candidates,
        &files[10..].iter().cloned().collect(),
    );
}

#[test]
fn a_queue_that_overflows_makes_every_file_used() {
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let count = limit + 1000;
    assert!(
        count < 35_000,
        "the host's limit is too high for this test: {limit}"
    );
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let root = mount.path();
    let files = make(&root.join("d"), count);
    age_tree(&root);
    let environment = [
        ("PURGE_AGENT_LIMITED_QUEUE", Path::new("1")),
        ("PURGE_AGENT_WITHOUT", Path::new("ids")),
    ];
    let agent = Agent::tracking_in(&config(&root), None, &environment);
    assert_eq!(agent.ctl().candidate_files().len(), count);
    agent.freeze();
    files.iter().for_each(|file| read(file));
    agent.thaw();
    until("the loss is told", SOON, || {
        gaps_of(&agent.status(), "overflow").first().map(drop)
    });
    assert!(agent.ctl().candidate_files().is_empty(), "doubt counts as use");
}

/// An event that waits keeps its mount busy: it waits for milliseconds only.
#[test]
fn an_unmount_right_after_a_use_is_not_held_up() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 200);
    age_tree(&root);
    let agent = tracking(&root, "ids");
    let mut late = Duration::ZERO;
    for file in &files[..8] {
        read(file);
        late = late.max(mount.unmount());
        let _ = agent.wait_until_degraded();
        mount.mount().unwrap();
        agent.wait_until_well();
    }
    assert!(late < Duration::from_secs(5), "{late:?}");
}

/// A server that answers no more holds up its own volume, and nothing else.
#[test]
fn a_server_that_stops_holds_up_its_volume_alone() {
    let mount = need!(Mount::new(Fs::Ext4));
    let far = need!(FarMount::new(Like::default()));
    for n in 0..10 {
        far.far.make(
            &format!("f{n}"),
            10,
            SystemTime::now() - Duration::from_secs(40 * 86_400),
        );
    }
    make(&mount.path().join("d"), 5);
    age_tree(&mount.path());
    let config = Config::backdated(&mount.path()).and_volume("w", &far.path());
    let without = [("PURGE_AGENT_WITHOUT", Path::new("directory_marks"))];
    let mut agent = Agent::start_in(&config, None, &without);
    agent.wait_until_tracking();
    let status = |agent: &Agent| {
        let answer = agent.ctl().run_within(SOON, ["status", "--output", "json"]);
        answer.ok().json().to_string()
    };
    assert!(status(&agent).contains("descriptors"), "{}", status(&agent));
    read(&far.path().join("f0"));
    stop_and_use(&far.far, &far.path().join("f1"));
    until("it is told", LONG, || {
        status(&agent).contains("does not answer").then_some(())
    });
    let plan = agent.ctl().plan_with(["--volume", "v"]);
    assert!(tally(&plan, &agent.ctl().apply(&plan).ok().json()).deleted >= 5);
    assert!(regular_files(&mount.path()).is_empty());
    assert!(agent.ctl().run_within(LONG, ["doctor"]).code <= 1);
    // The kernel lets no process end that waits for an answer to what the server has read.
    far.far.answer(true);
    until("it goes on", LONG, || {
        (!status(&agent).contains("does not answer")).then_some(())
    });
    agent.terminate();
}

/// The server stops while an event waits.
fn stop_and_use(far: &Far, file: &Path) {
    read(file);
    far.answer(false);
}
