//! Symbolic links: which of them go with their targets, which stay, and how they come back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use purge_tests::ctl::{Plan, number, tally, text};
use purge_tests::files::{age, age_tree, assert_same, make, make_one, now, read, set_times, walk_users};
use purge_tests::{Agent, Config, Fs, Mount, need};

const WITH_TARGET: &str = "symlinks = \"with-target\"";

fn file_at(path: &Path) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    make_one(path)
}

fn link(target: impl AsRef<Path>, at: PathBuf) -> PathBuf {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    symlink(target, &at).unwrap();
    age(&at);
    at
}

/// The links that a plan names.
fn links_of(agent: &Agent, plan: &Plan) -> BTreeSet<PathBuf> {
    let shown = agent.ctl().show(plan).into_iter();
    let links = shown.filter(|(_, c)| text(c, "kind") == "symlink");
    links.map(|(path, _)| path).collect()
}

fn all_links(root: &Path) -> BTreeSet<PathBuf> {
    let links = walk_users(root).into_iter().filter(|e| e.stat.is_symlink());
    links.map(|e| e.path).collect()
}

fn applied(agent: &Agent, plan: &Plan) -> serde_json::Value {
    let run = agent.ctl().apply(plan).ok().json();
    tally(plan, &run);
    run
}

#[test]
fn a_link_goes_with_its_target_or_when_it_leads_to_nothing_and_nothing_is_followed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    file_at(&outside.join("file"));
    let old = make(&root.join("env/lib"), 3);
    let used = file_at(&root.join("env/used"));
    file_at(&root.join("keep/excluded"));
    let go = BTreeSet::from([
        link("f000000", root.join("env/lib/relative")),
        link(&old[1], root.join("env/absolute")),
        link("env/lib/f000002", root.join("latest")),
        link("lib", root.join("env/lib64")),
        link("relative", root.join("env/lib/chain")),
        link("../lib/relative", root.join("env/bin/longer-chain")),
        link("nothing", root.join("env/dangling")),
        link("gone/below/it", root.join("env/dangling-below")),
        link(root.join("not/there"), root.join("env/dangling-absolute")),
        link("loop-b", root.join("env/loop-a")),
        link("loop-a", root.join("env/loop-b")),
    ]);
    let stay = BTreeSet::from([
        link("used", root.join("env/to-used")),
        link("../keep/excluded", root.join("env/to-excluded")),
        link("/nothing/outside", root.join("env/outside-dangling")),
        link("../../outside/nothing", root.join("env/outside-relative")),
        link("../../volume/env/lib/f000000", root.join("env/out-and-in")),
        link("used/below", root.join("env/below-a-file")),
        link("nothing", root.join("keep/excluded-link")),
    ]);
    age_tree(&root);
    // This one was made just now, and so was one on the way to nothing.
    symlink("nothing", root.join("env/young")).unwrap();
    link("young", root.join("env/to-young"));
    let stay: BTreeSet<PathBuf> = stay
        .into_iter()
        .chain(["env/young", "env/to-young"].map(|l| root.join(l)))
        .collect();
    let before: Vec<_> = all_links(&root)
        .iter()
        .map(|l| fs::symlink_metadata(l).unwrap().atime())
        .collect();
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        &format!("{WITH_TARGET}\nexclude = [\"/keep/**\"]"),
    ));
    let ctl = agent.ctl();
    read(&used);
    let plan = ctl.plan();
    assert_same("the links that go", &links_of(&agent, &plan), &go);
    assert_eq!(number(&plan.json, "/candidates/links"), go.len() as u64);
    let after: Vec<_> = all_links(&root)
        .iter()
        .map(|l| fs::symlink_metadata(l).unwrap().atime())
        .collect();
    assert_eq!(before, after, "a plan moves no access time");
    for candidate in ctl.show(&plan).values().filter(|c| text(c, "kind") == "symlink") {
        assert!(
            text(candidate, "because").contains("symbolic link"),
            "{candidate}"
        );
    }
    let run = applied(&agent, &plan);
    assert_eq!(number(&run, "/deleted/links"), go.len() as u64, "{run}");
    assert_same("what is left", &all_links(&root), &stay);
    assert!(
        !root.join("env/lib").exists() && !root.join("env/bin").exists(),
        "no shells are left"
    );
    assert!(outside.join("file").exists());
}

#[test]
fn held_links_links_to_what_is_held_and_links_with_two_names_stay() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.path();
    let file = file_at(&root.join("a/file"));
    file_at(&root.join("b/held"));
    let to_held = link("../b/held", root.join("a/to-held"));
    let in_held = link("nothing", root.join("b/dangling"));
    let two = link("nothing", root.join("a/two-names"));
    fs::hard_link(&two, root.join("a/second-name")).unwrap();
    let gone = link("file", root.join("a/to-file"));
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, WITH_TARGET));
    agent.ctl().hold(&root.join("b"), &[]);
    let plan = agent.ctl().plan();
    assert_same(
        "one goes",
        &links_of(&agent, &plan),
        &BTreeSet::from([gone.clone()]),
    );
    applied(&agent, &plan);
    assert!(!file.exists() && fs::symlink_metadata(&gone).is_err());
    for stays in [to_held, in_held, two] {
        assert!(fs::symlink_metadata(&stays).is_ok(), "{}", stays.display());
    }
}

#[test]
fn a_link_whose_target_stays_after_all_stays_and_so_does_one_that_was_changed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let target = file_at(&root.join("a/target"));
    let to_target = link("target", root.join("a/to-target"));
    let filled = link("soon", root.join("a/filled"));
    let changed = link("nothing", root.join("a/changed"));
    let exchanged = link("nothing", root.join("a/exchanged"));
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, WITH_TARGET));
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/links"), 4);
    read(&target);
    file_at(&root.join("a/soon"));
    fs::remove_file(&changed).unwrap();
    symlink("elsewhere", &changed).unwrap();
    // A file has its name now: nothing of it may go.
    fs::remove_file(&exchanged).unwrap();
    fs::write(&exchanged, "a user's").unwrap();
    let run = applied(&agent, &plan);
    assert_eq!(number(&run, "/deleted/links"), 0, "{run}");
    for stays in [&to_target, &filled, &changed] {
        assert!(
            fs::symlink_metadata(stays).unwrap().is_symlink(),
            "{}",
            stays.display()
        );
    }
    assert_eq!(fs::read(&exchanged).unwrap(), b"a user's");
}

#[test]
fn links_of_a_run_with_a_grace_come_back_as_they_were() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let file = file_at(&root.join("env/lib/file"));
    let links = [
        link("lib/file", root.join("env/to-file")),
        link("nothing", root.join("env/deep/dangling")),
    ];
    lchown(&links[0], Some(4001), Some(4002)).unwrap();
    age_tree(&root);
    let what = |path: &Path| {
        let m = fs::symlink_metadata(path).unwrap();
        (m.ino(), m.uid(), m.gid(), m.mtime(), fs::read_link(path).unwrap())
    };
    let before = links.clone().map(|l| what(&l));
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        &format!("{WITH_TARGET}\ngrace = \"1h\""),
    ));
    let plan = agent.ctl().plan();
    let run = applied(&agent, &plan);
    assert_eq!(number(&run, "/trashed/links"), 2, "{run}");
    assert_eq!(number(&run, "/trashed/directories"), 3, "{run}");
    assert!(!root.join("env").exists());
    let restored = agent
        .ctl()
        .run(["restore", text(&run, "run_id"), "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&restored, "/restored/links"), 2, "{restored}");
    assert!(file.exists());
    assert_eq!(links.map(|l| what(&l)), before);
}

#[test]
fn links_stay_where_directories_do_and_go_by_their_own_age_where_the_rule_says_so() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a"), 2);
    let used = file_at(&root.join("a/used"));
    let live = link("used", root.join("a/live"));
    let dangling = link("nothing", root.join("a/dangling"));
    let outside = link("/nothing", root.join("a/outside"));
    age_tree(&root);
    let young = root.join("a/young");
    symlink("used", &young).unwrap();
    for keys in ["remove_empty_dirs = false", "symlinks = \"keep\""] {
        let agent = Agent::tracking(&Config::backdated_with(&root, keys));
        let plan = agent.ctl().plan();
        assert_eq!(number(&plan.json, "/candidates/links"), 0, "{keys}");
        let told = agent.ctl().explain(&dangling);
        assert!(
            text(&told["rules"][0], "because").contains("keeps symbolic links"),
            "{told}"
        );
    }
    let agent = Agent::tracking(&Config::backdated_with(&root, "symlinks = \"expired\""));
    read(&used);
    let plan = agent.ctl().plan();
    let all = BTreeSet::from([live.clone(), dangling, outside]);
    assert_same("all that are old", &links_of(&agent, &plan), &all);
    // It is followed: a process uses it.
    set_times(&live, now());
    applied(&agent, &plan);
    assert_same("what is left", &all_links(&root), &BTreeSet::from([live, young]));
}

#[test]
fn a_directory_rule_takes_links_beside_its_directories_and_those_within_go_with_them() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("job1/out"), 2);
    make(&root.join("job2"), 2);
    let used = file_at(&root.join("job2/used"));
    link("out/f000000", root.join("job1/inside"));
    link("nothing", root.join("job1/dangling"));
    let within = link("nothing", root.join("job2/dangling"));
    let latest = link("job1", root.join("latest"));
    let result = link("job1/out/f000001", root.join("result"));
    let current = link("job2", root.join("current"));
    age_tree(&root);
    let rule = |more: &str| {
        Config::new(&root, "baseline = \"mtime\"").rule(
            "jobs",
            &format!("target = \"directory\"\ndepth = 1\nttl = \"1h\"\nclock = [\"access\"]\n{more}"),
        )
    };
    {
        let agent = Agent::tracking(&rule(""));
        let plan = agent.ctl().plan();
        assert_eq!(
            number(&plan.json, "/candidates/links"),
            0,
            "only directories by default"
        );
    }
    let agent = Agent::tracking(&rule(WITH_TARGET));
    read(&used);
    let plan = agent.ctl().plan();
    let go = BTreeSet::from([latest, result]);
    assert_same("those beside it", &links_of(&agent, &plan), &go);
    applied(&agent, &plan);
    assert!(!root.join("job1").exists());
    assert_same(
        "what is left",
        &all_links(&root),
        &BTreeSet::from([within, current]),
    );
}

#[test]
fn explain_says_of_a_link_what_becomes_of_it() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    file_at(&root.join("file"));
    let dangling = link("nothing", root.join("dangling"));
    let live = link("file", root.join("live"));
    let out = link("/etc", root.join("out"));
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    for (path, word) in [
        (dangling, "leads to nothing"),
        (live, "its target goes"),
        (out, "out of the volume"),
    ] {
        let told = agent.ctl().explain(&path);
        assert!(text(&told["rules"][0], "because").contains(word), "{told}");
    }
}
