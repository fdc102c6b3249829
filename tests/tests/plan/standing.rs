//! How it stands: what subjects of quotas use, how full a volume is, and what runs when.

use std::os::unix::fs::chown;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

fn config(root: &std::path::Path) -> Config {
    let keys = "schedule = \"hourly\"\nauto_apply = true\nannounce = \"14d\"\nmax_fraction = 1.0";
    Config::backdated_with(root, keys)
        .table(
            "quota",
            "name = \"user\"\nsubject = \"user\"\nhard = \"5000B\"\nrule = \"old\"",
        )
        .table(
            "watermark",
            "rule = \"old\"\nhigh = \"95%\"\nlow = \"90%\"\nmin_age = \"1h\"",
        )
}

#[test]
fn quota_names_every_subject_and_who_is_over() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for (owner, files) in [(4401, 8), (4402, 2)] {
        for file in make(&root.join(owner.to_string()), files) {
            std::fs::write(&file, [b'x'; 1000]).unwrap();
            chown(&file, Some(owner), Some(owner)).unwrap();
        }
    }
    age_tree(&root);
    let agent = Agent::tracking(&config(&root));
    let ctl = agent.ctl();
    let told = ctl.run(["quota", "user", "--output", "json"]).ok().json();
    let all = told.as_array().unwrap();
    let of = |owner: &str| all.iter().find(|u| text(u, "subject") == owner).unwrap();
    assert_eq!(of("4401")["over"], true, "{told}");
    assert_eq!(of("4402")["over"], false, "{told}");
    assert_eq!(number(of("4402"), "/files"), 2);
    assert_eq!(of("4402")["share"].as_f64(), Some(0.4), "{told}");
    assert_eq!(
        text(&all[0], "subject"),
        "4401",
        "those who use most of theirs come first"
    );
    let table = ctl.run(["quota"]).ok().text();
    assert!(table.contains("160%") && table.contains("40%"), "{table}");
    let wrong = ctl.run(["quota", "none"]).ends_with(1).text();
    assert!(wrong.contains("there are [user]"), "{wrong}");
}

#[test]
fn a_watermarks_plan_says_how_full_the_volume_is_also_when_nothing_goes() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&config(&root));
    let table = agent.ctl().run(["plan", "--watermark"]).ok().text();
    assert!(table.contains("Nothing to purge"), "{table}");
    assert!(
        table.contains("% of the space") && table.contains("high 95"),
        "{table}"
    );
}

#[test]
fn schedule_lists_what_the_agent_does_by_itself_and_when() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 3);
    let agent = Agent::tracking(&config(&root).rule("asked", "ttl = \"30d\""));
    let ctl = agent.ctl();
    let told = ctl.run(["schedule", "--output", "json"]).ok().json();
    let of = |what: &str, name: &str| {
        let found = told
            .as_array()
            .unwrap()
            .iter()
            .find(|a| text(a, "what") == what && text(a, "name") == name);
        found.unwrap_or_else(|| panic!("{what} {name}: {told}")).clone()
    };
    let is_set = |act: &Value| act["next_at"].is_string();
    let hourly = of("purge", "old");
    assert!(is_set(&hourly) && text(&hourly, "schedule") == "hourly", "{told}");
    assert!(text(&hourly, "next_at").ends_with(":00:00Z"), "{told}");
    assert!(
        is_set(&of("announce", "old")) && is_set(&of("quota", "user")) && is_set(&of("watermark", "v")),
        "{told}"
    );
    assert!(!is_set(&of("plan", "asked")), "{told}");
    assert!(ctl.run(["schedule"]).ok().text().contains("on request"));
}
