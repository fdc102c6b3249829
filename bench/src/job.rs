//! `purge-agent once`: on a file server whose answers come late, beside `find -delete` and many unlinks at a time; and its cold scan of a
//! disk beside `find`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use purge_bench::far::{Far, Like};
use serde_json::Value;

use crate::command::{output, run};
use crate::image::{Image, Tree};
use crate::measure::{Forget, drop_caches, timed};
use crate::report::{Report, Unit};
use crate::stages::Bench;

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

/// A server with this number of files; those that are old.
fn filled(place: &Path, files: usize, plus: bool) -> Result<(Far, Vec<String>)> {
    let like = Like {
        delay: LATE,
        plus,
        ..Like::default()
    };
    let far = Far::mount(&place.join("far"), like).context("cannot mount FUSE")?;
    let mut old = Vec::new();
    for n in 0..files {
        let path = format!("d{}/f{n}", n / EACH);
        let is_old = n % 10 < OLD_OF_TEN;
        far.make(&path, 4096, days_ago(if is_old { 40 } else { 2 }));
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

/// On a file server.
pub fn far(bench: &Bench) -> Result<()> {
    let files = bench.files;
    println!(
        "{files} files, {OLD_OF_TEN} of 10 old, {EACH} in a directory, on a FUSE server whose answers come {LATE:?} late"
    );
    let find = find_delete(bench, files / FOR_FIND)?;
    let many = many_unlinks(bench, files)?;
    let mut report = Report::default();
    for plus in [true, false] {
        let (far, old) = filled(&bench.place, files, plus)?;
        let job = once(bench, far.path(), &["--ttl", "30d"])?;
        let (scan, purge) = (figure(&job, "scan_seconds")?, figure(&job, "purge_seconds")?);
        ensure!(
            far.files() == files - old.len(),
            "{} are left: {job}",
            far.files()
        );
        let with = if plus { "READDIRPLUS" } else { "lookups" };
        let removed = old.len() as f64;
        report.beside(
            &format!("once, scan by {with}"),
            Unit::PerSecond,
            files as f64 / scan,
            "find, list and stat",
            find.scan,
        );
        report.beside(
            "once, removals",
            Unit::PerSecond,
            removed / purge,
            "find -delete",
            find.removals,
        );
        report.beside(
            "once, removals",
            Unit::PerSecond,
            removed / purge,
            "1,000 unlinks at a time",
            many,
        );
        let all = files as f64 / figure(&job, "seconds")?;
        report.beside(
            "once, files seen, whole job",
            Unit::PerSecond,
            all,
            "find -delete",
            find.whole,
        );
    }
    println!("\n{report}");
    Ok(())
}

/// What `find` does in a second.
struct Find {
    scan: f64,
    removals: f64,
    whole: f64,
}

fn find_delete(bench: &Bench, files: usize) -> Result<Find> {
    let files = files.max(EACH);
    let (far, old) = filled(&bench.place, files, true)?;
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
fn many_unlinks(bench: &Bench, files: usize) -> Result<f64> {
    let (far, old) = filled(&bench.place, files, true)?;
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
