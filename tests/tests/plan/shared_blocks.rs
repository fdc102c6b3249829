//! Copies that share blocks (reflinks), and quotas of several users: `st_blocks` counts a shared block for each file and each place in it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::ctl::number;
use purge_tests::files::{count_files, now, set_times};
use purge_tests::notices::{ALICE, BOB};
use purge_tests::wait::let_pass;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

const HOUR: i64 = 3600;
const GROUP: u32 = 62_000;
const MIB: u64 = 1 << 20;
/// The first look at quotas is five seconds after the start.
const LOOK_SECONDS: u64 = 8;

/// Makes a file of its first bytes, again and again: `FICLONERANGE` of ioctl_ficlonerange(2).
const REPEAT: &str = "\
import fcntl, os, struct, sys
path, size, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.write(fd, os.urandom(size))
os.fsync(fd)
while size < end:
  fcntl.ioctl(fd, 0x4020940d, struct.pack('qQQQ', fd, 0, size, size))
  size *= 2
";

fn give(path: &Path, uid: u32, hours: i64) {
    chown(path, Some(uid), Some(GROUP)).unwrap();
    set_times(path, now() - hours * HOUR);
}

fn put(path: &Path, uid: u32, bytes: u64, hours: i64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut noise = Command::new("dd");
    noise.args(["if=/dev/urandom", "bs=64K", "iflag=fullblock,count_bytes"]);
    noise.arg(format!("count={bytes}"));
    sh(noise.arg(format!("of={}", path.display()))).unwrap();
    give(path, uid, hours);
}

fn clone(from: &Path, to: &Path, uid: u32, hours: i64) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    sh(Command::new("cp").arg("--reflink=always").args([from, to])).unwrap();
    give(to, uid, hours);
}

/// A group and a directory that may have 100 MB, and whose files go three days after their last use.
fn config(root: &Path) -> Config {
    let rule = "ttl = \"28d\"\nclock = [\"access\"]\nremove_empty_dirs = false\nmax_fraction = 1.0";
    let quota = |name: &str, subject: &str| {
        format!(
            "name = \"{name}\"\nsubject = {subject}\nhard = \"100MB\"\naction = \"purge\"\nmin_age = \"2d\""
        )
    };
    Config::new(root, "baseline = \"mtime\"")
        .rule("old", rule)
        .table("quota", &quota("group", "\"group\""))
        .table("quota", &quota("directory", "\"directory\"\ndepth = 1"))
}

fn candidates(agent: &Agent, quota: &str) -> u64 {
    let plan = agent.ctl().plan_with(["--quota", quota]);
    number(&plan.json, "/candidates/files")
}

fn of_bob(root: &Path) -> PathBuf {
    let bob = root.join("shared/bob");
    for n in 0..20 {
        put(&bob.join(format!("f{n}")), BOB, 10_000, 72);
    }
    bob
}

#[test]
fn shared_blocks_count_once_and_delete_nothing_of_others() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    let bob = of_bob(&root);
    // Within one file, and over many.
    let repeated = root.join("shared/alice/repeated");
    fs::create_dir_all(repeated.parent().unwrap()).unwrap();
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", REPEAT]).arg(&repeated);
    sh(python.args([(4 * MIB).to_string(), (1024 * MIB).to_string()])).unwrap();
    give(&repeated, ALICE, 1);
    let one = root.join("shared/alice/one");
    put(&one, ALICE, 4 * MIB, 1);
    for n in 0..50 {
        clone(&one, &root.join(format!("shared/alice/clones/c{n}")), ALICE, 1);
    }
    sh(&mut Command::new("sync")).unwrap();
    let is = fs::metadata(&repeated).unwrap();
    assert!(is.blocks() * 512 >= 1024 * MIB, "{} blocks", is.blocks());
    let agent = Agent::tracking(&config(&root));
    assert_eq!(
        (candidates(&agent, "group"), candidates(&agent, "directory")),
        (0, 0)
    );
    let_pass(LOOK_SECONDS);
    assert_eq!(count_files(&bob), 20, "nothing went by itself");
    // What is really there counts: once, also where a copy has the same blocks.
    let real = root.join("shared/carol/real");
    put(&real, ALICE, 101 * MIB, 71);
    clone(&real, &root.join("shared/carol/copy"), ALICE, 1);
    sh(&mut Command::new("sync")).unwrap();
    assert!(candidates(&agent, "group") > 0 && candidates(&agent, "directory") > 0);
}

/// A file that looks as large as many volumes, of one user, and young: measured against it, everything is little.
fn a_young_file_of_shared_blocks_lets_no_limit_pass(filesystem: Fs) {
    let mount = need!(Mount::new(filesystem));
    let root = mount.path();
    put(&root.join("bob/old"), BOB, 60 * MIB, 240);
    for n in 0..9 {
        put(&root.join(format!("bob/young{n}")), BOB, MIB / 2, 1);
    }
    let large = root.join("alice");
    let sizes = [16 * MIB, 16 << 30].map(|n: u64| n.to_string());
    sh(Command::new("python3")
        .arg("-c")
        .arg(REPEAT)
        .arg(&large)
        .args(sizes))
    .unwrap();
    give(&large, ALICE, 1);
    let rule = "ttl = \"5d\"\nclock = [\"access\"]\nmax_fraction = 0.25";
    let agent = Agent::tracking(&Config::new(&root, "baseline = \"mtime\"").rule("old", rule));
    let plan = agent.ctl().plan();
    let refusal = plan.json["refusal"].as_str().unwrap_or_default();
    assert!(refusal.contains("max_fraction 25%"), "{}", plan.json);
    let _ = agent.ctl().apply(&plan).ends_with(3);
    assert_eq!(count_files(&root.join("bob")), 10);
}

#[test]
fn a_young_file_of_shared_blocks_lets_no_limit_pass_on_xfs() {
    a_young_file_of_shared_blocks_lets_no_limit_pass(Fs::Xfs);
}

#[test]
fn a_young_file_of_shared_blocks_lets_no_limit_pass_on_btrfs() {
    a_young_file_of_shared_blocks_lets_no_limit_pass(Fs::Btrfs);
}
