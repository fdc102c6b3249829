//! kill -9 at random moments of an apply: afterwards nothing outside the plan is deleted, nothing lies half moved, and the run's
//! record and the audit log tell every candidate's fate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use purge_format::frame::{Frames, put_frame};
use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, assert_same, make, make_one, regular_files, trash_is_empty};
use purge_tests::wait::{LONG, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

fn is_long() -> bool {
    std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1")
}

/// Files of a round, and rounds.
fn extent() -> (usize, usize) {
    if is_long() { (100_000, 100) } else { (20_000, 6) }
}

fn in_trash(root: &Path) -> BTreeSet<PathBuf> {
    let trash = root.join(".purge-agent-trash");
    if trash.exists() {
        regular_files(&trash)
    } else {
        BTreeSet::new()
    }
}

fn audit_lines(agent: &Agent, run: &str) -> Vec<Value> {
    let text_of = fs::read_to_string(agent.state_dir().join("audit.jsonl")).unwrap();
    let all = text_of
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("whole lines"));
    all.filter(|l| text(l, "run_id") == run).collect()
}

/// Directories of 500 files. Those of an earlier round that are still there are used again.
fn fill(root: &Path, files: usize) {
    for n in 0..files.div_ceil(500) {
        make(&root.join(format!("d{n:04}")), 500);
    }
    age_tree(root);
}

fn killed(grace: bool) {
    let mount = need!(Mount::sized(Fs::Ext4, 2048, 400_000));
    let root = mount.path();
    let (files, rounds) = extent();
    let more = if grace { "grace = \"1h\"" } else { "" };
    let config = Config::backdated_with(
        &root,
        &format!("remove_empty_dirs = false\nexclude = [\"keep/**\"]\n{more}"),
    );
    let kept = make(&root.join("keep"), 50);
    fill(&root, files);
    let mut agent = Agent::tracking(&config);
    let mut cut_short = 0;
    for round in 0..rounds {
        if round > 0 {
            // A new past for what is there; the agent believes it because its index is new.
            agent.terminate();
            let _ = fs::remove_dir_all(agent.state_dir());
            let _ = fs::remove_dir_all(root.join(".purge-agent-trash"));
            fill(&root, files);
            agent.launch();
            agent.wait_until_tracking();
        }
        let used = make_one(&root.join(format!("used-{round}")));
        let plan = agent.ctl().plan();
        let planned: BTreeSet<PathBuf> = agent.ctl().show(&plan).into_keys().collect();
        let before = regular_files(&root);
        let mut client = agent.ctl().start_apply(&plan, &[]);
        until("the first files are deleted", SOON, || {
            (!root.join("d0000/f000000").exists() || !root.join("d0003/f000400").exists()).then_some(())
        });
        // Anywhere in the run: a debug build takes some seconds for all of it.
        let part = (round as u64 * 7919 + 13) % 100;
        std::thread::sleep(Duration::from_micros(part * files as u64 / 4));
        agent.kill();
        client.wait().unwrap();
        agent.launch();
        agent.wait_until_tracking();

        let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
        let run = runs
            .into_iter()
            .find(|r| text(r, "plan_id") == plan.id)
            .expect("the run");
        cut_short += u32::from(text(&run, "state") == "failed");
        let run = agent
            .ctl()
            .run(["run", text(&run, "run_id"), "--output", "json"])
            .ok()
            .json();
        let counts = tally(&plan, &run);

        let trash = in_trash(&root);
        let there: BTreeSet<PathBuf> = regular_files(&root).difference(&trash).cloned().collect();
        let gone: BTreeSet<PathBuf> = before.difference(&there).cloned().collect();
        assert!(gone.is_subset(&planned), "something outside the plan is deleted");
        assert!(used.exists() && kept.iter().all(|f| f.exists()));
        assert_eq!(
            gone.len() as u64,
            counts.deleted + counts.trashed,
            "round {round}: {run}"
        );
        assert_eq!(
            trash.len() as u64,
            number(&run, "/trashed/files"),
            "round {round}: {run}"
        );
        if grace {
            assert_eq!(counts.deleted, 0);
        } else {
            assert!(trash_is_empty(&root), "nothing lies half moved");
        }
        let mut told: BTreeMap<PathBuf, u32> = BTreeMap::new();
        for line in audit_lines(&agent, text(&run, "run_id")) {
            let path = PathBuf::from(text(&line, "path"));
            match text(&line, "event") {
                "deleted" | "trashed" => *told.entry(path).or_default() += 1,
                "restored" => drop(told.remove(&path)),
                _ => {}
            }
        }
        // At most one batch may be told twice: it was written, and the process ended before it knew.
        let twice = told.values().filter(|n| **n > 1).count();
        assert!(twice <= 1024, "{twice} lines are there twice");
        assert_same(
            "what the audit log says is deleted",
            &told.into_keys().collect(),
            &gone,
        );
        if grace && round % 2 == 0 {
            let answer = agent
                .ctl()
                .run(["restore", text(&run, "run_id"), "--output", "json"]);
            if trash.is_empty() {
                // Killed before anything was in the trash for good.
                let said = answer.ends_with(3);
                assert!(
                    said.stderr.contains("put nothing into the trash"),
                    "{}",
                    said.stderr
                );
            } else {
                assert_eq!(number(&answer.ok().json(), "/restored/files"), trash.len() as u64);
            }
            assert_same("all is back", &regular_files(&root), &before);
        }
    }
    assert!(cut_short > 0, "no run was cut short: kill earlier");
    eprintln!("{cut_short} of {rounds} runs were cut short");
}

#[test]
fn a_killed_run_leaves_nothing_half_done() {
    killed(false);
}

#[test]
fn a_killed_run_with_a_grace_leaves_nothing_half_done() {
    killed(true);
}

/// The same at the end of the power: what the disk does not have yet is lost, and nothing else.
#[test]
fn a_power_cut_during_an_apply_leaves_nothing_half_done() {
    for (round, flush_log) in [(0u64, true), (1, false), (2, true)] {
        let mut mount = need!(Mount::sized(Fs::Ext4, 512, 100_000));
        let root = mount.path();
        let config = Config::backdated_with(&root, "remove_empty_dirs = false");
        fill(&root, 20_000);
        let mut agent = Agent::tracking(&config);
        let plan = agent.ctl().plan();
        let planned: BTreeSet<PathBuf> = agent.ctl().show(&plan).into_keys().collect();
        let before = regular_files(&root);
        let mut client = agent.ctl().start_apply(&plan, &[]);
        until("the first files are deleted", SOON, || {
            (!root.join("d0000/f000000").exists() || !root.join("d0003/f000400").exists()).then_some(())
        });
        std::thread::sleep(Duration::from_millis(100 + 300 * round));
        // A process that outlives the disk's power writes down what no machine has lived to see.
        agent.freeze();
        mount.cut_power(flush_log);
        agent.kill();
        client.wait().unwrap();
        mount.unmount();
        mount.mount().expect("the volume after the power cut");
        start_the_machine_again(&agent);
        agent.launch();
        until("it is scanned", LONG, || {
            agent.wait_until_tracking();
            Some(())
        });
        let trash = in_trash(&root);
        let there: BTreeSet<PathBuf> = regular_files(&root).difference(&trash).cloned().collect();
        let gone: BTreeSet<PathBuf> = before.difference(&there).cloned().collect();
        assert!(gone.is_subset(&planned), "something outside the plan is deleted");
        assert!(trash.is_empty(), "nothing lies half moved: {trash:?}");
        let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
        let run = runs
            .into_iter()
            .find(|r| text(r, "plan_id") == plan.id)
            .expect("the run");
        assert_ne!(text(&run, "state"), "running");
        let run = agent
            .ctl()
            .run(["run", text(&run, "run_id"), "--output", "json"])
            .ok()
            .json();
        assert_eq!(tally(&plan, &run).deleted, gone.len() as u64, "{run}");
    }
}

/// The kernel's boot id cannot be changed: the one that the ledgers have is.
fn start_the_machine_again(agent: &Agent) {
    let ledgers = fs::read_dir(agent.state_dir().join("runs")).unwrap();
    for ledger in ledgers.map(|l| l.unwrap().path()) {
        let old = fs::read(&ledger).unwrap();
        let mut new = Vec::new();
        for (n, body) in Frames::new(&old).enumerate() {
            put_frame(&mut new, |out| {
                out.extend_from_slice(if n == 0 { &[0; 17] } else { body })
            });
        }
        fs::write(&ledger, new).unwrap();
    }
}
