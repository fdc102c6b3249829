//! What will expire, and which limits will be reached.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{assert_same, now, read, set_times};
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const RULE: &str = "ttl = \"10d\"\nclock = [\"access\"]\nexclude = [\"*.keep\"]\nmax_fraction = 1.0";

fn put(path: PathBuf, bytes: usize, uid: u32, idle: i64) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![7; bytes]).unwrap();
    chown(&path, Some(uid), Some(uid)).unwrap();
    set_times(&path, now() - idle);
    path
}

fn config(root: &Path) -> Config {
    Config::new(root, "baseline = \"mtime\"").rule("ten", RULE)
}

/// Files of the days on which any expire: 0 is "already".
fn days(told: &Value) -> Vec<(usize, u64)> {
    let due = (0, number(told, "/due/files"));
    let days = told.pointer("/days").and_then(Value::as_array).unwrap();
    let rest = days.iter().enumerate().map(|(i, d)| (i + 1, number(d, "/files")));
    std::iter::once(due).chain(rest).filter(|(_, n)| *n > 0).collect()
}

#[test]
fn a_forecast_tells_on_which_day_files_expire_and_whose_they_are() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let file = |name: &str, uid, idle| put(root.join(name), 100, uid, idle);
    file("a/old", 50_001, 12 * DAY);
    file("a/old.keep", 50_001, 12 * DAY);
    file("a/soon", 50_001, 9 * DAY + 12 * HOUR);
    file("b/soon", 50_002, 9 * DAY + 12 * HOUR);
    let later = file("b/later", 50_002, 5 * DAY + 12 * HOUR);
    file("b/beyond", 50_002, DAY + 12 * HOUR);
    let agent = Agent::tracking(&config(&root));
    let ctl = agent.ctl();
    let told = |more: &[&str]| {
        let words = ["forecast", "--output", "json", "--days", "7"];
        ctl.run(words.iter().chain(more)).ok().json()
    };
    let all = told(&[]);
    assert_eq!(days(&all), [(0, 1), (1, 2), (5, 1)]);
    assert_eq!(all.pointer("/days").and_then(Value::as_array).unwrap().len(), 7);
    assert_eq!(
        number(&all, "/due/files"),
        number(&ctl.plan().json, "/candidates/files")
    );
    let by = |by: &str| -> Vec<(String, u64)> {
        let told = told(&["--by", by]);
        let rows = told
            .pointer("/subjects")
            .and_then(Value::as_array)
            .unwrap()
            .clone();
        let mut rows: Vec<_> = rows
            .iter()
            .map(|r| (text(r, "subject").to_owned(), number(r, "/files")))
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(by("user"), [("50001".into(), 2), ("50002".into(), 2)]);
    assert_eq!(by("directory"), [("a".into(), 2), ("b".into(), 2)]);
    // What is used stays.
    read(&later);
    assert_eq!(days(&told(&[])), [(0, 1), (1, 2)]);
    // Hours away from where a day ends, however slow the machine is.
    assert_eq!(
        days(&told(&["--rule", "ten", "--ttl", "82h"])),
        [(0, 3), (2, 1), (4, 1)]
    );
    let shown = ctl.run(["forecast"]).ok().text();
    assert!(shown.contains("already"), "{shown}");
    assert!(!shown.contains("growth"), "there is no limit: {shown}");
    let _ = ctl.run(["forecast", "--rule", "none"]).ends_with(1);
}

#[test]
fn a_forecast_tells_when_a_volume_and_its_users_reach_their_limits_and_what_would_go() {
    let mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let root = mount.path();
    (0..20).for_each(|i| {
        drop(put(
            root.join(format!("f{i:02}")),
            500_000,
            50_001,
            (50 - i) * DAY,
        ))
    });
    let watermark = "rule = \"ten\"\nhigh = \"90%\"\nlow = \"85%\"\nmin_age = \"5h\"";
    let quota = "name = \"user\"\nsubject = \"user\"\nhard = \"13MB\"\nlow = \"90%\"";
    let config = config(&root).table("watermark", watermark).table("quota", quota);
    let half_a_minute = [("PURGE_AGENT_GROWTH_SECONDS", Path::new("30"))];
    let agent = Agent::tracking_in(&config, None, &half_a_minute);
    let ctl = agent.ctl();
    let limits = || {
        let told = ctl.run(["forecast", "--output", "json"]).ok().json();
        told.pointer("/limits").and_then(Value::as_array).unwrap().clone()
    };
    // How fast it fills up is not known yet.
    let bytes_of = |limits: &[Value], limit: &str| {
        let found = limits
            .iter()
            .find(|l| text(l, "limit") == limit && text(l, "measure") == "bytes");
        found.cloned()
    };
    let first = bytes_of(&limits(), "watermark v").unwrap();
    assert!(first.pointer("/growth_per_day").unwrap().is_null(), "{first}");
    let shown = ctl.run(["forecast"]).ok().text();
    assert!(shown.contains("growth: not enough data yet"), "{shown}");
    let mut made = 0;
    until("the growth is known", Duration::from_secs(90), || {
        if made < 5 {
            made += 1;
            put(root.join(format!("new{made}")), 500_000, 50_001, 0);
        }
        std::thread::sleep(Duration::from_secs(2));
        let found = bytes_of(&limits(), "watermark v")?;
        (found.pointer("/growth_per_day")?.as_f64()? > 0.0).then_some(())
    });
    let all = limits();
    for limit in ["watermark v", "quota user"] {
        let row = bytes_of(&all, limit).unwrap_or_else(|| panic!("{limit}: {all:?}"));
        assert!(row.pointer("/reached_at").unwrap().is_string(), "{row}");
        assert!(number(&row, "/would_go/files") > 0, "{row}");
    }
    // 13 MB may be there and 90% is left: 1.3 MB go, three files of the oldest.
    let quota = bytes_of(&all, "quota user").unwrap();
    assert_eq!(text(&quota, "subject"), "50001");
    assert_eq!(number(&quota, "/would_go/files"), 3, "{quota}");
}

#[test]
fn owners_are_told_what_of_theirs_expires_and_find_names_it() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let file = |name: &str, uid, idle| put(root.join(name), 100, uid, idle);
    let old = file("a/run/old", 50_001, 12 * DAY);
    file("a/run/old.keep", 50_001, 12 * DAY);
    let soon = file("a/run/soon", 50_001, 8 * DAY);
    let other = file("a/other", 50_002, 8 * DAY);
    let second = file("b/soon", 50_001, 7 * DAY);
    file("b/later", 50_001, 2 * DAY);
    let agent = Agent::tracking(&config(&root));
    let ctl = agent.ctl();
    let mine = |user: &str, more: &[&str]| {
        let words = ["mine", "--output", "json", "--expiring", "5d", "--user", user];
        let told = ctl.run(words.iter().chain(more)).ok().json();
        let rows = told
            .pointer("/directories")
            .and_then(Value::as_array)
            .unwrap()
            .clone();
        let row = |r: &Value| {
            (
                purge_tests::ctl::path_of(r),
                number(r, "/files"),
                number(r, "/bytes"),
            )
        };
        (number(&told, "/files"), rows.iter().map(row).collect::<Vec<_>>())
    };
    let expected = vec![(root.join("a/run"), 2, 200), (root.join("b"), 1, 100)];
    assert_eq!(mine("50001", &[]), (3, expected));
    assert_eq!(mine("50001", &["--depth", "1"]).1[0], (root.join("a"), 2, 200));
    assert_eq!(mine("50002", &[]), (1, vec![(root.join("a"), 1, 100)]));
    assert_eq!(mine("50003", &[]), (0, vec![]));
    let found = |more: &[&str]| ctl.find(["--expiring", "5d"].iter().chain(more));
    let set = |paths: &[&PathBuf]| paths.iter().map(|p| (*p).clone()).collect();
    assert_same("find", &found(&[]), &set(&[&old, &soon, &other, &second]));
    assert_same("of one", &found(&["--user", "50002"]), &set(&[&other]));
    let lines = ctl
        .run(["find", "--expiring", "5d", "--sort", "age", "--output", "ndjson"])
        .ok()
        .lines();
    assert!(
        lines
            .iter()
            .all(|l| l.pointer("/expires_at").is_some_and(Value::is_string)),
        "{lines:?}"
    );
    // What is used or held goes from both.
    read(&soon);
    ctl.hold(&second, &[]);
    assert_eq!(mine("50001", &[]), (1, vec![(root.join("a/run"), 1, 100)]));
    assert_same("used and held", &found(&[]), &set(&[&old, &other]));
}
