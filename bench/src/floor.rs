//! What the machine itself gives on a far file system: the same requests by plain loops of threads, and nothing of the agent's in them.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statat, statx, unlinkat};

use crate::measure::timed;

/// Threads that ask before others remove.
const LOOKS_BEFORE: usize = 256;
/// A thread of these loops needs little of its stack.
const STACK_BYTES: usize = 64 << 10;

/// An open directory, and names in it.
struct Dir {
    fd: OwnedFd,
    names: Vec<CString>,
    next: AtomicUsize,
}

impl Dir {
    fn next(&self) -> Option<&CString> {
        self.names.get(self.next.fetch_add(1, Relaxed))
    }
}

/// What lies below `root`, by directory; `paths` are those of files, and those of one directory follow each other.
fn by_directory(root: &Path, paths: &[String]) -> Result<Vec<Dir>> {
    let mut dirs: Vec<(&str, Dir)> = Vec::new();
    for path in paths {
        let (dir, name) = path.rsplit_once('/').context("a file lies in a directory")?;
        let name = CString::new(name)?;
        match dirs.last_mut().filter(|(last, _)| *last == dir) {
            Some((_, known)) => known.names.push(name),
            None => {
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = openat(CWD, root.join(dir), flags, Mode::empty())?;
                let names = vec![name];
                let next = AtomicUsize::new(0);
                dirs.push((dir, Dir { fd, names, next }));
            }
        }
    }
    Ok(dirs.into_iter().map(|(_, dir)| dir).collect())
}

/// Runs `work` in as many threads as there are numbers, and says how long it took.
fn threads(count: usize, work: impl Fn(usize) + Sync) -> Result<f64> {
    let took = timed(|| {
        std::thread::scope(|scope| {
            for number in 0..count {
                let work = &work;
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, move || work(number))?;
            }
            Ok(())
        })
    })?;
    Ok(took.0.as_secs_f64())
}

/// This number of threads ask for the attributes of names that no cache knows; how many a second.
pub fn looks(root: &Path, paths: &[String], count: usize) -> Result<f64> {
    let dirs = by_directory(root, paths)?;
    let (turn, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let seconds = threads(count, |_| {
        // A name of each directory after the other.
        while let Some(dir) = dirs.get(turn.fetch_add(1, Relaxed) % dirs.len()) {
            let Some(name) = dir.next() else { break };
            let is_found = statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            found.fetch_add(usize::from(is_found), Relaxed);
        }
    })?;
    ensure!(
        found.load(Relaxed) == paths.len(),
        "{} were found",
        found.load(Relaxed)
    );
    Ok(paths.len() as f64 / seconds)
}

/// Each directory has this number of threads, which remove its names; each asks the server for the file right before, if `asks`. The kernel
/// knows the names: they were asked for before, as a scan does, which is not counted.
pub fn removals(root: &Path, paths: &[String], lanes: usize, asks: bool) -> Result<f64> {
    looks(root, paths, LOOKS_BEFORE)?;
    let dirs = by_directory(root, paths)?;
    let removed = AtomicUsize::new(0);
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    let seconds = threads(dirs.len() * lanes, |number| {
        let Some(dir) = dirs.get(number % dirs.len()) else {
            return;
        };
        while let Some(name) = dir.next() {
            let is_there = !asks || statx(&dir.fd, name, flags, StatxFlags::BASIC_STATS).is_ok();
            let is_gone = is_there && unlinkat(&dir.fd, name, AtFlags::empty()).is_ok();
            removed.fetch_add(usize::from(is_gone), Relaxed);
        }
    })?;
    ensure!(
        removed.load(Relaxed) == paths.len(),
        "{} were removed",
        removed.load(Relaxed)
    );
    Ok(paths.len() as f64 / seconds)
}
