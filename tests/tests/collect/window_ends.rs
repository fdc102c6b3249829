//! The end of a precision window under load, where each directory is marked by itself and so each mark that hides is taken away by itself: no
//! use after it is missed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::let_pass;
use purge_tests::ways::Way;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// `PURGE_TESTS_LONG=1`: of 100,000 files each is opened for the last time at a moment of its own, and about as many windows end meanwhile as in
/// the short form.
fn files_wanted() -> usize {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => 100_000,
        false => 4_000,
    }
}

fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Opens all of them again and again, each until a moment of its own. When each was opened last, and how many opens that were.
fn opened_until(files: &[PathBuf], lasts: Duration) -> (BTreeMap<&Path, u64>, u64) {
    let (began, count) = (Instant::now(), files.len());
    let ends = |n: usize| lasts.mul_f64((n * 7919 % count) as f64 / count as f64);
    let mut left: Vec<(&PathBuf, Duration)> = files.iter().zip((0..).map(ends)).collect();
    let (mut last, mut opens) = (BTreeMap::new(), 0);
    while !left.is_empty() {
        for (file, _) in &left {
            let at = seconds();
            read(file);
            last.insert(file.as_path(), at);
            opens += 1;
        }
        left.retain(|(_, end)| *end > began.elapsed());
    }
    (last, opens)
}

/// What the agent says of the last use of each file.
fn known(agent: &Agent, root: &Path) -> BTreeMap<PathBuf, String> {
    let root = root.to_str().unwrap();
    let found = agent
        .ctl()
        .run(["--output", "ndjson", "find", root, "--type", "f"])
        .ok()
        .text();
    let entry = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        (PathBuf::from(text("path")), text("last_access"))
    };
    found.lines().filter(|line| !line.is_empty()).map(entry).collect()
}

fn as_text(seconds: u64) -> String {
    let mut date = Command::new("date");
    let text = sh(date.args(["-u", "+%FT%TZ", "-d", &format!("@{seconds}")])).unwrap();
    text.trim().to_owned()
}

#[test]
fn no_open_is_missed_when_windows_end() {
    for way in [Way::Directories, Way::FileSystem] {
        let wanted = files_wanted();
        let mount = need!(Mount::sized(Fs::Ext4, 512, 120_000));
        let root = mount.path();
        let mut files = Vec::new();
        for dir in 0..100 {
            files.extend(make(&root.join(format!("d{dir}")), wanted / 100));
        }
        age_tree(&root);
        let config = Config::new(&root, "baseline = \"mtime\"\nprecision = \"2s\"");
        let agent = way.tracking(&config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]"));
        let parts: Vec<&[PathBuf]> = files.chunks(files.len().div_ceil(2)).collect();
        let lasts = Duration::from_secs(9);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .iter()
                .map(|part| scope.spawn(move || opened_until(part, lasts)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let opens: u64 = opened.iter().map(|(_, opens)| opens).sum();
        let hidden = number(&agent.status(), "/ignore_marks");
        // The last window ends, and what it hid is known as used at its end.
        let_pass(3);
        let _ = agent.ctl().plan();
        let known = known(&agent, &root);
        let mut missed = Vec::new();
        let mut texts: BTreeMap<u64, String> = BTreeMap::new();
        for (file, at) in opened.iter().flat_map(|(last, _)| last) {
            let at = texts.entry(*at).or_insert_with(|| as_text(*at));
            let said = known.get(*file).map_or("", String::as_str);
            // All are of one form, so that they sort as they follow each other.
            if said < at.as_str() {
                missed.push(format!("{}: {said}, opened at {at}", file.display()));
            }
        }
        println!(
            "{}: {} of {} files missed after {opens} opens, {hidden} hidden at the end",
            way.name(),
            missed.len(),
            files.len()
        );
        assert!(opens > files.len() as u64 * 2, "{opens} opens are no load");
        assert!(texts.len() > 4, "the last opens lie in {} seconds", texts.len());
        assert!(
            missed.is_empty(),
            "{way:?}: {:?}",
            missed.get(..10).unwrap_or(&missed)
        );
    }
}
