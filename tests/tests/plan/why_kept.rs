//! Why files stay: each for its true reason, and together with what goes they are all files of the volume.

use std::os::unix::fs::chown;
use std::path::Path;

use purge_tests::ctl::{Ctl, number, text};
use purge_tests::files::{age, age_tree, make, read};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// What a plan's JSON says of why files stay, and that all files are counted once.
fn kept(plan: &Value, reason: &str) -> u64 {
    let all = plan["kept"].as_object().unwrap().values();
    let stays: u64 = all.filter_map(Value::as_u64).sum();
    let candidates = number(plan, "/candidates/files");
    let inside = plan["candidates"]["files_inside"].as_u64().unwrap_or_default();
    let files = number(plan, "/index_files");
    if inside > 0 || number(plan, "/candidates/directories") == 0 {
        assert_eq!(stays + candidates + inside, files, "{plan}");
    }
    number(plan, &format!("/kept/{reason}"))
}

fn plan(ctl: &Ctl, arguments: &[&str]) -> Value {
    let all = ["plan", "--output", "json"].iter().chain(arguments);
    ctl.run(all.copied().collect::<Vec<_>>()).ok().json()
}

/// `USER/PROJECT/JOB`, with two files in each job.
fn jobs(root: &Path) {
    for job in 0..6 {
        make(&root.join(format!("user{}/project/job{job}", job % 2)), 2);
    }
    age_tree(root);
}

const DIRECTORIES: &str = "target = \"directory\"\nttl = \"1h\"\nclock = [\"access\"]\n";

#[test]
fn a_scope_that_matches_nothing_is_told_with_what_lies_near() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    jobs(&root);
    let rule = |name: &str, keys: &str| (name.to_owned(), format!("{DIRECTORIES}{keys}"));
    let mut config = Config::new(&root, "baseline = \"mtime\"");
    for (name, keys) in [
        rule("deep", "depth = 5"),
        rule("elsewhere", "depth = 3\ninclude = [\"/nothing/**\"]"),
    ] {
        config = config.rule(&name, &keys);
    }
    let agent = Agent::tracking(&config);
    let found = plan(&agent.ctl(), &[]);
    assert_eq!(kept(&found, "out_of_scope"), 12, "{found}");
    assert_eq!(kept(&found, "young"), 0);
    let remark = |n: usize| text(&found["rule_totals"][n], "remark").to_owned();
    assert_eq!(
        remark(0),
        "scope matches 0 directories at depth 5; 6 lie at depth 3"
    );
    assert_eq!(remark(1), "scope matches 0 directories at depth 3");
    let table = agent.ctl().run(["plan"]).ok().text();
    assert!(
        table.contains("deep: scope matches 0 directories at depth 5; 6 lie at depth 3"),
        "{table}"
    );
    assert!(table.contains("12  out of scope"), "{table}");
}

#[test]
fn what_others_have_and_what_need_not_go_is_told_of_a_quota_and_a_watermark() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let (alice, bob) = (4001, 4002);
    for (owner, files) in [(alice, 10), (bob, 4)] {
        for file in make(&root.join(owner.to_string()), files) {
            std::fs::write(&file, [b'x'; 1000]).unwrap();
            chown(&file, Some(owner), Some(owner)).unwrap();
        }
    }
    age_tree(&root);
    let config = Config::backdated_with(&root, "remove_empty_dirs = false").tables(
        "[[quota]]\nname = \"user\"\nvolume = \"v\"\nsubject = \"user\"\nhard = \"5000B\"\naction = \"purge\"\nlow = \"80%\"\n\
         rule = \"old\"\n[[watermark]]\nvolume = \"v\"\nhigh = \"95%\"\nlow = \"90%\"\nrule = \"old\"\nmin_age = \"1h\"\n",
    );
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let quota = plan(&ctl, &["--quota", "user"]);
    assert_eq!(number(&quota, "/candidates/files"), 6, "{quota}");
    assert_eq!(kept(&quota, "other_subjects"), 4, "{quota}");
    assert_eq!(kept(&quota, "not_needed"), 4, "{quota}");
    assert_eq!(
        (kept(&quota, "excluded"), kept(&quota, "limit")),
        (0, 0),
        "{quota}"
    );
    let watermark = plan(&ctl, &["--watermark"]);
    assert_eq!(kept(&watermark, "not_needed"), 14, "{watermark}");
}

#[test]
fn what_waits_for_a_list_is_told_with_when_it_may_go() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "announce = \"14d\""));
    read(&files[0]);
    let found = plan(&agent.ctl(), &[]);
    assert_eq!(kept(&found, "announced"), 4, "{found}");
    assert_eq!(kept(&found, "young"), 1, "{found}");
    assert!(text(&found["kept"], "ripe_from").starts_with("20"), "{found}");
    let table = agent.ctl().run(["plan"]).ok().text();
    assert!(table.contains("4  announced, ripe "), "{table}");
}

#[test]
fn every_kind_of_plan_counts_every_file_once() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    jobs(&root);
    for file in make(&root.join("loose"), 3) {
        age(&file);
    }
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule(
            "jobs",
            &format!("{DIRECTORIES}depth = 3\nexclude = [\"user0/project/job2/**\"]"),
        )
        .rule(
            "files",
            "ttl = \"1h\"\nclock = [\"access\"]\nusers = [\"root\"]\nexclude = [\"loose/f000001\"]",
        );
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    ctl.hold(&root.join("user1/project/job1"), &[]);
    for arguments in [
        &["--rule", "jobs"][..],
        &["--rule", "files"],
        &[],
        &["--ttl", "30d"],
        &["--ttl", "1h"],
    ] {
        let found = plan(&ctl, arguments);
        kept(&found, "young");
    }
}
