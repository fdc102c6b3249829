//! `status` says first what needs attention, and when each rule comes due.

use std::os::unix::fs::chown;
use std::process::Command;

use purge_tests::files::{age_tree, make};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};
use serde_json::Value;

const ALICE: u32 = 50_001;

fn config(root: &std::path::Path) -> Config {
    let keys = "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1h\"\n";
    Config::new(root, "baseline = \"mtime\"")
        .rule("old", &format!("{keys}schedule = \"daily\"\nmax_fraction = 1.0"))
        .rule("careful", &format!("{keys}max_fraction = 0.01"))
        .table(
            "quota",
            "name = \"user\"\nsubject = \"user\"\nhard = \"10B\"\nrule = \"old\"",
        )
}

/// The names of the rows, in their order.
fn rows(screen: &str) -> Vec<&str> {
    let named = ["attention", "next", "path", "observed"];
    let first = screen.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|word| named.contains(word)).collect()
}

#[test]
fn what_needs_attention_stands_before_what_is_well() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    for file in make(&root.join("d"), 10) {
        chown(&file, Some(ALICE), Some(ALICE)).unwrap();
    }
    age_tree(&root);
    let agent = Agent::tracking(&config(&root));
    let ctl = agent.ctl();
    let first = ctl.run(["status"]).ok().text();
    assert!(
        first.contains("old at ") && first.contains("planned, not applied"),
        "{first}"
    );
    assert!(first.contains(" full, ") && first.contains(" free"), "{first}");
    let refused = ctl.run(["plan", "--rule", "careful"]);
    assert_eq!(refused.code, 3, "{}", refused.text());
    let status = until("who is over a quota is known", LONG, || {
        let status = ctl.run(["status", "--output", "json"]).ok().json();
        matters(&status)
            .iter()
            .any(|(check, _)| check == "quota")
            .then_some(status)
    });
    let found = matters(&status);
    let what = |check: &str| {
        found
            .iter()
            .find(|(c, _)| c == check)
            .map(|(_, what)| what.as_str())
    };
    let over = what("quota").unwrap();
    assert!(
        over.contains(&ALICE.to_string()) && over.contains("user"),
        "{over}"
    );
    assert!(what("plan").unwrap().contains("careful"), "{found:?}");
    assert_eq!(status.pointer("/upcoming/0/rule").unwrap(), "old");
    let is = rustix::fs::statvfs(&root).unwrap();
    let inodes = status.pointer("/volumes/0/disk/inodes").and_then(Value::as_u64);
    assert_eq!(inodes, Some(is.f_files));
    assert_eq!(status.pointer("/volumes/0/disk/high"), Some(&Value::Null));

    let screen = ctl.run(["status"]).ok().text();
    assert_eq!(
        rows(&screen),
        ["attention", "attention", "next", "path", "observed"],
        "{screen}"
    );

    let plan = ctl.plan_with(["--rule", "old"]);
    let _ = ctl.apply(&plan).ok();
    let status = ctl.run(["status", "--output", "json"]).ok().json();
    let trash = matters(&status).into_iter().find(|(check, _)| check == "trash");
    assert!(
        trash.is_some_and(|(_, what)| what.contains("10 files")),
        "{status}"
    );
}

fn matters(status: &Value) -> Vec<(String, String)> {
    let all = status.get("attention").and_then(Value::as_array).unwrap();
    let text = |m: &Value, field: &str| m.get(field).and_then(Value::as_str).unwrap().to_owned();
    all.iter().map(|m| (text(m, "check"), text(m, "what"))).collect()
}

#[test]
fn status_can_be_watched() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let agent = Agent::tracking(&config(&root));
    let watch = Command::new("timeout")
        .args(["-s", "INT", "6"])
        .arg(binary("purgectl"))
        .arg("--endpoint")
        .arg(format!("unix://{}", agent.socket().display()))
        .args(["status", "--watch", "1"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&watch.stdout);
    let times = shown.matches("purge-agent ").count();
    assert!(times >= 2, "{times} times\n{shown}");
    let _ = agent
        .ctl()
        .run(["status", "--watch", "--output", "json"])
        .ends_with(2);
}
