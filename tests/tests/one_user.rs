//! One user's files, and limits that bind the plans of all: what one user can make large must not keep everyone's files, and must not make
//! others' files go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, text};
use purge_tests::files::{count_files, now, set_times};
use purge_tests::notices::{ALICE, BOB};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

const CAROL: u32 = 61_003;
const HOUR: i64 = 3600;
const TB: u64 = 1_000_000_000_000;

fn config(root: &Path, rule: &str) -> Config {
    let rule = format!("ttl = \"9d\"\nclock = [\"access\"]\nremove_empty_dirs = false\n{rule}");
    Config::new(root, "baseline = \"mtime\"").rule("old", &rule)
}

fn give(path: &Path, uid: u32, hours: i64) {
    chown(path, Some(uid), Some(uid)).unwrap();
    set_times(path, now() - hours * HOUR);
}

/// Files of `uid`, each of `bytes` bytes; the first is the oldest, last used `hours` ago.
fn put_many(dir: &Path, uid: u32, count: i64, bytes: usize, hours: i64) -> Vec<PathBuf> {
    fs::create_dir_all(dir).unwrap();
    let put = |i: i64| {
        let path = dir.join(format!("f{i:04}"));
        fs::write(&path, vec![7; bytes]).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        set_times(&path, now() - hours * HOUR + i);
        path
    };
    (0..count).map(put).collect()
}

/// A file of `bytes` bytes that takes no block.
fn sparse(path: &Path, uid: u32, bytes: u64, hours: i64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
    give(path, uid, hours);
}

/// Bob's forty files have expired, Carol's four hundred have not.
fn of_others(root: &Path) {
    put_many(&root.join("bob"), BOB, 40, 10_000, 240);
    put_many(&root.join("carol"), CAROL, 400, 20_000, 1);
}

#[test]
fn an_expired_sparse_file_of_one_user_has_no_plan_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    sparse(&root.join("s"), ALICE, TB, 300);
    let limits = "max_fraction = 0.25\nmax_bytes = \"1GB\"";
    let agent = Agent::tracking(&config(&root, limits));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(text(&plan.json, "refusal"), "", "{}", plan.json);
    assert_eq!(number(&plan.json, "/candidates/files"), 41, "{}", plan.json);
    assert!(number(&plan.json, "/takes") < 1_000_000, "{}", plan.json);
    assert_eq!(number(&ctl.apply(&plan).ok().json(), "/deleted/files"), 41);
    assert_eq!(count_files(&root.join("bob")), 0);
}

#[test]
fn a_young_sparse_file_of_one_user_lets_no_limit_pass() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    // Forty of forty-four files' bytes, and few by number: without the sparse file the limit holds.
    put_many(&root.join("bob"), BOB, 4, 4_000_000, 240);
    put_many(&root.join("carol"), CAROL, 100, 1000, 1);
    sparse(&root.join("s"), ALICE, TB, 1);
    let agent = Agent::tracking(&config(&root, "max_fraction = 0.25"));
    let plan = agent.ctl().plan();
    assert!(
        text(&plan.json, "refusal").contains("max_fraction 25%"),
        "{}",
        plan.json
    );
    let _ = agent.ctl().apply(&plan).ends_with(3);
    assert_eq!(count_files(&root.join("bob")), 4);
}

/// Her files are so many that a watermark's plan would be refused for everyone.
#[test]
fn many_empty_files_of_one_user_are_left_out_of_a_watermarks_plan_and_the_rest_goes() {
    let mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let root = mount.path();
    put_many(&root.join("bob"), BOB, 40, 1000, 400);
    put_many(&root.join("carol"), CAROL, 300, 1000, 1);
    put_many(&root.join("alice"), ALICE, 1200, 0, 300);
    let keys = "rule = \"old\"\nhigh = \"70%\"\nlow = \"40%\"\nmin_age = \"5h\"";
    let agent = Agent::tracking(&config(&root, "").table("watermark", keys));
    until("bob's expired files go", LONG, || {
        (count_files(&root.join("bob")) == 0).then_some(())
    });
    let taken = until("the run's end", LONG, || {
        let status = agent.status();
        let taken = number(&status, "/triggers/0/taken_lately/files");
        (taken > 0).then_some(taken)
    });
    println!("{taken} of 1540 files went");
    assert!((40..=385).contains(&taken), "{taken}");
    assert_eq!(count_files(&root.join("carol")), 300);
    assert!(count_files(&root.join("alice")) >= 1200 + 40 - 385);
    let plans = agent.ctl().run(["plans", "--output", "ndjson"]).ok().lines();
    let why = plans.iter().find_map(|p| p.pointer("/left_out/0")?.as_str());
    let why = why.expect("a plan that says what was left out");
    assert!(
        why.contains(&format!("uid {ALICE}")) && why.contains("max_fraction"),
        "{why}"
    );
}
