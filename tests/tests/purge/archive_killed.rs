//! kill -9 at random moments of a run that archives: each file is at its place as it was, or the store's catalogue names an object of its bytes;
//! the next run goes on from there and copies nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use purge_tests::archive::Store;
use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, regular_files};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Fs, Mount, need};

fn is_long() -> bool {
    std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1")
}

/// Files of a round, and rounds.
fn extent() -> (usize, u64) {
    if is_long() { (4000, 25) } else { (1500, 5) }
}

/// A content that no other file has.
fn content(n: usize) -> Vec<u8> {
    let mut bytes = format!("the bytes of file {n}\n").into_bytes();
    bytes.resize(bytes.len() + n * 37 % 9000, b'x');
    bytes
}

fn fill(root: &Path, count: usize) -> BTreeMap<PathBuf, Vec<u8>> {
    let made = (0..count).map(|n| {
        let path = root.join(format!("d{}/f{n:05}", n % 20));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content(n)).unwrap();
        (path, content(n))
    });
    let made = made.collect();
    age_tree(root);
    made
}

/// Files of the volume that are neither at their place as they were, nor in the store.
fn lost(before: &BTreeMap<PathBuf, Vec<u8>>, root: &Path, store: &Store) -> Vec<PathBuf> {
    let copies = store.contents();
    let is_lost = |(path, bytes): &(&PathBuf, &Vec<u8>)| {
        let below = path.strip_prefix(root).unwrap().as_os_str().as_encoded_bytes();
        let is_here = fs::read(path).is_ok_and(|now| &now == *bytes);
        !is_here && !copies.get(below).is_some_and(|all| all.contains(bytes))
    };
    before
        .iter()
        .filter(is_lost)
        .map(|(path, _)| path.clone())
        .collect()
}

fn killed(keys: &str) {
    let (count, rounds) = extent();
    let mut cut_short = 0;
    for round in 0..rounds {
        let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
        let (root, store) = (mount.path(), Store::new());
        let before = fill(&root, count);
        let config = store.config(&root, &format!("remove_empty_dirs = false\n{keys}"));
        let mut agent = Agent::tracking(&config);
        let plan = agent.ctl().plan();
        let mut client = agent.ctl().start_apply(&plan, &[]);
        // From the first object that is sent, to the last files that are removed.
        until("the first file is sent", SOON, || {
            let any = fs::read_dir(store.path()).unwrap().count() > 1;
            any.then_some(())
        });
        std::thread::sleep(Duration::from_millis(round * 7919 % 29 * 40));
        agent.kill();
        client.wait().unwrap();
        assert_eq!(
            lost(&before, &root, &store),
            Vec::<PathBuf>::new(),
            "round {round}, killed"
        );

        agent.launch();
        agent.wait_until_tracking();
        assert_eq!(
            lost(&before, &root, &store),
            Vec::<PathBuf>::new(),
            "round {round}, started"
        );
        let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
        let run = runs.into_iter().find(|r| text(r, "plan_id") == plan.id).unwrap();
        let run = agent
            .ctl()
            .run(["run", text(&run, "run_id"), "--output", "json"])
            .ok()
            .json();
        cut_short += u32::from(text(&run, "state") == "failed");
        let counts = tally(&plan, &run);
        let gone = before.keys().filter(|path| !path.exists()).count() as u64;
        assert_eq!(gone, counts.deleted + counts.trashed, "round {round}: {run}");
        assert!(number(&run, "/archived/files") >= gone, "round {round}: {run}");

        // What is at its place is found in the store, or sent now: also where all that the agent knew is lost.
        let sent = objects(&store);
        agent.terminate();
        fs::remove_dir_all(agent.state_dir()).unwrap();
        let _ = fs::remove_dir_all(root.join(".purge-agent-trash"));
        age_tree(&root);
        agent.launch();
        agent.wait_until_tracking();
        let plan = agent.ctl().plan();
        let rest = agent.ctl().apply(&plan).ok().json();
        let left = before.keys().filter(|path| path.exists()).count();
        assert_eq!(left, 0, "round {round}: {rest}");
        assert_eq!(
            lost(&before, &root, &store),
            Vec::<PathBuf>::new(),
            "round {round}, at the end"
        );
        let all = objects(&store);
        assert!(sent.is_subset(&all));
        assert_eq!(all.len(), count, "round {round}: no file has two copies");
    }
    assert!(cut_short > 0, "no run was cut short: kill earlier");
    eprintln!("{cut_short} of {rounds} runs were cut short");
}

/// The objects of files.
fn objects(store: &Store) -> BTreeSet<PathBuf> {
    let own = store.path().join(".purge-agent");
    let all = regular_files(store.path()).into_iter();
    all.filter(|path| !path.starts_with(&own)).collect()
}

#[test]
fn a_killed_run_that_archives_loses_nothing_and_the_next_one_goes_on() {
    killed("");
}

#[test]
fn a_killed_run_that_archives_with_a_grace_loses_nothing_and_the_next_one_goes_on() {
    killed("grace = \"1h\"");
}
