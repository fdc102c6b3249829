//! Nothing is lost that is used while it is purged. The benchmark of the same name does this at length, beside other purgers.

use std::process::Command;

use purge_tests::{Fs, Mount, binary, need};

/// Accesses on each of ext4, xfs, btrfs and tmpfs, with and without a grace.
const ACCESSES: &str = "1000";
/// A second: unoptimised programs and whatever else runs here must keep up.
const RATE: &str = "2000";

#[test]
fn nothing_is_lost_that_is_used_while_it_is_purged() {
    // Whatever cannot be mounted here cannot be raced on.
    for filesystem in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        drop(need!(Mount::new(filesystem)));
    }
    let out = Command::new("timeout")
        .args(["-k", "5", "300"])
        .arg(binary("purge-bench"))
        .args(["race", ACCESSES, RATE, "--ours"])
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
