//! What collecting costs: those who use files, and the agent.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::Agent;
use crate::command::{pause, run};
use crate::image::Image;
use crate::measure::{cpu_seconds, thread_cpu_seconds};
use crate::reading;
use crate::report::{Report, Unit};

/// Files that are read again and again.
pub const HOT_FILES: usize = 64;
/// By then the agent has noticed what is hot.
pub const HOT_AFTER: u64 = 5;
/// For each turn.
pub const HOT_SECONDS: u64 = 1;
/// An odd number: there is one in the middle.
const HOT_TURNS: usize = 9;
/// Between two looks whether the queue is empty.
const POLL: Duration = Duration::from_millis(100);
/// More than a second without an event: by then the uses are written back as well.
const QUIET_LOOKS: usize = 15;
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// Bytes that are read of a file: a page, and what fits into many readers' buffers.
pub const READ_SIZES: [usize; 2] = [4 << 10, 64 << 10];

/// Opens, reads and closes of a few hot files, on an image that the agent watches and on an equal image that it does not watch, by turns: a machine
/// that is slower for a while is so for both. And what the agent takes of a core meanwhile.
pub fn hot(
    report: &mut Report,
    agent: &Agent,
    (watched, unwatched): (&Image, &Image),
    size: usize,
    how: &str,
) -> Result<()> {
    reading::hot(&watched.manifest, HOT_FILES, size, HOT_AFTER)?;
    let read = |image: &Image| reading::hot(&image.manifest, HOT_FILES, size, HOT_SECONDS);
    let (cpu, began) = (cpu_seconds(agent.pid())?, Instant::now());
    let mut turns = (0..HOT_TURNS)
        .map(|_| Ok((read(unwatched)?, read(watched)?)))
        .collect::<Result<Vec<_>>>()?;
    let share = (cpu_seconds(agent.pid())? - cpu) / began.elapsed().as_secs_f64();
    turns.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let times: Vec<f64> = turns
        .iter()
        .map(|(unwatched, watched)| unwatched / watched)
        .collect();
    let (unwatched, watched) = turns
        .get(HOT_TURNS / 2)
        .copied()
        .context("nothing was measured")?;
    let (least, most) = (times.first().unwrap_or(&0.0), times.last().unwrap_or(&0.0));
    let kib = size >> 10;
    report.beside(
        &format!("hot files, {kib} KiB, {how}"),
        Unit::PerSecond,
        watched,
        "unwatched",
        unwatched,
    );
    report.remark(format!(
        "hot files, {kib} KiB, {how}: {:.2} times the unwatched cost (median of {HOT_TURNS} turns, {least:.2} to {most:.2}); \
         the agent took {:.1}% of a core",
        unwatched / watched,
        share * 100.0
    ));
    Ok(())
}

/// What emptying a full queue showed.
#[derive(Debug)]
pub struct Drained {
    /// Distinct files from queue to clock column, for each second of a core that the collector took.
    pub files_a_core_second: f64,
    /// The same for each second of a core that the whole agent took, writing back and all else it did meanwhile.
    pub files_an_agent_second: f64,
    /// Events that were read for them.
    pub events: f64,
    /// Events that the kernel dropped.
    pub lost: f64,
}

/// Writes [`drained`] into the report.
pub fn drain(report: &mut Report, agent: &Agent, image: &Image, volume: &str, files: usize) -> Result<()> {
    let found = drained(agent, &image.manifest, volume, files)?;
    report.figure(
        "queue to clock column, distinct files a second of a core",
        Unit::PerSecond,
        found.files_a_core_second,
    );
    report.figure(
        "the same, written back to the store",
        Unit::PerSecond,
        found.files_an_agent_second,
    );
    report.figure("queue to clock column, events", Unit::Count, found.events);
    report.figure("queue to clock column, events lost", Unit::Count, found.lost);
    Ok(())
}

/// Lets the kernel queue one use of each of `files` distinct files while the agent is halted, then lets it go on, until they
/// are in the clock column and written back.
pub fn drained(agent: &Agent, manifest: &Path, volume: &str, files: usize) -> Result<Drained> {
    let counted = |volume: &serde_json::Value| volume["events_total"].as_f64().unwrap_or(0.0);
    let before = agent.volume(volume)?;
    signal(agent, Signal::STOP)?;
    let read = reading::once(manifest, files);
    let of_collector = || thread_cpu_seconds(agent.pid(), "collector");
    let (cpu, collector) = (cpu_seconds(agent.pid())?, of_collector()?);
    signal(agent, Signal::CONT)?;
    let (read, began) = (read?, Instant::now());
    let mut last = agent.volume(volume)?;
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        pause(POLL)?;
        let now = agent.volume(volume)?;
        let is_quiet = counted(&now) == counted(&last) && counted(&now) > counted(&before);
        quiet = if is_quiet { quiet + 1 } else { 0 };
        last = now;
        ensure!(
            began.elapsed() < DRAIN_MAX,
            "the agent does not empty its queue: {} events before, {} by now",
            counted(&before),
            counted(&last)
        );
    }
    Ok(Drained {
        files_a_core_second: read / (of_collector()? - collector).max(0.01),
        files_an_agent_second: read / (cpu_seconds(agent.pid())? - cpu).max(0.01),
        events: counted(&last) - counted(&before),
        lost: last["events_lost_total"].as_f64().unwrap_or(0.0),
    })
}

fn signal(agent: &Agent, signal: Signal) -> Result<()> {
    if let Some(pid) = Pid::from_raw(agent.pid().cast_signed()) {
        kill_process(pid, signal)?;
    }
    // A stopped process is stopped once the kernel says so.
    run(Command::new("sleep").arg("0.05"))
}
