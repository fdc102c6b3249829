//! Making, ageing and using files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tempfile::TempDir;

use crate::{sh, sys};

/// What `age` makes of a file: far beyond every rule of the tests.
pub const OLD_DAYS: i64 = 400;
const DAY: i64 = 86_400;

/// The file that a process has under this path, if it has another root or other mounts than this one.
pub fn seen_by(pid: u32, path: &str) -> PathBuf {
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    root.join(path.trim_start_matches('/'))
}

/// A temporary directory that goes with the test.
///
/// # Panics
/// When there is none to be had.
pub fn temp_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("purge-tests-")
        .tempdir()
        .expect("a temporary directory")
}

/// Makes `count` files of 20 bytes in `dir`, which is made as well.
///
/// # Panics
/// When they cannot be made.
pub fn make(dir: &Path, count: usize) -> Vec<PathBuf> {
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    (0..count)
        .map(|i| make_one(&dir.join(format!("f{i:06}"))))
        .collect()
}

/// Makes one file of 20 bytes.
///
/// # Panics
/// When it cannot be made.
pub fn make_one(path: &Path) -> PathBuf {
    fs::write(path, b"no user reads me: 20").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path.to_owned()
}

/// Writes a file that only its owner can read.
///
/// # Panics
/// When it cannot be written.
pub fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut f| f.write_all(text.as_bytes()));
    written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Gives a file or directory to a user and the group of the same number, with a mode.
///
/// # Panics
/// When the file system refuses.
pub fn give(path: &Path, uid: u32, mode: u32) {
    let given = chown(path, Some(uid), Some(uid));
    let given = given.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    given.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Sets a file's atime and mtime, to the second since 1970; does not open it or follow it.
///
/// # Panics
/// When the file system refuses.
pub fn set_times(path: &Path, seconds: i64) {
    let at = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: at,
        last_modification: at,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Makes a file look unused for [`OLD_DAYS`].
pub fn age(path: &Path) {
    set_times(path, now() - OLD_DAYS * DAY);
}

/// Ages everything below `root`, and `root`, children before their directories.
pub fn age_tree(root: &Path) {
    for entry in walk(root).iter().rev() {
        age(&entry.path);
    }
    age(root);
}

/// Seconds since 1970.
///
/// # Panics
/// When the clock stands before 1970.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(since.as_secs()).expect("a clock before the end of time")
}

/// An entry of a walk.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where.
    pub path: PathBuf,
    /// What lstat says.
    pub stat: fs::Metadata,
}

/// Everything below `root`, each directory before what is in it; follows nothing.
///
/// # Panics
/// When something cannot be read.
pub fn walk(root: &Path) -> Vec<Entry> {
    walk_but(root, None)
}

fn walk_but(root: &Path, left_out: Option<&Path>) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            // A purge may be running.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && dir != root => continue,
            Err(e) => panic!("{}: {e}", dir.display()),
        };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if left_out == Some(&*path) {
                continue;
            }
            let stat = match fs::symlink_metadata(&path) {
                Ok(stat) => stat,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => panic!("{}: {e}", path.display()),
            };
            if stat.is_dir() {
                left.push(path.clone());
            }
            found.push(Entry { path, stat });
        }
    }
    found
}

/// Everything of the users' below `root`: not the trash.
pub fn walk_users(root: &Path) -> Vec<Entry> {
    walk_but(root, Some(&root.join(".purge-agent-trash")))
}

/// Regular files of the users' below `root`, by path.
pub fn files_of_users(root: &Path) -> BTreeSet<PathBuf> {
    let all = walk_users(root).into_iter();
    all.filter(|e| e.stat.is_file()).map(|e| e.path).collect()
}

/// Files and directories of the users' below `root`, by path.
pub fn files_and_directories(root: &Path) -> BTreeSet<PathBuf> {
    let all = walk_users(root).into_iter();
    all.filter(|e| e.stat.is_file() || e.stat.is_dir())
        .map(|e| e.path)
        .collect()
}

/// Regular files below `root`, by path.
pub fn regular_files(root: &Path) -> BTreeSet<PathBuf> {
    walk(root)
        .into_iter()
        .filter(|e| e.stat.is_file())
        .map(|e| e.path)
        .collect()
}

/// The files in the trash of a volume, which the agent changes at the same time.
///
/// # Panics
/// When `find` cannot be started.
pub fn files_in_trash(root: &Path) -> Vec<String> {
    let found = Command::new("find")
        .arg(root.join(".purge-agent-trash"))
        .args(["-type", "f"])
        .output();
    let found = found.expect("find");
    String::from_utf8_lossy(&found.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Regular files below `root`, those with several names once.
pub fn count_files(root: &Path) -> u64 {
    let all = walk(root).into_iter();
    let inodes: BTreeSet<u64> = all.filter(|e| e.stat.is_file()).map(|e| e.stat.ino()).collect();
    inodes.len() as u64
}

/// Reads a file whole.
///
/// # Panics
/// When it cannot be read.
pub fn read(path: &Path) {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Appends a line.
///
/// # Panics
/// When it cannot be written.
pub fn append(path: &Path) {
    let file = File::options().append(true).open(path);
    file.and_then(|mut f| f.write_all(b"more\n"))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Maps a file for reading, closes it, and reads through the mapping.
///
/// # Panics
/// When it cannot be mapped.
pub fn read_mapped(path: &Path) {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    sys::read_through_mapping(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Makes an executable file.
///
/// # Panics
/// When there is no `true` to copy.
pub fn make_executable(path: &Path) -> PathBuf {
    fs::copy("/bin/true", path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path.to_owned()
}

/// Runs a file.
///
/// # Panics
/// When it cannot be run.
pub fn execute(path: &Path) {
    sh(&mut Command::new(path)).unwrap();
}

/// Runs a line of shell in `dir`.
///
/// # Panics
/// When it fails.
pub fn shell(dir: &Path, line: &str) -> String {
    sh(Command::new("sh").args(["-c", line]).current_dir(dir)).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// Inode number.
///
/// # Panics
/// When there is no such file.
pub fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("lstat").ino()
}

/// Fails with the differences, a few of each kind, unless both are the same.
///
/// # Panics
/// When they are not.
pub fn assert_same(what: &str, found: &BTreeSet<PathBuf>, expected: &BTreeSet<PathBuf>) {
    let some = |a: &BTreeSet<PathBuf>, b: &BTreeSet<PathBuf>| {
        let all: Vec<_> = a.difference(b).collect();
        let few: Vec<_> = all.iter().take(8).map(|p| format!("{p:?}")).collect();
        format!("{}: {}", all.len(), few.join(" "))
    };
    assert!(
        found == expected,
        "{what}\n  too many {}\n  missing  {}",
        some(found, expected),
        some(expected, found)
    );
}

/// What the agent keeps in a volume's trash for the day on which the volume is full.
const RESERVE: [&str; 3] = ["ready", "ballast", "agent"];

/// Whether nothing of a user's lies in the trash of the volume at `root`.
///
/// # Panics
/// When it cannot be listed.
pub fn trash_is_empty(root: &Path) -> bool {
    let Ok(entries) = fs::read_dir(root.join(".purge-agent-trash")) else {
        return true;
    };
    let mut names = entries.map(|entry| entry.expect("an entry of the trash").file_name());
    names.all(|name| RESERVE.iter().any(|kept| name == *kept))
}
