//! A volume that writers keep between 95% and 100% full, with a watermark, a grace, and a snapshot that holds its blocks for a third of the time.
//!
//!   PURGE_TESTS_LONG=1 tests/run -p purge-tests --test failure soak_full:: -- --nocapture        half an hour instead of most of a minute
//!
//! What must hold all the time: nothing goes that was used within `min_age`, what is missing was deleted by the agent and its audit log says
//! so, the agent answers, and what it says of runs and files is so.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use purge_tests::ctl::{number, text};
use purge_tests::files::regular_files;
use purge_tests::wait::{Ends, LONG, SOON, until, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use serde_json::Value;

const FILE_BYTES: usize = 256 << 10;
/// Writers stop here for a moment, so that the file system is full and not broken.
const FULL: f64 = 0.995;
/// Between two looks at the agent.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How long it all takes, and what follows from that.
struct Form {
    phase: Duration,
    min_age: u64,
    /// A writer's rest after each file.
    rest: Duration,
    /// The agent looks at a watermark five seconds after its start, and each minute.
    restarts: bool,
}

fn form() -> Form {
    match std::env::var("PURGE_TESTS_LONG").is_ok_and(|v| v == "1") {
        true => Form {
            phase: Duration::from_secs(600),
            min_age: 60,
            rest: Duration::from_millis(200),
            restarts: false,
        },
        false => Form {
            phase: Duration::from_secs(12),
            min_age: 6,
            rest: Duration::from_millis(10),
            restarts: true,
        },
    }
}

/// What the users know.
struct Scene {
    volume: PathBuf,
    /// When the last use of each file was over, in milliseconds since 1970.
    used: Mutex<BTreeMap<PathBuf, u64>>,
    made: AtomicU64,
    refused: AtomicU64,
    over: AtomicBool,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// How much of the space is in use.
fn share(root: &Path) -> f64 {
    let s = rustix::fs::statvfs(root).unwrap();
    let used = (s.f_blocks - s.f_bfree) as f64;
    used / (used + s.f_bavail as f64)
}

impl Scene {
    fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// Makes one file, if there is room for it.
    fn write_one(&self) {
        if share(&self.volume) >= FULL {
            std::thread::sleep(Duration::from_millis(200));
            return;
        }
        let n = self.made.fetch_add(1, Relaxed);
        let path = self.volume.join(format!("d{}/f{n}", n % 8));
        let content = vec![u8::try_from(n % 251).unwrap(); FILE_BYTES];
        let written = fs::File::create(&path).and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_data()
        });
        match written {
            Ok(()) => drop(self.used.lock().insert(path, now())),
            // No space: what it has of it goes, as an application clears up.
            Err(_) => {
                self.refused.fetch_add(1, Relaxed);
                let _ = fs::remove_file(&path);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }

    /// Reads one of the oldest files, and sees that all of it is there.
    fn read_one(&self, nth: usize) {
        let Some(path) = self.used.lock().keys().nth(nth % 40).cloned() else {
            return;
        };
        if let Ok(content) = fs::read(&path) {
            assert_eq!(content.len(), FILE_BYTES, "{} is torn", path.display());
            assert!(content.iter().all(|byte| *byte == content[0]));
            self.used.lock().insert(path, now());
        }
    }
}

/// What the audit log has said.
#[derive(Default)]
struct Audit {
    lines: usize,
    taken: u64,
}

impl Audit {
    /// Judges each file that was taken since the last look.
    fn check(&mut self, agent: &Agent, scene: &Scene, min_age: u64) {
        let log = fs::read_to_string(agent.state_dir().join("audit.jsonl")).unwrap();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let lines: Vec<&str> = whole.lines().collect();
        for line in &lines[self.lines..] {
            let line: Value = serde_json::from_str(line).unwrap();
            let taken = matches!(text(&line, "event"), "deleted" | "trashed");
            if !taken || text(&line, "kind") != "file" {
                continue;
            }
            self.taken += 1;
            let time = chrono::DateTime::parse_from_rfc3339(text(&line, "time")).unwrap();
            let at = u64::try_from(time.timestamp()).unwrap();
            let used = scene.used.lock().remove(Path::new(text(&line, "path")));
            // The log has whole seconds. A use in the moment of the deletion had found the file before.
            if let Some(used) = used.filter(|used| used + 1500 < at * 1000) {
                assert!(used / 1000 + min_age <= at + 1, "used at {used} ms: {line}");
            }
        }
        self.lines = lines.len();
    }
}

/// What the agent says of its runs is what it has written down of them.
fn check_runs(agent: &Agent, audit: &Audit) {
    let runs = agent.ctl().run(["runs", "--output", "json"]).ok().json();
    let mut taken = 0;
    for run in runs.as_array().unwrap() {
        taken += number(run, "/deleted/files") + number(run, "/trashed/files");
        let (state, error) = (text(run, "state"), text(run, "error"));
        assert!(
            state != "failed" || !error.is_empty(),
            "failed without a cause: {run}"
        );
    }
    assert!(
        taken >= audit.taken,
        "{taken} by the runs, {} in the log",
        audit.taken
    );
}

fn trigger(agent: &Agent) -> (String, String) {
    let status = agent.status();
    let trigger = status.pointer("/triggers/0").cloned().unwrap();
    let word = |key| text(&trigger, key).to_owned();
    (word("state"), word("reason"))
}

#[test]
fn a_volume_that_is_kept_full_is_purged_of_what_is_old_and_of_nothing_else() {
    let form = form();
    let mount = need!(Mount::sized(Fs::Btrfs, 320, 0));
    let (root, volume) = (mount.path(), mount.dir("volume"));
    (0..8).for_each(|n| fs::create_dir(volume.join(format!("d{n}"))).unwrap());
    let min_age = form.min_age;
    let config = Config::new(&volume, "")
        .rule(
            "old",
            "clock = [\"access\", \"modify\"]\ngrace = \"5s\"\nmax_fraction = 1.0\nremove_empty_dirs = false",
        )
        .table(
            "watermark",
            &format!("rule = \"old\"\nhigh = \"97%\"\nlow = \"95%\"\nmin_age = \"{min_age}s\""),
        );
    let mut agent = Agent::tracking(&config);
    let scene = Scene {
        volume: volume.clone(),
        used: Mutex::default(),
        made: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let mut audit = Audit::default();
    let snapshot = root.join("snapshot");
    let btrfs = |words: &[&str], paths: &[&Path]| {
        let mut command = Command::new("btrfs");
        sh(command.args(["-q", "subvolume"]).args(words).args(paths))
    };
    std::thread::scope(|threads| {
        let ending = Ends(&scene.over);
        for _ in 0..2 {
            threads.spawn(|| {
                let _ending = Ends(&scene.over);
                while scene.goes_on() {
                    scene.write_one();
                    std::thread::sleep(form.rest);
                }
            });
        }
        threads.spawn(|| {
            let _ending = Ends(&scene.over);
            for nth in (0..).take_while(|_| scene.goes_on()) {
                scene.read_one(nth * 7);
                std::thread::sleep(form.rest * 5);
            }
        });
        until("the volume is full", LONG, || {
            assert!(scene.goes_on(), "a writer has failed");
            (share(&volume) > 0.97).then_some(())
        });
        for phase in 0..3 {
            match phase {
                1 => drop(btrfs(&["snapshot"], &[&root, &snapshot]).unwrap()),
                2 => drop(btrfs(&["delete", "--commit-after"], &[&snapshot]).unwrap()),
                _ => {}
            }
            if form.restarts {
                agent.restart();
            }
            let (began, before) = (Instant::now(), audit.taken);
            let mut fullest: f64 = 0.0;
            while began.elapsed() < form.phase && scene.goes_on() {
                std::thread::sleep(LOOK_EVERY);
                audit.check(&agent, &scene, min_age);
                check_runs(&agent, &audit);
                fullest = fullest.max(share(&volume));
                let status = agent.status();
                assert_eq!(text(&status, "state"), "tracking", "{status}");
            }
            let (state, reason) = trigger(&agent);
            println!(
                "phase {phase}: {} taken, {:.1}% full, at most {:.1}%, {} writes without room; the watermark: {state} {reason}",
                audit.taken - before,
                share(&volume) * 100.0,
                fullest * 100.0,
                scene.refused.load(Relaxed),
            );
        }
        drop(ending);
    });
    // It is not stuck: without writers, and without the snapshot, what is old goes until there is room.
    if form.restarts {
        agent.restart();
    }
    until("there is room again", LONG, || {
        audit.check(&agent, &scene, min_age);
        (share(&volume) <= 0.97).then_some(())
    });
    until("no run goes on", SOON, || {
        let runs = agent.ctl().run(["runs", "--output", "json"]).ok().json();
        let mut runs = runs.as_array().unwrap().iter();
        (!runs.any(|run| text(run, "state") == "running")).then_some(())
    });
    audit.check(&agent, &scene, min_age);
    check_runs(&agent, &audit);
    let left = || -> std::collections::BTreeSet<PathBuf> {
        let there = regular_files(&volume).into_iter();
        there
            .filter(|path| !path.starts_with(volume.join(".purge-agent-trash")))
            .collect()
    };
    until_same("the index has every file that there is", &left(), || {
        agent.ctl().find(["--type", "f"])
    });
    let known: std::collections::BTreeSet<PathBuf> = scene.used.lock().keys().cloned().collect();
    let missing: Vec<_> = known.difference(&left()).cloned().collect();
    assert!(
        missing.is_empty(),
        "missing, and the log does not say so: {missing:?}"
    );
    println!("{} taken in all; {} are left", audit.taken, known.len());
    assert!(audit.taken > 20, "{} taken", audit.taken);
}
