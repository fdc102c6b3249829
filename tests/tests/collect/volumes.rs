//! Several volumes, whose inodes have the same numbers: each has its own files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, assert_same, inode, make, read, regular_files};
use purge_tests::{Agent, Config, Fs, Mount, need};

const DIRECTORIES: usize = 12;
const FILES_EACH: usize = 30;

/// The same names and numbers on each, in directories that differ.
fn grow(root: &Path, shift: usize) -> BTreeSet<PathBuf> {
    let dirs = (0..DIRECTORIES).map(|n| root.join(format!("d{}", (n + shift) % DIRECTORIES)));
    dirs.flat_map(|dir| make(&dir, FILES_EACH)).collect()
}

#[test]
fn volumes_with_the_same_inodes_are_not_mixed_up() {
    let mounts = [
        need!(Mount::new(Fs::Ext4)),
        need!(Mount::new(Fs::Ext4)),
        need!(Mount::new(Fs::Ext4)),
    ];
    let roots = mounts.each_ref().map(Mount::path);
    let mut files: Vec<BTreeSet<PathBuf>> = roots.iter().enumerate().map(|(n, root)| grow(root, n)).collect();
    roots.iter().for_each(|root| age_tree(root));
    let numbers = |n: usize| files[n].iter().map(|f| inode(f)).collect::<BTreeSet<u64>>();
    assert_eq!(numbers(0), numbers(1), "the test needs equal inode numbers");

    let config = Config::backdated(&roots[0])
        .and_volume("second", &roots[1])
        .and_volume("third", &roots[2]);
    let mut agent = Agent::tracking(&config);
    let names = ["old", "second", "third"];
    let candidates = |agent: &Agent, rule: &str| {
        let ctl = agent.ctl();
        let plan = ctl.plan_with(["--rule", rule]);
        ctl.show(&plan)
            .into_iter()
            .filter(|(_, c)| c["kind"] == "file")
            .map(|(path, _)| path)
            .collect::<BTreeSet<PathBuf>>()
    };
    for after in ["the first scan", "a restart"] {
        for (rule, files) in names.iter().zip(&files) {
            assert_same(
                &format!("{rule}, after {after}"),
                &candidates(&agent, rule),
                files,
            );
        }
        agent.restart();
    }
    // What is used on one is used on that one alone.
    let used = files[1].pop_first().unwrap();
    read(&used);
    for (rule, files) in names.iter().zip(&files) {
        assert_same(&format!("{rule}, after a use"), &candidates(&agent, rule), files);
    }
    // What goes from one goes from that one alone.
    let ctl = agent.ctl();
    let plan = ctl.plan_with(["--rule", "second"]);
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(number(&run, "/deleted/files"), files[1].len() as u64, "{run}");
    assert_same(
        "left of the second",
        &regular_files(&roots[1]),
        &BTreeSet::from([used]),
    );
    for n in [0, 2] {
        assert_same("the others", &regular_files(&roots[n]), &files[n]);
        assert_same("the others' candidates", &candidates(&agent, names[n]), &files[n]);
    }
}
