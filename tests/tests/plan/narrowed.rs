//! Plans for a part of a volume, and plans that are told and not kept.

use std::collections::BTreeSet;
use std::path::PathBuf;

use purge_tests::ctl::{number, path_of, text};
use purge_tests::files::{age_tree, make};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};

const ALICE: u32 = 4101;
const BOB: u32 = 4102;

/// What a plan of these arguments takes, and its totals.
fn taken(ctl: &Ctl, more: &[&str]) -> BTreeSet<PathBuf> {
    let words = ["plan", "--output", "json"].iter().chain(more);
    let plan = ctl.run(words).ok().json();
    let shown = ctl
        .run(["show", text(&plan, "plan_id"), "--output", "ndjson"])
        .ok()
        .lines();
    let files = shown.iter().filter(|c| text(c, "kind") == "file").count() as u64;
    assert_eq!(files, number(&plan, "/candidates/files"), "{plan}");
    let kept = number(&plan, "/kept/limit");
    assert_eq!(kept, 12 - files, "the rest is counted once: {plan}");
    shown.iter().map(path_of).collect()
}

#[test]
fn a_plan_takes_only_what_lies_below_a_path_and_what_a_user_owns() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = |dir: &str, uid| {
        let made = make(&root.join(dir), 3);
        let owned = made.iter().cloned().chain([root.join(dir)]);
        owned.for_each(|p| std::os::unix::fs::chown(p, Some(uid), None).unwrap());
        made
    };
    let [ours, theirs] = [files("a/ours", ALICE), files("a/theirs", BOB)];
    let [ours_too, rest] = [files("b/ours", ALICE), files("b/theirs", BOB)];
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = \"all\""));
    let ctl = agent.ctl();
    let path = |dir: &str| root.join(dir).to_str().unwrap().to_owned();
    let dir = |dir: &str| root.join(dir);

    let below = taken(&ctl, &[&path("a")]);
    let expected = ours.iter().chain(&theirs).cloned();
    assert_eq!(
        below,
        expected
            .chain([dir("a/ours"), dir("a/theirs"), dir("a")])
            .collect()
    );
    let owned = taken(&ctl, &["--user", &ALICE.to_string()]);
    let expected = ours.iter().chain(&ours_too).cloned();
    assert_eq!(owned, expected.chain([dir("a/ours"), dir("b/ours")]).collect());
    let both = taken(&ctl, &[&path("b"), "--user", &BOB.to_string()]);
    assert_eq!(both, rest.iter().cloned().chain([dir("b/theirs")]).collect());

    let answer = ctl.run(["plan", &path("a/ours"), "--output", "json"]).ok().json();
    let why = answer.pointer("/left_out/0").unwrap().as_str().unwrap();
    assert!(why.contains("not below") && why.contains("a/ours"), "{why}");
    let _ = ctl.run(["plan", &path("nothing")]).ends_with(1);
    let _ = ctl.run(["plan", "--user", "no-such-user"]).ends_with(1);

    // It is applied as any other is.
    let run = ctl
        .run(["apply", text(&answer, "plan_id"), "--yes", "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&run, "/deleted/files"), 3, "{run}");
    assert!(ours.iter().all(|f| !f.exists()) && theirs.iter().chain(&ours_too).all(|f| f.exists()));
}

#[test]
fn a_directory_goes_as_a_whole_only_where_all_of_it_is_asked_for() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a/job"), 3);
    make(&root.join("b/job/part"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        "target = \"directory\"\ndepth = 2",
    ));
    let ctl = agent.ctl();
    let directories = |more: &[&str]| {
        let words = ["plan", "--output", "json", "--no-save"].iter().chain(more);
        number(&ctl.run(words).ok().json(), "/candidates/directories")
    };
    let path = |dir: &str| root.join(dir).to_str().unwrap().to_owned();
    assert_eq!(directories(&[]), 2);
    assert_eq!(directories(&[&path("a")]), 1);
    assert_eq!(directories(&[&path("a/job")]), 1);
    assert_eq!(directories(&[&path("b/job/part")]), 0);
}

#[test]
fn a_plan_that_is_not_saved_is_told_and_leaves_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let told = ctl.run(["plan", "--no-save", "--output", "json"]).ok().json();
    assert_eq!(
        (text(&told, "plan_id"), number(&told, "/candidates/files")),
        ("", 5)
    );
    let _ = ctl.run(["plan", "--no-save", "--detailed-exitcode"]).ends_with(2);
    let words = ctl.run(["plan", "--no-save"]).ok().text();
    assert!(
        words.contains("not saved") && !words.contains("purgectl apply"),
        "{words}"
    );
    let plans = ctl.run(["plans", "--output", "json"]).ok().json();
    assert_eq!(plans.as_array().unwrap().len(), 0, "{plans}");
    let _ = ctl.run(["show", "latest"]).ends_with(1);
}
