//! What cannot be read is no reason to delete anything: it is counted, named in the log, and stays with every directory
//! above it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, assert_same, make};
use purge_tests::mount::Bind;
use purge_tests::ways::Way;
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Five directories `d0` to `d4` with files in `sub`, of which one file and one directory are damaged on disk.
fn damaged() -> Result<Mount, purge_tests::skip::Unmet> {
    let mut mount = Mount::new(Fs::Ext4)?;
    for i in 0..5 {
        make(&mount.path().join(format!("d{i}/sub")), 5);
    }
    age_tree(&mount.path());
    // An inode that is all zeros, and a directory block that is garbage.
    mount.damage(&["clri d2/sub/f000003", "zap_block -f d3/sub -p 255 0"]);
    assert!(fs::symlink_metadata(mount.path().join("d2/sub/f000003")).is_err());
    assert!(
        fs::read_dir(mount.path().join("d3/sub"))
            .unwrap()
            .any(|e| e.is_err())
    );
    Ok(mount)
}

#[test]
fn a_directory_in_which_something_cannot_be_read_is_no_candidate() {
    let mount = need!(damaged());
    let root = mount.path();
    let config = Config::new(&root, "baseline = \"mtime\"").rule(
        "dirs",
        "target = \"directory\"\ndepth = 1\nttl = \"1h\"\nclock = [\"access\"]",
    );
    let agent = Agent::tracking(&config);
    assert_eq!(number(&agent.status(), "/unreadable"), 2, "{}", agent.status());
    agent.wait_until_it_says("cannot read");
    agent.wait_until_it_says("f000003");
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let expected: BTreeSet<PathBuf> = [0, 1, 4].iter().map(|i| root.join(format!("d{i}"))).collect();
    let shown = ctl.show(&plan);
    assert!(shown.values().all(|c| text(c, "kind") == "directory"));
    assert_same(
        "the directories that could be read",
        &shown.into_keys().collect(),
        &expected,
    );
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert!(root.join("d2/sub/f000001").exists() && root.join("d3/sub").exists());
}

#[test]
fn files_beside_one_that_cannot_be_read_go_and_their_directory_stays() {
    let mount = need!(damaged());
    let root = mount.path();
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).failed, 0, "{run}");
    assert!(
        !root.join("d2/sub/f000001").exists(),
        "it could be read, and has expired"
    );
    assert!(root.join("d2/sub").exists(), "what cannot be read lies in it");
    assert!(root.join("d3/sub").exists(), "what lies in it is unknown");
}

/// Several workers ask for the entries of a large directory. What one of them meets there that is mounted is no reason to doubt the rest.
#[test]
fn a_large_directory_with_a_mount_forgets_what_was_deleted() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let (root, elsewhere) = (mount.path(), tempfile::tempdir().unwrap());
    // tmpfs lists last what was made first.
    fs::create_dir(root.join("mounted")).unwrap();
    make(&root, 3_000);
    let _bind = need!(Bind::new(elsewhere.path(), &root.join("mounted")));
    let agent = Way::Scan.tracking(&Config::new(&root, "baseline = \"mtime\""));
    assert_eq!(number(&agent.status(), "/files"), 3_000, "{}", agent.status());
    for i in 0..10 {
        fs::remove_file(root.join(format!("f{i:06}"))).unwrap();
    }
    let _ = agent.ctl().run(["rescan"]).ok();
    let status = agent.status();
    assert_eq!(number(&status, "/files"), 2_990, "{status}");
    assert_eq!(number(&status, "/unreadable"), 0, "{status}");
}
