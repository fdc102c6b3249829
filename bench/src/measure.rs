//! Stopwatch, medians, memory and space.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a cheap figure is taken; the median counts.
pub const REPEATS: usize = 3;

/// How long `work` takes, and its result.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let done = work()?;
    Ok((start.elapsed(), done))
}

/// The median of [`REPEATS`] figures.
pub fn median(mut figure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut figures = (0..REPEATS).map(|_| figure()).collect::<Result<Vec<_>>>()?;
    figures.sort_by(f64::total_cmp);
    figures.get(REPEATS / 2).copied().context("nothing was measured")
}

/// The median time of `work` in seconds.
pub fn median_seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    median(|| Ok(timed(&mut work)?.0.as_secs_f64()))
}

/// What the kernel may forget before a cold figure.
#[derive(Debug, Clone, Copy)]
pub enum Forget {
    /// File contents only.
    Pages = 1,
    /// Contents, names and inodes.
    Everything = 3,
}

/// Empties the kernel's caches, as `proc_sys_vm(5)` describes.
pub fn drop_caches(what: Forget) -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", (what as u8).to_string()).context("cannot drop the caches")
}

/// Resident memory of a process in bytes: now, and at its highest.
pub fn resident_bytes(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent has exited")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    };
    Ok((
        field("VmRSS:").context("no VmRSS in /proc/PID/status")?,
        field("VmHWM:").context("no VmHWM in /proc/PID/status")?,
    ))
}

/// Processor time of a process so far, of all its threads, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent has exited")?;
    Ok(ticks(&stat, 11) / rustix::param::clock_ticks_per_second() as f64)
}

/// The same of the threads of this name alone.
pub fn thread_cpu_seconds(pid: u32, name: &str) -> Result<f64> {
    let mut all = 0.0;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the agent has exited")?;
    for task in tasks {
        // One that has ended meanwhile is none of those that last.
        let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        if stat.contains(&format!("({name})")) {
            all += ticks(&stat, 11);
        }
    }
    Ok(all / rustix::param::clock_ticks_per_second() as f64)
}

/// Two fields of a line as `proc_pid_stat(5)` describes it, together: user and system time are 11 behind the third.
fn ticks(stat: &str, place: usize) -> f64 {
    // The name in parentheses may hold anything; the fields after it are the third and so on.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields
        .skip(place)
        .take(2)
        .filter_map(|f| f.parse::<f64>().ok())
        .sum()
}

/// Processor time of all children that have ended, in seconds (`proc_pid_stat(5)`, cutime and cstime).
pub fn children_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&stat, 13) / rustix::param::clock_ticks_per_second() as f64
}

/// What a tree occupies on disk, in bytes, as du(1) counts.
pub fn disk_bytes(path: &Path) -> Result<u64> {
    /// `st_blocks` counts these; the file system's own blocks may have another size.
    const BLOCK_BYTES: u64 = 512;
    let metadata = fs::symlink_metadata(path)?;
    let mut bytes = metadata.blocks() * BLOCK_BYTES;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}
