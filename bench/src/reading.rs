//! A reader in a process of its own, so that its cost is its own.
//!
//! ```text
//! purge-bench read hot  MANIFEST FILES SIZE SECONDS   the same files again and again; prints reads a second, the first WARM_UP seconds left out
//! purge-bench read once MANIFEST FILES SIZE SECONDS   each file once; prints how many that were
//! purge-bench read each MANIFEST FILES SIZE AFTER     each file once, those before AFTER left out; prints reads a second
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::output;

/// The first argument that makes this program a reader.
pub const MODE: &str = "read";
/// By then the files are in the processor's caches.
const WARM_UP: Duration = Duration::from_millis(200);

/// Reads `files` files of the manifest again and again for this many seconds; returns opens a second.
pub fn hot(manifest: &Path, files: usize, size: usize, seconds: u64) -> Result<f64> {
    started("hot", manifest, files, size, seconds)
}

/// Reads each of the first `files` files of the manifest once; how many that were.
pub fn once(manifest: &Path, files: usize) -> Result<f64> {
    started("once", manifest, files, 4 << 10, 0)
}

/// Files of a manifest, of which each is read once.
#[derive(Debug, Clone, Copy)]
pub struct Each {
    /// This number of its files is left out.
    pub after: usize,
    pub files: usize,
    pub size: usize,
}

/// Reads each of these files once; returns opens a second.
pub fn each(manifest: &Path, Each { after, files, size }: Each) -> Result<f64> {
    started("each", manifest, files, size, after as u64)
}

fn started(how: &str, manifest: &Path, files: usize, size: usize, seconds: u64) -> Result<f64> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut reader = Command::new(this);
    reader
        .args([MODE, how])
        .arg(manifest)
        .args([files.to_string(), size.to_string(), seconds.to_string()]);
    let (status, printed) = output(&mut reader)?;
    ensure!(status.success(), "a reader failed: {status}");
    Ok(String::from_utf8_lossy(&printed).trim().parse()?)
}

/// What the reader does.
pub fn read_files(args: &[String]) -> Result<()> {
    let [how, manifest, files, size, seconds] = args else {
        bail!("a reader takes hot|once|each MANIFEST FILES SIZE SECONDS|AFTER");
    };
    let manifest = std::fs::read_to_string(manifest).with_context(|| format!("cannot read {manifest}"))?;
    let paths = manifest.lines().filter_map(|line| line.rsplit('\t').next());
    let after = if how == "each" { seconds.parse()? } else { 0 };
    let paths: Vec<&str> = paths.skip(after).take(files.parse()?).collect();
    ensure!(!paths.is_empty(), "the manifest names no file");
    let mut buffer = vec![0; size.parse()?];
    if how == "once" {
        read_all(&paths, &mut buffer)?;
        println!("{}", paths.len());
        return Ok(());
    }
    if how == "each" {
        let start = Instant::now();
        read_all(&paths, &mut buffer)?;
        println!("{}", paths.len() as f64 / start.elapsed().as_secs_f64());
        return Ok(());
    }
    let lasts = Duration::from_secs(seconds.parse()?);
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        read_all(&paths, &mut buffer)?;
    }
    let (start, mut reads) = (Instant::now(), 0usize);
    while start.elapsed() < lasts {
        read_all(&paths, &mut buffer)?;
        reads += paths.len();
    }
    println!("{}", reads as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

fn read_all(paths: &[&str], buffer: &mut [u8]) -> Result<()> {
    for path in paths {
        let _ = File::open(path).and_then(|mut file| file.read(buffer))?;
    }
    Ok(())
}
