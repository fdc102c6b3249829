//! What the guarded delete cannot do without, and nothing else: each file is opened, leased, renamed over the one before it, whose lease is
//! asked for again, and closed. No index, no barrier, no look at the file, no ledger, no agent that watches: what does all that cannot be faster.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail, ensure};
use purge_sys::beneath::{open_file, open_root};
use purge_sys::lease::{Asked, Lease, ask};
use rustix::fs::{AtFlags, Mode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::output;
use crate::stages::find_old;

/// As many as the agent takes together.
const BATCH: usize = 512;

/// A file that is to go.
pub struct Old {
    dir: PathBuf,
    name: CString,
}

/// What is old below `tree`, as find sees it.
pub fn old_files(tree: &Path) -> Result<Vec<Old>> {
    let (status, names) = output(find_old(tree).arg("-print0"))?;
    ensure!(status.success(), "find: {status}");
    let old = |path: &[u8]| {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let (dir, name) = path.parent().zip(path.file_name()).context("no file's path")?;
        Ok(Old {
            dir: dir.into(),
            name: CString::new(name.as_bytes())?,
        })
    };
    let paths = names.split(|b| *b == 0).filter(|path| !path.is_empty());
    paths.map(old).collect()
}

/// Removes them through directories in `place`, with a thread for each processor.
pub fn remove(old: &[Old], place: &Path) -> Result<()> {
    // A descriptor for each lease, of two batches for each thread.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let batches = Mutex::new(old.chunks(BATCH));
    let next = || batches.lock().ok()?.next();
    let turn = Mutex::new(());
    let work = |n: usize| {
        let lane = place.join(format!("lane{n}"));
        rustix::fs::mkdir(&lane, Mode::RWXU)?;
        remove_batches(&next, &open_root(&lane)?, &turn)
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism()?.get();
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        let mut ended = running.into_iter().map(|thread| thread.join());
        ended.try_for_each(|done| done.unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
    })
}

fn remove_batches<'o>(next: &impl Fn() -> Option<&'o [Old]>, lane: &OwnedFd, turn: &Mutex<()>) -> Result<()> {
    let mut before: Vec<Lease> = Vec::new();
    while let Some(batch) = next() {
        let mut dirs: Vec<(&Path, OwnedFd)> = Vec::new();
        let mut leased = Vec::with_capacity(batch.len());
        for old in batch {
            if dirs.last().is_none_or(|(path, _)| *path != old.dir) {
                dirs.push((&old.dir, open_root(&old.dir)?));
            }
            let (_, dir) = dirs.last().context("a directory")?;
            match ask(open_file(dir, &old.name)?)? {
                Asked::Granted(lease) => leased.push(lease),
                other => bail!("no lease: {other:?}"),
            }
        }
        let my_turn = turn.lock();
        let mut dirs = dirs.iter().peekable();
        for (n, old) in batch.iter().enumerate() {
            while dirs.next_if(|(path, _)| *path != old.dir).is_some() {}
            let (_, dir) = dirs.peek().context("a directory")?;
            ensure!(
                before.get(n).is_none_or(Lease::is_still_granted),
                "a process opened the file"
            );
            rustix::fs::renameat(dir, &*old.name, lane, place_of(n))?;
        }
        drop(my_turn);
        before = leased;
    }
    for n in 0..before.len() {
        rustix::fs::unlinkat(lane, place_of(n), AtFlags::empty())?;
    }
    Ok(())
}

fn place_of(n: usize) -> String {
    n.to_string()
}
