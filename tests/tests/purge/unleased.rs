//! Where no leases are given, the trash and its grace carry the promise. Alone in its program: it switches leases off for
//! the whole machine for a moment.

use std::fs;
use std::path::Path;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, make, trash_is_empty};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Leases are off while this lives.
struct Off;

const SWITCH: &str = "/proc/sys/fs/leases-enable";

impl Off {
    fn switch() -> Self {
        fs::write(SWITCH, "0").expect("fs.leases-enable");
        Self
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, "1");
    }
}

#[test]
fn without_leases_what_is_taken_stays_in_the_trash_for_a_day() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("a"), 20);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    assert_eq!(text(&agent.status(), "guard"), "leases");
    let off = Off::switch();
    assert_eq!(text(&agent.status(), "guard"), "grace");
    let plan = ctl.plan();
    assert_eq!(text(&plan.json, "guard"), "grace");
    assert_eq!(number(&plan.json, "/grace_seconds"), 24 * 3600);
    let table = ctl.run(["plan"]).ok().text();
    assert!(table.contains("no leases on this file system"), "{table}");
    // Not even on request is anything removed for good.
    let apply = ["apply", &plan.id, "--yes", "--no-grace", "--output", "json"];
    let run = ctl.run(apply).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.trashed, counts.deleted), (20, 0), "{run}");
    assert!(run["trash_until"].is_string(), "{run}");
    drop(off);
    let _ = ctl.run(["restore", text(&run, "run_id")]).ok();
    assert!(files.iter().all(|f| f.exists()));
    assert!(trash_is_empty(Path::new(&root)));
}

/// inotify does not say who has opened a file: without a lease nothing tells an open by another process from the agent's own.
#[test]
fn with_inotify_and_without_leases_nothing_is_taken() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("a"), 20);
    age_tree(&root);
    let keys = "baseline = \"mtime\"\ncollector = \"inotify\"\n";
    let rule = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";
    let agent = Agent::tracking(&Config::new(&root, keys).rule("old", rule));
    assert_eq!(text(&agent.status(), "collector"), "inotify");
    let ctl = agent.ctl();
    let off = Off::switch();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 20);
    let run = ctl.apply(&plan).json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.trashed, counts.deleted), (0, 0), "{run}");
    assert_eq!(number(&run, "/skipped/open"), 20, "{run}");
    assert!(files.iter().all(|f| f.exists()));
    drop(off);
    // What a run gives back counts as used: another process may have opened it.
    assert!(ctl.candidate_files().is_empty());
}
