//! Files with very many names (hard links): what they cost a scan, a start and the events of their names, beside find and beside the same work
//! unwatched, and beside the same number of files with one name each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::agent::{Agent, Volume};
use crate::command::run;
use crate::image::Image;
use crate::measure::{median_seconds, resident_bytes};
use crate::report::{Report, Unit};
use crate::stages::Bench;

/// The names of all inodes together.
pub const NAMES_DEFAULT: usize = 1_000_000;
/// How many inodes share them: ext4 allows 65,000 names, xfs far more.
pub const INODES_DEFAULT: usize = 10;
/// Names in one directory.
const IN_A_DIRECTORY: usize = 1_000;
/// A name's share of an image, and what the file system itself wants.
const BYTES_PER_NAME: u64 = 2_048;
const BYTES_BASE: u64 = 512 << 20;

/// Measures both kinds of tree and prints the table.
pub fn measure(bench: &Bench, names: usize, inodes: usize) -> Result<()> {
    let inodes = inodes.clamp(1, names.max(1));
    println!("{names} names of {inodes} inodes, and as many files with one name each, on xfs (noatime)");
    let mut report = Report::default();
    let done = [("links", inodes), ("files", names)]
        .into_iter()
        .try_for_each(|(kind, inodes)| measure_kind(bench, &mut report, kind, names, inodes));
    // What was measured before something failed is worth seeing, too.
    println!("\n{report}");
    done
}

fn measure_kind(bench: &Bench, report: &mut Report, kind: &str, names: usize, inodes: usize) -> Result<()> {
    let bytes = BYTES_BASE + BYTES_PER_NAME * names as u64;
    let image = Image::xfs(&bench.place, kind, bytes)?;
    eprintln!("... making {names} names of {inodes} inodes");
    let tree = Tree::make(image.root(), names, inodes)?;
    let find = median_seconds(|| find(image.root()))?;
    let volumes = [Volume {
        name: kind,
        path: image.root(),
        keys: "",
        rule: "",
    }];
    eprintln!("... measuring {kind}");
    let start = || Agent::start(&bench.programs, &bench.place, kind, &volumes);
    let mut agent = start()?;
    agent.wait_tracking()?;
    let scan = agent.logged_scan_seconds().context("the log has no scan")?;
    report.beside(
        &format!("{kind}: first scan"),
        Unit::Seconds,
        scan,
        "find -printf",
        find,
    );
    let (now, peak) = resident_bytes(agent.pid())?;
    report.figure(&format!("{kind}: memory after it"), Unit::Bytes, now as f64);
    report.figure(
        &format!("{kind}: memory at its highest"),
        Unit::Bytes,
        peak as f64,
    );

    let moved = caught_up(&agent, || tree.rename(false))?;
    let removed = caught_up(&agent, || tree.unlink_half())?;
    let (_, peak) = resident_bytes(agent.pid())?;
    agent.stop()?;
    tree.link_half()?;
    let moved_unwatched = seconds(|| tree.rename(true))?;
    let removed_unwatched = seconds(|| tree.unlink_half())?;
    let peer = "the same, unwatched";
    let what = format!("{kind}: {} names moved, until caught up", tree.first.len());
    report.beside(&what, Unit::Seconds, moved, peer, moved_unwatched);
    let what = format!("{kind}: {} names removed, until caught up", tree.first.len() / 2);
    report.beside(&what, Unit::Seconds, removed, peer, removed_unwatched);
    report.figure(
        &format!("{kind}: memory at its highest by then"),
        Unit::Bytes,
        peak as f64,
    );

    let began = Instant::now();
    let mut agent = start()?;
    agent.wait_ready()?;
    let ready = began.elapsed().as_secs_f64();
    agent.wait_tracking()?;
    let tracking = began.elapsed().as_secs_f64();
    report.figure(&format!("{kind}: start, until it is ready"), Unit::Seconds, ready);
    report.beside(
        &format!("{kind}: start, until it tracks"),
        Unit::Seconds,
        tracking,
        "find -printf",
        find,
    );
    let (now, _) = resident_bytes(agent.pid())?;
    report.figure(&format!("{kind}: memory then"), Unit::Bytes, now as f64);
    agent.stop()?;
    Ok(())
}

fn find(root: &Path) -> Result<()> {
    run(Command::new("find")
        .arg(root)
        .args(["-printf", "%i %s %A@ %T@ %C@\\n"])
        .stdout(Stdio::null()))
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

/// How long it takes until what was done is in the index: a plan waits for that.
fn caught_up(agent: &Agent, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    seconds(|| {
        work()?;
        agent.json(&["plan"]).map(drop)
    })
}

/// Names by number, those of an inode spread over many directories.
struct Tree {
    /// The first inode's, or as many files where each has one name.
    first: Vec<PathBuf>,
    /// A file to link to.
    source: Option<PathBuf>,
}

impl Tree {
    fn make(root: &Path, names: usize, inodes: usize) -> Result<Self> {
        let dirs = names.div_ceil(IN_A_DIRECTORY);
        let of = |n: usize| root.join(format!("d{}/n{n}", n % dirs));
        (0..dirs).try_for_each(|n| fs::create_dir(root.join(format!("d{n}"))))?;
        (0..inodes).try_for_each(|n| File::create(of(n)).map(drop))?;
        (inodes..names).try_for_each(|n| fs::hard_link(of(n % inodes), of(n)))?;
        let first = match inodes == names {
            true => (0..names / INODES_DEFAULT).map(of).collect(),
            false => (0..names).step_by(inodes).map(of).collect(),
        };
        Ok(Self {
            first,
            source: (inodes < names).then(|| of(0)),
        })
    }

    /// Gives the names an ending, or takes it away.
    fn rename(&self, back: bool) -> Result<()> {
        for path in &self.first {
            match back {
                true => fs::rename(other(path), path)?,
                false => fs::rename(path, other(path))?,
            }
        }
        Ok(())
    }

    fn half(&self) -> impl Iterator<Item = PathBuf> {
        // Not the first, which the others are linked to.
        self.first.iter().skip(1).step_by(2).flat_map(|path| {
            [path.clone(), other(path)]
                .into_iter()
                .filter(|path| path.exists())
        })
    }

    fn unlink_half(&self) -> Result<()> {
        for path in self.half() {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Makes the names again that were removed, as they were then.
    fn link_half(&self) -> Result<()> {
        let source = self.source.as_deref().map(other);
        for path in self.first.iter().skip(1).step_by(2) {
            let other = other(path);
            match &source {
                Some(source) => fs::hard_link(source, other)?,
                None => drop(File::create(other)?),
            }
        }
        Ok(())
    }
}

/// The same name with an ending.
fn other(path: &Path) -> PathBuf {
    let mut other = path.as_os_str().to_owned();
    other.push(".r");
    other.into()
}
