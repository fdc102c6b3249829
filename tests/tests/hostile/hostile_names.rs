//! Depth, width, names and storms: one user makes any of them, and the others are served.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_tests::ctl::{number, path_of, text};
use purge_tests::files::{age, age_tree, assert_same, make, make_one, now, read, regular_files};
use purge_tests::wait::{Ends, LONG, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, Plan, need};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, mkdirat, openat, utimensat};
use serde_json::Value;

/// What is measured is told: the machine is shared, so little of it is asserted.
fn told<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    let _ = writeln!(
        std::io::stderr(),
        "{what}: {:.2} s",
        began.elapsed().as_secs_f64()
    );
    done
}

fn is_long() -> bool {
    std::env::var_os("PURGE_TESTS_LONG").is_some()
}

/// Gives a file `count` further names, in a directory of their own.
fn link(file: &Path, dir: &Path, count: usize) {
    fs::create_dir_all(dir).unwrap();
    for n in 0..count {
        fs::hard_link(file, dir.join(format!("l{n}"))).unwrap();
    }
}

#[test]
fn a_file_with_tens_of_thousands_of_names_burdens_no_other_user() {
    /// ext4 takes 65,000.
    const LINKS: usize = 60_000;
    let mount = need!(Mount::sized(Fs::Ext4, 512, 100_000));
    let root = mount.path();
    let others: BTreeSet<PathBuf> = make(&root.join("others"), 20).into_iter().collect();
    let few = make_one(&root.join("few"));
    fs::hard_link(&few, root.join("others/few")).unwrap();
    let many = make_one(&root.join("many"));
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    told("60,000 names are made", || link(&many, &root.join("d"), LINKS));
    let plan = told("plan", || ctl.plan());
    let planned = ctl.show(&plan);
    let files: BTreeSet<PathBuf> = planned
        .into_iter()
        .filter(|(_, c)| text(c, "kind") == "file")
        .map(|(p, _)| p)
        .collect();
    assert!(others.is_subset(&files), "{files:?}");
    assert_eq!(files.len(), others.len() + 1, "{files:?}");
    let why = told("explain", || ctl.explain(&many)).to_string();
    assert!(why.contains("names"), "{why}");
    told("rescan", || ctl.run(["rescan"]).ok());
    assert_eq!(
        told("find", || ctl.find(["--type", "f", "--name", "l*"])).len(),
        NAMES_KEPT - 1
    );
    told("a restart", || agent.restart());
    let plan = told("plan", || ctl.plan());
    let run = told("apply", || ctl.apply(&plan).ok().json());
    assert_eq!(number(&run, "/deleted/files"), others.len() as u64 + 1, "{run}");
    assert!(many.exists() && !few.exists());

    // Its names go, and it is a file like others; none of them was forgotten to have existed.
    told("the names are removed", || {
        fs::remove_dir_all(root.join("d")).unwrap()
    });
    age(&many);
    told("rescan", || ctl.run(["rescan"]).ok());
    assert_eq!(
        ctl.find(["--type", "f"]),
        BTreeSet::from([many.clone()]),
        "the index says what is there"
    );
}

/// What the agent keeps of one file's names.
const NAMES_KEPT: usize = 512;

/// A directory in which everything looks unused, with a file of many names that was used by one which is not kept.
#[test]
fn what_is_used_by_a_name_that_is_not_kept_keeps_its_directories() {
    let mount = need!(Mount::sized(Fs::Ext4, 128, 20_000));
    let root = mount.path();
    fs::create_dir(root.join("all")).unwrap();
    let many = make_one(&root.join("all/many"));
    link(&many, &root.join("all"), 2 * NAMES_KEPT);
    let unit = root.join("unit");
    fs::create_dir(&unit).unwrap();
    make_one(&unit.join("own"));
    fs::hard_link(&many, unit.join("last")).unwrap();
    let control = root.join("control");
    make(&control, 2);
    age_tree(&root);
    let rule = "target = \"directory\"\ndepth = 1\nttl = \"1h\"\nclock = [\"access\"]";
    let agent = Agent::tracking(&Config::new(&root, "baseline = \"mtime\"").rule("units", rule));
    // By any name, and whichever names are kept.
    read(&root.join("all/l7"));
    let planned = agent.ctl().candidates();
    assert!(planned.contains(&control), "{planned:?}");
    assert!(!planned.contains(&unit), "{planned:?}");
    assert!(!planned.contains(&root.join("all")), "{planned:?}");
}

/// Everything that renames and makes files in directories of its own until it is dropped.
struct Storm<'s> {
    ends: &'s AtomicBool,
}

impl Drop for Storm<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
    }
}

fn storm(dir: &Path, ends: &AtomicBool, changes: &AtomicU64) {
    fs::create_dir_all(dir).unwrap();
    let (a, b) = (dir.join("a"), dir.join("b"));
    make_one(&a);
    for n in 0u64.. {
        if ends.load(Relaxed) {
            return;
        }
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
        let new = dir.join(format!("n{}", n % 4096));
        let _ = fs::remove_file(&new);
        File::create(&new).unwrap();
        changes.fetch_add(4, Relaxed);
    }
}

/// Applies a plan without waiting for it, and returns the run when it is over.
fn apply_meanwhile(ctl: &Ctl, plan: &Plan, mut meanwhile: impl FnMut()) -> Value {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| ctl.apply(plan).json());
        while !run.is_finished() {
            meanwhile();
        }
        run.join().unwrap()
    })
}

#[test]
fn a_storm_of_names_holds_up_no_other_users_purge_and_no_opener_for_a_second() {
    const FILES: usize = 500;
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let root = mount.path();
    make(&root.join("others"), FILES);
    let wanted = make(&root.join("wanted"), 100);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let (ends, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let storm_goes_on = Storm { ends: &ends };
        for n in 0..3 {
            let dir = root.join(format!("storm{n}"));
            let (ends, changes) = (&ends, &changes);
            scope.spawn(move || storm(&dir, ends, changes));
        }
        until("the storm has begun", LONG, || {
            (changes.load(Relaxed) > 5000).then_some(())
        });
        let mut longest = Duration::ZERO;
        let mut next = wanted.iter().cycle();
        let run = told("apply beside a storm", || {
            apply_meanwhile(&ctl, &plan, || {
                let file = next.next().unwrap();
                let began = Instant::now();
                // It may be deleted by then.
                let _ = File::open(file);
                longest = longest.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            })
        });
        let _ = writeln!(
            std::io::stderr(),
            "the longest wait of an opener: {} ms; {} changes of names",
            longest.as_millis(),
            changes.load(Relaxed)
        );
        // A second by the promise, and another because other tests run meanwhile.
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(!ends.load(Relaxed), "the storm went on all the time");
        let deleted = number(&run, "/deleted/files");
        assert!(deleted >= FILES as u64, "{run}");
        told("status", || agent.status());
        drop(storm_goes_on);
    });
    told("plan", || ctl.plan());
    agent.wait_until_well();
    assert_eq!(agent.status()["events_lost_total"].as_u64().unwrap_or(0), 0);
    let _ = told("rescan", || ctl.run(["rescan"]));
    assert_same(
        "what the index says once the storm is over",
        &ctl.find(["--type", "f"]),
        &regular_files(&root),
    );
}

/// A chain of `levels` directories, and an old file in each of the last ones, by descriptors: no path leads there. Returns the lowest.
fn dig(root: &Path, levels: usize, with_files: usize) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut dir = openat(CWD, root, flags, Mode::empty()).unwrap();
    for level in 0..levels {
        mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
        if level + with_files >= levels {
            let file = openat(
                &dir,
                "old",
                OFlags::CREATE | OFlags::WRONLY,
                Mode::from_raw_mode(0o644),
            );
            drop(file.unwrap());
            let old = Timespec {
                tv_sec: now() - 400 * 86_400,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: old,
                last_modification: old,
            };
            utimensat(&dir, "old", &times, AtFlags::empty()).unwrap();
        }
    }
    dir
}

#[test]
fn a_chain_of_directories_of_any_length_is_indexed_and_holds_up_nothing() {
    let levels = if is_long() { 100_000 } else { 20_000 };
    let mount = need!(Mount::sized(Fs::Tmpfs, 512, 400_000));
    let root = mount.path();
    let chain = root.join("chain");
    fs::create_dir(&chain).unwrap();
    drop(dig(&chain, levels, 10));
    let shallow = root.join("shallow");
    fs::create_dir(&shallow).unwrap();
    drop(dig(&shallow, 600, 1));
    let plain = make_one(&root.join("plain"));
    age(&plain);
    let rule = "ttl = \"1h\"\nclock = [\"access\"]\nexclude = [\"**/*.keep\"]\nremove_empty_dirs = true";
    let config = Config::new(&root, "baseline = \"mtime\"").rule("old", rule).rule(
        "units",
        "target = \"directory\"\ndepth = 1\nttl = \"30d\"\nexclude = [\"*.keep\"]",
    );
    let agent = told("the first scan", || Agent::tracking(&config));
    let ctl = agent.ctl();
    let status = agent.status();
    assert_eq!(number(&status, "/files"), 12, "{status}");
    assert!(number(&status, "/directories") > levels as u64, "{status}");
    told("rescan", || ctl.run(["rescan"]).ok());
    let found = told("find", || ctl.find(["--type", "f"]));
    assert!(found.contains(&plain));
    let deep = |path: &&PathBuf| path.starts_with(&shallow);
    assert_eq!(found.iter().filter(deep).count(), 1, "600 levels have a path");
    for by in [vec!["--by", "user"], vec!["--by", "directory", "--depth", "3"]] {
        told("usage", || ctl.run(["usage"].iter().chain(&by)).ok());
    }
    told("forecast", || ctl.run(["forecast"]).ok());
    let plan = told("plan", || ctl.plan());
    let planned = ctl.show(&plan);
    assert!(planned.contains_key(&plain), "{}", planned.len());
    assert!(
        !planned.keys().any(|p| p.as_os_str().len() > 33_000),
        "what is longer than its limit is kept"
    );
    let run = told("apply", || ctl.apply(&plan).json());
    assert!(!plain.exists(), "{run}");
    assert!(agent.status()["state"] == "tracking");
}

/// What is kept of a file with many names is bounded, also when they come from everywhere at once and go while the agent is away.
#[test]
fn names_that_came_and_went_while_no_agent_watched_leave_nothing_behind() {
    let mount = need!(Mount::sized(Fs::Ext4, 128, 20_000));
    let root = mount.path();
    let file = make_one(&root.join("file"));
    let agent = &mut Agent::tracking(&Config::backdated(&root));
    link(&file, &root.join("d"), 3 * NAMES_KEPT);
    let _ = agent.ctl().run(["rescan"]).ok();
    agent.terminate();
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::hard_link(&file, root.join("second")).unwrap();
    agent.launch();
    agent.wait_until_tracking();
    let there = BTreeSet::from([file.clone(), root.join("second")]);
    until("the index says what is there", LONG, || {
        (agent.ctl().find(["--type", "f"]) == there).then_some(())
    });
    let explained = agent.ctl().explain(&file);
    assert_eq!(path_of(&explained), file);
    assert!(!text(&explained, "path").is_empty());
    // Used by its second name, it is used.
    let mut opened = OpenOptions::new()
        .append(true)
        .custom_flags(0)
        .open(root.join("second"))
        .unwrap();
    opened.write_all(b"x").unwrap();
}

/// While the agent is stopped, more names change than it keeps: that is told, nothing is lost, and a scan finds everything.
#[test]
fn more_names_than_can_be_followed_are_told_and_found_by_a_scan() {
    /// More than the agent notes (131,072), and fewer events than the kernel may keep for it.
    const FILES: usize = 140_000;
    let mount = need!(Mount::sized(Fs::Tmpfs, 512, 400_000));
    let root = mount.path();
    let old = make(&root.join("old"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    agent.freeze();
    let dir = root.join("many");
    fs::create_dir(&dir).unwrap();
    for n in 0..FILES {
        File::create(dir.join(format!("n{n}"))).unwrap();
    }
    read(&old[0]);
    agent.thaw();
    let gap = until("the gap is told", LONG, || {
        let status = agent.status();
        let gaps = status["gaps"].as_array()?.clone();
        gaps.into_iter().find(|g| g["cause"] == "names")
    });
    assert_eq!(gap["counts"], false, "no use was lost");
    until("a scan has found them", LONG, || {
        (number(&agent.status(), "/files") == (FILES + old.len()) as u64).then_some(())
    });
    let planned = agent.ctl().candidate_files();
    assert!(!planned.contains(&old[0]), "a use counts although names change");
    assert!(planned.contains(&old[1]), "and nothing else became young");
}

/// A chain of directories that grows ahead of the first scan does not keep it from its end: what is made later is told by events.
#[test]
fn a_chain_that_grows_ahead_of_the_scan_does_not_keep_it_from_its_end() {
    const BEFORE: usize = 20_000;
    const AT_MOST: usize = 260_000;
    let mount = need!(Mount::sized(Fs::Ext4, 1500, 300_000));
    let root = mount.path();
    let others: BTreeSet<PathBuf> = make(&root.join("others"), 20).into_iter().collect();
    fs::create_dir(root.join("m")).unwrap();
    let stop = AtomicBool::new(false);
    let made = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _ends = Ends(&stop);
        scope.spawn(|| {
            let mut at: OwnedFd = File::open(root.join("m")).unwrap().into();
            for level in 0..AT_MOST {
                if stop.load(Relaxed) {
                    break;
                }
                mkdirat(&at, "n", Mode::RWXU).unwrap();
                at = openat(&at, "n", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
                made.store(level as u64, Relaxed);
                // As fast as a scan of a debug build lists them, for longer than one takes.
                if level > BEFORE && level.is_multiple_of(100) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        until("the first of them", LONG, || {
            (made.load(Relaxed) > BEFORE as u64).then_some(())
        });
        age_tree(&root.join("others"));
        let agent = told("tracking after", || Agent::tracking(&Config::backdated(&root)));
        let now = made.load(Relaxed) as usize;
        assert!(now + 1 < AT_MOST, "she had made all by then");
        let _ = writeln!(std::io::stderr(), "{now} levels by then");
        // They are purged while she goes on.
        assert_same("planned", &agent.ctl().candidate_files(), &others);
        stop.store(true, Relaxed);
        // What was made meanwhile is known, and in use.
        make_one(&root.join("m/n/late"));
        until("it is in the index", LONG, || {
            let found = agent
                .ctl()
                .find([root.join("m/n").to_str().unwrap(), "--name", "late"]);
            (found.len() == 1).then_some(())
        });
    });
}
