//! What collecting costs: those who use files, and the agent.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::Agent;
use crate::command::{pause, run};
use crate::image::Image;
use crate::measure::{cpu_seconds, median};
use crate::reading;
use crate::report::{Report, Unit};

/// Files that are read again and again.
const HOT_FILES: usize = 64;
const HOT_SECONDS: u64 = 3;
/// Between two looks whether the queue is empty.
const POLL: Duration = Duration::from_millis(20);
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// Opens, reads and closes a second of a few hot files, when nobody watches.
pub fn hot_unwatched(image: &Image) -> Result<f64> {
    median(|| reading::hot(&image.manifest, HOT_FILES, HOT_SECONDS))
}

/// The same under the agent, in the steady state, and what the agent takes of a core meanwhile.
pub fn hot_watched(report: &mut Report, agent: &Agent, image: &Image, unwatched: f64) -> Result<()> {
    // The first time the files become hot.
    reading::hot(&image.manifest, HOT_FILES, HOT_SECONDS)?;
    let (cpu, began) = (cpu_seconds(agent.pid())?, Instant::now());
    let watched = median(|| reading::hot(&image.manifest, HOT_FILES, HOT_SECONDS))?;
    let share = (cpu_seconds(agent.pid())? - cpu) / began.elapsed().as_secs_f64();
    report.beside(
        "hot files, open+read+close",
        Unit::PerSecond,
        watched,
        "the same, unwatched",
        unwatched,
    );
    report.remark(format!(
        "hot files: {:.2} times the unwatched cost; the agent took {:.2}% of a core",
        unwatched / watched,
        share * 100.0
    ));
    Ok(())
}

/// Lets the kernel queue one use of each of `files` distinct files while the agent is halted, then lets it go on: how many
/// it takes from the queue into the clock column, for each second of a core.
pub fn drain(report: &mut Report, agent: &Agent, image: &Image, volume: &str, files: usize) -> Result<()> {
    let before = agent.volume(volume)?;
    signal(agent, Signal::STOP)?;
    let read = reading::once(&image.manifest, files);
    let cpu = cpu_seconds(agent.pid())?;
    signal(agent, Signal::CONT)?;
    let (read, began) = (read?, Instant::now());
    let counted = |volume: &serde_json::Value| volume["events_total"].as_f64().unwrap_or(0.0);
    let mut last = agent.volume(volume)?;
    let mut quiet = 0;
    while quiet < 3 {
        pause(POLL)?;
        let now = agent.volume(volume)?;
        quiet = if counted(&now) == counted(&last) && counted(&now) > counted(&before) {
            quiet + 1
        } else {
            0
        };
        last = now;
        ensure!(began.elapsed() < DRAIN_MAX, "the agent does not empty its queue");
    }
    let cpu = cpu_seconds(agent.pid())? - cpu;
    report.figure(
        "queue to clock column, distinct files a second of a core",
        Unit::PerSecond,
        read / cpu,
    );
    report.figure(
        "queue to clock column, events",
        Unit::Count,
        counted(&last) - counted(&before),
    );
    let lost = last["events_lost_total"].as_f64().unwrap_or(0.0);
    report.figure("queue to clock column, events lost", Unit::Count, lost);
    Ok(())
}

fn signal(agent: &Agent, signal: Signal) -> Result<()> {
    if let Some(pid) = Pid::from_raw(agent.pid().cast_signed()) {
        kill_process(pid, signal)?;
    }
    // A stopped process is stopped once the kernel says so.
    run(Command::new("sleep").arg("0.05"))
}
