//! What plans of many files cost of memory: all files are removed, of trees of several sizes; two lines a size, at once and through
//! the trash.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::{Agent, Volume};
use crate::image::{Image, Tree};
use crate::measure::{resident_bytes, timed};
use crate::stages::{Bench, number, say};

/// Between two looks at the agent's memory.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Row {
    files: usize,
    to_the_trash: bool,
    scanned: u64,
    planning: u64,
    /// At its highest in the first and in the second half of the apply's time.
    applying: [u64; 2],
    plan_seconds: f64,
    apply_seconds: f64,
    done: f64,
}

/// Measures plans of these sizes, one after another, and prints the table.
pub fn measure(bench: &Bench, sizes: &[usize]) -> Result<()> {
    let mut rows = vec![];
    for files in sizes {
        for to_the_trash in [false, true] {
            rows.push(measure_one(bench, *files, to_the_trash)?);
        }
    }
    println!(
        "\n     files  where to   scanned  planning  first half  second half    plan    apply       done"
    );
    for r in &rows {
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "{:>10} {:>9} {:>6}MiB {:>6}MiB {:>8}MiB {:>9}MiB {:>6.1}s {:>7.1}s {:>10}",
            r.files,
            if r.to_the_trash { "trash" } else { "nowhere" },
            mib(r.scanned),
            mib(r.planning),
            mib(r.applying[0]),
            mib(r.applying[1]),
            r.plan_seconds,
            r.apply_seconds,
            r.done,
        );
    }
    println!(
        "the agent's resident memory after the first scan, and at its highest (looked at five times a second) while it plans, and in both halves of\n\
         the time that it applies the plan;\n\
         the time of plan and apply as purgectl takes; done: files that went"
    );
    Ok(())
}

fn measure_one(bench: &Bench, files: usize, to_the_trash: bool) -> Result<Row> {
    let tree = Tree {
        files,
        old_share: 1.0,
        seed: 3,
    };
    say(&format!("growing {files} files"));
    let (name, rule, went) = match to_the_trash {
        true => ("kept", "grace = \"1d\"", "trashed"),
        false => ("plans", "", "deleted"),
    };
    let image = Image::make(&bench.programs, &bench.place, name, tree)?;
    let volumes = [Volume {
        name,
        path: image.root(),
        keys: "",
        rule,
    }];
    say(&format!("planning and applying {files} files"));
    let mut agent = Agent::start(
        &bench.programs,
        &bench.place,
        &format!("{name}-{files}"),
        &volumes,
    )?;
    agent.wait_tracking()?;
    let (scanned, _) = resident_bytes(agent.pid())?;
    let ((plan_seconds, plan), looks) = looking_on(agent.pid(), || {
        let (time, plan) = timed(|| agent.json(&["plan", "--rule", name]))?;
        Ok((time.as_secs_f64(), plan))
    })?;
    let planning = highest(&looks);
    let id = plan["plan_id"].as_str().context("a plan without id")?;
    let ((apply_seconds, run), looks) = looking_on(agent.pid(), || {
        let (time, run) = timed(|| agent.json(&["apply", id, "--yes"]))?;
        Ok((time.as_secs_f64(), run))
    })?;
    let (first, second) = looks.split_at(looks.len() / 2);
    agent.stop()?;
    Ok(Row {
        files,
        to_the_trash,
        scanned,
        planning,
        applying: [first, second].map(highest),
        plan_seconds,
        apply_seconds,
        done: number(&run[went]["files"]),
    })
}

fn highest(looks: &[u64]) -> u64 {
    looks.iter().copied().max().unwrap_or(0)
}

/// What `work` gives, and the resident memory of a process meanwhile.
fn looking_on<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<u64>)> {
    // Dropped when the work has ended, however it ends.
    let (working, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let working = working;
        let looks = scope.spawn(move || {
            let mut looks = vec![];
            loop {
                looks.extend(resident_bytes(pid).map(|(now, _)| now));
                if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            looks
        });
        let done = work();
        drop(working);
        let looks = looks
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that looks on has failed"))?;
        Ok((done?, looks))
    })
}
