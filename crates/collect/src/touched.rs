//! Who keeps files alive without using them: mass changes of timestamps, and mass reads of next to nothing, by one process in a
//! short time. It is reported, and nothing follows from it: doubt counts as use.
//!
//! ```text
//!   a timestamp was set (see `doubt`) --> stamped: a mass by one process within a minute, then each one
//!   files read by one process         --> every 256 of them the process's own count of bytes (proc_pid_io(5)) is asked;
//!                                         with a few bytes for each file, these 256 were read for show
//! ```
//! Many short processes (`for f in *; do touch $f; done`) are not one, and are not seen.

use std::fs;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::atimes::SERVERS;
use purge_base::clock;
use purge_model::{Inode, Seconds};

/// At least this number of timestamps by one process within [`WINDOW`] is a mass.
const STAMPS_MIN: u64 = 100;
/// A short time.
const WINDOW: Duration = Duration::from_secs(60);
/// Files between two looks at what a process has read.
const BATCH: usize = 256;
/// With at most this number of bytes for each file nothing was read: one byte, and what the process reads besides.
const BYTES_A_FILE_MAX: u64 = 64;
/// Processes and owners that are remembered; beyond it new ones are overlooked.
const PROCESSES_MAX: usize = 4096;
const OWNERS_MAX: usize = 65_536;

/// What was done with one owner's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Files whose timestamps were set.
    pub stamped: u64,
    /// Files of which next to nothing was read.
    pub read: u64,
    /// When the first and the last of it was seen.
    pub span: (Seconds, Seconds),
    /// The last process: its name, and its number.
    pub process: (String, i32),
}

/// By uid of the files' owner, since the agent started.
pub type Owners = Mutex<FxHashMap<u32, Touched>>;

/// What the collector remembers of processes for a minute.
#[derive(Debug)]
pub struct Suspicion {
    began: Instant,
    processes: FxHashMap<i32, Process>,
}

#[derive(Debug, Default)]
struct Process {
    /// By owner: timestamps within the present window that are not told yet.
    stamps: FxHashMap<u32, u64>,
    stamped: u64,
    /// The files read since the last look.
    files: Vec<Inode>,
    /// What it had read by then.
    bytes: Option<u64>,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            processes: FxHashMap::default(),
        }
    }
}

impl Suspicion {
    /// Forgets what is no short time ago. To be called every second or so.
    pub fn tick(&mut self) {
        if self.began.elapsed() > WINDOW {
            self.began = Instant::now();
            self.processes.clear();
        }
    }

    fn process(&mut self, pid: i32) -> Option<&mut Process> {
        let is_known = self.processes.contains_key(&pid);
        // 0: a process that this one cannot see.
        (pid > 0 && (is_known || self.processes.len() < PROCESSES_MAX))
            .then(|| self.processes.entry(pid).or_default())
    }

    /// A process set the timestamps of a file.
    pub fn stamped(&mut self, owners: &Owners, pid: i32, uid: u32) {
        let Some(process) = self.process(pid) else { return };
        process.stamped = process.stamped.saturating_add(1);
        let stamps = process.stamps.entry(uid).or_default();
        *stamps = stamps.saturating_add(1);
        if process.stamped >= STAMPS_MIN {
            let name = name_of(pid);
            for (uid, stamps) in process.stamps.drain() {
                note(owners, (uid, pid), &name, |touched| {
                    touched.stamped = touched.stamped.saturating_add(stamps);
                });
            }
        }
    }

    /// A process has read of a file. True when it is time to call [`Suspicion::judge`].
    #[inline]
    pub fn read(&mut self, pid: i32, ino: Inode) -> bool {
        let Some(process) = self.process(pid) else {
            return false;
        };
        if process.files.last() != Some(&ino) {
            process.files.push(ino);
        }
        process.files.len() >= BATCH
    }

    /// Looks what a process has read for its last files; `owner` says whose a file is.
    pub fn judge(&mut self, owners: &Owners, pid: i32, owner: impl Fn(Inode) -> Option<u32>) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        let mut files = std::mem::take(&mut process.files);
        let now = bytes_read(pid);
        let before = std::mem::replace(&mut process.bytes, now);
        let (Some(before), Some(now)) = (before, now) else {
            return;
        };
        // The same file again and again is no mass.
        files.sort_unstable();
        files.dedup();
        let most = BYTES_A_FILE_MAX.saturating_mul(BATCH as u64);
        if files.len() < BATCH / 2 || now.saturating_sub(before) > most {
            return;
        }
        let name = name_of(pid);
        let mut read: FxHashMap<u32, u64> = FxHashMap::default();
        for uid in files.into_iter().filter_map(owner) {
            let count = read.entry(uid).or_default();
            *count = count.saturating_add(1);
        }
        for (uid, count) in read {
            note(owners, (uid, pid), &name, |touched| {
                touched.read = touched.read.saturating_add(count);
            });
        }
    }
}

fn note(owners: &Owners, (uid, pid): (u32, i32), name: &str, change: impl FnOnce(&mut Touched)) {
    let mut owners = owners.lock();
    if owners.len() >= OWNERS_MAX && !owners.contains_key(&uid) {
        return;
    }
    let now = clock::now();
    let touched = owners.entry(uid).or_insert_with(|| Touched {
        stamped: 0,
        read: 0,
        span: (now, now),
        process: (String::new(), pid),
    });
    change(touched);
    touched.span.1 = now;
    touched.process = (name.to_owned(), pid);
}

/// A process's name (`proc_pid_comm(5)`); empty when it has ended.
fn name_of(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

/// Whether a process answers clients: what several of them do is done by one process.
pub fn is_server(pid: i32) -> bool {
    let name = name_of(pid);
    SERVERS.iter().any(|server| name.starts_with(server))
}

/// What a process has read by now, from any place (`rchar` of `proc_pid_io(5)`).
fn bytes_read(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_few_timestamps_are_nothing_and_many_are_told_of_whose_they_are() {
        let (owners, mut suspicion) = (Owners::default(), Suspicion::default());
        let own = i32::try_from(std::process::id()).unwrap();
        for i in 0..99 {
            suspicion.stamped(&owners, own, i % 2);
        }
        assert!(owners.lock().is_empty());
        suspicion.stamped(&owners, own, 0);
        suspicion.stamped(&owners, own, 0);
        suspicion.stamped(&owners, 0, 7);
        let told = owners.lock();
        assert_eq!((told[&0].stamped, told[&1].stamped, told.len()), (52, 49, 2));
        assert!(!told[&0].process.0.is_empty());
    }

    #[test]
    fn files_that_are_read_for_show_are_told_apart_from_files_that_are_read() {
        let (owners, mut suspicion) = (Owners::default(), Suspicion::default());
        let own = i32::try_from(std::process::id()).unwrap();
        let mut round = |bytes: usize| {
            for ino in 0..BATCH as u64 {
                if suspicion.read(own, ino) {
                    suspicion.judge(&owners, own, |ino| Some((ino % 2) as u32));
                }
            }
            let zeroes = std::io::Read::take(fs::File::open("/dev/zero").unwrap(), bytes as u64);
            std::io::copy(&mut std::io::BufReader::new(zeroes), &mut std::io::sink()).unwrap();
            owners.lock().get(&0).map_or(0, |t| t.read)
        };
        assert_eq!(round(1 << 20), 0, "it is unknown yet what it reads");
        assert_eq!(round(10), 0, "a mebibyte for 256 files");
        assert_eq!(round(10), BATCH as u64 / 2);
    }
}
