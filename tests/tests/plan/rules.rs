//! What rules take and leave.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{
    age, age_tree, assert_same, files_and_directories, make, make_one, read, regular_files,
};
use purge_tests::wait::until_same;
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

fn kept(json: &Value, reason: &str) -> u64 {
    number(json, &format!("/kept/{reason}"))
}

#[test]
fn a_directory_goes_as_a_whole_exactly_when_everything_in_it_has_expired() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let dirs: Vec<PathBuf> = (0..1000).map(|i| root.join(format!("job{i:04}"))).collect();
    for dir in &dirs {
        make(dir, 2);
        make(&dir.join("sub/deep"), 1);
    }
    make_one(&root.join("at-the-root"));
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"").rule(
        "jobs",
        "target = \"directory\"\ndepth = 1\nttl = \"1h\"\nclock = [\"access\"]",
    );
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    // One file deep inside is enough.
    let used: BTreeSet<PathBuf> = dirs.iter().step_by(7).cloned().collect();
    used.iter().for_each(|d| read(&d.join("sub/deep/f000000")));
    let expected: BTreeSet<PathBuf> = dirs.iter().filter(|d| !used.contains(*d)).cloned().collect();

    let plan = ctl.plan();
    let shown = ctl.show(&plan);
    assert_same("exactly those", &shown.keys().cloned().collect(), &expected);
    assert!(
        shown.values().all(|c| text(c, "kind") == "directory"),
        "each as one"
    );
    let first = shown.values().next().unwrap();
    assert_eq!(number(first, "/bytes"), 60, "the bytes of what is in it");
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, expected.len() as u64);
    let left: BTreeSet<PathBuf> = dirs.iter().filter(|d| d.exists()).cloned().collect();
    assert_same("what is left", &left, &used);
    assert!(
        used.iter().all(|d| files_and_directories(d).len() == 5),
        "whole, not in part"
    );
    assert!(root.join("at-the-root").exists());
}

#[test]
fn a_directory_in_which_anything_is_used_between_plan_and_apply_stays_whole() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let dirs: Vec<PathBuf> = (0..20).map(|i| root.join(format!("job{i:02}"))).collect();
    dirs.iter().for_each(|d| drop(make(&d.join("a/b"), 5)));
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"").rule(
        "jobs",
        "target = \"directory\"\nttl = \"1h\"\nclock = [\"access\"]",
    );
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/directories"), 20);
    read(&dirs[3].join("a/b/f000002"));
    make_one(&dirs[4].join("a/new"));
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, counts.skipped), (18, 2), "{run}");
    assert_eq!(regular_files(&dirs[3]).len(), 5);
    assert_eq!(regular_files(&dirs[4]).len(), 6);
}

#[test]
fn include_and_exclude_are_gitignore_globs_below_the_volume() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for dir in [
        "scratch/alice",
        "scratch/software/bin",
        "home",
        "scratch/alice/tmp",
    ] {
        make(&root.join(dir), 2);
        make_one(&root.join(dir).join(".keep"));
        make_one(&root.join(dir).join("x.tmp"));
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(
        &root,
        "include = [\"scratch/**\"]\nexclude = [\"**/.keep\", \"scratch/software/**\"]\nremove_empty_dirs = false",
    ));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let expected: BTreeSet<PathBuf> = regular_files(&root.join("scratch"))
        .into_iter()
        .filter(|p| !p.ends_with(".keep") && !p.starts_with(root.join("scratch/software")))
        .collect();
    assert_same("in scope", &ctl.show(&plan).into_keys().collect(), &expected);
    let all = regular_files(&root).len() as u64;
    assert_eq!(number(&plan.json, "/index_files"), all);
    let outside = regular_files(&root.join("home")).len() as u64;
    assert_eq!(kept(&plan.json, "out_of_scope"), outside);
    assert_eq!(
        kept(&plan.json, "excluded"),
        all - expected.len() as u64 - outside
    );
}

#[test]
fn users_and_sizes_narrow_a_rule() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 40);
    for (i, file) in files.iter().enumerate() {
        // Even ones belong to the user `nobody`; of each ten the first four are large.
        let uid = if i % 2 == 0 { 65534 } else { 0 };
        let size = if i % 10 < 4 { 100_000 } else { 50 };
        fs::File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_len(size)
            .unwrap();
        chown(file, Some(uid), None).unwrap();
    }
    age_tree(&root);
    let of = |keep: &dyn Fn(usize) -> bool| -> BTreeSet<PathBuf> {
        files
            .iter()
            .enumerate()
            .filter(|(i, _)| keep(*i))
            .map(|(_, f)| f.clone())
            .collect()
    };
    let base = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false\n";
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule("of-nobody", &format!("{base}users = [\"nobody\"]"))
        .rule("not-of-nobody", &format!("{base}exclude_users = [\"nobody\"]"))
        .rule("large", &format!("{base}min_size = \"10kB\""))
        .rule("small", &format!("{base}max_size = \"1kB\""))
        .rule(
            "large-roots",
            &format!("{base}min_size = \"10kB\"\nusers = [\"root\"]"),
        );
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let taken = |rule: &str| -> BTreeSet<PathBuf> {
        ctl.show(&ctl.plan_with(["--rule", rule])).into_keys().collect()
    };
    assert_same("of the user `nobody`", &taken("of-nobody"), &of(&|i| i % 2 == 0));
    assert_same("all others'", &taken("not-of-nobody"), &of(&|i| i % 2 == 1));
    assert_same("large", &taken("large"), &of(&|i| i % 10 < 4));
    assert_same("small", &taken("small"), &of(&|i| i % 10 >= 4));
    assert_same(
        "large and root's",
        &taken("large-roots"),
        &of(&|i| i % 10 < 4 && i % 2 == 1),
    );

    let plan = ctl.plan_with(["--rule", "of-nobody"]);
    let owners = plan.json.get("by_owner").and_then(Value::as_array).unwrap();
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!(text(&owners[0], "owner"), "nobody");
    assert_eq!(number(&owners[0], "/files"), 20);
    assert_eq!(
        number(&owners[0], "/bytes"),
        number(&plan.json, "/candidates/bytes")
    );
}

#[test]
fn empty_directories_go_from_the_bottom_up_and_the_root_never() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make(&root.join("a/b/c"), 3);
    fs::create_dir_all(root.join("empty/of/old")).unwrap();
    make(&root.join("mixed/old"), 2);
    let young = make_one(&root.join("mixed/young"));
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = true"));
    let ctl = agent.ctl();
    read(&young);
    let plan = ctl.plan();
    let expected: BTreeSet<PathBuf> = [
        "a",
        "a/b",
        "a/b/c",
        "empty",
        "empty/of",
        "empty/of/old",
        "mixed/old",
    ]
    .iter()
    .map(|d| root.join(d))
    .collect();
    let order: Vec<PathBuf> = ctl
        .run(["show", &plan.id, "--output", "ndjson"])
        .ok()
        .lines()
        .iter()
        .filter(|c| text(c, "kind") == "directory")
        .map(|c| text(c, "path").into())
        .collect();
    assert_same(
        "directories that become empty",
        &order.iter().cloned().collect(),
        &expected,
    );
    for (i, dir) in order.iter().enumerate() {
        let before = order
            .iter()
            .take(i)
            .filter(|earlier| dir.starts_with(earlier))
            .count();
        assert_eq!(before, 0, "{} comes after what holds it", dir.display());
    }
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/directories"), 7);
    tally(&plan, &run);
    assert_same(
        "what is left",
        &files_and_directories(&root),
        &BTreeSet::from([root.join("mixed"), young]),
    );

    fs::remove_dir_all(root.join("mixed")).unwrap();
    age(&root);
    let again = ctl.plan();
    assert_eq!(
        number(&again.json, "/candidates/directories"),
        0,
        "an empty volume keeps its root"
    );
    assert!(root.exists());
}

#[test]
fn a_directory_that_a_user_fills_between_plan_and_apply_stays() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let root = mount.path();
    make(&root.join("a/b"), 3);
    make(&root.join("c"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/directories"), 3);
    let new = make_one(&root.join("a/b/new"));
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_eq!(number(&run, "/deleted/files"), 6);
    assert_eq!(number(&run, "/deleted/directories"), 1);
    assert!(new.exists() && !root.join("c").exists());
}

#[test]
fn max_empty_dirs_limits_a_run() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for i in 0..20 {
        fs::create_dir(root.join(format!("d{i}"))).unwrap();
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "max_empty_dirs = 3"));
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/directories"), 3);
}

#[test]
fn empty_directories_stay_where_the_rule_says_so() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a"), 3);
    fs::create_dir(root.join("b")).unwrap();
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/directories"), 0);
    let _ = ctl.apply(&plan).ok();
    assert!(root.join("a").exists() && root.join("b").exists());
}

#[test]
fn a_limit_on_files_takes_the_oldest_and_names_the_rest() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 50);
    for (i, file) in files.iter().enumerate() {
        purge_tests::files::set_times(file, 1_000_000_000 + 86_400 * ((i as i64 * 17) % 50));
    }
    let config = Config::backdated_with(&root, "max_files = 12\nremove_empty_dirs = false");
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 12);
    assert_eq!(kept(&plan.json, "limit"), 38);
    let expected = files
        .iter()
        .enumerate()
        .filter(|(i, _)| (i * 17) % 50 < 12)
        .map(|(_, f)| f.clone())
        .collect();
    assert_same("the oldest", &ctl.show(&plan).into_keys().collect(), &expected);
}

#[test]
fn a_limit_on_bytes_is_never_exceeded() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 30);
    for file in &files {
        fs::File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_len(1000)
            .unwrap();
    }
    age_tree(&root);
    let config = Config::backdated_with(&root, "max_bytes = \"10500B\"\nremove_empty_dirs = false");
    let agent = Agent::tracking(&config);
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 10);
    assert_eq!(number(&plan.json, "/candidates/bytes"), 10_000);
    assert_eq!(kept(&plan.json, "limit"), 20);
}

#[test]
fn candidates_and_kept_are_together_all_files() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 100);
    age_tree(&root);
    let keys = "exclude = [\"**/f00001*\"]\nmax_files = 50\nremove_empty_dirs = false";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let ctl = agent.ctl();
    files.iter().take(5).for_each(|f| read(f));
    ctl.hold(&files[20], &[]);
    ctl.hold(&files[21], &[]);
    let plan = ctl.plan();
    let count = |pointer| number(&plan.json, pointer);
    assert_eq!(count("/kept/young"), 5);
    assert_eq!(count("/kept/excluded"), 10);
    assert_eq!(count("/kept/held"), 2);
    assert_eq!(count("/kept/uncovered"), 0);
    assert_eq!(count("/kept/limit"), 33);
    assert_eq!(count("/candidates/files"), 50);
    assert_eq!(count("/index_files"), 100);
}

#[test]
fn a_plan_names_every_rule_also_those_that_matched_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5);
    age_tree(&root);
    let base = "ttl = \"1h\"\nclock = [\"access\"]";
    let config = Config::backdated(&root)
        .rule("nowhere", &format!("{base}\ninclude = [\"no/such/place/**\"]"))
        .rule("huge", &format!("{base}\nmin_size = \"1TB\""));
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let mut named: Vec<&str> = plan
        .json
        .get("rules")
        .and_then(Value::as_array)
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["huge", "nowhere", "old"]);
    let words = ctl.run(["plan"]).ok().text();
    for rule in ["huge", "nowhere", "old"] {
        assert!(words.contains(rule), "{rule} is not named:\n{words}");
    }
}

#[test]
fn lost_and_found_is_never_a_candidate() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    assert!(root.join("lost+found").is_dir());
    make(&root.join("lost+found/d"), 3);
    let files = make(&root.join("d"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "max_empty_dirs = 0"));
    let ctl = agent.ctl();
    let mut planned = ctl.candidates();
    planned.remove(&root.join("d"));
    assert_same("the others", &planned, &files.into_iter().collect());
}

#[test]
fn the_first_rule_that_takes_a_file_is_its_reason() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a"), 4);
    make(&root.join("b"), 4);
    age_tree(&root);
    let base = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule("only-a", &format!("{base}\ninclude = [\"a/**\"]"))
        .rule("all", base);
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let shown = ctl.show(&ctl.plan());
    assert_eq!(shown.len(), 8, "no file is named twice");
    for (path, candidate) in shown {
        let rule = if path.starts_with(root.join("a")) {
            "only-a"
        } else {
            "all"
        };
        assert_eq!(text(&candidate, "rule"), rule, "{}", path.display());
        assert_eq!(text(&candidate, "source"), "mtime");
        assert!(number(&candidate, "/age_seconds") > 86_400 * 399);
    }
}

#[test]
fn a_volume_and_a_ttl_on_the_command_line_are_enough() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let files: BTreeSet<PathBuf> = make(&root.join("d"), 20).into_iter().collect();
    let agent = Agent::of_volume(&root, "2s");
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    until_same("all have expired", &files, || ctl.candidate_files());
    // A TTL may also come with the plan: nothing here is as old as a day.
    let plan = ctl.plan_with(["--ttl", "1d"]);
    assert_eq!(number(&plan.json, "/candidates/files"), 0);
    assert_eq!(kept(&plan.json, "young"), 20);
}
