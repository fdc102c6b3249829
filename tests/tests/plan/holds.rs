//! What is held stays, in every plan and every apply.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use purge_tests::ctl::{number, path_of, text};
use purge_tests::files::{age_tree, assert_same, make, regular_files};
use purge_tests::wait::until_same;
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};
use serde_json::Value;

fn config(mount: &Mount) -> Config {
    Config::backdated_with(&mount.path(), "remove_empty_dirs = false")
}

fn held(ctl: &Ctl) -> BTreeSet<PathBuf> {
    let lines = ctl.run(["hold", "list", "--output", "ndjson"]).ok().lines();
    lines.iter().map(path_of).collect()
}

#[test]
fn held_files_and_trees_are_in_no_plan_until_the_hold_is_removed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let a = make(&root.join("a"), 10);
    make(&root.join("b/c/d"), 10);
    make(&root.join("b2"), 10);
    age_tree(&root);
    let all = regular_files(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let of_file = ctl.hold(&a[4], &[]);
    let of_tree = ctl.hold(&root.join("b"), &[]);
    assert_same(
        "both are listed",
        &held(&ctl),
        &BTreeSet::from([a[4].clone(), root.join("b")]),
    );

    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/kept/held"), 11);
    let planned: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
    let free: BTreeSet<PathBuf> = all
        .iter()
        .filter(|p| **p != a[4] && !p.starts_with(root.join("b")))
        .cloned()
        .collect();
    assert_same("what is not held", &planned, &free);

    let explained = ctl.explain(&root.join("b/c/d/f000001"));
    let holds = explained.get("holds").and_then(Value::as_array).unwrap();
    assert_eq!(holds.len(), 1, "{explained}");
    assert_eq!(text(&holds[0], "reason"), "a test");

    let _ = ctl.run(["hold", "remove", &of_file]).ok();
    let _ = ctl.run(["hold", "remove", &of_tree]).ok();
    assert!(held(&ctl).is_empty());
    assert_same("everything", &ctl.candidates(), &all);
    let _ = ctl.run(["hold", "remove", &of_tree]).ends_with(1);
}

#[test]
fn a_hold_ends_when_its_time_is_over() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    ctl.hold(&root.join("d"), &["--for", "4s"]);
    assert_same("held", &ctl.candidates(), &BTreeSet::new());
    until_same("the hold has ended", &files.into_iter().collect(), || {
        ctl.candidates()
    });
}

#[test]
fn a_hold_survives_a_restart_and_follows_its_file() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 5);
    age_tree(&root);
    let mut agent = Agent::tracking(&config(&mount));
    agent.ctl().hold(&files[2], &[]);
    agent.restart();
    let ctl = agent.ctl();
    assert!(!ctl.candidates().contains(&files[2]), "after a restart");
    fs::rename(&files[2], root.join("renamed")).unwrap();
    assert!(
        !ctl.candidates().contains(&root.join("renamed")),
        "under its new name"
    );
}

#[test]
fn a_hold_needs_a_reason_and_something_to_hold() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 1);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let path = root.join("d");
    let path = path.to_str().unwrap();
    let _ = ctl.run(["hold", "add", path]).ends_with(2);
    let _ = ctl
        .run(["hold", "add", "/no/such/volume", "--reason", "x"])
        .ends_with(1);
    let nothing = format!("{path}/no-such-file");
    let _ = ctl.run(["hold", "add", &nothing, "--reason", "x"]).ends_with(1);
    assert!(held(&ctl).is_empty());
}

#[test]
fn a_hold_on_any_directory_of_a_file_with_several_names_keeps_it() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("a"), 3);
    for kept in ["z", "a/below/kept"] {
        fs::create_dir_all(root.join(kept)).unwrap();
        fs::hard_link(&files[1], root.join(kept).join("other")).unwrap();
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    ctl.hold(&root.join("z"), &[]);
    let run = ctl.apply(&ctl.plan()).ok().json();
    assert_eq!(number(&run, "/deleted/files"), 2, "{run}");
    assert!(files[1].exists() && root.join("z/other").exists());
}
