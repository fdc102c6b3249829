//! Rules that act by themselves.

use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, read, regular_files};
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Fs, Mount, need};

/// A cron expression is due to the minute.
const A_MINUTE_AND_MORE: Duration = Duration::from_secs(90);

#[test]
fn a_schedule_makes_plans_and_applies_them_only_where_it_is_told_to() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    let goes = make(&root.join("goes"), 20);
    make(&root.join("stays"), 20);
    age_tree(&root);
    let every_minute = |more: &str| {
        format!(
            "ttl = \"1h\"\nclock = [\"access\"]\nschedule = \"* * * * *\"\nremove_empty_dirs = false\n{more}"
        )
    };
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule(
            "goes",
            &every_minute("include = [\"/goes/**\"]\nauto_apply = true\nmax_fraction = 1.0"),
        )
        .rule("stays", &every_minute("include = [\"/stays/**\"]"));
    let agent = Agent::tracking(&config);
    read(&goes[3]);
    until("the scheduled run has ended", A_MINUTE_AND_MORE, || {
        let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
        let run = runs.into_iter().next()?;
        (text(&run, "state") != "running").then_some(run)
    });
    let left = regular_files(&root);
    assert!(left.contains(&goes[3]), "what was used stays");
    assert_eq!(
        left.len(),
        21,
        "what was not used is deleted where the rule applies itself: {left:?}"
    );
    let plans = agent.ctl().run(["plans", "--output", "ndjson"]).ok().lines();
    let only_planned = plans
        .iter()
        .find(|p| p["rules"][0] == "stays")
        .expect("a plan of the other rule");
    assert_eq!(number(only_planned, "/candidates/files"), 20);
}

#[test]
fn a_plan_that_applies_itself_is_seen_by_no_person_so_it_takes_a_quarter_at_most() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    make(&root.join("d"), 20);
    age_tree(&root);
    let agent = Agent::start(&Config::backdated_with(
        &root,
        "schedule = \"* * * * *\"\nauto_apply = true",
    ));
    agent.wait_until_tracking();
    let plan = until("the scheduled plan", A_MINUTE_AND_MORE, || {
        let plans = agent.ctl().run(["plans", "--output", "ndjson"]).ok().lines();
        plans.into_iter().next()
    });
    assert!(text(&plan, "refusal").contains("max_fraction 25%"), "{plan}");
    assert_eq!(regular_files(&root).len(), 20);
}
