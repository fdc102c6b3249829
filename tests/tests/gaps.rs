//! Stretches that were not watched, without systemd's keeping: what was read in one counts as used, unless the operator forgives it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::let_pass;
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// Expired at once, as the modification times are set back.
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";
/// The helpers write a tolerance of their own unless its name is there.
const DEFAULT_TOLERANCE: &str = "baseline = \"mtime\"\n# gap_tolerance is not given";

fn end(agent: &mut Agent, killed: bool) {
    match killed {
        true => agent.kill(),
        false => agent.terminate(),
    }
}

/// Reads some files while an agent with the default tolerance is stopped for two seconds. Returns what was read and what it names then.
fn read_meanwhile(fs: Fs, killed: bool) -> Option<(BTreeSet<PathBuf>, BTreeSet<PathBuf>)> {
    let mount = match Mount::new(fs) {
        Ok(mount) => mount,
        Err(unmet) => {
            eprintln!("{unmet:?}");
            return None;
        }
    };
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    // What changed in the second in which an agent stopped may have changed afterwards.
    let_pass(3);
    let mut agent = Agent::tracking(&Config::new(&root, DEFAULT_TOLERANCE).rule("old", RULE));
    assert_eq!(agent.ctl().candidate_files().len(), 20, "all are expired");
    let_pass(2);
    end(&mut agent, killed);
    let used: BTreeSet<PathBuf> = files.iter().step_by(2).cloned().collect();
    used.iter().for_each(|file| read(file));
    let_pass(2);
    agent.launch();
    agent.wait_until_tracking();
    let named = agent.ctl().candidate_files();
    let status = agent.status();
    println!(
        "{fs:?}, killed {killed}: {} of 10 named; {}",
        named.intersection(&used).count(),
        status["gaps"]
    );
    Some((used, named))
}

#[test]
fn an_agent_that_was_stopped_for_two_seconds_names_no_file_that_was_read_meanwhile() {
    for fs in [Fs::Ext4, Fs::Ext4Relatime] {
        for killed in [false, true] {
            let Some((used, named)) = read_meanwhile(fs, killed) else {
                return;
            };
            let lost: Vec<_> = named.intersection(&used).collect();
            assert!(lost.is_empty(), "{fs:?}, killed {killed}: {lost:?}");
        }
    }
}

/// Stopped and started within one second: times are whole seconds, and the gap seems to have no length.
#[test]
fn a_stop_within_a_second_is_a_gap_too() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::new(&root, DEFAULT_TOLERANCE).rule("old", RULE));
    for (killed, file) in [false, true].into_iter().zip(&files) {
        end(&mut agent, killed);
        read(file);
        agent.launch();
        agent.wait_until_tracking();
        let named = agent.ctl().candidate_files();
        assert!(!named.contains(file), "killed {killed}: {:?}", agent.status());
    }
}

#[test]
fn a_plan_says_how_many_candidates_a_forgiven_stretch_may_concern() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let keys = "baseline = \"mtime\"\ngap_tolerance = \"1h\"";
    let mut agent = Agent::tracking(&Config::new(&root, keys).rule("old", RULE));
    assert_eq!(agent.ctl().plan().json["forgiven"], Value::Null, "no stretch yet");
    for _ in 0..2 {
        agent.terminate();
        let_pass(2);
        agent.launch();
        agent.wait_until_tracking();
    }
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 20);
    assert_eq!(number(&plan.json, "/forgiven/stretches"), 2, "{}", plan.json);
    assert_eq!(number(&plan.json, "/forgiven/candidates"), 20, "{}", plan.json);
    assert!(number(&plan.json, "/forgiven/seconds") >= 4, "{}", plan.json);
    let said = ctl.run(["plan"]).ok().text();
    assert!(said.contains("2 unwatched stretches, "), "{said}");
    assert!(
        said.contains("20 candidates might have been used in them"),
        "{said}"
    );
    let explained = ctl.explain(&files[0]);
    let because = text(&explained["rules"][0], "because");
    assert!(because.contains("2 unwatched stretches"), "{because}");
    assert_eq!(explained["gaps"].as_array().unwrap().len(), 2, "{explained}");
    let said = ctl.run(["explain", files[0].to_str().unwrap()]).ok().text();
    assert!(said.contains("forgiven"), "{said}");

    // Without a tolerance from now on, what was forgiven before is not.
    agent.write_config(&Config::new(&root, DEFAULT_TOLERANCE).rule("old", RULE));
    agent.restart();
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 0, "{}", plan.json);
    assert_eq!(plan.json["forgiven"], Value::Null);
}
