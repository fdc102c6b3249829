//! What `journalctl -u purge-agent` shows: messages alone.

use std::fs;
use std::os::unix::fs::symlink;

use purge_tests::ctl::purgectl_for_users;
use purge_tests::files::{age_tree, make, temp_dir};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Marks of Rust's debug output: a struct with its fields, an option, a list of enum values.
const RUST: [&str; 7] = ["Some(", "None", " { ", "Ok(", "Err(", "::", "Totals"];

fn said_with(agent: &Agent, words: &[&str]) -> String {
    let said = agent.said();
    let found = said
        .lines()
        .find(|line| words.iter().all(|word| line.contains(word)));
    found
        .unwrap_or_else(|| panic!("no line with {words:?} in\n{said}"))
        .to_owned()
}

#[test]
fn messages_alone_say_volume_run_rule_error_and_client() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make(&root.join("job/a"), 5);
    age_tree(&root);
    let lists = temp_dir();
    let to = lists.path().join("lists");
    fs::create_dir(&to).unwrap();
    symlink(lists.path(), to.join("told")).unwrap();
    let rule =
        "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1h\"\nremove_empty_dirs = true\nmax_fraction = 1.0";
    let told = format!(
        "ttl = \"1h\"\nannounce = \"20s\"\nannounce_to = \"{}\"\ninclude = [\"/none/**\"]",
        to.display()
    );
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule("old", rule)
        .rule("told", &told)
        .access("self = true");
    let mut agent = Agent::prepared(&config);
    agent.log_as_the_journal_has_it();
    agent.launch();
    agent.wait_until_tracking();
    agent.reachable();
    let ctl = agent.ctl();
    let plan = ctl.plan_with(["--rule", "old"]);
    let run = ctl.apply(&plan).ok().json();
    let run = run.pointer("/run_id").and_then(|id| id.as_str()).unwrap();
    let _ = ctl.run(["restore", run]).ok();
    let (_copy, program) = purgectl_for_users();
    let as_user = ctl.as_user(50_001, &program);
    let _ = as_user.run(["plan"]).ends_with(1);
    let _ = as_user.run(["mine"]);

    agent.wait_until_it_says("lists of what the rule will take cannot be written");
    for ended in ["run begins", "run ended"] {
        let line = said_with(&agent, &[ended, run, "volume", "by uid 0", "old", "5 files"]);
        assert!(!line.contains("uid 0: "), "{line}");
    }
    said_with(&agent, &["restored from the trash", run, "5 files", "by uid 0"]);
    said_with(&agent, &["scan finished", "volume"]);
    said_with(
        &agent,
        &["cannot be written", "rule told", "volume", "announce_to"],
    );
    said_with(
        &agent,
        &[
            "a call was refused",
            "uid 50001",
            "CreatePlan",
            "needs the role operator",
        ],
    );
    said_with(
        &agent,
        &["a client was let in", "uid 0", "admin", "root of this host"],
    );
    said_with(&agent, &["a client was let in", "uid 50001", "role self"]);
    agent.terminate();
    for line in agent.said().lines() {
        let found = RUST.iter().find(|mark| line.contains(**mark));
        assert!(found.is_none(), "{found:?} in {line}");
    }
}

/// No call of the log prints a value as Rust's debug output: what is written with `?value` or `{:?}` reads `Some(Totals { files: 0 })`.
#[test]
fn no_line_of_the_log_prints_rust() {
    let mut wrong = Vec::new();
    let sources = purge_tests::structure::sources(&purge_tests::top());
    assert!(sources.len() > 100, "{}", sources.len());
    for file in sources {
        let text = fs::read_to_string(&file).unwrap();
        for call in calls(&text) {
            let is_debug = call.contains("= ?")
                || call.contains(":?}")
                || [", ?", "(?", "\n?"]
                    .iter()
                    .any(|mark| call.replace("  ", "").contains(mark));
            if is_debug {
                wrong.push(format!("{}: {call}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The calls of tracing in a source, each from its name to its end.
fn calls(text: &str) -> Vec<&str> {
    let mut calls = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("tracing::") {
        rest = rest.get(at..).unwrap();
        let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
        let is_call = macros.iter().any(|m| rest.starts_with(&format!("tracing::{m}")));
        let end = rest.find(");").or_else(|| rest.find(")\n")).unwrap_or(rest.len());
        if is_call {
            calls.push(rest.get(..end).unwrap());
        }
        rest = rest.get("tracing::".len()..).unwrap();
    }
    calls
}
