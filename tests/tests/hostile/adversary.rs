//! A user who swaps directories, symlinks and mounts as fast as possible while an apply runs: nothing outside the volume, and
//! nothing outside the plan, is touched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, assert_same, inode, make, regular_files};
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

/// A user who swaps what lies at one place with what lies at others.
struct Swapper {
    at: PathBuf,
    others: [PathBuf; 3],
    /// What lay at the others before.
    inodes: [u64; 3],
}

impl Swapper {
    fn new(at: PathBuf, others: [PathBuf; 3]) -> Self {
        let inodes = others.each_ref().map(|place| inode(place));
        Self { at, others, inodes }
    }

    /// With each of the others in turn, to and fro, until told to stop.
    fn keep_swapping(&self, stop: &AtomicBool, swaps: &AtomicU64) {
        while !stop.load(Relaxed) {
            for other in &self.others {
                swaps.fetch_add(u64::from(exchange(&self.at, other)), Relaxed);
                std::hint::spin_loop();
                swaps.fetch_add(u64::from(exchange(&self.at, other)), Relaxed);
            }
        }
    }

    /// Brings back to the others what was there: a swap that failed while the agent was moving one of them has mixed them up.
    fn put_in_order(&self) {
        for (place, ino) in self.others.iter().zip(self.inodes) {
            let lies_at = |p: &&PathBuf| fs::symlink_metadata(p).is_ok_and(|m| m.ino() == ino);
            let Some(now) = std::iter::once(&self.at).chain(&self.others).find(lies_at) else {
                panic!("what was at {} is missing", place.display());
            };
            if now != place && !exchange(now, place) {
                fs::rename(now, place).unwrap();
            }
        }
    }
}

fn only_what_was_planned_goes(rule: &str) {
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
        // These are not touched: they are deleted.
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
        let swapper = |n| {
            // With a symlink that leads out, with a directory of the volume that no plan names, with one from outside.
            let others = [
                work.join(format!("link{n}")),
                root.join(format!("kept/d{n}")),
                outside.join(format!("d{n}")),
            ];
            Swapper::new(work.join(format!("d{n}")), others)
        };
        let swappers: Vec<Swapper> = (0..6).map(swapper).collect();
        let run = std::thread::scope(|scope| {
            let _ends = Ends(&stop);
            for swapper in &swappers {
                let (stop, swaps) = (&stop, &swaps);
                scope.spawn(move || swapper.keep_swapping(stop, swaps));
            }
            let (stop, from, over) = (&stop, outside.join("d0/sub"), work.join("d0/sub"));
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    // What lies there at the moment; a moment later it may be something else.
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
        unmount_all_below(&mount.path());
        swappers.iter().for_each(Swapper::put_in_order);
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

/// What was mounted on a directory that was then swapped could not be unmounted by its path.
fn unmount_all_below(place: &Path) {
    for line in fs::read_to_string("/proc/self/mounts").unwrap().lines().rev() {
        let at = line.split(' ').nth(1).map(Path::new).unwrap_or(place);
        if at.ends_with("sub") && at.starts_with(place) {
            let _ = std::process::Command::new("umount").arg(at).status();
        }
    }
}

#[test]
fn files_are_taken_only_where_the_plan_saw_them() {
    only_what_was_planned_goes("");
}

#[test]
fn directories_are_taken_only_where_the_plan_saw_them() {
    only_what_was_planned_goes("target = \"directory\"\ndepth = 2");
}
