//! Applying plans beside `find -delete`, on equal trees of which a part goes: a hundredth, as a nightly purge finds it, a tenth, three
//! tenths, half, and all, where find wastes nothing on files that stay. First with nothing of the trees in the kernel's caches, as it is with files
//! that were not used for months, then with all of it there, as it is only just after a look at every file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::agent::{Agent, Volume};
use crate::bare;
use crate::collecting;
use crate::command::output;
use crate::image::{Image, Tree};
use crate::measure::{Forget, children_cpu_seconds, cpu_seconds, drop_caches, resident_bytes, timed};
use crate::report::{Report, Unit};
use crate::stages::{Bench, find_old, lines, number, say, warm_up};

/// Files that an apply takes at most.
const FILES_MAX: usize = 100_000;
/// Which share of the files goes.
const SHARES: [(&str, f64); 5] = [
    ("a hundredth of all", 0.01),
    ("a tenth of all", 0.1),
    ("three tenths of all", 0.3),
    ("half of all", HALF),
    ("all there are", 1.0),
];
const HALF: f64 = 0.5;

/// What the kernel's caches hold of a tree that is about to be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caches {
    Cold,
    Warm,
}

impl Caches {
    fn words(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }

    /// Makes them so.
    fn bring_about(self, image: &Image) -> Result<()> {
        match self {
            Self::Cold => drop_caches(Forget::Everything),
            Self::Warm => warm_up(&image.tree()),
        }
    }
}

/// One removal of the older part of a tree.
struct Removal {
    seconds: f64,
    cpu: f64,
    files: f64,
}

impl Removal {
    fn rate(&self) -> f64 {
        self.files / self.seconds
    }

    fn cpu_a_file(&self) -> f64 {
        self.cpu / self.files.max(1.0)
    }
}

/// Deletes what is old of equal trees: the agent at once, the agent through the trash, find, and find while the agent
/// looks on.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for (words, share) in SHARES {
        let tree = Tree {
            files: bench.files.min((FILES_MAX as f64 / share) as usize),
            old_share: share,
            seed: 2,
        };
        for caches in [Caches::Cold, Caches::Warm] {
            measure_share(bench, report, tree, words, caches)?;
        }
    }
    Ok(())
}

fn measure_share(bench: &Bench, report: &mut Report, tree: Tree, words: &str, caches: Caches) -> Result<()> {
    let state = caches.words();
    say(&format!(
        "growing four equal trees; old: {words}; caches: {state}"
    ));
    let images = ["ours", "kept", "watched", "unwatched"].map(|name| bench.image(name, tree));
    let [ours, kept, watched, unwatched] = images;
    let (ours, kept, watched, unwatched) = (ours?, kept?, watched?, unwatched?);
    let volume = |name, image: &'_ Image, rule| (name, image.root().to_owned(), rule);
    let all = [
        volume("ours", &ours, ""),
        volume("kept", &kept, "grace = \"1d\""),
        volume("watched", &watched, ""),
    ];
    let volumes = all.each_ref().map(|(name, path, rule)| Volume {
        name,
        path,
        keys: "",
        rule,
    });
    let mut agent = Agent::start(
        &bench.programs,
        &bench.place,
        &format!("agent-apply-{}-{state}", words.replace(' ', "-")),
        &volumes,
    )?;
    agent.wait_tracking()?;

    if (tree.old_share, caches) == (HALF, Caches::Warm) {
        say("a full queue");
        collecting::drain(report, &agent, &watched, "watched", tree.files)?;
    }
    say("apply");
    caches.bring_about(&ours)?;
    let (planned, plan) = timed(|| agent.json(&["plan", "--rule", "ours"]))?;
    let at_once = apply(&agent, &plan, "deleted", report)?;
    say("find -delete");
    caches.bring_about(&unwatched)?;
    let find = find_delete(&unwatched)?;
    say("apply with a grace");
    caches.bring_about(&kept)?;
    let plan = agent.json(&["plan", "--rule", "kept"])?;
    let by_trash = apply(&agent, &plan, "trashed", report)?;
    caches.bring_about(&watched)?;
    let find_watched = find_delete(&watched)?;

    let peer = "find -atime +90 -delete";
    report.beside(
        &format!("plan and apply, {} files, {words}, {state}", at_once.files),
        Unit::Seconds,
        planned.as_secs_f64() + at_once.seconds,
        peer,
        find.seconds,
    );
    report.beside("apply alone", Unit::PerSecond, at_once.rate(), peer, find.rate());
    report.beside(
        "apply, to the trash",
        Unit::PerSecond,
        by_trash.rate(),
        peer,
        find.rate(),
    );
    for (what, ours) in [
        ("processor time a file", &at_once),
        ("the same, to the trash", &by_trash),
    ] {
        report.beside(what, Unit::Seconds, ours.cpu_a_file(), peer, find.cpu_a_file());
    }
    report.beside(
        "find -delete while the agent watches",
        Unit::Seconds,
        find_watched.seconds,
        "the same, unwatched",
        find.seconds,
    );
    if tree.old_share >= HALF {
        say("the bare mechanism");
        let bare = remove_bare(&bench.image("bare", tree)?, caches)?;
        let what = "open, lease, rename, close, and nothing else";
        report.beside(what, Unit::PerSecond, bare.rate(), peer, find.rate());
        let cpu = (bare.cpu_a_file(), find.cpu_a_file());
        report.beside("processor time a file", Unit::Seconds, cpu.0, peer, cpu.1);
    }
    if find.files != at_once.files || find.files != by_trash.files {
        report.remark(format!(
            "find deleted {}, apply {}, with a grace {}",
            find.files, at_once.files, by_trash.files
        ));
    }
    let (now, _) = resident_bytes(agent.pid())?;
    report.figure("agent memory after the apply", Unit::Bytes, now as f64);
    agent.stop()?;
    Ok(())
}

fn apply(agent: &Agent, plan: &Value, how: &str, report: &mut Report) -> Result<Removal> {
    let id = plan["plan_id"].as_str().context("a plan without id")?;
    let cpu = cpu_seconds(agent.pid())?;
    let (time, run) = timed(|| agent.json(&["apply", id, "--yes"]))?;
    let files = number(&run[how]["files"]);
    if files != number(&plan["candidates"]["files"]) {
        report.remark(format!("not all of the plan were {how}: {run}"));
    }
    Ok(Removal {
        seconds: time.as_secs_f64(),
        cpu: cpu_seconds(agent.pid())? - cpu,
        files,
    })
}

/// Removes what is old with what the guarded delete cannot do without.
fn remove_bare(image: &Image, caches: Caches) -> Result<Removal> {
    let old = bare::old_files(&image.tree())?;
    caches.bring_about(image)?;
    let this = std::process::id();
    let cpu = cpu_seconds(this)?;
    let (time, ()) = timed(|| bare::remove(&old, image.root()))?;
    Ok(Removal {
        seconds: time.as_secs_f64(),
        cpu: cpu_seconds(this)? - cpu,
        files: old.len() as f64,
    })
}

/// Deletes what is old.
fn find_delete(image: &Image) -> Result<Removal> {
    let cpu = children_cpu_seconds();
    let (time, files) = timed(|| remove_old(&image.tree()))?;
    Ok(Removal {
        seconds: time.as_secs_f64(),
        cpu: children_cpu_seconds() - cpu,
        files: files as f64,
    })
}

fn remove_old(tree: &Path) -> Result<u64> {
    let (status, names) = output(find_old(tree).args(["-print", "-delete"]))?;
    ensure!(status.success(), "find -delete: {status}");
    Ok(lines(&names))
}
