//! How the agent's costs grow with the number of files: one line a size.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::agent::{Agent, Volume};
use crate::collecting::{self, Drained};
use crate::image::{Image, Tree};
use crate::measure::{disk_bytes, median, resident_bytes};
use crate::stages::Bench;

/// Distinct files that are used to measure what an update costs.
const UPDATES: usize = 200_000;

/// One size's figures.
#[derive(Debug)]
struct Row {
    files: usize,
    scan_seconds: f64,
    evaluation_seconds: f64,
    resident: f64,
    peak: f64,
    disk_a_file: f64,
    drained: Drained,
    /// The same of files that are no neighbours.
    spread: Drained,
    ready_seconds: f64,
    usage: Vec<Answered>,
}

/// What is asked of `purgectl usage`.
const QUESTIONS: [&[&str]; 6] = [
    &["--by", "user"],
    &["--by", "group"],
    &["--by", "project"],
    &["--by", "directory", "--depth", "1"],
    &["--by", "directory", "--depth", "3"],
    &["--by", "directory", "--depth", "99"],
];
/// How often each question is asked: the first time is the dearest.
const ASKED: usize = 5;

/// How long the whole command took, from its start to its end.
#[derive(Debug)]
struct Answered {
    question: String,
    first_ms: f64,
    longest_ms: f64,
}

/// Measures trees of these sizes, one after another, and prints the table.
pub fn measure(bench: &Bench, sizes: &[usize]) -> Result<()> {
    let mut rows = vec![];
    for files in sizes {
        rows.push(measure_one(bench, *files)?);
    }
    println!(
        "\n     files    scan  evaluation  a file    memory  a file      peak  on disk     update a core          spread      written back      lost   ready"
    );
    for r in &rows {
        let per_file = |bytes: f64| bytes / r.files as f64;
        println!(
            "{:>10} {:>6.1}s {:>9.1}ms {:>5.1}ns {:>6.0}MiB {:>5.0} B {:>6.0}MiB {:>6.1} B {:>11.0} files/s {:>8.0} files/s {:>11.0} files/s {:>9} {:>6.2}s",
            r.files,
            r.scan_seconds,
            r.evaluation_seconds * 1e3,
            per_file(r.evaluation_seconds * 1e9),
            r.resident / f64::from(1 << 20),
            per_file(r.resident),
            r.peak / f64::from(1 << 20),
            r.disk_a_file,
            r.drained.files_a_core_second,
            r.spread.files_a_core_second,
            r.drained.files_an_agent_second,
            r.drained.lost + r.spread.lost,
            r.ready_seconds,
        );
    }
    println!(
        "evaluation: of a TTL rule that 1% has passed; memory: resident after the plans, and at most until then; update: {UPDATES} distinct files from the\n\
         kernel's queue to the clock column, by the collector's processor time; spread: of files that lie\n\
         evenly in the whole tree, one on a page where there are many; written back: to the store, by the whole agent's processor time;\n\
         ready: from the start of the process to the `ready` line, with the index there"
    );
    println!("\npurgectl usage, the whole command: the first time, and the longest of {ASKED} times");
    for r in &rows {
        for answered in &r.usage {
            println!(
                "{:>10} {:<34} {:>6.1} ms {:>6.1} ms",
                r.files, answered.question, answered.first_ms, answered.longest_ms
            );
        }
    }
    Ok(())
}

fn measure_one(bench: &Bench, files: usize) -> Result<Row> {
    let tree = Tree {
        files,
        old_share: 0.01,
        seed: 1,
    };
    eprintln!("... growing {files} files");
    let image = Image::make(&bench.programs, &bench.place, "growth", tree)?;
    let volumes = [Volume {
        name: "growth",
        path: image.root(),
        keys: "",
        rule: "",
    }];
    eprintln!("... measuring {files} files");
    let (name, began) = (format!("agent-{files}"), Instant::now());
    let mut agent = Agent::start(&bench.programs, &bench.place, &name, &volumes)?;
    agent.wait_tracking()?;
    let scan_seconds = agent
        .logged_scan_seconds()
        .unwrap_or(began.elapsed().as_secs_f64());
    let evaluation_seconds = median(|| {
        let plan = agent.json(&["plan", "--rule", "growth"])?;
        plan["evaluation_seconds"]
            .as_f64()
            .context("a plan without its time")
    })?;
    let (resident, peak) = resident_bytes(agent.pid())?;
    let usage = usage(&agent)?;
    let updates = UPDATES.min(files);
    let drained = collecting::drained(&agent, &image.manifest, "growth", updates)?;
    let spread = collecting::drained(&agent, &image.spread(updates)?, "growth", updates)?;
    let state_dir = agent.stop()?;
    let disk_a_file = disk_bytes(&state_dir)? as f64 / files as f64;
    let began = Instant::now();
    let agent = Agent::start(&bench.programs, &bench.place, &name, &volumes)?;
    agent.wait_ready()?;
    let ready_seconds = began.elapsed().as_secs_f64();
    agent.stop()?;
    Ok(Row {
        files,
        scan_seconds,
        evaluation_seconds,
        resident: resident as f64,
        peak: peak as f64,
        disk_a_file,
        drained,
        spread,
        ready_seconds,
        usage,
    })
}

fn usage(agent: &Agent) -> Result<Vec<Answered>> {
    let mut answered = vec![];
    for (question, with_ages) in QUESTIONS.into_iter().flat_map(|q| [(q, false), (q, true)]) {
        let ages: &[&str] = if with_ages { &["--age"] } else { &[] };
        let args = [&["usage"], question, ages].concat();
        let mut times = vec![];
        for _ in 0..ASKED {
            let began = Instant::now();
            agent.ctl(&args)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        answered.push(Answered {
            question: args.get(1..).unwrap_or_default().join(" "),
            first_ms: times.first().copied().unwrap_or_default(),
            longest_ms: times.iter().copied().fold(0.0, f64::max),
        });
    }
    Ok(answered)
}
