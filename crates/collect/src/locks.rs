//! Whose lock (`flock(2)`) on a directory keeps what is below it, and who has it.
//!
//! Each user who can open a directory can lock it. So a lock counts only for those who may hold up a purge there: on the volume's root for
//! processes of root, on another directory for those of its owner and of root. The lock itself is asked first; only where there is one,
//! `flocks` looks for processes of these users that have it. That decides: a lock that none of them has belongs to another user. Where not
//! all of their processes could be looked at in time, that is doubt, and doubt counts as use. Where a process that the agent cannot see may have
//! the lock (of another host or container, or one that a security module protects), it is doubt unless another user is found to have it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purge_proto::shown;

use super::flocks::{self, Seen};
use super::open_files::{Holder, Missed};
use super::{Watched, mounted};
use purge_index::DirId;
use purge_model::{Inode, Stat};
use purge_sys::stat::Device;
use purge_sys::{beneath, lease, mountinfo, stat, superblock};

/// At most this number of locks is remembered, for what is told of a run.
const NOTES_MAX: usize = 32;
/// How the kernel names the volume's file system is asked again after this time: the table of mounts may be long.
const NAMED_FOR: Duration = Duration::from_secs(2);
/// Whose locks only processes of this host have.
const LOCAL: [&[u8]; 7] = [b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"tmpfs", b"zfs"];

/// Locks that were met.
#[derive(Debug, Default)]
pub struct Locks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    superblock: Option<(Instant, Superblock)>,
    notes: Vec<Note>,
}

/// A volume's file system.
#[derive(Debug, Clone)]
struct Superblock {
    /// Its device as `/proc` writes it with locks. Of btrfs that is not the device that `stat(2)` tells.
    device: Arc<str>,
    /// No other host has locks on it.
    is_local: bool,
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

/// Why a lock counts of which it is not known who has it.
#[derive(Debug, Clone, Copy)]
enum Doubt {
    /// Not all processes could be looked at.
    Unseen,
    /// A process of another host or container may have it, or one that a security module hides.
    Elsewhere,
}

impl Doubt {
    fn words(self) -> &'static str {
        match self {
            Self::Unseen => {
                "a process that cannot be found in time among the open files of root and the owner"
            }
            Self::Elsewhere => "a process that cannot be found (on another host, or hidden from the agent)",
        }
    }
}

/// Who has a lock that keeps what is below.
enum Verdict {
    Held(Vec<Holder>),
    Doubt(Doubt),
    /// Its holder is another user.
    Nothing,
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
        let users = match self.is_root(&found) {
            false if found.uid != 0 => vec![0, found.uid],
            _ => vec![0],
        };
        let verdict = match self.superblock() {
            Ok(on) => verdict(&on, found.ino, &flocks::of_users(&users)),
            Err(_) => Verdict::Doubt(Doubt::Unseen),
        };
        let notes = self.notes(path, &verdict);
        let counts = !notes.is_empty();
        self.remember(notes);
        Ok(counts)
    }

    /// A run begins: each lock that was taken before counts in it.
    pub fn look_at_locks_again(&self) {
        flocks::look_again();
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

    /// Locks on the volume's root, now.
    ///
    /// # Errors
    /// When the root cannot be opened, or the kernel's list of mounts cannot be read.
    pub fn locks_on_root(&self) -> io::Result<Vec<Note>> {
        let on = self.superblock()?;
        let root = self.open_root()?;
        // A server that is silent answers no open.
        if on.is_local && !lease::is_locked(beneath::open_dir(&root, b".")?)? {
            return Ok(Vec::new());
        }
        let ino = stat::which(&root)?.ino;
        let others = flocks::of_others();
        let others = others.holders(&on.lock(ino));
        let verdict = match verdict(&on, ino, &[flocks::of_root()]) {
            // Without a look at the lock itself, there may be none.
            Verdict::Doubt(_) if !on.is_local => Verdict::Nothing,
            verdict => verdict,
        };
        let mut notes = self.notes(b"", &verdict);
        if matches!(verdict, Verdict::Held(_)) {
            self.remember(notes.clone());
        }
        let is_known = !others.is_empty() || !notes.is_empty() || !on.is_local;
        let unnamed = (!is_known).then(|| "a process of another user".to_owned());
        let names = others.iter().map(Holder::words).chain(unnamed);
        notes.extend(names.map(|who| Note {
            at: Instant::now(),
            words: words(&self.path, b"", &who, false),
            counts: false,
        }));
        Ok(notes)
    }

    fn is_root(&self, dir: &Stat) -> bool {
        let index = self.index.read();
        let root = index.dirs().get(DirId::ROOT);
        root.is_some_and(|root| root.ino == dir.ino)
    }

    /// What is told of a lock that counts.
    fn notes(&self, path: &[u8], verdict: &Verdict) -> Vec<Note> {
        let who: Vec<String> = match verdict {
            Verdict::Held(holders) => holders.iter().map(Holder::words).collect(),
            Verdict::Doubt(doubt) => vec![doubt.words().into()],
            Verdict::Nothing => Vec::new(),
        };
        let note = |who: String| Note {
            at: Instant::now(),
            words: words(&self.path, path, &who, true),
            counts: true,
        };
        who.into_iter().map(note).collect()
    }

    fn remember(&self, notes: Vec<Note>) {
        let mut state = self.locks.0.lock();
        notes.into_iter().for_each(|note| state.remember(note));
    }

    fn superblock(&self) -> io::Result<Superblock> {
        if let Some((at, known)) = &self.locks.0.lock().superblock
            && at.elapsed() < NAMED_FOR
        {
            return Ok(known.clone());
        }
        let found = Superblock::of(self)?;
        self.locks.0.lock().superblock = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}

impl State {
    fn remember(&mut self, note: Note) {
        if let Some(known) = self.notes.iter_mut().find(|known| known.words == note.words) {
            known.at = note.at;
            return;
        }
        tracing::warn!("{}", note.words);
        if self.notes.len() >= NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(note);
    }
}

/// Who has a lock that counts, of the users whose locks count there.
fn verdict(on: &Superblock, ino: Inode, users: &[Arc<Seen>]) -> Verdict {
    let lock = on.lock(ino);
    let holders: Vec<Holder> = users
        .iter()
        .flat_map(|seen| seen.holders(&lock).to_vec())
        .collect();
    if !holders.is_empty() {
        return Verdict::Held(holders);
    }
    if users.iter().any(|seen| seen.missed == Some(Missed::Time)) {
        return Verdict::Doubt(Doubt::Unseen);
    }
    let is_hidden = users.iter().any(|seen| seen.missed.is_some());
    let may_be_elsewhere = is_hidden || !on.is_local || !mounted::sees_all_processes();
    match may_be_elsewhere && flocks::of_others().holders(&lock).is_empty() {
        true => Verdict::Doubt(Doubt::Elsewhere),
        false => Verdict::Nothing,
    }
}

fn words(volume: &Path, below: &[u8], who: &str, counts: bool) -> String {
    let mut path = volume.as_os_str().as_encoded_bytes().to_vec();
    if !below.is_empty() {
        path.push(b'/');
        path.extend_from_slice(below);
    }
    let path = shown::cut(&path, shown::LOGGED_MAX);
    let path = String::from_utf8_lossy(&path);
    match counts {
        true => format!("{who} has a lock on {path}: nothing below it is removed"),
        false => format!(
            "{who} has a lock on {path}, and is not root, whose lock alone counts there: that keeps nothing"
        ),
    }
}

impl Superblock {
    fn of(watched: &Watched) -> io::Result<Self> {
        /// No table of the agent's own namespace is longer.
        const TABLE_BYTES: u64 = 256 << 20;
        let unknown = || io::Error::other("/proc/self/mountinfo does not list the volume's mount");
        let id = stat::mount_id(watched.open_root()?.as_fd())?;
        let (table, _) = mountinfo::read(Path::new("/proc/self/mountinfo"), TABLE_BYTES)?;
        let mount = mountinfo::find(&table, id).ok_or_else(unknown)?;
        let Device { major, minor } = superblock::of_mount(&mount).ok_or_else(unknown)?;
        Ok(Self {
            device: format!("{major:02x}:{minor:02x}").into(),
            is_local: LOCAL.contains(&mount.kind),
        })
    }

    /// How the kernel names a lock on this inode.
    fn lock(&self, ino: Inode) -> String {
        format!("{}:{ino}", self.device)
    }
}
