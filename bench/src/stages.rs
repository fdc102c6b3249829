//! What is measured, in this order.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::agent::{Agent, Volume};
use crate::collecting;
use crate::command::{output, pause, run};
use crate::image::{Image, Tree};
use crate::measure::{
    Forget, REPEATS, disk_bytes, drop_caches, median, median_seconds, resident_bytes, timed,
};
use crate::report::{Report, Unit};
use crate::storm::{self, Storm};

/// Expired files of the large tree: what a daily purge finds.
const OLD_SHARE: f64 = 0.01;
/// Between two looks whether the agent has caught up with a storm.
const SETTLE_POLL: Duration = Duration::from_millis(100);
/// This many equal looks in a row mean that it has.
const SETTLE_LOOKS: usize = 5;
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Files of the tree in which some are used all the time.
pub const HOT_TREE: usize = 2_000;

/// Where and with what is measured.
pub struct Bench {
    /// The directory of the programs.
    pub programs: PathBuf,
    /// The directory for everything that is made.
    pub place: PathBuf,
    /// Files of the large tree.
    pub files: usize,
}

/// What find takes for the work of the agent on the large tree, in seconds.
struct FindFigures {
    list_all: f64,
    old_warm: f64,
    old_cold: f64,
    old_files: u64,
}

impl Bench {
    /// Scan, plan, storm, memory and space, with one tree of many young and few old files.
    pub fn use_of_a_large_tree(&self, report: &mut Report) -> Result<()> {
        say("growing the large tree");
        let tree = Tree {
            files: self.files,
            old_share: OLD_SHARE,
            seed: 1,
        };
        let image = self.image("large", tree)?;
        say("find");
        let find = find_figures(&image.tree())?;
        say("storm, unwatched");
        let unwatched = self.storm(&image, 1)?;
        let agent = self.first_scans(report, &image, &find)?;
        plan(report, &agent, &find)?;
        usage(report, &agent, &image.tree())?;
        say("storm, watched");
        self.watched_storm(report, &agent, &image, &unwatched)?;
        self.space(report, agent)
    }

    /// What the same few files cost those who use them again and again, with every use recorded by itself and with precision windows,
    /// beside files that no agent watches.
    pub fn use_of_hot_files(&self, report: &mut Report) -> Result<()> {
        let tree = Tree {
            files: HOT_TREE,
            old_share: 0.0,
            seed: 3,
        };
        let (image, unwatched) = (self.image("hot", tree)?, self.image("hot-unwatched", tree)?);
        for size in collecting::READ_SIZES {
            say(&format!("hot files, {} KiB each", size >> 10));
            for (how, keys) in [
                ("every use", "precision = \"0s\""),
                ("windows", "precision = \"1h\""),
            ] {
                let volumes = [Volume {
                    name: "hot",
                    path: image.root(),
                    keys,
                    rule: "",
                }];
                let mut agent = Agent::start(
                    &self.programs,
                    &self.place,
                    &format!("agent-{size}-{how}"),
                    &volumes,
                )?;
                agent.wait_tracking()?;
                collecting::hot(report, &agent, (&image, &unwatched), size, how)?;
                agent.stop()?;
            }
        }
        Ok(())
    }

    /// Scans again into an empty index, a few times; the last agent stays.
    fn first_scans(&self, report: &mut Report, image: &Image, find: &FindFigures) -> Result<Agent> {
        let mut last = None;
        let seconds = {
            let mut nth = 0;
            median(|| {
                if let Some(before) = last.take().map(Agent::stop) {
                    fs::remove_dir_all(before?)?;
                }
                nth += 1;
                // Not the scan's work, and what came before may have driven some of it out.
                warm_up(&image.tree())?;
                say(&format!("first scan {nth} of {REPEATS}"));
                let (took, agent) = timed(|| {
                    let volumes = [Volume {
                        name: "large",
                        path: image.root(),
                        keys: "",
                        rule: "",
                    }];
                    let mut agent =
                        Agent::start(&self.programs, &self.place, &format!("agent{nth}"), &volumes)?;
                    agent.wait_tracking()?;
                    Ok(agent)
                })?;
                last = Some(agent);
                Ok(took.as_secs_f64())
            })?
        };
        let agent = last.context("nothing was scanned")?;
        let volume = agent.volume("large")?;
        let (files, dirs) = (number(&volume["files"]), number(&volume["directories"]));
        let entries = files + dirs;
        report.beside(
            "first scan, to tracking",
            Unit::Seconds,
            seconds,
            "find -printf, warm",
            find.list_all,
        );
        report.beside(
            "first scan, entries",
            Unit::PerSecond,
            entries / seconds,
            "find -printf, warm",
            entries / find.list_all,
        );
        if let Some(told) = agent.logged_scan_seconds() {
            report.beside(
                "first scan, as the agent logs it",
                Unit::Seconds,
                told,
                "find -printf, warm",
                find.list_all,
            );
        }
        if files as usize != self.files {
            report.remark(format!("the index holds {files} files, the tree {}", self.files));
        }
        let (now, peak) = resident_bytes(agent.pid())?;
        report.figure("agent memory after the scan", Unit::Bytes, now as f64);
        report.figure("agent memory at its highest", Unit::Bytes, peak as f64);
        Ok(agent)
    }

    /// How fast files can be read while the agent looks on, and whether it saw them all.
    fn watched_storm(
        &self,
        report: &mut Report,
        agent: &Agent,
        image: &Image,
        unwatched: &Storm,
    ) -> Result<()> {
        let before = agent.volume("large")?;
        let storm = self.storm(image, 2)?;
        let (caught_up, after) = settle(agent)?;
        let counted = |field: &str| number(&after[field]) - number(&before[field]);
        report.beside(
            "storm, opens",
            Unit::PerSecond,
            storm.opens_per_second,
            "the same, unwatched",
            unwatched.opens_per_second,
        );
        report.figure("storm, until the agent has caught up", Unit::Seconds, caught_up);
        report.figure("storm, events counted", Unit::Count, counted("events_total"));
        report.figure("storm, events lost", Unit::Count, counted("events_lost_total"));
        let recorded = observed_files(agent, image)?;
        let missed = storm.read.difference(&recorded).count();
        report.beside(
            "storm, files recorded as used",
            Unit::Count,
            (storm.read.len() - missed) as f64,
            "files read",
            storm.read.len() as f64,
        );
        if missed > 0 {
            report.remark(format!("{missed} files that were read are not recorded as used"));
        }
        Ok(())
    }

    /// Memory at the end, and the index on disk once the agent has stopped.
    fn space(&self, report: &mut Report, agent: Agent) -> Result<()> {
        let (now, _) = resident_bytes(agent.pid())?;
        report.figure("agent memory at the end", Unit::Bytes, now as f64);
        let state_dir = agent.stop()?;
        let bytes = disk_bytes(&state_dir)? as f64;
        report.figure("index on disk", Unit::Bytes, bytes);
        report.figure("index on disk, a file", Unit::Bytes, bytes / self.files as f64);
        Ok(())
    }

    pub(crate) fn image(&self, name: &str, tree: Tree) -> Result<Image> {
        Image::make(&self.programs, &self.place, name, tree)
    }

    /// A storm on files that the kernel knows by name and inode but not by content, so that every storm finds the
    /// same.
    fn storm(&self, image: &Image, seed: u64) -> Result<Storm> {
        warm_up(&image.tree())?;
        drop_caches(Forget::Pages)?;
        storm::unleash(&image.manifest, &self.place, seed)
    }
}

/// Progress, for a person who waits; the table alone goes to stdout.
pub(crate) fn say(what: &str) {
    eprintln!("... {what}");
}

fn find_figures(tree: &Path) -> Result<FindFigures> {
    warm_up(tree)?;
    let list_all = median_seconds(|| run(Command::new("find").arg(tree).args(["-printf", "%s %T@ %A@\\n"])))?;
    let old_warm = median_seconds(|| run(&mut find_old(tree)))?;
    drop_caches(Forget::Everything)?;
    let (old_cold, (_, names)) = timed(|| output(&mut find_old(tree)))?;
    let old_files = lines(&names);
    Ok(FindFigures {
        list_all,
        old_warm,
        old_cold: old_cold.as_secs_f64(),
        old_files,
    })
}

pub(crate) fn find_old(tree: &Path) -> Command {
    let mut find = Command::new("find");
    find.arg(tree).args(["-type", "f", "-atime", "+90"]);
    find
}

/// Brings all names and inodes into the kernel's caches.
pub(crate) fn warm_up(tree: &Path) -> Result<()> {
    run(Command::new("find").arg(tree).args(["-printf", "%s"]))
}

/// Plans what expires, from the index, as often as is cheap.
fn plan(report: &mut Report, agent: &Agent, find: &FindFigures) -> Result<()> {
    say("plan");
    let mut last = Value::Null;
    let plan = || agent.json(&["plan", "--rule", "large"]);
    let mut evaluated = vec![];
    let warm = median_seconds(|| {
        last = plan()?;
        evaluated.push(number(&last["evaluation_seconds"]));
        Ok(())
    })?;
    evaluated.sort_by(f64::total_cmp);
    drop_caches(Forget::Everything)?;
    let (cold, _) = timed(plan)?;
    report.beside(
        "plan, as purgectl takes",
        Unit::Seconds,
        warm,
        "find -atime +90, warm",
        find.old_warm,
    );
    report.beside(
        "plan, after drop_caches",
        Unit::Seconds,
        cold.as_secs_f64(),
        "find -atime +90, cold",
        find.old_cold,
    );
    if let Some(middle) = evaluated.get(evaluated.len() / 2) {
        report.beside(
            "plan, evaluation alone",
            Unit::Seconds,
            *middle,
            "find -atime +90, warm",
            find.old_warm,
        );
    }
    let candidates = number(&last["candidates"]["files"]);
    if candidates != find.old_files as f64 {
        report.remark(format!(
            "the plan names {candidates} files, find {}",
            find.old_files
        ));
    }
    Ok(())
}

/// Who uses how much, beside `du`.
fn usage(report: &mut Report, agent: &Agent, tree: &Path) -> Result<()> {
    say("usage");
    let du = median_seconds(|| run(Command::new("du").arg("-s").arg(tree)))?;
    for (what, words) in [
        (
            "usage by user, as purgectl takes",
            ["usage", "--by", "user", "--age"],
        ),
        (
            "usage by directory, depth 3, as purgectl takes",
            ["usage", "--by", "directory", "--depth=3"],
        ),
    ] {
        let seconds = median_seconds(|| agent.json(&words).map(drop))?;
        report.beside(what, Unit::Seconds, seconds, "du -s, warm", du);
    }
    Ok(())
}

/// Waits until the agent has read all events; how long that took, and the volume's status then.
fn settle(agent: &Agent) -> Result<(f64, Value)> {
    let start = Instant::now();
    let mut volume = agent.volume("large")?;
    let (mut equal, mut changed) = (0, Duration::ZERO);
    while equal < SETTLE_LOOKS && start.elapsed() < SETTLE_MAX {
        pause(SETTLE_POLL)?;
        let now = agent.volume("large")?;
        if now["events_total"] == volume["events_total"] {
            equal += 1;
        } else {
            (equal, changed) = (0, start.elapsed());
        }
        volume = now;
    }
    Ok((changed.as_secs_f64(), volume))
}

/// The numbers of the files whose last use the agent says it has seen itself. A tree of today is young by birth and
/// change times, so an age alone would prove nothing.
fn observed_files(agent: &Agent, image: &Image) -> Result<HashSet<usize>> {
    let root = image
        .root()
        .to_str()
        .context("the temporary directory is not UTF-8")?;
    let found = agent.ctl(&["--output", "ndjson", "find", root, "--type", "f"])?;
    let mut observed = HashSet::new();
    for line in found.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let entry: Value = serde_json::from_slice(line).context("purgectl find printed no JSON")?;
        if entry["source"] == "observed" {
            let path = entry["path"].as_str().unwrap_or_default();
            observed.extend(file_number(path.as_bytes()));
        }
    }
    Ok(observed)
}

/// The number in a name of gentree's, `f0000042.dat`.
fn file_number(path: &[u8]) -> Option<usize> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let digits = name.strip_prefix(b"f")?.split(|byte| *byte == b'.').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Numbers of scripts' JSON; 0 where the agent says nothing.
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

pub(crate) fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::file_number;

    #[test]
    fn a_files_number_is_read_from_its_name() {
        assert_eq!(file_number(b"/mnt/tree/d0_00000/f0000042.dat"), Some(42));
        assert_eq!(file_number(b"/mnt/tree/d0_00000"), None);
        assert_eq!(file_number(b""), None);
    }
}
