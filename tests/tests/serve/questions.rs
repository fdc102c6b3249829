//! What can be asked: explain, find, usage, status.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, path_of, text};
use purge_tests::files::{
    age_tree, assert_same, files_and_directories, make, make_one, read, regular_files, walk,
};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// Files and bytes; a file with several names once.
type Totals = (u64, u64);

fn rows(answer: &purge_tests::Answer) -> BTreeMap<String, Totals> {
    let of = |row: &Value| (number(row, "/files"), number(row, "/bytes"));
    answer
        .lines()
        .iter()
        .map(|row| (text(row, "subject").to_owned(), of(row)))
        .collect()
}

/// A tree with several owners, sizes and depths.
fn make_various(root: &Path) {
    for (d, dir) in [
        "",
        "alice",
        "alice/results/2024",
        "bob",
        "bob/tmp",
        "empty-here/below",
    ]
    .iter()
    .enumerate()
    {
        for (i, file) in make(&root.join(dir), 7 + d).iter().enumerate() {
            let bytes = 1000 * (i as u64) + d as u64;
            fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(bytes)
                .unwrap();
            let (uid, gid) = ((i % 3) as u32 * 1000 + 40_000, (i % 2) as u32 + 50_000);
            chown(file, Some(uid), Some(gid)).unwrap();
        }
    }
    fs::hard_link(root.join("alice/f000003"), root.join("alice/second-name")).unwrap();
}

#[test]
fn usage_equals_a_naive_walk() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make_various(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let differ = |by: &str, subject: &dyn Fn(&Path, &fs::Metadata) -> String, more: &[&str]| {
        let mut naive: BTreeMap<String, Totals> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for entry in walk(&root).iter().filter(|e| e.stat.is_file()) {
            if seen.insert(entry.stat.ino()) {
                let relative = entry.path.strip_prefix(&root).unwrap();
                let total = naive.entry(subject(relative, &entry.stat)).or_default();
                *total = (total.0 + 1, total.1 + entry.stat.len());
            }
        }
        let words = ["usage", "--by", by, "--output", "ndjson"]
            .into_iter()
            .chain(more.iter().copied());
        let told = rows(&ctl.run(words).ok());
        (told != naive).then(|| format!("by {by} {more:?}: told {told:?}, walked {naive:?}"))
    };
    let compare = |by: &str, subject: &dyn Fn(&Path, &fs::Metadata) -> String, more: &[&str]| {
        assert_eq!(differ(by, subject, more), None);
    };
    compare("user", &|_, s| s.uid().to_string(), &[]);
    compare("group", &|_, s| s.gid().to_string(), &[]);
    let above = |p: &Path, depth: usize| {
        let dir: PathBuf = p.parent().unwrap().components().take(depth).collect();
        if dir.as_os_str().is_empty() {
            ".".to_owned()
        } else {
            dir.to_str().unwrap().to_owned()
        }
    };
    compare("directory", &|p, _| above(p, 1), &[]);
    compare("directory", &|p, _| above(p, 2), &["--depth", "2"]);

    // And it follows.
    for file in make(&root.join("bob/new"), 5) {
        chown(&file, Some(40_000), Some(50_000)).unwrap();
    }
    fs::remove_dir_all(root.join("alice/results")).unwrap();
    fs::rename(root.join("bob/tmp"), root.join("tmp")).unwrap();
    chown(root.join("f000000"), Some(40_000), Some(50_001)).unwrap();
    // Attributes are read again a moment after the event.
    until("the owners are right", SOON, || {
        let differs = differ("user", &|_, s| s.uid().to_string(), &[]);
        differs.is_none().then_some(())
    });
    compare("group", &|_, s| s.gid().to_string(), &[]);
    compare("directory", &|p, _| above(p, 1), &[]);
}

#[test]
fn status_counts_files_directories_and_bytes() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    make_various(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let status = agent.status();
    let files: BTreeMap<u64, u64> = walk(&root)
        .iter()
        .filter(|e| e.stat.is_file())
        .map(|e| (e.stat.ino(), e.stat.len()))
        .collect();
    assert_eq!(number(&status, "/files"), files.len() as u64);
    assert_eq!(number(&status, "/bytes"), files.values().sum::<u64>());
    let directories = walk(&root).iter().filter(|e| e.stat.is_dir()).count() as u64;
    let counted = number(&status, "/directories");
    assert!(
        counted == directories || counted == directories + 1,
        "{counted}, with or without the root {directories}"
    );
    assert_eq!(text(&status, "collector"), "fanotify");
    assert_eq!(Path::new(text(&status, "path")), root);
    assert_eq!(number(&status, "/events_lost_total"), 0);
    let seen = number(&status, "/events_total");
    regular_files(&root).iter().for_each(|f| read(f));
    until("the events are counted", SOON, || {
        (number(&agent.status(), "/events_total") >= seen + files.len() as u64).then_some(())
    });
}

#[test]
fn find_answers_from_the_index_what_find_answers_from_the_disk() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make_various(&root);
    make_one(&root.join("bob/report.tmp"));
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let naive = |keep: &dyn Fn(&Path, &fs::Metadata) -> bool| -> BTreeSet<PathBuf> {
        let all = walk(&root)
            .into_iter()
            .filter(|e| e.stat.is_file() || e.stat.is_dir());
        all.filter(|e| keep(&e.path, &e.stat)).map(|e| e.path).collect()
    };
    let mut found = ctl.find::<&str>([]);
    found.remove(&root);
    assert_same("everything", &found, &files_and_directories(&root));
    let file = |s: &fs::Metadata| s.is_file();
    assert_same("--type f", &ctl.find(["--type", "f"]), &naive(&|_, s| file(s)));
    let mut directories = ctl.find(["--type", "d"]);
    directories.remove(&root);
    assert_same("--type d", &directories, &naive(&|_, s| s.is_dir()));
    let sized = |more: &[&str]| ctl.find(["--type", "f"].iter().chain(more));
    assert_same(
        "--min-size",
        &sized(&["--min-size", "5kB"]),
        &naive(&|_, s| file(s) && s.len() >= 5000),
    );
    assert_same(
        "--max-size",
        &sized(&["--max-size", "2001B"]),
        &naive(&|_, s| file(s) && s.len() <= 2001),
    );
    assert_same(
        "--user",
        &sized(&["--user", "41000"]),
        &naive(&|_, s| file(s) && s.uid() == 41_000),
    );
    assert_same(
        "--group",
        &sized(&["--group", "50001"]),
        &naive(&|_, s| file(s) && s.gid() == 50_001),
    );
    assert_same(
        "--name",
        &ctl.find(["--name", "*.tmp"]),
        &naive(&|p, _| p.ends_with("report.tmp")),
    );
    let below = root.join("alice");
    let mut found = ctl.find([below.as_os_str()]);
    found.remove(&below);
    assert_same("below a path", &found, &files_and_directories(&below));
    let several = sized(&["--user", "40000", "--min-size", "3kB", "--name", "f*"]);
    assert_same(
        "all at once",
        &several,
        &naive(&|p, s| {
            let named = p
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('f'));
            named && file(s) && s.uid() == 40_000 && s.len() >= 3000
        }),
    );

    let json = ctl
        .run(["find", "--type", "f", "--output", "ndjson"])
        .ok()
        .lines();
    assert_same(
        "as JSON",
        &json.iter().map(path_of).collect(),
        &regular_files(&root),
    );
    let one = json
        .iter()
        .find(|e| path_of(e) == root.join("bob/f000002"))
        .unwrap();
    assert_eq!(number(one, "/bytes"), 2003);
    assert_eq!(text(one, "kind"), "file");
}

#[test]
fn find_tells_old_from_young() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 30);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    // Of all clocks: the test has just made them.
    let_pass(5);
    let (young, old) = files.split_at(10);
    young.iter().for_each(|f| read(f));
    let only = |list: &[PathBuf]| list.iter().cloned().collect::<BTreeSet<_>>();
    assert_same("--older", &ctl.find(["--type", "f", "--older", "3s"]), &only(old));
    assert_same(
        "--newer",
        &ctl.find(["--type", "f", "--newer", "4s"]),
        &only(young),
    );
}

#[test]
fn find_0_gives_paths_as_they_are() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make_one(&root.join("with\nnewline"));
    make_one(&root.join(std::ffi::OsStr::from_bytes(b"no-utf8-\xff\xfe")));
    let agent = Agent::tracking(&Config::backdated(&root));
    assert_same(
        "raw bytes",
        &agent.ctl().find(["--type", "f"]),
        &regular_files(&root),
    );
}

#[test]
fn explain_says_who_used_a_file_last_and_what_each_rule_makes_of_it() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let files = make(&root.join("d"), 5);
    age_tree(&root);
    let base = "ttl = \"1h\"\nclock = [\"access\"]";
    let config = Config::backdated(&root)
        .rule("elsewhere", &format!("{base}\ninclude = [\"e/**\"]"))
        .rule("not-d", &format!("{base}\nexclude = [\"d/**\"]"));
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let verdict = |json: &Value, name: &str| -> Value {
        let rules = json.get("rules").and_then(Value::as_array).unwrap();
        rules
            .iter()
            .find(|r| text(r, "name") == name)
            .unwrap_or_else(|| panic!("{name} in {json}"))
            .clone()
    };
    let matches = |json: &Value, name: &str| {
        verdict(json, name)
            .get("matches")
            .and_then(Value::as_bool)
            .unwrap()
    };

    let unused = ctl.explain(&files[0]);
    assert_eq!(path_of(&unused), files[0]);
    assert_eq!(
        (
            text(&unused, "kind"),
            number(&unused, "/bytes"),
            text(&unused, "owner")
        ),
        ("file", 20, "root")
    );
    assert!(
        text(&unused, "coverage_since").ends_with('Z'),
        "RFC 3339 UTC: {unused}"
    );
    assert!(
        matches(&unused, "old") && !matches(&unused, "elsewhere") && !matches(&unused, "not-d"),
        "{unused}"
    );
    assert!(
        text(&verdict(&unused, "not-d"), "because").contains("d/**"),
        "names the pattern: {unused}"
    );
    let expired_at = text(&verdict(&unused, "old"), "expires_at").to_owned();

    read(&files[0]);
    let used = ctl.explain(&files[0]);
    assert_eq!(text(&used, "source"), "observed", "{used}");
    assert!(
        text(&verdict(&used, "old"), "expires_at") > expired_at.as_str(),
        "later than before: {used}"
    );
    assert!(text(&used, "last_access") >= text(&unused, "last_access"));

    let nowhere = ctl.run(["explain", "/no/such/volume/file"]).ends_with(1);
    assert!(
        nowhere.stderr.contains("/no/such/volume/file"),
        "{}",
        nowhere.stderr
    );
    let nothing = root.join("d/no-such-file");
    let _ = ctl
        .run([std::ffi::OsStr::new("explain"), nothing.as_os_str()])
        .ends_with(1);
}

#[test]
fn show_sorts_and_limits() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 30);
    for (i, file) in files.iter().enumerate() {
        fs::File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_len((i as u64 * 7) % 30)
            .unwrap();
        purge_tests::files::set_times(file, 1_000_000_000 + 1000 * ((i as i64 * 11) % 30));
    }
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let show = |sort: &str| {
        ctl.run([
            "show", &plan.id, "--sort", sort, "--limit", "10", "--output", "ndjson",
        ])
        .ok()
        .lines()
    };
    let ages: Vec<u64> = show("age").iter().map(|c| number(c, "/age_seconds")).collect();
    assert!(
        ages.len() == 10 && ages.is_sorted_by(|a, b| a > b),
        "oldest first: {ages:?}"
    );
    let sizes: Vec<u64> = show("size").iter().map(|c| number(c, "/bytes")).collect();
    assert_eq!(sizes, (20..30).rev().collect::<Vec<_>>(), "largest first");
    let paths: Vec<PathBuf> = show("path").iter().map(path_of).collect();
    assert_eq!(paths, files[..10], "by path");
}
