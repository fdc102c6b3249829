//! Times that lie in the future, and directories that hold files of several owners.

use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Instant;

use purge_tests::ctl::{Plan, number, tally, text};
use purge_tests::files::{age_tree, make, make_one, now, set_times};
use purge_tests::wait::{LONG, until, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};

const YEAR: i64 = 365 * 86_400;
/// Seconds.
const TTL: u64 = 8;

/// Files with a time in the future expire a ttl after the agent saw them first, and not before.
#[test]
fn a_time_in_the_future_counts_as_now_once() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let before = make_one(&root.join("before"));
    set_times(&before, now() + YEAR);
    let clocks = [
        "[\"modify\"]",
        "[\"access\", \"modify\"]",
        "[\"modify\", \"change\"]",
    ];
    let config =
        clocks
            .iter()
            .enumerate()
            .fold(Config::new(&root, "baseline = \"auto\""), |config, (n, clock)| {
                let keys = format!("ttl = \"{TTL}s\"\nclock = {clock}\nremove_empty_dirs = false");
                config.rule(&format!("r{n}"), &keys)
            });
    let began = Instant::now();
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let later = make_one(&root.join("later"));
    set_times(&later, now() + 30 * YEAR);
    let taken = |plan: &Plan| ctl.show(plan).into_keys().collect::<BTreeSet<PathBuf>>();
    let early = taken(&ctl.plan());
    assert!(
        early.is_empty() || began.elapsed().as_secs() >= TTL,
        "seen just now: {early:?}"
    );
    until("the status counts both", LONG, || {
        let status = agent.status();
        (number(&status, "/times_ahead") == 2).then_some(())
    });
    let words = ctl.run(["status"]).ok().text();
    assert!(words.contains("2 files have a time in the future"), "{words}");
    let doctor = ctl.run(["doctor"]).text();
    assert!(
        doctor.contains("2 files have a modification, change or birth time"),
        "{doctor}"
    );
    let both: BTreeSet<PathBuf> = [&before, &later].map(Clone::clone).into();
    for (n, clock) in clocks.iter().enumerate() {
        let rule = format!("r{n}");
        until_same(clock, &both, || taken(&ctl.plan_with(["--rule", &rule])));
        let plan = ctl.plan_with(["--rule", &rule]);
        assert_eq!(number(&plan.json, "/times_ahead"), 2, "{}", plan.json);
        let told = ctl.explain(&later);
        assert!(
            text(&told["rules"][n], "because").contains("in the future"),
            "{told}"
        );
    }
    // One that is set right again is counted no more.
    set_times(&later, now());
    until("one is left", LONG, || {
        (number(&agent.status(), "/times_ahead") == 1).then_some(())
    });
}

#[test]
fn a_directory_that_holds_a_file_of_an_owner_out_of_scope_stays() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.path();
    let (alice, bob) = (4001, 4002);
    for (dir, deep) in [("pure", alice), ("mixed", bob)] {
        let files = make(&root.join(dir).join("sub"), 3);
        for path in files.iter().chain([&root.join(dir), &root.join(dir).join("sub")]) {
            chown(path, Some(alice), Some(alice)).unwrap();
        }
        chown(&files[1], Some(deep), Some(deep)).unwrap();
    }
    age_tree(&root);
    for scope in [
        "exclude_users = [\"4002\"]",
        "users = [\"4001\"]",
        "exclude_groups = [\"4002\"]",
        "groups = [\"4001\"]",
    ] {
        let keys =
            format!("target = \"directory\"\nttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1h\"\n{scope}");
        let agent = Agent::tracking(&Config::new(&root, "baseline = \"mtime\"").rule("dirs", &keys));
        let ctl = agent.ctl();
        let plan = ctl.plan();
        assert_eq!(ctl.candidates(), BTreeSet::from([root.join("pure")]), "{scope}");
        assert_eq!(number(&plan.json, "/kept/excluded"), 3, "{scope}");
        let run = ctl.apply(&plan).ok().json();
        tally(&plan, &run);
        assert!(root.join("mixed").exists() && !root.join("pure").exists());
        let _ = ctl.run(["restore", text(&run, "run_id")]).ok();
        age_tree(&root.join("pure"));
    }
}
