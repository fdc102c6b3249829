//! Readers that open and read random files of a tree as fast as they can.
//!
//! ```text
//! purge-bench storm MANIFEST SECONDS SEED OUT
//! ```
//! A reader loads the manifest, prints `ready`, waits for a line on its input, reads for so long, prints how often
//! it opened a file and writes the numbers of the files it read to OUT, a line each. A file's number is its line in
//! the manifest, which gentree also puts into its name.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use purge_bench::random::Random;

use crate::command::Running;

/// The first argument that makes this program a reader.
pub const MODE: &str = "storm";
/// Two processes, so that two cores open files at once.
const READERS: u64 = 2;
const SECONDS: u64 = 5;
/// Opens between two looks at the clock.
const OPENS_PER_LOOK: u64 = 64;
/// What a reader reads of each file.
const READ_BYTES: usize = 4_096;

/// What a storm did.
pub struct Storm {
    /// Opens of all readers together, a second.
    pub opens_per_second: f64,
    /// The numbers of the files that were read.
    pub read: HashSet<usize>,
}

/// Lets the readers loose on the files of `manifest`; `seed` is another for every storm.
pub fn unleash(manifest: &Path, place: &Path, seed: u64) -> Result<Storm> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut readers = vec![];
    for nth in 0..READERS {
        let out = place.join(format!("storm.{nth}"));
        let mut reader = Running::start(
            Command::new(&this)
                .arg(MODE)
                .arg(manifest)
                .arg(SECONDS.to_string())
                .arg((seed * READERS + nth).to_string())
                .arg(&out)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let mut says = BufReader::new(reader.stdout()?);
        next_line(&mut says)?;
        let starts = reader.stdin()?;
        readers.push((reader, says, starts, out));
    }
    for (.., starts, _) in &mut readers {
        starts.write_all(b"go\n")?;
    }
    let mut storm = Storm {
        opens_per_second: 0.0,
        read: HashSet::new(),
    };
    for (reader, mut says, starts, out) in readers {
        storm.opens_per_second += next_line(&mut says)?.trim().parse::<f64>()?;
        drop(starts);
        let status = reader.wait()?;
        ensure!(status.success(), "a reader of the storm failed: {status}");
        for line in fs::read_to_string(&out)?.lines() {
            storm.read.insert(line.parse()?);
        }
        fs::remove_file(&out)?;
    }
    Ok(storm)
}

fn next_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    ensure!(
        from.read_line(&mut line)? > 0,
        "a reader of the storm ended early"
    );
    Ok(line)
}

/// What a reader does.
pub fn read_files(args: &[String]) -> Result<()> {
    let [manifest, seconds, seed, out] = args else {
        bail!("a reader of the storm takes MANIFEST SECONDS SEED OUT");
    };
    let manifest = fs::read_to_string(manifest).with_context(|| format!("cannot read {manifest}"))?;
    let paths: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.rsplit('\t').next())
        .collect();
    ensure!(!paths.is_empty(), "the manifest names no file");
    let (lasts, mut random) = (Duration::from_secs(seconds.parse()?), Random::new(seed.parse()?));
    let mut read = vec![false; paths.len()];
    let mut buffer = [0; READ_BYTES];

    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let start = Instant::now();
    let mut opens = 0;
    while start.elapsed() < lasts {
        for _ in 0..OPENS_PER_LOOK {
            let number = random.below(paths.len());
            let (Some(path), Some(seen)) = (paths.get(number), read.get_mut(number)) else {
                continue;
            };
            // An empty file is opened, but nothing is read from it.
            let bytes = File::open(path).and_then(|mut file| file.read(&mut buffer))?;
            *seen |= bytes > 0;
            opens += 1;
        }
    }
    let per_second = f64::from(opens) / start.elapsed().as_secs_f64();

    let mut out = BufWriter::new(File::create(out).with_context(|| format!("cannot write {out}"))?);
    for number in (0..read.len()).filter(|number| read.get(*number) == Some(&true)) {
        writeln!(out, "{number}")?;
    }
    out.flush()?;
    println!("{per_second}");
    Ok(())
}
