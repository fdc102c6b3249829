//! `purgectl doctor` and `purgectl config show`: what an operator asks first when something is not as it should be.

use std::path::Path;

use purge_tests::ctl::text;
use purge_tests::files::{make, temp_dir};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

fn findings(agent: &Agent) -> Vec<Value> {
    let report = agent.ctl().run(["doctor", "--output", "json"]).json();
    report.get("findings").and_then(Value::as_array).unwrap().clone()
}

fn finding<'a>(all: &'a [Value], check: &str) -> &'a Value {
    let found = all.iter().find(|f| text(f, "check") == check);
    found.unwrap_or_else(|| panic!("no {check} in {all:#?}"))
}

#[test]
fn the_doctor_finds_nothing_bad_where_all_is_well() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    let all = findings(&agent);
    for check in [
        "collector",
        "filesystem",
        "guard",
        "coverage",
        "kernel",
        "capabilities",
        "files",
        "inotify",
        "leases",
        "fd-store",
        "state",
        "nfs",
    ] {
        let f = finding(&all, check);
        assert_ne!(text(f, "verdict"), "bad", "{f}");
        assert!(!text(f, "found").is_empty());
        assert_eq!(
            text(f, "cure").is_empty(),
            text(f, "verdict") == "good",
            "a cure, and only where one is needed: {f}"
        );
    }
    assert_eq!(text(finding(&all, "guard"), "verdict"), "good");
    assert_eq!(text(finding(&all, "guard"), "volume"), "v");
    assert_eq!(
        text(finding(&all, "fd-store"), "verdict"),
        "note",
        "not by systemd"
    );
    let said = agent.ctl().run(["doctor"]).ok();
    assert!(said.text().contains("Nothing is bad."), "{}", said.text());
}

#[test]
fn every_degraded_state_names_the_doctor_who_says_what_to_do() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    mount.unmount();
    let reason = agent.wait_until_degraded();
    assert!(reason.contains("purgectl doctor"), "{reason}");
    // What follows from it may be found before it is.
    until("it is known to be unmounted", SOON, || {
        findings(&agent)
            .iter()
            .any(|f| text(f, "check") == "mount")
            .then_some(())
    });
    let report = agent
        .ctl()
        .run(["doctor", "--output", "json"])
        .ends_with(1)
        .json();
    assert_eq!(text(&report, "worst"), "bad");
    let all = findings(&agent);
    let f = finding(&all, "mount");
    assert_eq!(text(f, "verdict"), "bad");
    let cure = text(f, "cure");
    let at = format!("mount it again at {}", mount.path().display());
    assert!(
        cure.contains(&at) && cure.contains("purgectl volume reset v"),
        "{f}"
    );
    // What lies there now is another file system, and nothing is observed.
    let of_volume: Vec<&Value> = all.iter().filter(|f| text(f, "volume") == "v").collect();
    let good = of_volume.iter().filter(|f| text(f, "verdict") == "good");
    assert_eq!(good.count(), 0, "{of_volume:#?}");
    assert!(text(finding(&all, "coverage"), "found").contains("nothing is observed now"));
}

fn values(agent: &Agent) -> Vec<Value> {
    let answer = agent.ctl().run(["config", "show", "--output", "json"]).ok();
    answer.json().as_array().unwrap().clone()
}

fn value(agent: &Agent, key: &str) -> (String, String, Option<String>) {
    let all = values(agent);
    let found = all.iter().find(|v| text(v, "key") == key);
    let v = found.unwrap_or_else(|| panic!("no {key} in {all:#?}"));
    let pending = v.get("pending").and_then(Value::as_str).map(str::to_owned);
    (text(v, "value").to_owned(), text(v, "origin").to_owned(), pending)
}

#[test]
fn every_value_in_force_is_shown_with_its_place() {
    let mount = need!(Mount::new(Fs::Ext4));
    let elsewhere = temp_dir();
    let log = elsewhere.path().join("audit.jsonl");
    let config = |ttl: &str, precision: &str| {
        Config::new(&mount.path(), &format!("precision = \"{precision}\""))
            .rule("r", &format!("ttl = \"{ttl}\""))
    };
    let variables: [(&str, &Path); 1] = [("PURGE_AGENT_AUDIT_LOG", &log)];
    let agent = Agent::tracking_in(&config("28d", "5m"), None, &variables);
    let file = agent.config_file();
    let place_of = |key: &str, word: &str| {
        let content = std::fs::read_to_string(&file).unwrap();
        let line = content.lines().position(|l| l.starts_with(key)).unwrap();
        assert!(content.lines().nth(line).unwrap().contains(word));
        format!("{}:{}:", file.display(), line + 1)
    };
    let (ttl, origin, _) = value(&agent, "rule.r.ttl");
    assert_eq!(ttl, "\"28d\"");
    assert!(origin.starts_with(&place_of("ttl", "28d")), "{origin}");
    assert_eq!(value(&agent, "volume.v.sweep_interval").1, "default");
    assert_eq!(
        value(&agent, "audit_log"),
        (
            format!("\"{}\"", log.display()),
            "environment PURGE_AGENT_AUDIT_LOG".into(),
            None
        )
    );
    assert!(log.exists(), "it is in force");

    agent.write_config(&config("14d", "9m"));
    agent.reload();
    until("the new ttl is in force", SOON, || {
        (value(&agent, "rule.r.ttl").0 == "\"14d\"").then_some(())
    });
    let (precision, _, pending) = value(&agent, "volume.v.precision");
    assert_eq!(
        (precision.as_str(), pending.as_deref()),
        ("\"5m\"", Some("\"9m\""))
    );
    let all = findings(&agent);
    assert!(text(finding(&all, "config"), "found").ends_with("not in force yet: volume.v.precision"));
    let said = agent.ctl().run(["config", "show", "volume."]).ok().text();
    assert!(said.contains("after a restart") && said.contains("volume.v.precision = \"9m\""));
    assert!(!said.contains("rule.r"), "only what was asked for: {said}");

    // A fault changes nothing.
    agent.write_config(&config("3 days", "9m"));
    agent.reload();
    agent.wait_until_it_says("everything stays as it was");
    assert_eq!(value(&agent, "rule.r.ttl").0, "\"14d\"");
}

#[test]
fn the_command_line_is_shown_too() {
    let mount = need!(Mount::new(Fs::Ext4));
    let agent = Agent::of_volume(&mount.path(), "3d");
    assert_eq!(value(&agent, "rule.ttl.ttl").1, "command line");
    let name = mount.path().file_name().unwrap().to_string_lossy().into_owned();
    let (path, origin, _) = value(&agent, &format!("volume.{name}.path"));
    assert_eq!(path, format!("\"{}\"", mount.path().display()));
    assert_eq!(origin, "command line");
}
