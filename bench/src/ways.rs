//! What each way of watching costs those who use files, beside files that no agent watches: all ways in one run.
//!
//! ```text
//!   hot         64 files that are used all the time, with precision windows where there are any
//!   first use   files of which each is used once: the first use in a window is told, and with it every use where there are no windows
//! ```
//! Watched and unwatched files are used by turns: a machine that is slower for a while is so for both.

use anyhow::{Context, Result, ensure};

use crate::agent::{Agent, Volume};
use crate::collecting::{HOT_AFTER, HOT_FILES, HOT_SECONDS};
use crate::image::{Image, Tree};
use crate::measure::cpu_seconds;
use crate::reading::{self, Each};
use crate::stages::{Bench, say};

/// Files of which each is used once in a turn.
const FRESH: usize = 8_192;
/// An odd number: there is one in the middle.
const TURNS: usize = 9;
/// Files of each tree.
pub const FILES: usize = HOT_FILES + FRESH * TURNS;
const READ_BYTES: usize = 4 << 10;

/// A way to watch, what an agent has to do without to take it, and what `status` calls it.
struct Way {
    name: &'static str,
    without: &'static str,
    status: (&'static str, &'static str),
}

const fn fanotify(name: &'static str, without: &'static str, mode: &'static str) -> Way {
    let status = ("fanotify", mode);
    Way {
        name,
        without,
        status,
    }
}

const WAYS: [Way; 5] = [
    fanotify("fanotify, filesystem", "", "filesystem"),
    fanotify("fanotify, directories", "filesystem_marks", "directories"),
    fanotify(
        "fanotify, directories, by names",
        "filesystem_marks,open_handles",
        "directories",
    ),
    fanotify(
        "fanotify, descriptors",
        "filesystem_marks,directory_marks",
        "descriptors",
    ),
    Way {
        name: "inotify",
        without: "filesystem_marks,directory_marks,descriptors",
        status: ("inotify", ""),
    },
];

/// What the turns gave: times the unwatched cost.
struct Cost {
    median: f64,
    least: f64,
    most: f64,
}

impl Cost {
    fn of(mut turns: Vec<f64>) -> Result<Self> {
        turns.sort_by(f64::total_cmp);
        let at = |n: usize| turns.get(n).copied().context("nothing was measured");
        Ok(Self {
            median: at(turns.len() / 2)?,
            least: at(0)?,
            most: at(turns.len().saturating_sub(1))?,
        })
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{median:.2} ({least:.2} to {most:.2})")
    }
}

/// Measures all of them, and prints a row for each.
pub fn measure(bench: &Bench) -> Result<()> {
    let tree = Tree {
        files: FILES,
        old_share: 0.0,
        seed: 5,
    };
    say("growing two trees");
    let images = (bench.image("ways", tree)?, bench.image("ways-unwatched", tree)?);
    println!(
        "open, read 4 KiB, close: times the unwatched cost, median of {TURNS} turns (least to most)\n\n\
         {:32}  {:22}  {:22}  agent, % of a core",
        "way", "hot", "first use"
    );
    for way in &WAYS {
        say(way.name);
        let (hot, fresh, share) = of_way(bench, way, &images)?;
        println!(
            "{:32}  {:22}  {:22}  {:.0} hot, {:.0} first use",
            way.name,
            hot.to_string(),
            fresh.to_string(),
            share.0 * 100.0,
            share.1 * 100.0
        );
    }
    Ok(())
}

fn of_way(
    bench: &Bench,
    way: &Way,
    (watched, unwatched): &(Image, Image),
) -> Result<(Cost, Cost, (f64, f64))> {
    // Both are in the kernel's caches, also after what the way before has done.
    for image in [watched, unwatched] {
        reading::once(&image.manifest, FILES)?;
    }
    let volumes = [Volume {
        name: "ways",
        path: watched.root(),
        keys: "precision = \"1h\"",
        rule: "",
    }];
    let name = format!("agent-{}", way.name.replace([',', ' '], "-"));
    let mut agent = Agent::start_without(&bench.programs, &bench.place, &name, &volumes, way.without)?;
    agent.wait_tracking()?;
    let status = agent.volume("ways")?;
    let is_taken = (&status["collector"], &status["collector_mode"]);
    ensure!(
        is_taken.0 == way.status.0 && is_taken.1 == way.status.1,
        "the agent watches by {} {} instead of {}",
        is_taken.0,
        is_taken.1,
        way.name
    );
    let (fresh, of_fresh) = by_turns(&agent, |turn, is_watched| {
        let image = if is_watched { watched } else { unwatched };
        reading::each(
            &image.manifest,
            Each {
                after: HOT_FILES + turn * FRESH,
                files: FRESH,
                size: READ_BYTES,
            },
        )
    })?;
    reading::hot(&watched.manifest, HOT_FILES, READ_BYTES, HOT_AFTER)?;
    let (hot, of_hot) = by_turns(&agent, |_, is_watched| {
        let image = if is_watched { watched } else { unwatched };
        reading::hot(&image.manifest, HOT_FILES, READ_BYTES, HOT_SECONDS)
    })?;
    agent.stop()?;
    Ok((hot, fresh, (of_hot, of_fresh)))
}

/// Reads both, and returns the cost, and what the agent took of a core meanwhile.
fn by_turns(agent: &Agent, rate: impl Fn(usize, bool) -> Result<f64>) -> Result<(Cost, f64)> {
    let (cpu, began) = (cpu_seconds(agent.pid())?, std::time::Instant::now());
    let turn = |turn: usize| -> Result<f64> {
        // Neither is always the first.
        let first = turn.is_multiple_of(2);
        let (one, other) = (rate(turn, first)?, rate(turn, !first)?);
        Ok(if first { other / one } else { one / other })
    };
    let turns = (0..TURNS).map(turn).collect::<Result<Vec<_>>>()?;
    let share = (cpu_seconds(agent.pid())? - cpu) / began.elapsed().as_secs_f64();
    Ok((Cost::of(turns)?, share))
}
