//! Uses through the mount while files are taken, where the file system gives leases and where it gives none.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, make_one, read};
use purge_tests::sys::Mapping;
use purge_tests::through::{Point, Through};
use purge_tests::wait::{Ends, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Half of them are left to the run.
const FILES: usize = 3000;
/// The same where very many uses are asked for.
const FILES_OF_MANY: usize = 15_000;

/// What the kernel is taken to lack, and how long what is taken stays.
const KINDS: [(&str, &str); 5] = [
    ("", "0s"),
    ("", "1d"),
    ("fuse_passthrough", "0s"),
    ("fuse_passthrough", "1d"),
    ("leases", "0s"),
];

/// How many uses each kind sees at least. `PURGE_TESTS_USES` has another number.
fn wanted() -> u64 {
    let asked = std::env::var("PURGE_TESTS_USES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn files() -> usize {
    if wanted() > 1 { FILES_OF_MANY } else { FILES }
}

#[test]
fn nothing_is_lost_that_is_used_through_the_mount_while_it_is_purged() {
    for (without, grace) in KINDS {
        let (mut uses, mut used, mut taken) = (0, 0, 0);
        while uses < wanted() {
            let round = need!(race(without, grace));
            uses += round.uses;
            used += round.files;
            taken += round.taken;
        }
        println!("without {without:?}, grace {grace}: {uses} uses of {used} files, 0 lost, {taken} taken");
        assert!(used > 50 && taken > 50, "both had their share: {used} {taken}");
    }
}

/// What came of one run.
struct Round {
    uses: u64,
    files: u64,
    taken: u64,
}

fn race(without: &str, grace: &str) -> Result<Round, purge_tests::skip::Unmet> {
    let mount = Mount::new(Fs::Ext4)?;
    let behind = mount.dir("volume");
    make(&behind, files());
    age_tree(&behind);
    let point = Point::new()?;
    let keys = format!("baseline = \"mtime\"\n{}", point.keys());
    let rule = format!("ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"{grace}\"");
    let mut agent = Agent::prepared(&Config::new(&behind, &keys).rule("old", &rule));
    agent.environment("PURGE_AGENT_WITHOUT", Path::new(without));
    let through = Through::of(&agent, &point, &[("PURGE_AGENT_WITHOUT", without)]);
    let at = through.path();
    agent.launch();
    agent.wait_until_tracking();
    let guard = if without == "leases" { "requests" } else { "leases" };
    let plan = agent.ctl().plan();
    assert_eq!(text(&plan.json, "guard"), guard);
    assert_eq!(number(&plan.json, "/candidates/files"), files() as u64);
    // The kernel knows the names: what is taken is to be found by none of them.
    assert_eq!(fs::read_dir(&at).unwrap().count(), files());
    let (over, uses) = (AtomicBool::new(false), AtomicU64::new(0));
    let (run, used) = std::thread::scope(|scope| {
        let _ends = Ends(&over);
        let users: Vec<_> = (0..3usize)
            .map(|seed| {
                let (at, over, uses) = (&at, &over, &uses);
                scope.spawn(move || use_files(at, over, uses, seed))
            })
            .collect();
        // These are used before it begins, and most are used by no process.
        until("users work", SOON, || (uses.load(Relaxed) > 60).then_some(()));
        let run = agent.ctl().apply(&plan).json();
        over.store(true, Relaxed);
        let used: BTreeSet<usize> = users.into_iter().flat_map(|user| user.join().unwrap()).collect();
        (run, used)
    });
    let lost: Vec<&usize> = used.iter().filter(|n| !behind.join(name(**n)).exists()).collect();
    assert!(
        lost.is_empty(),
        "{} of {} lost: {:?}\n{run}",
        lost.len(),
        used.len(),
        lost.first()
    );
    let taken = ["deleted", "trashed"]
        .iter()
        .map(|end| number(&run, &format!("/{end}/files")))
        .sum();
    Ok(Round {
        uses: uses.load(Relaxed),
        files: used.len() as u64,
        taken,
    })
}

fn name(n: usize) -> String {
    format!("f{n:06}")
}

/// Uses files in an order that is not the run's, some of them again and again: those that could be used must stay.
fn use_files(at: &Path, over: &AtomicBool, uses: &AtomicU64, seed: usize) -> BTreeSet<usize> {
    let (files, used_max) = (files(), files() / 2);
    let mut used = BTreeSet::new();
    let mut n = seed;
    while !over.load(Relaxed) {
        let file = n % used_max * 7919 % files;
        match use_one(at, file, n) {
            Ok(()) => {
                uses.fetch_add(1, Relaxed);
                used.insert(file);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{file}: {error}"),
        }
        n += 3;
        if used.len() < used_max / 3 {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    used
}

fn use_one(at: &Path, file: usize, how: usize) -> std::io::Result<()> {
    let path = at.join(name(file));
    match how / 3 % 5 {
        0 => {
            let mut content = Vec::new();
            File::open(&path)?.read_to_end(&mut content)?;
        }
        1 => OpenOptions::new().append(true).open(&path)?.write_all(b"x")?,
        2 => {
            // Its descriptor is closed before it is read.
            let mapping = Mapping::of(File::open(&path)?);
            std::thread::sleep(Duration::from_micros(500));
            mapping.first_byte();
        }
        3 => {
            let other = at.join(format!("renamed-{file}-{how}"));
            fs::rename(&path, &other)?;
            fs::rename(&other, &path).unwrap();
        }
        _ => File::options().write(true).open(&path)?.set_len(7)?,
    }
    Ok(())
}

/// Open or mapped by the mount is in use, also where no lease says so, after the process was killed, and by a name that was known before.
#[test]
fn without_leases_the_mount_keeps_what_is_open_or_mapped_and_knows_what_went() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    let kept = ["open", "mapped", "open-before-the-kill", "behind"];
    for name in kept.into_iter().chain(["left", "other"]) {
        make_one(&behind.join(name));
    }
    age_tree(&behind);
    let point = need!(Point::new());
    let mut agent = Agent::prepared(&point.config(&behind));
    agent.environment("PURGE_AGENT_WITHOUT", Path::new("leases"));
    let environment = [
        ("PURGE_AGENT_SINGLE_PROCESS", "0"),
        ("PURGE_AGENT_WITHOUT", "leases"),
    ];
    let mut through = Through::of(&agent, &point, &environment);
    let at = through.path();
    let open_before = File::open(at.join("open-before-the-kill")).unwrap();
    let killed = through.kill_below_parent();
    until("another process serves", SOON, || {
        through.below_parent().filter(|pid| *pid != killed)
    });
    let open = File::open(at.join("open")).unwrap();
    let mapping = Mapping::of(File::open(at.join("mapped")).unwrap());
    purge_tests::through::hear(&agent);
    agent.launch();
    agent.wait_until_tracking();
    // As if they had been opened so long ago that it does not count any more.
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 6, "{}", plan.json);
    assert_eq!(text(&agent.status(), "guard"), "requests");
    // Around the mount, after the plan.
    read(&behind.join("behind"));
    let known = fs::metadata(at.join("left")).unwrap();
    assert!(known.is_file());
    let run = agent.ctl().apply(&plan).ok().json();
    assert_eq!(number(&run, "/trashed/files"), 2, "{run}");
    assert_eq!(number(&run, "/skipped/open"), 3, "{run}");
    for name in kept {
        assert!(
            at.join(name).exists() && behind.join(name).exists(),
            "{name}: {run}"
        );
    }
    // The kernel would believe the name for a second.
    let gone = fs::metadata(at.join("left"));
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        File::open(at.join("left")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let _ = agent.ctl().run(["restore", text(&run, "run_id")]).ok();
    read(&at.join("left"));
    drop((open, open_before, mapping));
    through.terminate();
}
