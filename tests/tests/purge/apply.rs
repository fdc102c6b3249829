//! What an apply removes, what it leaves, and that it counts every candidate once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use purge_tests::ctl::{number, path_of, tally, text};
use purge_tests::files::{
    age_tree, append, assert_same, make, make_one, read, regular_files, set_times, shell,
};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

fn skipped(run: &Value, reason: &str) -> u64 {
    number(run, &format!("/skipped/{reason}"))
}

/// Files only: the counts are those of the files then.
fn config(mount: &Mount) -> Config {
    Config::backdated_with(&mount.path(), "remove_empty_dirs = false")
}

#[test]
fn exactly_the_planned_files_go_and_the_counts_add_up() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d/e"), 2000);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let young: BTreeSet<PathBuf> = files.iter().take(300).cloned().collect();
    young.iter().for_each(|f| read(f));
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 1700);
    assert_same(
        "a plan changes nothing",
        &regular_files(&root),
        &files.iter().cloned().collect(),
    );
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, counts.skipped, counts.failed), (1700, 0, 0));
    assert_eq!(
        number(&run, "/deleted/bytes"),
        number(&plan.json, "/candidates/bytes")
    );
    assert_eq!(text(&run, "state"), "completed");
    assert_same("what was used", &regular_files(&root), &young);

    let id = text(&run, "run_id");
    let again = ctl.run(["run", id, "--output", "json"]).ok().json();
    assert_eq!(number(&again, "/deleted/files"), 1700, "the run is remembered");
    let runs = ctl.run(["runs", "--output", "ndjson"]).ok().lines();
    assert!(runs.iter().any(|r| text(r, "run_id") == id));
    assert_eq!(number(&agent.status(), "/files"), 300, "the index follows");
}

#[test]
fn what_was_used_or_changed_between_plan_and_apply_survives() {
    const EACH: usize = 10;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 100);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 100);

    let group = |n: usize| files.iter().skip(n * EACH).take(EACH);
    group(0).for_each(|f| read(f));
    group(1).for_each(|f| append(f));
    for file in group(2) {
        // Another file of the same name, size and times.
        let other = make_one(&root.join("d/other"));
        set_times(
            &other,
            fs::metadata(file)
                .unwrap()
                .modified()
                .unwrap()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs() as i64,
        );
        fs::rename(&other, file).unwrap();
    }
    group(3).for_each(|f| fs::rename(f, f.with_extension("renamed")).unwrap());
    group(4).for_each(|f| {
        fs::File::options()
            .write(true)
            .open(f)
            .unwrap()
            .set_len(3)
            .unwrap()
    });
    shell(&root.join("d"), "chmod 600 f00005*");
    group(6).for_each(|f| fs::remove_file(f).unwrap());

    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, counts.failed), (30, 0), "{run}");
    assert!(skipped(&run, "accessed") >= EACH as u64, "{run}");
    assert_eq!(
        skipped(&run, "accessed") + skipped(&run, "changed"),
        5 * EACH as u64,
        "{run}"
    );
    assert_eq!(skipped(&run, "gone"), 2 * EACH as u64, "{run}");
    for n in [0, 1, 2, 4, 5] {
        assert!(group(n).all(|f| f.exists()), "group {n} lost a file");
    }
    assert!(group(3).all(|f| f.with_extension("renamed").exists()));
    assert!(group(7).chain(group(8)).chain(group(9)).all(|f| !f.exists()));
}

/// Reads every `step`th file from number `from` on as soon as a slow apply of all of them has begun.
fn read_while_applying(from: usize, step: usize, rounds: usize) {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 6000);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let slowly = [
        "apply",
        &plan.id,
        "--yes",
        "--max-rate",
        "1500",
        "--output",
        "json",
    ];
    let (answer, read_while_there) = std::thread::scope(|scope| {
        let applying = scope.spawn(|| ctl.run(slowly));
        until("the first files are deleted", SOON, || {
            (regular_files(&root).len() < files.len()).then_some(())
        });
        let mut read_while_there = BTreeSet::new();
        for round in 0..rounds {
            for file in files.iter().skip(from + round).step_by(step) {
                if fs::read(file).is_ok() {
                    read_while_there.insert(file.clone());
                }
            }
        }
        (applying.join().unwrap().ok(), read_while_there)
    });
    assert!(
        !read_while_there.is_empty(),
        "the run was over before anything was read"
    );
    let lost: Vec<_> = read_while_there.iter().filter(|f| !f.exists()).collect();
    let (lost, read) = (lost.len(), read_while_there.len());
    assert_eq!(lost, 0, "of {read} files that were read during the apply");
    let run = answer.json();
    tally(&plan, &run);
    assert!(skipped(&run, "accessed") > 0, "{run}");
}

#[test]
fn files_used_before_the_running_apply_comes_to_them_survive() {
    read_while_applying(4000, 13, 1);
}

#[test]
fn a_file_held_after_the_plan_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let a = make(&root.join("a"), 10);
    let b = make(&root.join("b/c"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    ctl.hold(&a[3], &[]);
    ctl.hold(&root.join("b"), &[]);
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, skipped(&run, "held")), (9, 11), "{run}");
    assert!(a[3].exists() && b.iter().all(|f| f.exists()));
}

#[test]
fn a_directory_replaced_by_a_symlink_leads_no_run_out_of_the_volume() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = mount.dir("outside");
    make(&root.join("top/d"), 20);
    make(&outside.join("d"), 20);
    make(&outside.join("top/d"), 20);
    age_tree(&mount.path());
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    for (dir, to) in [("top/d", outside.join("d")), ("top", outside.join("top"))] {
        let plan = ctl.plan();
        assert!(number(&plan.json, "/candidates/files") >= 20);
        let aside = root.join("aside");
        fs::rename(root.join(dir), &aside).unwrap();
        symlink(&to, root.join(dir)).unwrap();
        let run = ctl.apply(&plan).json();
        assert_eq!(number(&run, "/deleted/files"), 0, "{run}");
        tally(&plan, &run);
        assert_eq!(
            regular_files(&outside).len(),
            40,
            "something outside the volume is deleted"
        );
        assert_eq!(
            regular_files(&root).len(),
            20,
            "what was moved aside is not what was planned"
        );
        fs::remove_file(root.join(dir)).unwrap();
        fs::rename(&aside, root.join(dir)).unwrap();
    }
}

#[test]
fn a_plan_is_applied_once() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let _ = ctl.apply(&plan).ok();
    make(&root.join("d"), 10);
    let again = ctl.apply(&plan).ends_with(3);
    assert!(again.stderr.contains(&plan.id), "{}", again.stderr);
    assert_eq!(regular_files(&root).len(), 10);
}

#[test]
fn a_plan_beyond_max_fraction_is_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 100);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "max_fraction = 0.1"));
    let ctl = agent.ctl();
    // Whether the plan is refused or its apply: the exit code is the same, and nothing goes.
    let planned = ctl.run(["plan", "--output", "json"]);
    if planned.code == 0 {
        let id = text(&planned.json(), "plan_id").to_owned();
        let _ = ctl.run(["apply", &id, "--yes"]).ends_with(3);
    } else {
        let _ = planned.ends_with(3);
    }
    let _ = ctl.run(["apply", "--rule", "old", "--yes"]).ends_with(3);
    assert_eq!(regular_files(&root).len(), 100);
}

#[test]
fn a_plan_made_under_other_rules_is_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    agent.write_config(&Config::backdated_with(
        &root,
        "remove_empty_dirs = false\nexclude = [\"d/**\"]",
    ));
    agent.reload();
    until("the new rules are in force", SOON, || {
        ctl.candidates().is_empty().then_some(())
    });
    let _ = ctl.apply(&plan).ends_with(3);
    assert_eq!(regular_files(&root).len(), 10);
}

#[test]
fn what_cannot_be_deleted_is_listed_and_the_exit_code_says_so() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 100);
    shell(&root.join("d"), "chown 54321 *; chmod g=rw *; chmod o= *");
    age_tree(&root);
    let stuck = [files[7].clone(), files[50].clone()];
    mount.spoil(&stuck);
    // However many fail, the others go.
    let config = Config::backdated_with(&root, "remove_empty_dirs = false\nmax_errors = 1.0");
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let answer = ctl.apply(&plan).ends_with(5);
    let run = answer.json();
    let counts = tally(&plan, &run);
    assert_eq!((counts.deleted, counts.failed), (98, 2), "{run}");
    assert_eq!(text(&run, "state"), "partial");
    let failed = run.get("failed").and_then(Value::as_array).unwrap();
    let named: BTreeSet<PathBuf> = failed.iter().map(path_of).collect();
    assert_same("those that cannot be opened", &named, &BTreeSet::from(stuck));
    assert!(failed.iter().all(|f| !text(f, "error").is_empty()));
    assert_same("they are still there", &regular_files(&root), &named);
}

#[test]
fn a_volume_has_one_run_at_a_time_and_a_run_can_be_cancelled() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 4000);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    let (first, second) = (ctl.plan(), ctl.plan());
    let run = std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            ctl.run([
                "apply",
                &first.id,
                "--yes",
                "--max-rate",
                "100",
                "--output",
                "json",
            ])
        });
        let id = until("the run has begun", SOON, || {
            let runs = ctl.run(["runs", "--output", "ndjson"]).ok().lines();
            Some(text(runs.first()?, "run_id").to_owned())
        });
        let refused = ctl.apply(&second).ends_with(3);
        assert!(!refused.stderr.is_empty(), "says why");
        let _ = ctl.run(["cancel", &id]).ok();
        let answer = slow.join().unwrap();
        assert_ne!(answer.code, 0, "a cancelled run is not done: {}", answer.text());
        answer.json()
    });
    assert_eq!(text(&run, "state"), "cancelled");
    let counts = tally(&first, &run);
    assert!(counts.deleted < 4000 && counts.skipped > 0, "{run}");
    assert_eq!(regular_files(&root).len() as u64, 4000 - counts.deleted);

    // The volume is free again; what the cancelled run took is missing for the other plan.
    let run = ctl.apply(&second).ok().json();
    assert_eq!(tally(&second, &run).deleted, 4000 - counts.deleted, "{run}");
}

#[test]
fn plan_and_apply_in_one_step_removes_what_the_rule_takes() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let agent = Agent::tracking(&config(&mount));
    let ctl = agent.ctl();
    read(&files[0]);
    let run = ctl
        .run(["apply", "--rule", "old", "--yes", "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&run, "/deleted/files"), 19);
    assert_same(
        "the one that was read",
        &regular_files(&root),
        &BTreeSet::from([files[0].clone()]),
    );
}
