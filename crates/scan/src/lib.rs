//! The first index of a volume, and reconciling index and file system later: one walk over all directories.
//!
//! Events flow while it runs. What it read may be stale by the time it is written into the index, so names that an
//! event changed meanwhile are not taken from the walk; their places are looked at again at the end. Directories
//! are opened by the handle that they had when they were met, and their inode is compared: one that moved is listed where it is,
//! and how deep it lies makes no difference.
//!
//! - [`run`]   the walk
//! - `walk`    what its workers do
//! - [`crew`]  how many workers there are, and who does what
//!
//! What may never happen: an entry that exists is forgotten because it could not be read.

pub mod crew;
mod walk;

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use purge_base::clock;
use purge_collect::Watched;
use purge_collect::entries::take_entry_locked;
use purge_index::{DirId, StoreError};
use purge_model::{Kind, LastUse, Seconds, Source, Stat};

/// What to believe of a file that is new to the index about the time before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// Nothing: its clock starts here.
    Since(Seconds),
    /// The file system's access time, and all that it may hide of the time before this moment.
    Atime(Seconds),
    /// The modification time.
    Mtime,
}

/// relatime moves an access time that is as old as this, in seconds.
const DAY: u64 = 24 * 3600;

impl Belief {
    /// The same of a source that tells what happens from a later moment on: an access time that is read after it is as good.
    #[must_use]
    pub fn no_sooner_than(self, at: Seconds) -> Self {
        match self {
            Self::Since(then) => Self::Since(then.max(at)),
            Self::Atime(then) => Self::Atime(then.max(at)),
            Self::Mtime => Self::Mtime,
        }
    }

    /// Whether it rests on an access time that is as old as it may be.
    pub fn rests_on_atime(self, stat: &Stat) -> bool {
        let told = matches!(self, Self::Atime(watched_from) if stat.atime.plus(DAY) < watched_from);
        told && stat.kind == Kind::File
    }

    /// The last use to assume. A file with a time that lies ahead of `now` counts as used now, once: that time says nothing of it.
    pub fn first_use(self, stat: &Stat, now: Seconds) -> LastUse {
        if stat.is_ahead(now) {
            return Self::Since(now).first_use(stat, Seconds::MAX);
        }
        match self {
            Self::Since(at) => LastUse {
                at,
                source: Source::Baseline,
            },
            // Listing a directory moves its access time, and listing is no use.
            Self::Atime(watched_from) if stat.kind != Kind::Directory => LastUse {
                at: latest_read(stat, watched_from),
                source: Source::Atime,
            },
            Self::Atime(_) | Self::Mtime => LastUse {
                at: stat.mtime,
                source: Source::Mtime,
            },
        }
    }
}

/// The latest moment at which a file may have been read unseen. A read moves an access time of a relatime mount only if that
/// is a day old, or no later than the last change; and how the file system was mounted before is not known.
fn latest_read(stat: &Stat, watched_from: Seconds) -> Seconds {
    let changed = stat.ctime.max(stat.mtime);
    // A read after the change would have moved an access time from before it.
    let hidden_until = match stat.atime < changed {
        true => changed.min(watched_from),
        false => watched_from,
    };
    stat.atime.plus(DAY).min(hidden_until).max(stat.atime)
}

/// Which directories to walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// The whole volume; what is not found is forgotten.
    Volume,
    /// These directories and what lies below them.
    Trees(Vec<DirId>),
}

/// How far a scan is; read it while the scan runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries found.
    pub entries: AtomicU64,
    /// Directories listed.
    pub directories: AtomicU64,
    /// Directories and entries that could not be read.
    pub unreadable: AtomicU64,
    /// Subvolumes of btrfs that were met, and are not entered.
    pub subvolumes: AtomicU64,
    /// What each worker asks for.
    asking: Slots,
}

/// One for each worker.
#[derive(Debug)]
struct Slots(Vec<Mutex<Option<Asking>>>);

impl Default for Slots {
    fn default() -> Self {
        Self((0..crew::MOST).map(|_| Mutex::default()).collect())
    }
}

/// What a worker asks the file system for.
#[derive(Debug)]
struct Asking {
    dir: DirId,
    /// Empty for the directory itself.
    name: Vec<u8>,
    since: Instant,
}

impl Progress {
    /// A worker asks for an entry of a directory now.
    fn asks(&self, worker: usize, dir: DirId, name: &[u8]) {
        let Some(slot) = self.asking.0.get(worker) else {
            return;
        };
        let mut slot = slot.lock();
        let mut of = slot.take().map_or_else(Vec::new, |asking| asking.name);
        of.clear();
        of.extend_from_slice(name);
        *slot = Some(Asking {
            dir,
            name: of,
            since: Instant::now(),
        });
    }

    /// A worker asks for nothing.
    fn rests(&self, worker: usize) {
        if let Some(slot) = self.asking.0.get(worker) {
            slot.lock().take();
        }
    }

    /// What was not answered for longest, if that is at least so long: the directory, the name in it, and for how long.
    pub fn unanswered(&self, at_least: Duration) -> Option<(DirId, Vec<u8>, Duration)> {
        let slots = self.asking.0.iter().filter_map(|slot| {
            let slot = slot.lock();
            let asking = slot.as_ref()?;
            let waits = asking.since.elapsed();
            (waits >= at_least).then(|| (asking.dir, asking.name.clone(), waits))
        });
        slots.max_by_key(|(.., waits)| *waits)
    }
}

/// What a finished scan says.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Directories that are there, and moved on whenever they, or a changed name in them, were to be looked at.
    pub unlisted: Vec<DirId>,
    /// Entries found.
    pub entries: u64,
    /// Directories and entries that could not be read.
    pub unreadable: u64,
    /// Subvolumes of btrfs that were met: what is in them is not covered.
    pub subvolumes: u64,
    /// Entries that were forgotten because they are no more.
    pub vanished: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Why a scan cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The volume's root cannot be opened.
    #[error("cannot open the volume {path}: {source}")]
    Root {
        /// The root.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The index cannot take the entries.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The scan was told to stop.
    #[error("stopped")]
    Stopped,
}

/// What a scan needs from the volume around it.
pub trait Surroundings: Sync {
    /// Everything the kernel has queued reaches the index.
    fn sync(&self);
    /// Names that wait to be written back fill memory: write them.
    fn write_back(&self);
    /// This scan has found `entries` so far: waits, if it is to be slow.
    fn pace(&self, entries: u64);
    /// The walk has met an entry, and is the first to tell of it.
    fn met(&self, _dir: &OwnedFd, _name: &CStr, _stat: &Stat) {}
    /// Whether the agent is shutting down.
    fn stopping(&self) -> bool;
}

/// Directories that moved while they were to be listed are tried again, at most this number of times.
const ROUNDS_MAX: usize = 20;
/// Those that were not met in this number of rounds in which no other was either are no longer there, or never stay where they are.
const VAIN_ROUNDS_MAX: usize = 3;

/// Which directories a scan need not list: those that were made after it began. Events tell what is in them, as they do of all that is made
/// later, so a user who makes directories faster than they are listed does not keep a scan from its end.
#[derive(Debug, Clone, Copy)]
struct Newborn {
    /// None: the file system keeps no births, and nothing tells which these are.
    later_than: Option<Seconds>,
    /// The number of directories that are listed, no matter when they were made. Where the clock of a server is ahead, old ones look new.
    after: u64,
}

/// A scan of some trees lists this number of directories, also if they were made after it began.
const LISTED_WITH_NEWBORN: u64 = 100_000;

impl Newborn {
    /// Whether an entry is one of them.
    fn is(self, kind: Kind, birth: Seconds, progress: &Progress) -> bool {
        kind == Kind::Directory
            && self
                .later_than
                .is_some_and(|began| birth > began && birth <= clock::wall())
            && progress.directories.load(Relaxed) >= self.after
    }

    /// Takes them from directories that are to be listed. Those of which no event has told are in the answer: a clock was wrong, and they are
    /// listed afterwards.
    fn take_from(self, dirs: &mut Vec<DirId>, watched: &Watched, progress: &Progress) -> Vec<DirId> {
        let index = watched.index.read();
        let mut unheard = Vec::new();
        dirs.retain(|dir| {
            let Some(ino) = index.dirs().get(*dir).map(|known| known.ino) else {
                return true;
            };
            let known = index.get(ino).map(|(known, _)| known);
            let is_newborn = known.is_some_and(|known| self.is(known.kind, known.birth, progress));
            if is_newborn && !index.is_touched(ino) {
                unheard.push(*dir);
            }
            !is_newborn
        });
        unheard
    }
}

/// Walks `extent` and brings the index up to what is there. `number` must differ from every earlier scan's.
///
/// # Errors
/// When the volume or the index cannot be read; single entries that cannot are counted instead.
pub fn run(
    watched: &Watched,
    extent: &Extent,
    belief: Belief,
    number: u32,
    progress: &Progress,
    around: &dyn Surroundings,
) -> Result<Outcome, ScanError> {
    let began = Instant::now();
    let unopenable = |source| ScanError::Root {
        path: watched.path.clone(),
        source,
    };
    let root = watched.open_root().map_err(unopenable)?;
    let mount = watched.open_mount().map_err(unopenable)?;
    let top = watched.projects.open_file(&root).map_err(unopenable)?;
    let newborn = Newborn {
        later_than: top.keeps_birth.then(clock::wall),
        after: match extent {
            Extent::Volume => 0,
            Extent::Trees(_) => LISTED_WITH_NEWBORN,
        },
    };
    let mut next = {
        let mut index = watched.index.write();
        index.start_scan(number, *extent == Extent::Volume);
        index.set_root(&top.stat);
        match extent {
            Extent::Volume => vec![DirId::ROOT],
            Extent::Trees(dirs) => dirs.clone(),
        }
    };
    let mut doubtful = Vec::new();
    let mut walked = Ok(());
    let mut vain = 0;
    let mut unheard = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let these = std::mem::take(&mut next);
        let listed = progress.directories.load(Relaxed);
        let missed = match walk::walk(
            watched,
            (&root, &mount),
            these,
            (belief, newborn),
            progress,
            around,
            &mut doubtful,
        ) {
            Ok(missed) => missed,
            Err(error) => {
                walked = Err(error);
                break;
            }
        };
        around.sync();
        next = match extent {
            Extent::Volume => watched.index.read().unlisted(),
            Extent::Trees(_) => missed,
        };
        unheard = newborn.take_from(&mut next, watched, progress);
        vain = match progress.directories.load(Relaxed) == listed {
            true => vain + 1,
            false => 0,
        };
        if next.is_empty() || vain >= VAIN_ROUNDS_MAX {
            break;
        }
    }
    for _ in 0..ROUNDS_MAX {
        if walked.is_err() || doubtful.is_empty() {
            break;
        }
        walked = look_again(watched, &root, &mut doubtful);
        around.sync();
    }
    let complete = walked.is_ok() && *extent == Extent::Volume;
    let links = watched.index.read().links_not_settled();
    watched.doubtful_links.lock().extend(links);
    let vanished = watched.index.write().end_scan(complete)?;
    walked?;
    next.extend(unheard);
    next.extend(doubtful.into_iter().map(|(dir, _)| dir));
    next.sort_unstable();
    next.dedup();
    let index = watched.index.read();
    next.retain(|dir| index.dirs().get(*dir).is_some());
    drop(index);
    Ok(Outcome {
        unlisted: next,
        entries: progress.entries.load(Relaxed),
        unreadable: progress.unreadable.load(Relaxed),
        subvolumes: progress.subvolumes.load(Relaxed),
        vanished,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Places where names changed during the walk are looked at once more, now that all events are in. Those in directories
/// that moved meanwhile stay in `places`.
fn look_again(
    watched: &Watched,
    root: &OwnedFd,
    places: &mut Vec<(DirId, Vec<u8>)>,
) -> Result<(), ScanError> {
    let mut last: Option<(DirId, Option<OwnedFd>)> = None;
    // Those of one directory together: to open it takes as many steps as lie above it.
    let mut these = std::mem::take(places);
    these.sort_unstable_by_key(|(dir, _)| *dir);
    for (dir, name) in these {
        if last.as_ref().is_none_or(|(opened, _)| *opened != dir) {
            let known = {
                let index = watched.index.read();
                // What lies too deep has no path; what events told of it is in the index.
                let known = index.dirs().get(dir).filter(|_| !index.dirs().is_too_deep(dir));
                let known = known.map(|known| known.ino);
                known.map(|ino| (ino, index.dirs().path(dir)))
            };
            let Some((ino, path)) = known else {
                continue;
            };
            let opened = path.and_then(|path| walk::open_expected(root, &path, ino).ok().flatten());
            last = Some((dir, opened));
        }
        let opened = last.as_ref().and_then(|(_, opened)| opened.as_ref());
        let (Some(fd), Ok(as_c)) = (opened, CString::new(name.as_slice())) else {
            places.push((dir, name));
            continue;
        };
        let mut index = watched.index.write();
        if let Ok(found) = watched.projects.entry(fd, &as_c) {
            take_entry_locked(watched, &mut index, dir, &name, &found, true)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use purge_index::testing;

    /// What relatime does to an access time at a read.
    fn read(stat: &mut Stat, at: Seconds) {
        let moves = stat.atime <= stat.mtime || stat.atime <= stat.ctime || stat.atime.plus(DAY) <= at;
        if moves {
            stat.atime = at;
        }
    }

    #[test]
    fn an_access_time_is_believed_to_the_day() {
        let now = Seconds(100 * 86_400);
        let mut file = testing::stat(1, Kind::File, 1, 40 * 86_400);
        file.atime = now.minus(20 * 3600);
        assert_eq!(
            Belief::Atime(now).first_use(&file, Seconds::MAX).at,
            now,
            "a read just now would not show"
        );
        file.atime = now.minus(3 * 86_400);
        assert_eq!(
            Belief::Atime(now).first_use(&file, Seconds::MAX).at,
            now.minus(2 * 86_400)
        );
        let unread = testing::stat(1, Kind::File, 1, 40 * 86_400);
        assert_eq!(
            Belief::Atime(now).first_use(&unread, Seconds::MAX).at,
            Seconds(41 * 86_400)
        );
    }

    proptest! {
        /// However it was read and changed: it was used no later than is believed.
        #[test]
        fn no_read_is_later_than_believed(
            born in 0u32..100_000,
            steps in prop::collection::vec((0u32..100_000, any::<bool>()), 1..8),
        ) {
            let mut file = testing::stat(1, Kind::File, 1, born);
            let (mut at, mut last_read) = (Seconds(born), Seconds(born));
            for (later, is_read) in steps {
                at = at.plus(later.into());
                if is_read {
                    read(&mut file, at);
                    last_read = at;
                } else {
                    file.ctime = at;
                }
            }
            let believed = Belief::Atime(at).first_use(&file, Seconds::MAX).at;
            prop_assert!(believed.max(file.ctime) >= last_read, "{:?} {:?}", believed, last_read);
            prop_assert!(believed <= at.max(file.atime));
        }
    }
}
