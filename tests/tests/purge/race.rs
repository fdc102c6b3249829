//! Nothing is lost that is used while it is purged. The benchmark of the same name does this at length, beside other purgers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};

/// Accesses on each of ext4, xfs, btrfs and tmpfs, with and without a grace. `PURGE_TESTS_ACCESSES` has another number.
const ACCESSES: &str = "1000";
/// A second: unoptimised programs must keep up beside other tests.
const RATE: &str = "2000";

#[test]
fn nothing_is_lost_that_is_used_while_it_is_purged() {
    // A file system that cannot be mounted here cannot be raced on.
    for filesystem in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        drop(need!(Mount::new(filesystem)));
    }
    let accesses = std::env::var("PURGE_TESTS_ACCESSES").unwrap_or_else(|_| ACCESSES.to_owned());
    let out = Command::new("timeout")
        .args(["-k", "5", "580"])
        .arg(binary("purge-bench"))
        .args(["race", &accesses, RATE, "--ours"])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&out.stdout);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}\n{said}\n{table}", out.status);
    // Two rows a file system, none of them empty.
    let counted = |row: &&str| {
        row.split_whitespace()
            .any(|word| word.parse::<u64>().is_ok_and(|n| n >= 1000))
    };
    let rows = table
        .lines()
        .filter(|row| row.contains("purge-agent"))
        .filter(counted);
    assert_eq!(rows.count(), 8, "{said}\n{table}");
}

/// Files of a round.
const FILES: usize = 12_000;
/// A thread renames a file in about this time. A directory goes as a whole, and takes as long as several.
const PAUSE: Duration = Duration::from_micros(150);
const PAUSE_OF_DIRECTORIES: Duration = Duration::from_millis(1);

/// Renames files to another name and back while a run takes them, each at most once; returns those of which it was done.
fn rename_to_and_fro(files: &[PathBuf], over: &AtomicBool, (seed, pause): (usize, Duration)) -> Vec<PathBuf> {
    let mut renamed = Vec::new();
    // Each thread has files of its own, in an order that is not that of the run.
    let own = (0..files.len()).filter_map(|n| files.get(n * 7919 % files.len()));
    for path in own.skip(seed).step_by(2) {
        if over.load(Relaxed) {
            break;
        }
        let other = path.with_extension("other");
        // A directory may have been taken with it in between.
        if fs::rename(path, &other).is_ok() && fs::rename(&other, path).is_ok() {
            renamed.push(path.clone());
        }
        let since = Instant::now();
        while since.elapsed() < pause {
            std::hint::spin_loop();
        }
    }
    renamed
}

/// When the agent takes the file, it has the name of the plan again, and an open file never told of it.
fn what_is_renamed_to_and_fro_stays(filesystem: Fs, files_a_directory: usize, keys: &str) {
    let mount = need!(Mount::sized(filesystem, 256, 40_000));
    let root = mount.path();
    let directories: Vec<Vec<PathBuf>> = (0..FILES / files_a_directory)
        .map(|n| make(&root.join(format!("d{n}")), files_a_directory))
        .collect();
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let plan = agent.ctl().plan();
    let planned = number(&plan.json, "/candidates/files") + number(&plan.json, "/candidates/files_inside");
    assert_eq!(planned, FILES as u64, "{}", plan.json);
    // Of a directory that goes as a whole, one file is enough.
    let (used, pause): (Vec<PathBuf>, _) = match keys.contains("target") {
        true => (
            directories
                .iter()
                .filter_map(|files| files.first().cloned())
                .collect(),
            PAUSE_OF_DIRECTORIES,
        ),
        false => (directories.concat(), PAUSE),
    };
    let over = AtomicBool::new(false);
    let (run, renamed) = std::thread::scope(|scope| {
        let users = [0, 1].map(|seed| {
            let (used, over) = (&used, &over);
            scope.spawn(move || rename_to_and_fro(used, over, (seed, pause)))
        });
        let run = agent.ctl().apply(&plan).json();
        over.store(true, Relaxed);
        (run, users.map(|user| user.join().unwrap()).concat())
    });
    let lost: Vec<_> = renamed.iter().filter(|path| !path.exists()).collect();
    let (lost, of, first) = (lost.len(), renamed.len(), lost.first());
    assert_eq!(lost, 0, "of {of}: {first:?}\n{run}");
    // Both had their share.
    let count = |what| ["deleted", "trashed"].map(|end| number(&run, &format!("/{end}/{what}")));
    let taken: u64 = [count("files"), count("directories")].concat().iter().sum();
    assert!(of > 100 && taken > 100, "{of} renamed\n{run}");
}

#[test]
fn what_is_renamed_to_and_fro_while_it_is_purged_stays() {
    for filesystem in [Fs::Tmpfs, Fs::Ext4, Fs::Btrfs] {
        what_is_renamed_to_and_fro_stays(filesystem, 600, "remove_empty_dirs = false");
    }
}

#[test]
fn what_is_renamed_to_and_fro_while_it_goes_to_the_trash_stays() {
    let keys = "remove_empty_dirs = false\ngrace = \"1d\"";
    what_is_renamed_to_and_fro_stays(Fs::Tmpfs, 600, keys);
    what_is_renamed_to_and_fro_stays(Fs::Ext4, 600, keys);
}

#[test]
fn a_directory_of_which_a_file_is_renamed_to_and_fro_stays() {
    let keys = "target = \"directory\"\ndepth = 1";
    what_is_renamed_to_and_fro_stays(Fs::Tmpfs, 4, keys);
    what_is_renamed_to_and_fro_stays(Fs::Ext4, 4, keys);
}
