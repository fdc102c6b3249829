//! What processes have open, as `/proc/PID/fd` and `/proc/PID/fdinfo` tell. For a person, but for [`look_at`], by which `flocks` decides.
//!
//! The file system of an open file is never asked: its server may be silent. For the files of other users the agent needs CAP_SYS_PTRACE.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustc_hash::FxHashSet;
use rustix::io::Errno;

use super::Watched;
use purge_model::Inode;
use purge_sys::{stat, time};

/// One search among the open files of all processes takes no more processor time.
pub(super) const SEARCH_MAX: Duration = Duration::from_millis(500);
/// And among those of one process no more than this: one with very many hides no other.
const PROCESS_MAX: Duration = Duration::from_millis(50);
/// The kernel's words on an open file come first in its `fdinfo`, then its `flock(2)`, then any number of other locks.
const INFO_BYTES: u64 = 64 << 10;
/// So much of `/proc/PID/status` holds its users.
const STATUS_BYTES: u64 = 4 << 10;

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: u32,
    pub(super) uid: u32,
    name: String,
}

impl Holder {
    pub(super) fn new(process: u32, uid: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Self {
            process,
            uid,
            name: name.trim_end().to_owned(),
        }
    }

    pub(super) fn words(&self) -> String {
        format!("process {} ({}) of uid {}", self.process, self.name, self.uid)
    }
}

/// The end of a budget of processor time: a loaded machine makes no search shorter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until(Duration);

impl Until {
    pub(super) fn after(budget: Duration) -> Self {
        Self(time::of_this_thread().saturating_add(budget))
    }

    pub(super) fn is_over(self) -> bool {
        time::of_this_thread() > self.0
    }
}

/// The processes that there are, but for this one.
pub(super) fn processes() -> io::Result<impl Iterator<Item = io::Result<u32>>> {
    let own = std::process::id();
    let listed = fs::read_dir("/proc")?.filter_map(|entry| match entry {
        Ok(entry) => entry.file_name().to_str()?.parse().ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    Ok(listed.filter(move |process| !process.as_ref().is_ok_and(|id| *id == own)))
}

/// The user as whom a process acts; none: it has ended.
pub(super) fn effective_uid(process: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{process}")).ok().map(|of| of.uid())
}

/// The user who started a process. A program with the set-user-ID bit acts as another.
pub(super) fn real_uid(process: u32) -> Option<u32> {
    let status = start_of(Path::new(&format!("/proc/{process}/status")), STATUS_BYTES).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().next()?.parse().ok()
}

/// Where the open files of a process are told. Those of its first thread are not told when that has ended, but those of the others are.
/// None: it has no open file, as the kernel's own threads.
///
/// # Errors
/// When the kernel does not allow to see them.
pub(super) fn files_of(process: u32) -> io::Result<Option<PathBuf>> {
    let base = PathBuf::from(format!("/proc/{process}"));
    if has_files(&base)? {
        return Ok(Some(base));
    }
    let threads = unless_ended(fs::read_dir(base.join("task")))?;
    for thread in threads.into_iter().flatten().flatten() {
        if has_files(&thread.path())? {
            return Ok(Some(thread.path()));
        }
    }
    Ok(None)
}

fn has_files(base: &Path) -> io::Result<bool> {
    let listed = unless_ended(fs::read_dir(base.join("fd")))?;
    Ok(listed.is_some_and(|mut files| files.next().is_some()))
}

/// Why something of a process was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missed {
    /// The kernel does not allow it: a security module protects the process.
    Denied,
    /// It took too long.
    Time,
}

/// Looks at what is told of each open file that has a path, and says what could not be looked at.
pub(super) fn look_at(base: &Path, until: Until, mut each: impl FnMut(&str)) -> Option<Missed> {
    let Ok(files) = unless_ended(fs::read_dir(base.join("fd"))) else {
        return Some(Missed::Denied);
    };
    let infos = base.join("fdinfo");
    let mut missed = None;
    for file in files.into_iter().flatten() {
        let Ok(file) = file else {
            return Some(Missed::Denied);
        };
        if until.is_over() {
            return Some(Missed::Time);
        }
        // Sockets, pipes and their like have no path. That of a file may be too long to be told.
        if fs::read_link(file.path()).is_ok_and(|to| !to.has_root()) {
            continue;
        }
        match unless_ended(start_of(&infos.join(file.file_name()), INFO_BYTES)) {
            Ok(info) => each(&info.unwrap_or_default()),
            Err(_) => missed = Some(Missed::Denied),
        }
    }
    missed
}

/// What the kernel tells of one open file of a process.
pub(super) fn info_of(base: &Path, file: &OsStr) -> Option<String> {
    start_of(&base.join("fdinfo").join(file), INFO_BYTES).ok()
}

/// What was read of `/proc`; nothing of a process that has ended, or of a file that was closed.
fn unless_ended<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(e) => Err(e),
    }
}

fn start_of(path: &Path, bytes: u64) -> io::Result<String> {
    let mut read = Vec::new();
    File::open(path)?.take(bytes).read_to_end(&mut read)?;
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// Processes that have one of these inodes open without a name, for a person. Nothing is opened for it; what lies in the queue of a socket is
/// not found.
pub fn who_keeps(inodes: &FxHashSet<Inode>) -> Vec<String> {
    who_has_deleted(|file| inodes.contains(&file.stat.ino))
}

/// Processes that have files without a name open on a volume's file system, for a person: the index knows nothing of what these take.
pub fn who_has_nameless(watched: &Watched) -> Vec<String> {
    who_has_deleted(|file| file.device == watched.device && file.stat.links == 0 && file.stat.allocated > 0)
}

/// Looks for processes that have such a file open, of those of which the kernel says that they have no name.
fn who_has_deleted(is_it: impl Fn(&stat::Located) -> bool) -> Vec<String> {
    let until = Until::after(SEARCH_MAX);
    let is_one = |link: &Path| {
        let to = fs::read_link(link).ok()?;
        let is_deleted = to.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
        let file = is_deleted.then(|| stat::behind(link).ok()).flatten()?;
        Some(is_it(&file))
    };
    let mut found = Vec::new();
    let Ok(processes) = processes() else {
        return found;
    };
    for process in processes.flatten() {
        if until.is_over() {
            break;
        }
        let until = Until::after(PROCESS_MAX);
        let files = fs::read_dir(format!("/proc/{process}/fd"));
        for file in files.into_iter().flatten().flatten() {
            if until.is_over() {
                break;
            }
            if is_one(&file.path()) == Some(true) {
                let holder = effective_uid(process).map(|uid| Holder::new(process, uid));
                found.extend(holder.map(|holder| holder.words()));
                break;
            }
        }
    }
    found
}
