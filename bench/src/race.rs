//! Does a purger delete files that were used after it had started?
//!
//! Every file is expired. While the purger runs, threads read, append to, map, rename and replace random files, at a fixed
//! rate. An access counts only if the file that was open still had a name after it: then all of it lay before a deletion, and
//! after the purger's start. A file with such an access that does not exist in the end is lost; neither clocks nor the order of
//! events matter. Files that are known to be deleted are not touched again, and nothing is brought back. A purger that leaves
//! alone files that no thread touched loses nothing either: the table says how many of those it deleted.
//!
//! - `accesses`  the threads, and the count
//! - `volume`    a fresh file system of each kind

mod accesses;
mod volume;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use self::accesses::{Outcome, Targets};
use self::volume::{Kind, Scratch};
use crate::agent::{Agent, Volume};
use crate::command::Running;
use crate::stages::{Bench, say};

/// Files of a round, or as many as accesses are wanted where that is fewer.
const FILES_MAX: usize = 100_000;
/// Rounds of a peer: one loses something each time.
const PEER_ROUNDS: u32 = 1;
/// A round that counts fewer accesses is no race.
const ROUNDS_MAX: u32 = 100;
/// Of the files that no thread touched, a purger must have deleted this share.
const UNTOUCHED_DELETED_MIN: f64 = 0.9;
/// Who opens a file in the moment of the purge waits this long at most, in 999 of 1000 cases.
const WAIT_MAX_SECONDS: f64 = 0.1;

/// Who purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purger {
    Agent,
    AgentWithGrace,
    Find,
    Tmpreaper,
    SystemdTmpfiles,
}

impl Purger {
    const OURS: [Self; 2] = [Self::Agent, Self::AgentWithGrace];
    const PEERS: [Self; 3] = [Self::Find, Self::Tmpreaper, Self::SystemdTmpfiles];

    fn name(self) -> &'static str {
        match self {
            Self::Agent => "purge-agent",
            Self::AgentWithGrace => "purge-agent, grace",
            Self::Find => "find -delete",
            Self::Tmpreaper => "tmpreaper",
            Self::SystemdTmpfiles => "systemd-tmpfiles",
        }
    }

    fn is_ours(self) -> bool {
        Self::OURS.contains(&self)
    }
}

/// What the peers are called in the shell; find is everywhere.
const PEER_TOOLS: [&str; 2] = ["tmpreaper", "systemd-tmpfiles"];

/// Races on every kind of file system until the agent has stood `accesses` accesses on each, `rate` a second; the peers too, unless `only_ours`.
pub fn measure(bench: &Bench, accesses: u64, rate: u64, only_ours: bool) -> Result<()> {
    for tool in PEER_TOOLS.into_iter().filter(|_| !only_ours) {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|dir| dir.join(tool).is_file());
        ensure!(found, "{tool} is not here: install it, or race --ours alone");
    }
    println!(
        "{:<8}{:<20}{:>10}{:>10}{:>10}{:>10}{:>8}{:>16}{:>14}{:>12}",
        "", "", "accesses", "files", "deleted", "used", "lost", "unused deleted", "wait p99.9", "longest"
    );
    let mut complaints = vec![];
    for kind in Kind::ALL {
        for purger in Purger::OURS.into_iter().chain(Purger::PEERS) {
            if only_ours && !purger.is_ours() {
                continue;
            }
            let outcome = races(bench, kind, purger, (accesses, rate))?;
            println!("{:<8}{:<20}{outcome}", kind.name(), purger.name());
            if purger.is_ours() {
                let who = format!("{} on {}", purger.name(), kind.name());
                complaints.extend(complaint(&outcome, !only_ours).map(|c| format!("{who}: {c}")));
            }
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// What breaks the promise. How long an opener waits says something only where nothing else runs.
fn complaint(outcome: &Outcome, judge_waits: bool) -> Option<String> {
    if outcome.lost > 0 {
        return Some(format!("{} files were used and deleted", outcome.lost));
    }
    if outcome.untouched_deleted_share() < UNTOUCHED_DELETED_MIN {
        return Some(format!(
            "only {:.1}% of the untouched files went",
            outcome.untouched_deleted_share() * 100.0
        ));
    }
    let wait = outcome.waits.quantile(0.999);
    if judge_waits && wait > WAIT_MAX_SECONDS {
        return Some(format!("openers waited {:.0} ms (p99.9)", wait * 1e3));
    }
    (outcome.errors > 0).then(|| format!("{} accesses failed otherwise than by ENOENT", outcome.errors))
}

fn races(bench: &Bench, kind: Kind, purger: Purger, (accesses, rate): (u64, u64)) -> Result<Outcome> {
    let files = usize::try_from(accesses).unwrap_or(FILES_MAX).clamp(1, FILES_MAX);
    let mut all = Outcome::default();
    for round in 0..ROUNDS_MAX {
        let enough = match purger.is_ours() {
            true => all.accesses >= accesses,
            false => round >= PEER_ROUNDS,
        };
        if enough {
            break;
        }
        say(&format!(
            "{} on {}, round {}",
            purger.name(),
            kind.name(),
            round + 1
        ));
        let scratch = Scratch::make(&bench.place, kind)?;
        let targets = Targets::make(scratch.root(), files)?;
        let name = format!(
            "race-{}-{}-{round}",
            kind.name(),
            purger.name().replace([' ', ','], "")
        );
        all.add(&race(bench, &name, scratch.root(), purger, (targets, rate))?);
    }
    Ok(all)
}

fn race(
    bench: &Bench,
    name: &str,
    root: &Path,
    purger: Purger,
    (targets, rate): (Targets, u64),
) -> Result<Outcome> {
    let tree = targets.tree().to_owned();
    let while_runs = |mut command: Command| {
        let running = Running::start(command.stdout(std::process::Stdio::null()))?;
        targets.race(rate, || running.wait().map(drop))
    };
    match purger {
        Purger::Agent | Purger::AgentWithGrace => {
            let rule = match purger {
                Purger::Agent => "",
                _ => "grace = \"1d\"",
            };
            let volume = Volume {
                name: "race",
                path: root,
                keys: "",
                rule,
            };
            let mut agent = Agent::start(&bench.programs, &bench.place, name, &[volume])?;
            agent.wait_tracking()?;
            let plan = agent.json(&["plan", "--rule", "race"])?;
            let id = plan["plan_id"].as_str().context("a plan without id")?;
            let outcome = targets.race(rate, || agent.json(&["apply", id, "--yes"]).map(drop));
            agent.stop()?;
            outcome
        }
        Purger::Find => {
            let mut find = Command::new("find");
            find.arg(&tree).args(["-type", "f", "-atime", "+90", "-delete"]);
            while_runs(find)
        }
        Purger::Tmpreaper => {
            let mut reaper = Command::new("tmpreaper");
            // Its default is the access time.
            reaper.args(["--runtime=0", "90d"]).arg(&tree);
            while_runs(reaper)
        }
        Purger::SystemdTmpfiles => {
            let rules = root.join("race.conf");
            std::fs::write(&rules, format!("d {} - - - am:90d\n", tree.display()))?;
            let mut tmpfiles = Command::new("systemd-tmpfiles");
            tmpfiles.arg("--clean").arg(&rules);
            while_runs(tmpfiles)
        }
    }
}

/// How long something took.
fn timed<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let result = what();
    (began.elapsed().as_secs_f64(), result)
}
