//! Quotas, watermarks, orders, and rules that only tell.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{assert_same, now, read, regular_files, set_times};
use purge_tests::wait::{Ends, LONG, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

const HOUR: i64 = 3600;
/// What the rule of every test here keeps.
const RULE: &str = "ttl = \"365d\"\nclock = [\"access\"]\nexclude = [\"*.keep\"]\nmax_fraction = 1.0";

fn config(root: &Path) -> Config {
    Config::new(root, "baseline = \"mtime\"").rule("old", RULE)
}

/// A file of `bytes` bytes, owned by `uid` and last used `hours` ago.
fn put(path: PathBuf, bytes: usize, uid: u32, hours: i64) -> PathBuf {
    fs::write(&path, vec![7; bytes]).unwrap();
    chown(&path, Some(uid), Some(uid)).unwrap();
    set_times(&path, now() - hours * HOUR);
    path
}

#[test]
fn a_quota_takes_the_oldest_of_users_who_are_over_it_and_no_more_than_needed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let file = |name: String| root.join(name);
    // 10 files of 1000 bytes: over 5000, and 4500 may stay. f00 is the oldest.
    let mine: Vec<PathBuf> = (0..10)
        .map(|i| put(file(format!("f{i:02}")), 1000, 54_321, 100 - i))
        .collect();
    put(file("older-but-of-another".into()), 4000, 54_322, 200);
    put(file("oldest.keep".into()), 10, 54_321, 300);
    let limits = "name = \"user\"\nsubject = \"user\"\nhard = \"5000B\"\nlow = \"90%\"\naction = \"purge\"\nmin_age = \"1h\"";
    let agent = Agent::tracking(&config(&root).table("quota", limits));
    let ctl = agent.ctl();
    // What is used is not the oldest any more.
    read(&mine[2]);
    let plan = ctl.plan_with(["--quota", "user"]);
    let shown = ctl.show(&plan);
    let expected: BTreeSet<PathBuf> = [0, 1, 3, 4, 5, 6].iter().map(|i| mine[*i].clone()).collect();
    assert_same("the oldest", &shown.keys().cloned().collect(), &expected);
    for candidate in shown.values() {
        assert_eq!(text(candidate, "rule"), "user/54321");
        assert_eq!(
            text(candidate, "because"),
            "quota user: 54321 uses 10010 of 5000 bytes, 5010 over"
        );
    }
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/files"), 6);
    assert_eq!(regular_files(&root).len(), 6);
    let again = ctl.plan_with(["--quota", "user"]);
    assert_eq!(
        number(&again.json, "/candidates/files"),
        0,
        "no user is over it any more"
    );
}

#[test]
fn a_quota_deletes_nothing_unless_it_says_purge_and_never_what_is_younger_than_min_age() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let old = put(root.join("old"), 3000, 54_321, 10);
    put(root.join("young"), 9000, 54_321, 1);
    let quota = |action: &str| {
        let keys = format!(
            "name = \"q\"\nsubject = \"directory\"\ndepth = 1\nhard = \"1B\"\nmin_age = \"5h\"\n{action}"
        );
        config(&root).table("quota", &keys)
    };
    fs::create_dir(root.join("d")).unwrap();
    let old = {
        fs::rename(&old, root.join("d/old")).unwrap();
        fs::rename(root.join("young"), root.join("d/young")).unwrap();
        root.join("d/old")
    };
    let agent = Agent::tracking(&quota(""));
    let ctl = agent.ctl();
    let plan = ctl.plan_with(["--quota", "q"]);
    let shown: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
    assert_same("told", &shown, &BTreeSet::from([old.clone()]));
    let refused = ctl.apply(&plan).ends_with(3);
    assert!(
        refused.text().contains("it tells, and deletes nothing"),
        "{}",
        refused.text()
    );
    assert!(old.exists());
    // A plan from before the quota changed is no plan of what it now says.
    agent.write_config(&quota("action = \"purge\""));
    agent.reload();
    let plan = ctl.plan_with(["--quota", "q"]);
    agent.write_config(&quota("action = \"purge\"\nlow = \"50%\""));
    agent.reload();
    let _ = ctl.apply(&plan).ends_with(3);
    let plan = ctl.plan_with(["--quota", "q"]);
    assert_eq!(number(&ctl.apply(&plan).ok().json(), "/deleted/files"), 1);
    assert!(!old.exists() && root.join("d/young").exists());
}

#[test]
fn a_volume_over_its_watermark_comes_down_to_low_by_itself_oldest_first() {
    let mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let root = mount.path();
    let files: Vec<PathBuf> = (0..40)
        .map(|i| put(root.join(format!("f{i:02}")), 1_000_000, 0, 100 - i))
        .collect();
    let keep = put(root.join("a.keep"), 1000, 0, 500);
    let young = put(root.join("young"), 1_000_000, 0, 1);
    let limits = "rule = \"old\"\nhigh = \"60%\"\nlow = \"40%\"\nmin_age = \"5h\"";
    let agent = Agent::tracking(&config(&root).table("watermark", limits));
    let share = || {
        let s = rustix::fs::statvfs(&root).unwrap();
        let used = (s.f_blocks - s.f_bfree) as f64;
        used / (used + s.f_bavail as f64)
    };
    assert!(share() > 0.6, "{}", share());
    until("use below low", LONG, || (share() <= 0.40).then_some(()));
    // The run may still be ending; what it leaves is decided.
    until("the run's end", SOON, || {
        let runs = agent.ctl().run(["runs", "--output", "json"]).ok().json();
        let state = runs
            .pointer("/0/state")
            .or(runs.pointer("/runs/0/state"))?
            .as_str()?
            .to_owned();
        (state == "completed").then_some(())
    });
    let left = regular_files(&root);
    assert!(left.contains(&keep) && left.contains(&young));
    let gone = files.iter().filter(|f| !left.contains(*f)).count();
    let first: BTreeSet<PathBuf> = files.iter().take(gone).cloned().collect();
    let missing: BTreeSet<PathBuf> = files.iter().filter(|f| !left.contains(*f)).cloned().collect();
    assert_same("the oldest went", &missing, &first);
    assert!(
        gone < 40 && share() > 0.37,
        "no more than needed: {gone} went, {} is left",
        share()
    );
}

#[test]
fn a_rule_takes_the_largest_first_if_it_says_so() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files: Vec<PathBuf> = (1..6)
        .map(|i| put(root.join(format!("f{i}")), i * 1000, 0, i as i64 * 5))
        .collect();
    let keys = "ttl = \"1h\"\nclock = [\"access\"]\norder = \"largest\"\nmax_files = 2";
    let agent = Agent::tracking(&Config::new(&root, "baseline = \"mtime\"").rule("r", keys));
    let expected: BTreeSet<PathBuf> = files.iter().skip(3).cloned().collect();
    assert_same("the largest", &agent.ctl().candidate_files(), &expected);
}

#[test]
fn a_rule_that_notifies_plans_and_deletes_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let file = put(root.join("f"), 1000, 0, 50);
    let keys = "ttl = \"1h\"\nclock = [\"access\"]\naction = \"notify\"";
    let agent = Agent::tracking(&Config::new(&root, "baseline = \"mtime\"").rule("r", keys));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 1);
    let _ = ctl.apply(&plan).ends_with(3);
    assert!(file.exists());
}

#[test]
fn a_volume_that_fills_up_under_load_comes_below_low_and_what_is_in_use_stays() {
    const FILE: usize = 400_000;
    let mount = need!(Mount::sized(Fs::Ext4, 96, 2000));
    let root = mount.path();
    let old: Vec<PathBuf> = (0..100)
        .map(|i| put(root.join(format!("old{i:03}")), FILE, 0, 300 - i))
        .collect();
    let limits = "rule = \"old\"\nhigh = \"80%\"\nlow = \"60%\"\nmin_age = \"5h\"";
    let agent = Agent::tracking(&config(&root).table("watermark", limits));
    let share = || {
        let s = rustix::fs::statvfs(&root).unwrap();
        let used = (s.f_blocks - s.f_bfree) as f64;
        used / (used + s.f_bavail as f64)
    };
    assert!(share() < 0.8, "{}", share());
    let a_run_goes_on = || {
        let runs = agent.ctl().run(["runs", "--output", "json"]).ok().json();
        runs.pointer("/0/state")
            .is_some_and(|state| state.as_str() == Some("running"))
    };
    // Some of the oldest are used all the time, while others write until the volume is above its watermark.
    let used: Vec<PathBuf> = old.iter().step_by(7).cloned().collect();
    let over = AtomicBool::new(false);
    let mut new = Vec::new();
    std::thread::scope(|scope| {
        let _over = Ends(&over);
        scope.spawn(|| {
            while !over.load(Relaxed) {
                used.iter().for_each(|f| read(f));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // The agent plans once all of it is there: what is written later is not in a plan's sums.
        agent.freeze();
        while share() < 0.86 {
            let path = root.join(format!("new{:03}", new.len()));
            fs::write(&path, vec![7; FILE]).unwrap();
            new.push(path);
            std::thread::sleep(Duration::from_millis(50));
        }
        agent.thaw();
        until("use below low", LONG, || (share() <= 0.60).then_some(()));
    });
    until("the run's end", SOON, || (!a_run_goes_on()).then_some(()));
    let left = regular_files(&root);
    for file in used.iter().chain(&new) {
        assert!(left.contains(file), "{} was in use and went", file.display());
    }
    // What was not in use went in its order, and no more than needed.
    let unused: Vec<&PathBuf> = old.iter().filter(|f| !used.contains(f)).collect();
    let gone = unused.iter().filter(|f| !left.contains(**f)).count();
    assert!(gone > 0 && gone < unused.len(), "{gone} of {} went", unused.len());
    let first: BTreeSet<PathBuf> = unused.iter().take(gone).map(|f| (*f).clone()).collect();
    let missing: BTreeSet<PathBuf> = unused
        .iter()
        .filter(|f| !left.contains(**f))
        .map(|f| (*f).clone())
        .collect();
    assert_same("the oldest went", &missing, &first);
}
