//! Rules that overlap: every answer agrees with what the plan takes.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, path_of, text};
use purge_tests::files::{age_tree, make, read};
use purge_tests::notices::{events, notices, until_told};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};
use serde_json::Value;

const ALICE: u32 = 4301;

/// Two jobs of Alice's that are old, one of which something was used lately in, and loose files beside them.
fn volume(root: &Path) -> [Vec<PathBuf>; 3] {
    let all = ["alice/old", "alice/used", "alice"].map(|dir| make(&root.join(dir), 3));
    let dirs = ["alice/old", "alice/used", "alice"].map(|dir| root.join(dir));
    for path in all.iter().flatten().chain(&dirs) {
        chown(path, Some(ALICE), Some(ALICE)).unwrap();
    }
    age_tree(root);
    all
}

/// A file rule and a directory rule, in this order, and one that takes nothing of Alice's.
fn config(root: &Path) -> Config {
    Config::new(root, "baseline = \"mtime\"")
        .rule(
            "files",
            "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false",
        )
        .rule(
            "jobs",
            "target = \"directory\"\ndepth = 2\nttl = \"1h\"\nclock = [\"access\"]",
        )
        .rule(
            "elsewhere",
            "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false\ninclude = [\"/bob/**\"]",
        )
}

fn json(ctl: &Ctl, words: &[&str]) -> Value {
    let more = ["--output", "json"];
    ctl.run(words.iter().chain(&more)).ok().json()
}

fn verdict(ctl: &Ctl, path: &Path, rule: &str) -> Value {
    let told = ctl.explain(path);
    let all = told["rules"].as_array().unwrap();
    all.iter().find(|r| text(r, "name") == rule).unwrap().clone()
}

#[test]
fn five_answers_agree_with_the_plan_where_a_directory_takes_its_files_along() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let [old, used, loose] = volume(&root);
    let agent = Agent::tracking(&config(&root));
    let ctl = agent.ctl();
    read(&used[0]);

    // The job goes as a whole; of the other what is old, by the file rule, and the loose files.
    let plan = json(&ctl, &["plan"]);
    assert_eq!(number(&plan, "/candidates/directories"), 1, "{plan}");
    assert_eq!(number(&plan, "/candidates/files"), 5, "{plan}");
    let files = &plan["rule_totals"][0];
    assert_eq!(number(files, "/goes_with/0/files"), 3, "{plan}");
    assert_eq!(text(&files["goes_with"][0], "rule"), "jobs");
    let table = ctl.run(["plan"]).ok().text();
    assert!(
        table.contains("files: 3 files, taken with their directories by jobs"),
        "{table}"
    );

    // explain: the directory's rule and date, and the file rule says by which it goes.
    let jobs = verdict(&ctl, &old[0], "jobs");
    assert_eq!(jobs["matches"], true, "{jobs}");
    assert_eq!(
        jobs["expires_at"],
        verdict(&ctl, &root.join("alice/old"), "jobs")["expires_at"]
    );
    assert!(text(&jobs, "because").contains("goes with alice/old"), "{jobs}");
    let by_file = verdict(&ctl, &old[0], "files");
    assert!(text(&by_file, "because").contains("by rule jobs"), "{by_file}");
    // Nothing takes the file that was used, and its directory stays with it.
    let young = verdict(&ctl, &used[0], "jobs");
    assert!(text(&young, "because").contains("young"), "{young}");

    // find: the files in the directory as well.
    let found = ctl
        .run(["find", "--expiring", "1s", "--type", "f", "--output", "ndjson"])
        .ok()
        .lines();
    let mut found: Vec<PathBuf> = found.iter().map(path_of).collect();
    found.sort();
    let mut expected: Vec<PathBuf> = old.iter().chain(&used[1..]).chain(&loose).cloned().collect();
    expected.sort();
    assert_eq!(found, expected);

    // mine and forecast: each of them once.
    let mine = json(&ctl, &["mine", "--user", &ALICE.to_string(), "--expiring", "1s"]);
    assert_eq!(number(&mine, "/files"), 8, "{mine}");
    let rules = mine["rules"].as_array().unwrap().iter();
    let rules: Vec<&str> = rules.map(|r| text(r, "rule")).collect();
    assert_eq!(rules, ["files", "jobs"], "only what takes something of hers");
    let forecast = json(&ctl, &["forecast", "--days", "1"]);
    assert_eq!(number(&forecast, "/due/files"), 8, "{forecast}");
}

#[test]
fn one_thing_has_one_notice() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let [_, _, loose] = volume(&root);
    loose.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let config = config(&root).notifying("warn_before = \"7d\"\nexec = { command = [\"/bin/true\"] }");
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    // The file rule comes first, and all that it would take goes with the jobs.
    until_told(&ctl, &["will-expire 4301"]);
    let events: Vec<Value> = notices(&ctl, &[]).iter().flat_map(events).collect();
    let ids: Vec<&str> = events.iter().map(|e| text(e, "event_id")).collect();
    assert_eq!(ids, ["will-expire/v/jobs/4301/1"], "{events:?}");
}
