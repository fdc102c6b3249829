//! What an older agent left behind opens: `tests/fixtures` has a state directory and its volume, as a release build of commit 37d8d48 left
//! them when it was killed (see `tests/fixtures/make-state`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use purge_index::{Record, Store};
use purge_model::{Seconds, Totals};
use purge_removal::plans::Plans;
use purge_removal::runs::{RunState, Runs};
use purge_tests::ctl::text;
use purge_tests::files::temp_dir;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use tempfile::TempDir;

/// The state directory of an older agent, and the image of its volume.
struct Left(TempDir);

impl Left {
    fn behind(by: &str) -> Self {
        let dir = temp_dir();
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/state-{by}.tar.gz"));
        sh(Command::new("tar")
            .args(["--extract", "--no-same-owner", "--file"])
            .arg(archive)
            .arg("--directory")
            .arg(dir.path()))
        .unwrap();
        Self(dir)
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn store(&self) -> Store {
        Store::open(&self.state().join("index")).unwrap()
    }
}

fn bytes(store: &Store, record: Record) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = store.records(record, b"").map(Result::unwrap);
    all.map(|(key, value)| (key, value.to_vec())).collect()
}

fn three_files(bytes: u64) -> Totals {
    Totals {
        files: 3,
        bytes,
        ..Totals::default()
    }
}

/// The records are read as what they say, and written again as they were: a downgrade reads them as well.
#[test]
fn stored_plans_and_runs_are_read_and_written_in_the_same_bytes() {
    let left = Left::behind("37d8d48");
    let store = left.store();
    let (plans, runs) = (Plans::new(store.clone()), Runs::new(store.clone()));
    let before = (bytes(&store, Record::Plan), bytes(&store, Record::Run));
    let all = plans.list().unwrap();
    assert_eq!((all.len(), before.0.len()), (4, 4));
    for plan in &all {
        let [rule] = plan.rules.as_slice() else {
            panic!("{plan:?}");
        };
        assert_eq!((plan.candidates(), plan.totals), (3, rule.totals), "{plan:?}");
        // That release did not note who asked for a plan.
        assert_eq!((plan.volume.as_str(), plan.by.as_str()), ("v", ""));
        assert_eq!(plan.run.is_none(), rule.name == "planned");
        assert_eq!((plan.refusal.as_ref(), plan.trigger.as_ref()), (None, None));
        assert!(!plan.fingerprint.is_comparable());
        assert_eq!(plans.chunk(&plan.id, 0).unwrap().len(), 3);
        plans.put(plan).unwrap();
    }
    let all = runs.list().unwrap();
    let states: Vec<RunState> = all.iter().map(|r| r.state).collect();
    assert_eq!(
        states,
        [RunState::Running, RunState::Completed, RunState::Completed]
    );
    assert_eq!(
        (all[1].trashed, all[1].deleted),
        (three_files(30), Totals::default())
    );
    assert_eq!(
        (all[2].trashed, all[2].deleted),
        (Totals::default(), three_files(30))
    );
    all.iter().for_each(|run| runs.save(run).unwrap());
    let after = (bytes(&store, Record::Plan), bytes(&store, Record::Run));
    assert!(before == after, "{before:?}\n{after:?}");
}

/// Old plans and runs are removed after a while: here they are some minutes old, whenever this test runs.
fn make_young(left: &Left) {
    let store = left.store();
    let now = Seconds::from_system(SystemTime::now()).minus(60);
    let plans = Plans::new(store.clone());
    for mut plan in plans.list().unwrap() {
        (plan.created, plan.expires) = (now, now.plus(86_400));
        plans.put(&plan).unwrap();
    }
    let runs = Runs::new(store.clone());
    for mut run in runs.list().unwrap() {
        run.started = now;
        run.finished = run.finished.map(|_| now);
        runs.save(&run).unwrap();
    }
    store.close();
}

#[test]
fn plans_holds_runs_trash_and_journal_of_an_older_agent_are_there() {
    let left = Left::behind("37d8d48");
    let mount = need!(Mount::of_image(Fs::Ext4, &left.0.path().join("image")));
    make_young(&left);
    let root = mount.path();
    let rule = |grace: &str, name: &str| {
        format!("ttl = \"1h\"\nclock = [\"access\"]\ninclude = [\"/{name}/**\"]\ngrace = \"{grace}\"")
    };
    // The fixture may be years old.
    let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"3650d\"");
    let config = [
        ("0s", "deleted"),
        ("3650d", "trashed"),
        ("0s", "planned"),
        ("3650d", "killed"),
    ]
    .into_iter()
    .fold(config, |config, (grace, name)| {
        config.rule(name, &rule(grace, name))
    });
    let agent = Agent::tracking_in(&config, Some(left.state()), &[]);
    let ctl = agent.ctl();

    let holds = ctl.run(["hold", "list", "--output", "ndjson"]).ok().lines();
    assert_eq!(holds.len(), 1, "{holds:?}");
    assert_eq!(text(&holds[0], "reason"), "a paper");
    let held = ctl.explain(&root.join("held/f1"));
    assert_eq!(held["holds"].as_array().unwrap().len(), 1, "{held}");

    let used = ctl.explain(&root.join("used/f1"));
    assert_eq!(text(&used, "access_source"), "observed", "the journal: {used}");

    let runs = ctl.run(["runs", "--output", "ndjson"]).ok().lines();
    let states: Vec<&str> = runs.iter().map(|run| text(run, "state")).collect();
    assert_eq!(states, ["failed", "completed", "completed"]);
    let killed = &runs[0];
    assert!(text(killed, "error").contains("the agent ended"), "{killed}");
    let count = |pointer: &str| purge_tests::ctl::number(killed, pointer);
    assert_eq!(
        count("/trashed/files") + count("/skipped/cancelled"),
        3,
        "{killed}"
    );

    let plans = ctl.run(["plans", "--output", "ndjson"]).ok().lines();
    assert_eq!(plans.len(), 4, "{plans:?}");
    let open = plans
        .iter()
        .find(|p| p["run_id"].is_null() || text(p, "run_id").is_empty());
    let answer = ctl
        .run(["apply", text(open.unwrap(), "plan_id"), "--yes"])
        .ends_with(3);
    assert!(
        answer.stderr.contains("another version of the agent"),
        "{}",
        answer.stderr
    );
    assert!(root.join("planned/f1").exists());

    for (run, name, bytes) in [
        (&runs[1], "trashed", "trashed 2\n"),
        (killed, "killed", "killed 2\n"),
    ] {
        let _ = ctl.run(["restore", text(run, "run_id")]).ok();
        assert_eq!(
            std::fs::read_to_string(root.join(name).join("f2")).unwrap(),
            bytes
        );
    }
}
