//! Whose lock (`flock(2)`) on a directory keeps what is below it, and who has it.
//!
//! Each user who can open a directory can lock it. So a lock counts only for those who may hold up a purge there: on the volume's root for
//! processes of root, on another directory for those of its owner and of root. The kernel lists locks in `/proc/locks` with the process that
//! took them; it may have ended, and left the lock to others that inherited the file. Those are found in `/proc/PID/fdinfo`, for which the
//! agent needs CAP_SYS_PTRACE. A holder that cannot be found counts: doubt counts as use.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purge_proto::shown;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Watched;
use purge_index::DirId;
use purge_model::{Inode, Stat};
use purge_sys::{lease, mountinfo, stat};

/// What was found of a directory holds for so long, while the kernel lists the same locks: a run asks for the same ones again and again.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// One search among the open files of all processes takes no longer.
const SEARCH_MAX: Duration = Duration::from_millis(500);
/// At most this number of locks is remembered, for what is told of a run.
const NOTES_MAX: usize = 32;

/// Locks that were met.
#[derive(Debug, Default)]
pub struct Locks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Directories that were locked, when they were looked at, which processes took the locks, and whether that counts.
    known: FxHashMap<Inode, (Instant, Vec<u32>, bool)>,
    notes: Vec<Note>,
}

/// A lock that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When it was met last.
    pub at: Instant,
    /// Who has it, on what, and whether it counts.
    pub words: String,
    /// Whether it keeps what is below.
    pub counts: bool,
}

/// A process that has a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    /// None: it cannot be found.
    process: Option<(u32, u32, String)>,
}

impl Holder {
    fn of(process: u32) -> Option<Self> {
        let uid = fs::metadata(format!("/proc/{process}")).ok()?.uid();
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Some(Self {
            process: Some((process, uid, name.trim_end().to_owned())),
        })
    }

    /// Whether its lock counts on a directory of this owner.
    fn counts(&self, owner: u32, is_root_of_volume: bool) -> bool {
        match self.process {
            None | Some((_, 0, _)) => true,
            Some((_, uid, _)) => uid == owner && !is_root_of_volume,
        }
    }

    fn words(&self) -> String {
        match &self.process {
            Some((process, uid, name)) => format!("process {process} ({name}) of uid {uid}"),
            None => "a process that cannot be found".into(),
        }
    }
}

impl Watched {
    /// Whether a lock on an open directory keeps what is below it. `path` is relative to the volume.
    ///
    /// # Errors
    /// What `flock(2)` says.
    pub fn is_held_up(&self, dir: &OwnedFd, path: &[u8]) -> io::Result<bool> {
        if !lease::is_locked(dir)? {
            return Ok(false);
        }
        let found = stat::open_file(dir)?.stat;
        let now = Instant::now();
        let mut state = self.locks.0.lock();
        let takers = takers(self, found.ino).unwrap_or_default();
        if let Some((at, before, counts)) = state.known.get(&found.ino)
            && *before == takers
            && now.saturating_duration_since(*at) < KNOWN_FOR
        {
            return Ok(*counts);
        }
        let mut holders = holders(self, found.ino, &takers).unwrap_or_default();
        if holders.is_empty() {
            // Nothing tells who it is.
            holders.push(Holder { process: None });
        }
        let counts = self.judge(&mut state, now, (&found, path), holders);
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < KNOWN_FOR;
        state.known.retain(|_, (at, ..)| is_fresh(at));
        state.known.insert(found.ino, (now, takers, counts));
        Ok(counts)
    }

    /// Locks that were met since a moment.
    pub fn locks_since(&self, since: Instant) -> Vec<Note> {
        let state = self.locks.0.lock();
        state
            .notes
            .iter()
            .filter(|note| note.at >= since)
            .cloned()
            .collect()
    }

    /// Locks on the volume's root, now. The root is not opened for it, which would be an event.
    ///
    /// # Errors
    /// When the root or the kernel's list cannot be read.
    pub fn locks_on_root(&self) -> io::Result<Vec<Note>> {
        let now = Instant::now();
        let root = stat::open_file(self.open_root()?)?.stat;
        let holders = holders(self, root.ino, &takers(self, root.ino)?)?;
        self.judge(&mut self.locks.0.lock(), now, (&root, b""), holders);
        Ok(self.locks_since(now))
    }

    /// Notes who has a lock on a directory, and says whether it counts.
    fn judge(
        &self,
        state: &mut State,
        now: Instant,
        (dir, path): (&Stat, &[u8]),
        holders: Vec<Holder>,
    ) -> bool {
        let is_root = {
            let index = self.index.read();
            index
                .dirs()
                .get(DirId::ROOT)
                .is_some_and(|root| root.ino == dir.ino)
        };
        let mut counts = false;
        for holder in holders {
            let this = holder.counts(dir.uid, is_root);
            counts |= this;
            state.note(now, words(&self.path, path, &holder, this), this);
        }
        counts
    }
}

impl State {
    fn note(&mut self, at: Instant, words: String, counts: bool) {
        if let Some(known) = self.notes.iter_mut().find(|note| note.words == words) {
            known.at = at;
            return;
        }
        match counts {
            true => tracing::warn!("{words}"),
            false => tracing::info!("{words}"),
        }
        if self.notes.len() >= NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(Note { at, words, counts });
    }
}

fn words(volume: &Path, below: &[u8], holder: &Holder, counts: bool) -> String {
    let mut path = volume.as_os_str().as_encoded_bytes().to_vec();
    if !below.is_empty() {
        path.push(b'/');
        path.extend_from_slice(below);
    }
    let path = shown::cut(&path, shown::LOGGED_MAX);
    let (who, path) = (holder.words(), String::from_utf8_lossy(&path));
    match counts {
        true => format!("{who} has a lock on {path}: nothing below it is removed"),
        false => format!(
            "{who} has a lock on {path}, and is neither root nor, below the volume's root, its owner: that keeps nothing"
        ),
    }
}

/// Which processes took locks on this inode of the volume, as the kernel lists them.
fn takers(watched: &Watched, ino: Inode) -> io::Result<Vec<u32>> {
    let needle = format!("{}:{ino}", superblock(watched)?);
    let list = fs::read_to_string("/proc/locks")?;
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace();
        // One that waits for a lock has an arrow there.
        let kind = fields.nth(1)?;
        let (process, of) = (fields.nth(2)?, fields.next()?);
        (kind == "FLOCK" && of == needle).then(|| process.parse().unwrap_or(0))
    };
    Ok(list.lines().filter_map(of_line).collect())
}

/// Who has the locks that these processes took on an inode.
fn holders(watched: &Watched, ino: Inode, takers: &[u32]) -> io::Result<Vec<Holder>> {
    let mut holders: Vec<Holder> = takers.iter().filter_map(|taker| Holder::of(*taker)).collect();
    if holders.len() < takers.len() {
        let needle = format!("{}:{ino}", superblock(watched)?);
        match search(&needle) {
            found if found.is_empty() => holders.push(Holder { process: None }),
            mut found => holders.append(&mut found),
        }
    }
    holders.dedup();
    Ok(holders)
}

/// Looks for processes that have a file with this lock open.
fn search(needle: &str) -> Vec<Holder> {
    search_open_files(|info, _| {
        let mut locks = info.lines().filter(|line| line.starts_with("lock:"));
        locks.any(|line| line.contains("FLOCK") && line.split_whitespace().any(|field| field == needle))
    })
}

/// Processes that have one of these inodes open without a name, for a person. Nothing is opened for it; what lies in the queue of a socket is
/// not found.
pub fn who_keeps(inodes: &FxHashSet<Inode>) -> Vec<String> {
    let found = search_open_files(|info, link| {
        let of_line = |line: &str| line.strip_prefix("ino:")?.trim().parse().ok();
        let ino: Option<Inode> = info.lines().find_map(of_line);
        let is_one = ino.is_some_and(|ino| inodes.contains(&ino));
        is_one
            && fs::read_link(link).is_ok_and(|to| to.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
    });
    found.iter().map(Holder::words).collect()
}

/// Processes that have files without a name open on a volume's file system, for a person: the index knows nothing of what these take.
pub fn who_has_nameless(watched: &Watched) -> Vec<String> {
    let is_nameless = |link: &Path| {
        let to = fs::read_link(link).ok()?;
        // The kernel says so of every file without a name; only those are asked where they lie.
        let is_deleted = to.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
        let file = is_deleted.then(|| stat::behind(link).ok()).flatten()?;
        Some(file.device == watched.device && file.stat.links == 0 && file.stat.allocated > 0)
    };
    let found = search_open_files(|_, link| is_nameless(link).unwrap_or(false));
    found.iter().map(Holder::words).collect()
}

/// Looks for processes with an open file of which the kernel says this: its `fdinfo`, and the link to it. Nothing where that takes too long.
fn search_open_files(is_it: impl Fn(&str, &Path) -> bool) -> Vec<Holder> {
    let began = Instant::now();
    let mut found = Vec::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for process in processes.flatten() {
        if began.elapsed() > SEARCH_MAX {
            return Vec::new();
        }
        let id = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        let (Some(id), Ok(files)) = (id, fs::read_dir(process.path().join("fdinfo"))) else {
            continue;
        };
        let links = process.path().join("fd");
        let has_one = files.flatten().any(|file| {
            let info = fs::read_to_string(file.path()).unwrap_or_default();
            is_it(&info, &links.join(file.file_name()))
        });
        if has_one && let Some(holder) = Holder::of(id) {
            found.push(holder);
        }
    }
    found
}

/// The device of the volume's file system as `/proc/locks` writes it. Of btrfs that is not the device that `stat(2)` tells.
fn superblock(watched: &Watched) -> io::Result<String> {
    /// No table of the agent's own namespace is longer.
    const TABLE_BYTES: u64 = 256 << 20;
    let unknown = || io::Error::other("/proc/self/mountinfo does not list the volume's mount");
    let id = stat::mount_id(watched.open_root()?.as_fd())?;
    let (table, _) = mountinfo::read(Path::new("/proc/self/mountinfo"), TABLE_BYTES)?;
    let mount = mountinfo::find(&table, id).ok_or_else(unknown)?;
    let device = std::str::from_utf8(mount.device).map_err(io::Error::other)?;
    let (major, minor) = device.split_once(':').ok_or_else(unknown)?;
    let number = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    Ok(format!("{:02x}:{:02x}", number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_counts_for_the_owner_and_for_root_and_on_the_volumes_root_for_root_alone() {
        let of = |uid| Holder {
            process: Some((1, uid, "flock".into())),
        };
        let counts = |uid, owner, is_root| of(uid).counts(owner, is_root);
        assert!(counts(0, 1000, false) && counts(0, 1000, true) && counts(1000, 1000, false));
        assert!(!counts(1000, 1000, true) && !counts(1001, 1000, false) && !counts(1001, 0, true));
        assert!(Holder { process: None }.counts(0, true));
    }
}
