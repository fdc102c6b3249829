#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

/// What a thread has that users must not be able to use up.
const STACK_BYTES: usize = 256 << 10;

/// Remembers what it met, relative to the directory above the first.
#[derive(Default)]
struct Seen {
    path: Vec<String>,
    files: BTreeSet<String>,
    left: Vec<String>,
    depth_max: usize,
    open_max: usize,
    count_open: bool,
}

impl Visitor for Seen {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, name: &CStr, _: &OwnedFd) -> io::Result<bool> {
        self.path.push(name.to_str().unwrap().into());
        self.depth_max = self.depth_max.max(self.path.len());
        if self.count_open {
            self.open_max = self.open_max.max(fs::read_dir("/proc/self/fd")?.count());
        }
        Ok(name != c"passed-over" || {
            self.path.pop();
            false
        })
    }

    fn meet(&mut self, _: &OwnedFd, entry: &Listed) -> io::Result<()> {
        let name = entry.name.to_str().unwrap();
        assert!(
            self.files.insert(format!("{}/{name}", self.path.join("/"))),
            "met once"
        );
        Ok(())
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        assert!(stat::entry(parent, name).is_ok(), "the parent is open");
        if self.left.len() < 10_000 {
            self.left.push(self.path.join("/"));
        }
        assert_eq!(self.path.pop().as_deref(), name.to_str().ok());
        Ok(())
    }
}

fn anchor(path: &Path) -> OwnedFd {
    beneath::open_root(path).unwrap()
}

/// Makes directories in each other.
fn chain(at: &Path, levels: usize, file_every: usize) {
    let mut dir = anchor(at);
    for level in 0..levels {
        rustix::fs::mkdirat(&dir, c"d", rustix::fs::Mode::RWXU).unwrap();
        dir = beneath::open_anchor(&dir, b"d").unwrap();
        if level % file_every == 0 {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            rustix::fs::openat(&dir, c"file", flags, rustix::fs::Mode::RWXU).unwrap();
        }
    }
}

fn in_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

#[test]
fn everything_is_met_once_and_directories_are_left_after_their_content() {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("t");
    let mut expected = BTreeSet::new();
    for dir in ["", "a", "a/b", "c", "passed-over", "empty"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in ["one", "a/two", "a/b/three", "c/four"] {
        fs::write(root.join(file), "").unwrap();
        expected.insert(format!("t/{file}"));
    }
    fs::write(root.join("passed-over/x"), "").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    expected.insert("t/link".into());
    let mut seen = Seen::default();
    walk(&anchor(tmp.path()), c"t", &mut seen).unwrap();
    assert_eq!(seen.files, expected);
    assert_eq!(seen.left.len(), 5, "{:?}", seen.left);
    assert_eq!(seen.left.last().unwrap(), "t");
    let at = |name: &str| seen.left.iter().position(|l| l == name).unwrap();
    assert!(at("t/a/b") < at("t/a"));
}

#[test]
fn more_directories_than_are_remembered_are_all_entered() {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("t");
    fs::create_dir(&root).unwrap();
    for n in 0..NAMES_MAX * 2 + 100 {
        fs::create_dir(root.join(format!("dir-{n}"))).unwrap();
        fs::write(root.join(format!("dir-{n}/f")), "").unwrap();
    }
    let mut seen = Seen::default();
    walk(&anchor(tmp.path()), c"t", &mut seen).unwrap();
    assert_eq!(seen.files.len(), NAMES_MAX * 2 + 100);
    assert!(Removal::of(&anchor(tmp.path()), c"t").unwrap().stuck.is_empty());
    assert!(!root.exists());
}

#[test]
fn a_wide_tree_is_walked_to_its_end_when_its_upper_directories_were_closed() {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("t");
    fs::create_dir(&root).unwrap();
    let mut at = root.clone();
    let mut files = 0;
    for _ in 0..OPEN_MAX * 2 {
        for n in 0..3 {
            let beside = at.join(format!("beside-{n}"));
            fs::create_dir(&beside).unwrap();
            fs::write(beside.join("f"), "").unwrap();
            files += 1;
        }
        at.push("down");
        fs::create_dir(&at).unwrap();
    }
    let mut seen = Seen::default();
    walk(&anchor(tmp.path()), c"t", &mut seen).unwrap();
    assert_eq!(seen.files.len(), files);
    assert!(Removal::of(&anchor(tmp.path()), c"t").unwrap().stuck.is_empty());
    assert!(!root.exists());
}

#[test]
fn a_hundred_thousand_levels_take_little_stack_and_few_descriptors() {
    const LEVELS: usize = 100_000;
    let tmp = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    })
    .unwrap();
    chain(tmp.path(), LEVELS, 1000);
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    in_a_small_stack(|| {
        let mut seen = Seen::default();
        walk(&anchor(tmp.path()), c"d", &mut seen).unwrap();
        assert_eq!((seen.depth_max, seen.files.len()), (LEVELS, LEVELS / 1000));
    });
    in_a_small_stack(|| {
        let removal = Removal::of(&anchor(tmp.path()), c"d").unwrap();
        assert_eq!(removal.stuck_total, 0);
    });
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    // Other tests of this process have some open as well.
    let after = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(after < before + 1000, "{before} and {after} descriptors");
}

#[test]
fn no_more_directories_are_open_than_it_says() {
    let tmp = tempfile::tempdir().unwrap();
    chain(tmp.path(), OPEN_MAX * 4, 1);
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    let mut seen = Seen {
        count_open: true,
        ..Seen::default()
    };
    walk(&anchor(tmp.path()), c"d", &mut seen).unwrap();
    // Other tests of this process have some open as well: far fewer than there are levels.
    assert!(
        seen.open_max < before + OPEN_MAX * 3,
        "{before} and {}",
        seen.open_max
    );
    Removal::of(&anchor(tmp.path()), c"d").unwrap();
}

#[test]
fn only_empty_directories_go_where_only_these_are_meant() {
    let tmp = tempfile::tempdir().unwrap();
    for dir in ["t/a/b/c", "t/full/empty", "t/x"] {
        fs::create_dir_all(tmp.path().join(dir)).unwrap();
    }
    fs::write(tmp.path().join("t/full/file"), "").unwrap();
    fs::create_dir_all(tmp.path().join("all-empty/a/b")).unwrap();
    Removal::of_empty(&anchor(tmp.path()), c"t").unwrap();
    Removal::of_empty(&anchor(tmp.path()), c"all-empty").unwrap();
    assert_eq!(fs::read_dir(tmp.path().join("all-empty")).unwrap().count(), 0);
    let left: Vec<_> = fs::read_dir(tmp.path().join("t")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(tmp.path().join("t/full/file").exists());
    assert!(!tmp.path().join("t/full/empty").exists());
}

#[test]
fn links_are_removed_and_not_followed() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("t/a")).unwrap();
    fs::create_dir(tmp.path().join("outside")).unwrap();
    fs::write(tmp.path().join("outside/file"), "").unwrap();
    std::os::unix::fs::symlink("../../outside", tmp.path().join("t/a/link")).unwrap();
    Removal::of(&anchor(tmp.path()), c"t").unwrap();
    assert!(tmp.path().join("outside/file").exists() && !tmp.path().join("t").exists());
    std::os::unix::fs::symlink("outside", tmp.path().join("t")).unwrap();
    let removal = Removal::of(&anchor(tmp.path()), c"t").unwrap();
    assert_eq!(removal.stuck_total, 1, "a link is no directory");
    assert!(tmp.path().join("outside/file").exists());
}

/// Moves a directory above the one that is visited, once it lies too far above to be open.
struct Mover<'p> {
    top: &'p Path,
    depth: usize,
}

impl Visitor for Mover<'_> {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> io::Result<bool> {
        self.depth += 1;
        if self.depth == OPEN_MAX + 10 {
            fs::rename(self.top.join("t/x/m"), self.top.join("t/y/m"))?;
        }
        Ok(true)
    }

    fn meet(&mut self, _: &OwnedFd, _: &Listed) -> io::Result<()> {
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_move_by_a_user_is_told_as_what_it_is() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("t/y")).unwrap();
    let levels = ["d"; OPEN_MAX + 20].join("/");
    fs::create_dir_all(tmp.path().join("t/x/m").join(levels)).unwrap();
    let mut mover = Mover {
        top: tmp.path(),
        depth: 0,
    };
    let error = walk(&anchor(tmp.path()), c"t", &mut mover).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "no fault of the system");
}
