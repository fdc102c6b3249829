//! Few descriptors (`ulimit -n`): users' hard links and large directories take no more of them than there are, so runs come to their end and
//! the volume stays watched.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::Ends;
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Inodes with a name in each of some directories.
const FARM: usize = 150;
const DIRECTORIES: usize = 20;
/// Names of one inode in two directories: of a file with more than 512 the agent does not keep all, and it stays in any case.
const NAMES: usize = 500;
/// Names of one inode, each in a directory of its own: more than 256 descriptors are enough for.
const FAR_APART: usize = 150;

/// Directories that go as a whole.
const TREES: u64 = 3;
/// A directory that workers of a scan share, and how many lie in one another.
const LARGE: usize = 2600;
const DEPTH: usize = 2;

/// Files with many names in a few directories, with many in one, and one with a name in each of many.
fn farm(root: &Path) {
    let dirs: Vec<_> = (0..FAR_APART).map(|n| root.join(format!("d{n:03}"))).collect();
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let link = |from: &Path, n: usize, name: &str| fs::hard_link(from, dirs[n].join(name)).unwrap();
    for inode in 0..FARM {
        let (first, name) = (dirs[0].join(format!("farm{inode}")), format!("farm{inode}"));
        fs::write(&first, "x").unwrap();
        (1..DIRECTORIES).for_each(|n| link(&first, n, &name));
    }
    let first = dirs[0].join("many");
    fs::write(&first, "x").unwrap();
    (1..NAMES).for_each(|n| link(&first, 1, &format!("many{n}")));
    let far = dirs[0].join("far");
    fs::write(&far, "x").unwrap();
    (1..FAR_APART).for_each(|n| link(&far, n, "far"));
    for tree in 0..TREES {
        make(&root.join(format!("t/{tree}")), 700);
    }
    // Large directories in one another, so that a scan meets one while it is at the other.
    let mut large = root.join("large");
    for _ in 0..DEPTH {
        make(&large, LARGE);
        large = large.join("within");
    }
    age_tree(root);
}

/// The rule for single files, and that for whole directories.
fn config(root: &Path, keys: &str) -> Config {
    let ttl = format!("ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false\n{keys}");
    Config::new(root, "baseline = \"mtime\"")
        .rule("files", &format!("{ttl}\ninclude = [\"d*/**\", \"large/**\"]"))
        .rule(
            "trees",
            &format!("{ttl}\ntarget = \"directory\"\ndepth = 2\ninclude = [\"t/*/\"]"),
        )
}

/// All of it is taken by an agent that may have `limit` files open, while clients take all places, and other files are used. Returns what one
/// run came to.
fn purged_with(limit: &str, keys: &str) -> serde_json::Value {
    let mount = Mount::sized(Fs::Ext4, 128, 40_000).unwrap();
    let root = mount.path();
    farm(&root);
    let used = make(&root.join("used"), 20);
    let config = config(&root, keys);
    let limit = format!("--nofile={limit}:{limit}");
    let agent = Agent::tracking_under(&config, &["prlimit", &limit]);
    let over = AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        let _ends = Ends(&over);
        let idle: Vec<_> = (0..8)
            .filter_map(|_| UnixStream::connect(agent.socket()).ok())
            .collect();
        scope.spawn(|| {
            while !over.load(Relaxed) {
                used.iter().for_each(|file| read(file));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let plan = agent.ctl().plan();
        let run = agent.ctl().apply(&plan).json();
        drop(idle);
        run
    });
    let status = agent.status();
    assert_eq!(text(&status, "state"), "tracking", "{status}");
    assert_eq!(text(&run, "state"), "completed", "{run}");
    assert_eq!(number(&run, "/failed_total"), 0, "{run}");
    let said = agent.said();
    assert!(!said.contains("open files"), "{said}");
    println!("{limit} {keys}: {}", run.get("skipped").unwrap());
    run
}

/// Everything but the inode whose names lie too far apart, at each limit.
#[test]
fn a_farm_of_hard_links_is_purged_with_few_descriptors() {
    need!(Mount::new(Fs::Ext4));
    let all = FARM + 1 + DEPTH * LARGE;
    for (limit, keys, far) in [("256", "", 1), ("512", "grace = \"1h\"", 1), ("2048", "", 0)] {
        let run = purged_with(limit, keys);
        assert_eq!(number(&run, "/skipped/many_names"), far, "{limit}: {run}");
        let taken =
            |what| number(&run, &format!("/deleted/{what}")) + number(&run, &format!("/trashed/{what}"));
        let expected = (all as u64 + 1 - far, TREES);
        assert_eq!((taken("files"), taken("directories")), expected, "{limit}: {run}");
    }
}
