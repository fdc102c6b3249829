//! `purge-agent once`: on a file server whose answers come late, beside `find -delete` and many unlinks at a time; and its cold scan of a
//! disk beside `find`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use purge_bench::far::{Far, Like};
use serde_json::Value;

use crate::agent::{Agent, Volume};
use crate::command::{output, run};
use crate::floor;
use crate::image::{Image, Tree};
use crate::measure::{Forget, drop_caches, timed};
use crate::report::{Report, Unit};
use crate::stages::{Bench, say};

const FILES_DEFAULT: usize = 100_000;
/// Files of a directory.
const EACH: usize = 1_000;
/// Of ten files this number is old.
const OLD_OF_TEN: usize = 3;
/// The server's answers come so late.
const LATE: Duration = Duration::from_millis(3);
/// One after another, `find -delete` gets a smaller tree.
const FOR_FIND: usize = 20;
const UNLINKS_AT_A_TIME: usize = 1_000;
/// As many as the agent's scan has at most.
const LOOKS_AT_A_TIME: usize = 256;
/// Threads for each directory that ask and unlink, as the job has them.
const LANES: usize = 3;
/// Everything but what is slow is measured this many times, ours and its peers by turns.
const ROUNDS: usize = 3;
/// The agent gets a smaller tree as well: one rename comes after the other.
const FOR_AGENT: usize = 20;
const RENAMES_AT_A_TIME: usize = 64;

/// The number of files on the command line.
pub fn files_wanted(args: &[String]) -> Result<usize> {
    let files = args.first().map_or(Ok(FILES_DEFAULT), |files| files.parse());
    let files = files.context("FILES is a number")?;
    ensure!(files >= EACH, "at least {EACH} files are needed");
    Ok(files)
}

fn days_ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * 86_400)
}

fn path_of(n: usize) -> String {
    format!("d{}/f{n}", n / EACH)
}

/// A server with this number of files; those that are old.
fn filled(place: &Path, files: usize, (plus, kernel_checks): (bool, bool)) -> Result<(Far, Vec<String>)> {
    let like = Like {
        delay: LATE,
        plus,
        kernel_checks,
        ..Like::default()
    };
    let far = Far::mount(&place.join("far"), like).context("cannot mount FUSE")?;
    let mut old = Vec::new();
    for n in 0..files {
        let path = path_of(n);
        let is_old = n % 10 < OLD_OF_TEN;
        far.make(&path, 4096, days_ago(if is_old { 100 } else { 2 }));
        if is_old {
            old.push(path);
        }
    }
    Ok((far, old))
}

/// What a job says of itself.
fn once(bench: &Bench, volume: &Path, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(bench.programs.join("purge-agent"));
    command.arg("once").arg("--volume").arg(volume).args(arguments);
    command.env("PURGE_AGENT_LOG", "json").env("RUST_LOG", "warn");
    let said = String::from_utf8(output(&mut command)?.1)?;
    let last = said
        .lines()
        .rfind(|line| !line.is_empty())
        .context("the job said nothing")?;
    Ok(serde_json::from_str(last)?)
}

fn figure(job: &Value, name: &str) -> Result<f64> {
    let found = job.get(name).and_then(Value::as_f64);
    found.with_context(|| format!("the job does not say {name}"))
}

/// On a file server: once where it decides itself who may do what, and once where the kernel does.
pub fn far(bench: &Bench) -> Result<()> {
    let files = bench.files;
    println!(
        "{files} files, {OLD_OF_TEN} of 10 old, {EACH} in a directory, on a FUSE server whose answers come {LATE:?} late; {ROUNDS} rounds"
    );
    let find = find_delete(bench, files / FOR_FIND)?;
    let mut report = Report::default();
    for kernel_checks in [false, true] {
        for plus in [true, false] {
            let mut all = Vec::new();
            for round in 0..ROUNDS {
                say(&format!("{}, round {}", called(plus, kernel_checks), round + 1));
                all.push(round_of(bench, (plus, kernel_checks))?);
            }
            tell(&mut report, called(plus, kernel_checks), &all, &find);
        }
    }
    far_agent(bench, &mut report, (files / FOR_AGENT).max(EACH))?;
    println!("\n{report}");
    Ok(())
}

fn called(plus: bool, kernel_checks: bool) -> &'static str {
    match (plus, kernel_checks) {
        (true, false) => "READDIRPLUS",
        (false, false) => "lookups",
        (true, true) => "READDIRPLUS, the kernel checks permissions",
        (false, true) => "lookups, the kernel checks permissions",
    }
}

/// Figures a second: of the job, and of plain loops that do the same and no more.
struct Round {
    scan: f64,
    removals: f64,
    whole: f64,
    looks: f64,
    asked: f64,
    unlinks: f64,
    many: f64,
}

fn round_of(bench: &Bench, like: (bool, bool)) -> Result<Round> {
    let files = bench.files;
    let fresh = || filled(&bench.place, files, like);
    let looks = {
        let (far, _) = fresh()?;
        let all: Vec<String> = (0..files).map(path_of).collect();
        floor::looks(far.path(), &all, LOOKS_AT_A_TIME)?
    };
    let (far, old) = fresh()?;
    let job = once(bench, far.path(), &["--ttl", "30d"])?;
    let left = far.files();
    ensure!(left == files - old.len(), "{left} are left: {job}");
    drop(far);
    let removals = |lanes: usize, asks: bool| {
        let (far, old) = fresh()?;
        floor::removals(far.path(), &old, lanes, asks)
    };
    Ok(Round {
        scan: files as f64 / figure(&job, "scan_seconds")?,
        removals: old.len() as f64 / figure(&job, "purge_seconds")?,
        whole: files as f64 / figure(&job, "seconds")?,
        looks,
        asked: removals(LANES, true)?,
        unlinks: removals(1, false)?,
        many: many_unlinks(bench, files, like)?,
    })
}

fn tell(report: &mut Report, with: &str, all: &[Round], find: &Find) {
    let of = |figure: fn(&Round) -> f64| all.iter().map(figure).collect::<Vec<f64>>();
    let always = |figure: f64| vec![figure; all.len()];
    let mut row = |what: &str, ours: Vec<f64>, peer: &str, peers: Vec<f64>| {
        report.by_turns(&format!("{what} ({with})"), Unit::PerSecond, &ours, peer, &peers);
    };
    row("scan", of(|r| r.scan), "find, list and stat", always(find.scan));
    row("scan", of(|r| r.scan), "256 threads of fstatat", of(|r| r.looks));
    row(
        "removals",
        of(|r| r.removals),
        "find -delete",
        always(find.removals),
    );
    row(
        "removals",
        of(|r| r.removals),
        "1,000 unlinks at a time",
        of(|r| r.many),
    );
    row(
        "removals",
        of(|r| r.removals),
        "ask and unlink, 3 a directory",
        of(|r| r.asked),
    );
    row(
        "removals",
        of(|r| r.removals),
        "unlink, 1 a directory",
        of(|r| r.unlinks),
    );
    row(
        "files seen, whole job",
        of(|r| r.whole),
        "find -delete",
        always(find.whole),
    );
}

/// What an agent takes into the trash there, beside renames without anything else.
fn far_agent(bench: &Bench, report: &mut Report, files: usize) -> Result<()> {
    let renamed = renames(bench, files)?;
    let (far, old) = filled(&bench.place, files, (true, false))?;
    let volumes = [Volume {
        name: "far",
        path: far.path(),
        keys: "collector = \"scan\"\nsole_client = true",
        rule: "",
    }];
    let mut agent = Agent::start(&bench.programs, &bench.place, "agent-far", &volumes)?;
    agent.wait_tracking()?;
    let plan = agent.json(&["plan", "--rule", "far"])?;
    let id = plan["plan_id"].as_str().context("a plan without id")?;
    let (took, run) = timed(|| agent.json(&["apply", id, "--yes"]))?;
    let trashed = run["trashed"]["files"].as_f64().unwrap_or(0.0);
    ensure!(
        trashed == old.len() as f64,
        "not all of {} files went: {run}",
        old.len()
    );
    report.beside(
        "agent, to the trash",
        Unit::PerSecond,
        trashed / took.as_secs_f64(),
        "64 renames at a time",
        renamed,
    );
    agent.stop().map(drop)
}

/// Names that are known are moved to other directories by many threads. The kernel does one such rename of a file system after the other.
fn renames(bench: &Bench, files: usize) -> Result<f64> {
    let (far, old) = filled(&bench.place, files, (true, false))?;
    for dir in 0..RENAMES_AT_A_TIME {
        std::fs::create_dir(far.path().join(format!("t{dir}")))?;
    }
    let next = AtomicUsize::new(0);
    let took = timed(|| {
        std::thread::scope(|scope| {
            for dir in 0..RENAMES_AT_A_TIME {
                let (far, old, next) = (&far, &old, &next);
                scope.spawn(move || {
                    let to = far.path().join(format!("t{dir}"));
                    while let Some(path) = old.get(next.fetch_add(1, Relaxed)) {
                        let name = Path::new(path).file_name().unwrap_or_default();
                        let _ = std::fs::rename(far.path().join(path), to.join(name));
                    }
                });
            }
        });
        Ok(())
    })?;
    ensure!(old.iter().all(|path| !far.has(path)), "not all names were moved");
    Ok(old.len() as f64 / took.0.as_secs_f64())
}

/// What `find` does in a second.
struct Find {
    scan: f64,
    removals: f64,
    whole: f64,
}

fn find_delete(bench: &Bench, files: usize) -> Result<Find> {
    let files = files.max(EACH);
    let (far, old) = filled(&bench.place, files, (true, false))?;
    let list = || {
        run(Command::new("find")
            .arg(far.path())
            .args(["-printf", "%s %T@\\n"]))
    };
    let scan = timed(list)?.0.as_secs_f64();
    let delete = || {
        run(Command::new("find")
            .arg(far.path())
            .args(["-type", "f", "-mtime", "+30", "-delete"]))
    };
    let whole = timed(delete)?.0.as_secs_f64();
    Ok(Find {
        scan: files as f64 / scan,
        removals: old.len() as f64 / whole,
        whole: files as f64 / whole,
    })
}

/// Names that are known are removed by many threads: nothing is looked at.
fn many_unlinks(bench: &Bench, files: usize, like: (bool, bool)) -> Result<f64> {
    let (far, old) = filled(&bench.place, files, like)?;
    // Across directories, as a program does that gathers names first.
    let paths: Vec<PathBuf> = {
        let mut all: Vec<(usize, &String)> =
            old.iter().enumerate().map(|(n, path)| (n % EACH, path)).collect();
        all.sort();
        all.into_iter().map(|(_, path)| far.path().join(path)).collect()
    };
    let next = AtomicUsize::new(0);
    let took = timed(|| {
        std::thread::scope(|scope| {
            for _ in 0..UNLINKS_AT_A_TIME {
                let work = || {
                    while let Some(path) = paths.get(next.fetch_add(1, Relaxed)) {
                        let _ = std::fs::remove_file(path);
                    }
                };
                let thread = std::thread::Builder::new().stack_size(64 << 10);
                let _ = thread.spawn_scoped(scope, work);
            }
        });
        Ok(())
    })?;
    ensure!(far.files() == files - old.len(), "{} are left", far.files());
    Ok(old.len() as f64 / took.0.as_secs_f64())
}

/// On a disk whose content no cache knows.
pub fn cold_scan(bench: &Bench) -> Result<()> {
    let tree = Tree {
        files: bench.files,
        old_share: 0.1,
        seed: 1,
    };
    let image = Image::make(&bench.programs, &bench.place, "scan", tree)?;
    let root = image.tree();
    let find = || run(Command::new("find").arg(&root).args(["-printf", "%s %T@ %A@\\n"]));
    let mut report = Report::default();
    for _ in 0..2 {
        drop_caches(Forget::Everything)?;
        let peer = timed(find)?.0.as_secs_f64();
        drop_caches(Forget::Everything)?;
        let job = once(bench, &root, &["--ttl", "30d", "--dry-run", "--clock", "modify"])?;
        let ours = figure(&job, "scan_seconds")?;
        report.beside("once, cold scan", Unit::Seconds, ours, "find -printf", peer);
    }
    println!("\n{report}");
    Ok(())
}
