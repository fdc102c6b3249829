//! btrfs: a subvolume can be a volume, mounted or not; those below a volume are counted.

use std::path::Path;
use std::process::Command;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, make, read, regular_files};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

fn subvolume(path: &Path) {
    sh(Command::new("btrfs").args(["subvolume", "create"]).arg(path)).expect("btrfs");
}

#[test]
fn a_subvolume_is_a_volume_and_hears_of_its_own_files_alone() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let root = mount.path();
    let (home, other) = (root.join("home"), root.join("other"));
    subvolume(&home);
    subvolume(&other);
    subvolume(&home.join("inner"));
    let files = make(&home.join("d"), 20);
    // The same numbers of inodes as those.
    let theirs = make(&other.join("d"), 20);
    make(&home.join("inner/d"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&home, "remove_empty_dirs = false"));
    let status = agent.status();
    assert_eq!(number(&status, "/subvolumes"), 1, "{status}");
    let doctor = agent
        .ctl()
        .run(["doctor", "--output", "json"])
        .ok()
        .json()
        .to_string();
    assert!(doctor.contains("1 subvolumes lie below it"), "{doctor}");
    // A use of one, and many uses of the others.
    read(&files[3]);
    theirs.iter().for_each(|file| read(file));
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 19, "{}", plan.json);
    let run = agent.ctl().apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, 19, "{run}");
    assert_eq!(
        regular_files(&home.join("d")).into_iter().collect::<Vec<_>>(),
        [files[3].clone()]
    );
    assert_eq!(regular_files(&root).len(), 1 + 20 + 5);
}

#[test]
fn a_subvolume_that_is_mounted_by_itself_is_a_volume() {
    let mut mount = need!(Mount::new(Fs::Btrfs));
    subvolume(&mount.path().join("vol"));
    let files = make(&mount.path().join("vol/d"), 10);
    age_tree(&mount.path());
    mount.remount("subvol=vol");
    let root = mount.path();
    let files: Vec<_> = files
        .iter()
        .map(|f| root.join("d").join(f.file_name().unwrap()))
        .collect();
    let mut agent = Agent::tracking(&Config::backdated_with(
        &root,
        "remove_empty_dirs = false\ngrace = \"1d\"",
    ));
    read(&files[0]);
    agent.restart();
    read(&files[1]);
    let plan = agent.ctl().plan();
    let run = agent.ctl().apply(&plan).ok().json();
    assert_eq!(number(&run, "/trashed/files"), 8, "{run}");
    let answer = agent.ctl().run(["restore", text(&run, "run_id")]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(regular_files(&root).len(), 10);
}

#[test]
fn check_says_how_many_subvolumes_are_not_covered() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let home = mount.path().join("home");
    subvolume(&home);
    (0..300).for_each(|i| subvolume(&home.join(format!("s{i}"))));
    let plain = mount.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let said = |root: &Path| {
        let agent = Agent::prepared(&Config::backdated(root));
        agent.check().1
    };
    let whole = said(&home);
    assert!(whole.contains("300 subvolumes lie below"), "{whole}");
    // A directory that is no subvolume's top: the kernel does not tell which of them lie below it.
    let part = said(&plain);
    assert!(part.contains("up to 1 subvolumes lie below"), "{part}");
}
