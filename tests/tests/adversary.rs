//! Somebody who swaps directories, symlinks and mounts as fast as it can while an apply runs: nothing outside the volume, and
//! nothing outside the plan, is touched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, assert_same, make, regular_files};
use purge_tests::mount::Bind;
use purge_tests::wait::Ends;
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{CWD, RenameFlags, renameat_with};

fn swaps_wanted() -> u64 {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => 100_000,
        false => 20_000,
    }
}

fn exchange(a: &Path, b: &Path) -> bool {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

/// Swaps the directory `at` with each of `others` in turn until told to stop.
fn keep_swapping(at: &Path, others: &[PathBuf], stop: &AtomicBool, swaps: &AtomicU64) {
    while !stop.load(Relaxed) {
        for other in others {
            swaps.fetch_add(u64::from(exchange(at, other)), Relaxed);
            std::hint::spin_loop();
            swaps.fetch_add(u64::from(exchange(at, other)), Relaxed);
        }
    }
}

fn swapped(rule: &str) {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    // On the same file system, with the same names, and as old: only the volume and the plan protect it.
    let outside = mount.dir("outside");
    for n in 0..6 {
        make(&outside.join(format!("d{n}/sub")), 100);
        make(&root.join(format!("kept/d{n}/sub")), 100);
    }
    age_tree(&outside);
    let before_outside = regular_files(&outside);
    let swaps = AtomicU64::new(0);
    let mut removed = 0;
    let mut round = 0;
    while swaps.load(Relaxed) < swaps_wanted() {
        round += 1;
        let work = root.join(format!("work{round}"));
        for n in 0..6 {
            make(&work.join(format!("d{n}/sub")), 300);
            std::os::unix::fs::symlink(outside.join(format!("d{n}")), work.join(format!("link{n}"))).unwrap();
        }
        // Nobody touches these: they go.
        for n in 0..3 {
            make(&work.join(format!("calm{n}")), 50);
        }
        age_tree(&root);
        let config = Config::backdated_with(&root, &format!("exclude = [\"kept\", \"**/link*\"]\n{rule}"));
        let agent = Agent::tracking(&config);
        let ctl = agent.ctl();
        let plan = ctl.plan();
        let planned = ctl.show(&plan);
        assert!(!planned.is_empty(), "{}", plan.json);
        let kept = regular_files(&root.join("kept"));
        let stop = AtomicBool::new(false);
        let run = std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            for n in 0..6 {
                let at = work.join(format!("d{n}"));
                // With a symlink that leads out, with a directory of the volume that no plan names, with one from outside.
                let others = [
                    work.join(format!("link{n}")),
                    root.join(format!("kept/d{n}")),
                    outside.join(format!("d{n}")),
                ];
                let (stop, swaps) = (&stop, &swaps);
                scope.spawn(move || keep_swapping(&at, &others, stop, swaps));
            }
            let (stop, from, over) = (&stop, outside.join("d0/sub"), work.join("d0/sub"));
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    // Whatever lies there at the moment; a moment later something else may.
                    drop(Bind::new(&from, &over));
                }
            });
            ctl.run([
                "apply",
                &plan.id,
                "--yes",
                "--max-rate",
                "2000",
                "--output",
                "json",
            ])
        });
        assert!(matches!(run.code, 0 | 5), "{run:?}");
        let run = run.json();
        tally(&plan, &run);
        removed += number(&run, "/deleted/files") + number(&run, "/deleted/directories");
        // Every swap was done twice, so everything is where it was; unless a directory was taken in between.
        let all: BTreeSet<String> = names(&regular_files(&outside))
            .union(&names(&regular_files(&root)))
            .cloned()
            .collect();
        let outside_names = names(&before_outside);
        let kept_names = names(&kept);
        assert!(all.is_superset(&outside_names) && all.is_superset(&kept_names));
        let count = regular_files(&outside).len()
            + regular_files(&root.join("kept")).len()
            + regular_files(&work).len();
        assert!(
            count >= before_outside.len() + kept.len(),
            "more than planned is gone: {run}"
        );
        put_in_order(&work, &root, &outside);
        assert_same("outside the volume", &regular_files(&outside), &before_outside);
        assert_same("outside the plan", &regular_files(&root.join("kept")), &kept);
        drop(agent);
        let _ = fs::remove_dir_all(&work);
    }
    eprintln!(
        "{} swaps in {round} rounds, {removed} removed",
        swaps.load(Relaxed)
    );
    assert!(removed >= 3 * round, "a purge that removes nothing shows nothing");
}

fn names(files: &BTreeSet<PathBuf>) -> BTreeSet<String> {
    let last = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
    files.iter().filter_map(last).collect()
}

/// A swapper that was stopped between two swaps has left two things in each other's place: by what is in them they are told.
fn put_in_order(work: &Path, root: &Path, outside: &Path) {
    // What was mounted on a directory that was then swapped could not be unmounted by its path.
    for line in fs::read_to_string("/proc/self/mounts").unwrap().lines().rev() {
        let at = line.split(' ').nth(1).map(Path::new).unwrap_or(work);
        if at.ends_with("sub") && (at.starts_with(root) || at.starts_with(outside)) {
            let _ = std::process::Command::new("umount").arg(at).status();
        }
    }
    for n in 0..6 {
        let (at, link) = (work.join(format!("d{n}")), work.join(format!("link{n}")));
        if at.is_symlink() {
            exchange(&at, &link);
        }
        for (there, files) in [
            (root.join(format!("kept/d{n}")), 100),
            (outside.join(format!("d{n}")), 100),
        ] {
            let is_there = fs::read_dir(there.join("sub"))
                .map(|d| d.count() == files)
                .unwrap_or(false);
            if !is_there && at.is_dir() {
                exchange(&at, &there);
            }
        }
    }
}

#[test]
fn files_are_taken_only_where_the_plan_saw_them() {
    swapped("");
}

#[test]
fn directories_are_taken_only_where_the_plan_saw_them() {
    swapped("target = \"directory\"\ndepth = 2");
}
