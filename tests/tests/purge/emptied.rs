//! What a process does in a directory while that is removed as a whole: it has directories in it open, and so comes to files that no path leads
//! to any more.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use purge_tests::files::{age_tree, make};
use purge_tests::wait::LONG;
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, fstat, openat, renameat, statat};
use rustix::io::read;

/// A removal that has begun has come to other files by then.
const A_MOMENT: Duration = Duration::from_millis(20);
/// A removal may be over before it is noticed.
const ROUNDS: usize = 6;

/// A directory of a tree, open as a working directory is, and what it has.
struct Dir {
    open: OwnedFd,
    files: Vec<PathBuf>,
}

impl Dir {
    fn is_removed(&self) -> bool {
        fstat(&self.open).unwrap().st_nlink == 0
    }

    fn name(&self) -> CString {
        let name = self.files[0].file_name().unwrap().as_encoded_bytes();
        CString::new(name).unwrap()
    }

    fn has_its_file(&self) -> bool {
        statat(&self.open, self.name(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

type Use = fn(&Dir) -> bool;

fn change(dir: &Dir) -> bool {
    chmodat(
        &dir.open,
        dir.name(),
        Mode::from_raw_mode(0o640),
        AtFlags::empty(),
    )
    .is_ok()
}

fn rename_to_and_fro(dir: &Dir) -> bool {
    let there = renameat(&dir.open, dir.name(), &dir.open, c"other").is_ok();
    there && renameat(&dir.open, c"other", &dir.open, dir.name()).is_ok()
}

fn read_one(dir: &Dir) -> bool {
    let Ok(file) = openat(&dir.open, dir.name(), OFlags::RDONLY, Mode::empty()) else {
        return false;
    };
    read(&file, &mut [0u8; 4]).is_ok()
}

fn tree(root: &Path, directories: usize, files: usize) -> Vec<Dir> {
    let dirs = (0..directories).map(|n| {
        let dir = root.join(format!("tree/d{n:03}"));
        let files = make(&dir, files);
        let open = openat(CWD, &dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Dir { open, files }
    });
    dirs.collect()
}

/// Uses the first file of each directory once the removal has come to some of them; which of these files were still there a moment later.
fn use_meanwhile(dirs: &[Dir], how: Use) -> Vec<PathBuf> {
    let since = Instant::now();
    while !dirs.iter().any(Dir::is_removed) {
        if since.elapsed() > LONG {
            return Vec::new();
        }
    }
    let used: Vec<&Dir> = dirs.iter().filter(|dir| how(dir)).collect();
    std::thread::sleep(A_MOMENT);
    let left = used.into_iter().filter(|dir| dir.has_its_file());
    left.map(|dir| dir.files[0].clone()).collect()
}

fn what_is_used_meanwhile_stays((directories, files): (usize, usize), how: Use) {
    let mut used_at_all = 0;
    for round in 0..ROUNDS {
        let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
        let root = mount.path();
        let dirs = tree(&root, directories, files);
        age_tree(&root);
        let keys = "target = \"directory\"\ndepth = 1\nmax_fraction = 1.0";
        let agent = Agent::tracking(&Config::backdated_with(&root, keys));
        let plan = agent.ctl().plan();
        let (run, used) = std::thread::scope(|scope| {
            let user = scope.spawn(|| use_meanwhile(&dirs, how));
            let run = agent.ctl().run(["apply", &plan.id, "--yes"]);
            (run.text(), user.join().unwrap())
        });
        let lost: Vec<_> = used
            .iter()
            .filter(|file| fs::symlink_metadata(file).is_err())
            .collect();
        let (lost, of) = (lost.len(), used.len());
        assert_eq!(lost, 0, "round {round}: {lost} of {of} are deleted\n{run}");
        used_at_all += of;
        if used_at_all > 20 {
            return;
        }
    }
    panic!("the removal was over before anything was used: {used_at_all}");
}

/// More entries than leases are kept on.
const LARGE: (usize, usize) = (80, 100);
/// On each file is a lease that is kept.
const SMALL: (usize, usize) = (60, 15);

#[test]
fn what_is_changed_in_a_large_directory_while_it_is_removed_stays() {
    what_is_used_meanwhile_stays(LARGE, change);
}

#[test]
fn what_is_renamed_in_a_large_directory_while_it_is_removed_stays() {
    what_is_used_meanwhile_stays(LARGE, rename_to_and_fro);
}

#[test]
fn what_is_read_in_a_large_directory_while_it_is_removed_stays() {
    what_is_used_meanwhile_stays(LARGE, read_one);
}

#[test]
fn what_is_changed_in_a_small_directory_while_it_is_removed_stays() {
    what_is_used_meanwhile_stays(SMALL, change);
}
