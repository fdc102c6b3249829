//! Volumes that only scans watch: `collector = "scan"`.

use std::time::{Duration, SystemTime};

use purge_bench::far::{Atimes, Like};
use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, append, files_of_users, make, read};
use purge_tests::job::FarMount;
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Fs, Mount, need};

const RULE: &str = "ttl = \"30d\"\nclock = [\"access\"]\nremove_empty_dirs = false";

fn scanned(path: &std::path::Path, keys: &str, rule: &str) -> Config {
    Config::new(path, &format!("collector = \"scan\"\n{keys}")).rule("old", rule)
}

fn ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * 86_400)
}

fn volume(agent: &Agent, key: &str) -> String {
    let status = agent.status();
    serde_json::to_string(&status[key]).unwrap()
}

#[test]
fn a_scan_takes_access_times_over_and_a_run_asks_once_more() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("a"), 20);
    age_tree(&root);
    let agent = Agent::tracking(&scanned(&root, "", RULE));
    assert_eq!(volume(&agent, "collector"), "\"scan\"");
    assert_eq!(volume(&agent, "reads"), "\"at_scans\"");
    assert_eq!(volume(&agent, "guard"), "\"leases\"");
    let blind = volume(&agent, "blind");
    assert!(
        blind.contains("names") && blind.contains("between_looks"),
        "{blind}"
    );
    let ctl = agent.ctl();
    let doctor = ctl.run(["doctor"]).text();
    assert!(doctor.contains("names that change between two scans"), "{doctor}");

    // Used before a scan: it is in no plan.
    read(&files[0]);
    let _ = ctl.run(["rescan"]).ok();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 19);
    assert!(plan.json["blind"].to_string().contains("between_looks"));
    // Used after it: the run finds that.
    read(&files[1]);
    append(&files[2]);
    let run = ctl
        .run(["apply", &plan.id, "--yes", "--output", "json"])
        .ok()
        .json();
    let counts = tally(&plan, &run);
    assert_eq!(counts.deleted, 17, "{run}");
    assert_eq!(number(&run, "/skipped/accessed"), 1, "{run}");
    assert_eq!(number(&run, "/skipped/changed"), 1, "{run}");
    assert!(files[..3].iter().all(|file| file.exists()));
}

#[test]
fn what_other_hosts_may_use_needs_a_word_of_the_operator_and_a_grace_of_a_day() {
    let mount = need!(FarMount::new(Like::default()));
    for n in 0..30 {
        mount
            .far
            .make(&format!("d{}/f{n}", n % 3), 10, ago(if n < 20 { 40 } else { 2 }));
    }
    let root = mount.path();
    let mut agent = Agent::tracking(&scanned(&root, "", RULE));
    let refused = agent.ctl().run(["plan"]);
    assert_eq!(refused.code, 3, "{}", refused.text());
    assert!(
        refused.text().contains("sole_client = true"),
        "{}",
        refused.text()
    );
    let blind = volume(&agent, "blind");
    assert!(
        blind.contains("other_hosts") && blind.contains("bypass"),
        "{blind}"
    );

    agent.write_config(&scanned(&root, "sole_client = true", RULE));
    agent.restart();
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 20, "{}", plan.json);
    assert_eq!(text(&plan.json, "guard"), "grace");
    assert_eq!(number(&plan.json, "/grace_seconds"), 24 * 3600);
    read(&root.join("d0/f0"));
    let run = ctl
        .run(["apply", &plan.id, "--yes", "--no-grace", "--output", "json"])
        .ok()
        .json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.trashed, counts.deleted), (19, 0), "{run}");
    assert!(mount.far.has("d0/f0") && !mount.far.has("d1/f1"));
    let _ = ctl.run(["restore", text(&run, "run_id")]).ok();
    assert_eq!(
        files_of_users(&root).iter().filter(|path| path.is_file()).count(),
        30
    );
}

#[test]
fn a_rule_on_reads_is_refused_where_reads_leave_nothing() {
    let like = Like {
        atimes: Atimes::Off,
        ..Like::default()
    };
    let mount = need!(FarMount::new(like));
    for n in 0..10 {
        mount.far.make(&format!("f{n}"), 10, ago(40));
    }
    let root = mount.path();
    let changes = "ttl = \"30d\"\nclock = [\"modify\", \"change\"]\nremove_empty_dirs = false";
    let config = scanned(&root, "sole_client = true", RULE).rule("changes", changes);
    let agent = Agent::tracking(&config);
    assert_eq!(volume(&agent, "reads"), "\"unknown\"");
    let refused = agent.ctl().run(["plan", "--rule", "old"]);
    assert_eq!(refused.code, 3, "{}", refused.text());
    assert!(
        refused.text().contains("clock = [\"modify\", \"change\"]"),
        "{}",
        refused.text()
    );
    let plan = agent
        .ctl()
        .run(["plan", "--rule", "changes", "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&plan, "/candidates/files"), 10);
    let table = agent.ctl().run(["plan", "--rule", "changes"]).ok().text();
    assert!(table.contains("READS ARE NOT KNOWN"), "{table}");
}

#[test]
fn scans_follow_each_other_and_find_what_is_new() {
    let mount = need!(FarMount::new(Like::default()));
    mount.far.make("a/f", 10, ago(40));
    let agent = Agent::tracking(&scanned(&mount.path(), "", RULE));
    let files = || number(&agent.status(), "/files");
    assert_eq!(files(), 1);
    mount.far.make("a/g", 10, ago(40));
    let _ = agent.ctl().run(["rescan"]).ok();
    until("the new file", Duration::from_secs(10), || {
        (files() == 2).then_some(())
    });
    let check = agent.check();
    assert!(check.0, "{}", check.1);
    let config = Config::new(
        &mount.path(),
        "collector = \"scan\"\nignore_accessors = [ { comm = \"find\" } ]",
    );
    agent.write_config(&config);
    let check = agent.check();
    assert!(
        !check.0 && check.1.contains("ignore_accessors has no effect"),
        "{}",
        check.1
    );
}
