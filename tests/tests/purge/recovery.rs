//! What a run without a grace had taken when it was killed goes back into the very directory that it was taken out of, or into one that
//! protects it as well: also where users own the directories above, and have exchanged them since.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, files_in_trash, give, make, regular_files, walk};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const MALLORY: u32 = 4001;
const BOB: u32 = 4002;

/// A root of Mallory's, with a private and a public directory of Bob's.
fn owned_root(mount: &Mount, below: &str, files: usize) -> PathBuf {
    let root = mount.dir("volume");
    for (name, mode) in [("private", 0o700), ("public", 0o755)] {
        fs::create_dir(root.join(name)).unwrap();
        if name == "private" {
            make(&root.join(name).join(below), files);
        }
        for entry in walk(&root.join(name)) {
            give(&entry.path, BOB, if entry.path.is_dir() { 0o755 } else { 0o644 });
        }
        give(&root.join(name), BOB, mode);
    }
    give(&root, MALLORY, 0o777);
    age_tree(&root);
    root
}

fn exchange(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

/// Applies a plan, and kills the agent when something is out of its place.
fn kill_with_something_taken(agent: &mut Agent, root: &Path) -> BTreeSet<PathBuf> {
    let plan = agent.ctl().plan();
    let mut client = agent.ctl().start_apply(&plan, &[]);
    until("something is out of its place", LONG, || {
        agent.freeze();
        let is_some = !files_in_trash(root).is_empty();
        if !is_some {
            agent.thaw();
        }
        is_some.then_some(())
    });
    let taken = regular_files(&root.join(".purge-agent-trash"));
    agent.kill();
    client.wait().unwrap();
    taken
}

fn run_of(agent: &Agent) -> String {
    let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
    text(&runs[0], "run_id").to_owned()
}

fn nothing_comes_into_a_directory_that_is_more_open(keys: &str, below: &str) {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
    let root = owned_root(&mount, below, 12_000);
    let (private, public) = (root.join("private"), root.join("public"));
    let mut agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let taken = kill_with_something_taken(&mut agent, &root);
    exchange(&private, &public);
    if !below.is_empty() {
        // It has a directory of the same name, as Bob's other one had.
        fs::create_dir_all(private.join(below)).unwrap();
        give(&private.join(below), BOB, 0o755);
    }
    agent.launch();
    agent.wait_until_tracking();
    let public_now = |dir: &Path| regular_files(dir).len();
    assert_eq!(public_now(&private), 0, "of {} that were taken", taken.len());
    let kept = files_in_trash(&root);
    assert!(
        !kept.is_empty() && kept.iter().all(|path| path.contains(".kept/")),
        "{kept:?}"
    );
    assert!(agent.said().contains("more open to"), "{}", agent.last_words());

    // The same for a person who asks, with the way out.
    let run = run_of(&agent);
    let answer = agent.ctl().run(["restore", &run]).ends_with(5);
    assert!(answer.text().contains("--to DIR"), "{}", answer.text());
    assert_eq!(public_now(&private), 0);
    let to = root.join("restored");
    fs::create_dir(&to).unwrap();
    give(&to, 0, 0o700);
    let one = private.join(below).join("f000000");
    let _ = agent.ctl().run([
        "restore",
        &run,
        one.to_str().unwrap(),
        "--to",
        to.to_str().unwrap(),
    ]);

    // The very directory is back at its place.
    exchange(&private, &public);
    let _ = agent.ctl().run(["restore", &run]);
    assert!(files_in_trash(&root).is_empty(), "{:?}", files_in_trash(&root));
    let back = regular_files(&private).len() + regular_files(&to).len();
    let m = fs::metadata(&private).unwrap();
    assert_eq!((m.uid(), m.mode() & 0o7777), (BOB, 0o700));
    assert!(back > 0);
    eprintln!(
        "{} were taken, {} were kept, {back} are there",
        taken.len(),
        kept.len()
    );
}

#[test]
fn files_of_a_private_directory_stay_private_when_the_agent_was_killed() {
    nothing_comes_into_a_directory_that_is_more_open("remove_empty_dirs = false", "");
}

#[test]
fn files_further_down_stay_private_when_the_agent_was_killed() {
    nothing_comes_into_a_directory_that_is_more_open("remove_empty_dirs = false", "results/2019");
}

#[test]
fn whole_directories_stay_private_when_the_agent_was_killed() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
    let root = owned_root(&mount, "tree", 20_000);
    let keys = "target = \"directory\"\ndepth = 2";
    let mut agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let _ = kill_with_something_taken(&mut agent, &root);
    let (private, public) = (root.join("private"), root.join("public"));
    exchange(&private, &public);
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(regular_files(&private).len(), 0);
    assert!(!files_in_trash(&root).is_empty());
    let run = run_of(&agent);
    let answer = agent.ctl().run(["restore", &run]).ends_with(5);
    assert!(answer.text().contains("--to DIR"), "{}", answer.text());
    assert_eq!(regular_files(&private).len(), 0);

    let to = root.join("restored");
    fs::create_dir(&to).unwrap();
    give(&to, 0, 0o700);
    let _ = agent
        .ctl()
        .run(["restore", &run, "--to", to.to_str().unwrap()])
        .ok();
    let m = fs::metadata(to.join("private")).unwrap();
    assert_eq!((m.uid(), m.mode() & 0o7777), (BOB, 0o700), "as it was");
    assert!(files_in_trash(&root).is_empty() && !regular_files(&to).is_empty());
}

/// The user has removed the directory and made it again as it was: that protects what comes back as well.
#[test]
fn a_directory_that_is_as_private_takes_them_back() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 60_000));
    let root = owned_root(&mount, "", 12_000);
    let private = root.join("private");
    let mut agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let taken = kill_with_something_taken(&mut agent, &root);
    fs::remove_dir_all(&private).unwrap();
    fs::create_dir(&private).unwrap();
    give(&private, BOB, 0o700);
    agent.launch();
    agent.wait_until_tracking();
    assert!(files_in_trash(&root).is_empty(), "{:?}", agent.last_words());
    assert_eq!(regular_files(&private).len(), taken.len());
}
