//! One watched volume: collector, index and scan wired together, and how it is.
//!
//! Three threads: the collector reads events, the scanner walks when asked, the keeper writes the index back every
//! second. Accesses are recorded from the moment [`Volume::start`] returns, even while the first scan runs.
//!
//! - [`coverage`] since when everything is seen, and the gaps (pure)
//! - `opening`    what an earlier process left: store, journal, checkpoint
//! - `keeper`     writing back, checkpoints, and mending what can be mended while the agent runs
//! - `guard`      whether files can be leased here
//! - `presence`   whether the file system is still mounted

pub mod coverage;
mod guard;
mod keeper;
mod opening;
mod presence;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

pub use self::coverage::Gap;
use self::coverage::{Cause, VolumeRecord};
pub use self::guard::Guard;
use self::guard::LastGuard;
pub use self::opening::Opened;
use self::opening::Past;
use self::presence::Presence;
use crate::clock;
use crate::collect::accessors::Accessors;
use crate::collect::collector::{Armed, CollectError, Collector, Judges};
use crate::collect::fanotify::layout::Layout;
use crate::collect::precision::{Precision, Windows, end_window_of_another};
use crate::collect::projects::Projects;
use crate::collect::{Counters, Watched};
use crate::config::{Baseline, VolumeConfig};
use crate::handover::Handover;
use crate::index::journal::Identity;
use crate::index::{Store, StoreError};
use crate::model::{Inode, Seconds};
use crate::purge::recover::Unfinished;
use crate::scan::{self, Belief, Extent, Progress, ScanError};
use crate::sys::fanotify::Who;
use crate::sys::handle::Handle;
use crate::sys::stat::{self, Mount};
use crate::watchdog::Pulse;

/// Events a second are an average over so many seconds.
const RATE_SECONDS: usize = 10;

/// Why a volume cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Nothing there.
    #[error("volume {name}: {path} {why}; mount it, or correct its path")]
    Missing {
        /// The volume.
        name: String,
        /// Its root.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another file system than the one that was indexed.
    #[error(
        "volume {name}: {path} is another file system than the one in the index (is it mounted?); if it was replaced \
         on purpose, give the volume another name"
    )]
    Replaced {
        /// The volume.
        name: String,
        /// Its root.
        path: String,
    },
    /// The kernel cannot watch it.
    #[error(
        "volume {name} on {filesystem}: {source}; fanotify needs root (CAP_SYS_ADMIN), Linux 5.17, and ext4, xfs, btrfs or tmpfs"
    )]
    Collect {
        /// The volume.
        name: String,
        /// Type of its file system.
        filesystem: String,
        /// What is wrong.
        source: CollectError,
    },
    /// The journal cannot be opened.
    #[error("volume {name}: cannot open its journal in {}: {source}", path.display())]
    Journal {
        /// The volume.
        name: String,
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The index cannot be read or written.
    #[error("volume {name}: {source}")]
    Store {
        /// The volume.
        name: String,
        /// What is wrong.
        source: StoreError,
    },
}

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A scan is running and the index is not whole yet.
    Scanning,
    /// Everything is seen.
    Tracking,
    /// Something is wrong, in words.
    Degraded(String),
}

/// What changes while the volume is watched.
#[derive(Debug)]
struct Health {
    record: VolumeRecord,
    scan: Option<(Arc<Progress>, Instant)>,
    /// A scan of the whole volume has finished since the start.
    whole: bool,
    unreadable: u64,
    /// What is wrong, by what it concerns.
    collector_trouble: Option<Trouble>,
    index_trouble: Option<String>,
    scan_trouble: Option<String>,
    journal_trouble: Option<String>,
    checkpoint_trouble: Option<String>,
    /// The file system is not mounted any more.
    away: Option<String>,
    /// The store says that its content makes no sense.
    damage: Option<String>,
    /// The record must be saved at once.
    urgent: bool,
    /// Names may have changed unseen: a scan must look.
    missed_names: bool,
    rates: VecDeque<u64>,
}

impl Health {
    fn ailments(&self) -> Vec<(Ailment, String)> {
        let collector = self.collector_trouble.as_ref().map(|t| t.words.clone());
        let all = [
            (Ailment::Away, &self.away),
            (Ailment::Damage, &self.damage),
            (Ailment::Collector, &collector),
            (Ailment::Index, &self.index_trouble),
            (Ailment::Journal, &self.journal_trouble),
            (Ailment::Checkpoint, &self.checkpoint_trouble),
            (Ailment::Scan, &self.scan_trouble),
        ];
        all.into_iter()
            .filter_map(|(what, words)| Some((what, words.clone()?)))
            .collect()
    }
}

/// What can be wrong with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ailment {
    /// It is not mounted any more.
    Away,
    /// The index makes no sense.
    Damage,
    /// Accesses are not read.
    Collector,
    /// The index cannot be written.
    Index,
    /// The journal cannot be written.
    Journal,
    /// The checkpoint cannot be written.
    Checkpoint,
    /// The scan has not seen everything.
    Scan,
}

/// Something that does not work for now.
#[derive(Debug)]
struct Trouble {
    words: String,
    since: Seconds,
    last: Instant,
}

/// What a volume needs of the host around it.
#[derive(Debug, Clone)]
pub struct Home {
    /// The index.
    pub store: Store,
    /// Where it lies.
    pub state_dir: PathBuf,
    /// The agent's time.
    pub clock: Arc<clock::Keeper>,
    /// Directories that are not the users'.
    pub own: Vec<(stat::Device, Inode)>,
    /// The store was damaged and is a fresh one: what is not found beside it is lost, not new.
    pub is_fresh: bool,
    /// The highest number of a volume that was given out by this process: others may not be in the store yet.
    pub numbers: Arc<AtomicU32>,
}

/// Figures of one volume's keeping, counted since the agent started.
#[derive(Debug, Default)]
pub struct Keeping {
    /// Write-backs that reached the disk.
    pub flushes: AtomicU64,
    /// Write-backs that did not.
    pub flushes_failed: AtomicU64,
    /// What the write-backs took together.
    pub flush_micros: AtomicU64,
    /// What the longest took.
    pub flush_micros_max: AtomicU64,
    /// Checkpoints written.
    pub checkpoints: AtomicU64,
    /// Bytes of the last one.
    pub checkpoint_bytes: AtomicU64,
    /// Whole scans that were finished.
    pub scans: AtomicU64,
    /// Rounds of the keeper.
    pub pulse: Pulse,
    /// Files that clients of the kernel's NFS server held at the last look.
    pub nfs_held: AtomicU64,
}

/// One watched volume.
#[derive(Debug)]
pub struct Volume {
    /// Its configuration.
    pub config: VolumeConfig,
    /// Its mount.
    pub mount: Mount,
    /// What everybody shares.
    pub watched: Arc<Watched>,
    /// What is believed about the time before observation, in the configuration's words.
    pub baseline: &'static str,
    /// Figures for the operator.
    pub keeping: Keeping,
    belief: Belief,
    home: Home,
    store: Store,
    health: Arc<Mutex<Health>>,
    collector: RwLock<Option<Collector>>,
    windows: Arc<Windows>,
    /// One write-back at a time.
    writing: Mutex<()>,
    scans: Mutex<Option<mpsc::Sender<Extent>>>,
    scan_number: AtomicU32,
    stopping: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    presence: Mutex<Presence>,
    guard: LastGuard,
    /// One at a time makes, frees, restores from or removes the trash.
    pub trash_work: Mutex<()>,
    /// The running scan is a slow one.
    sweeping: AtomicBool,
    /// One checkpoint at a time.
    checkpoint: Mutex<keeper::LastCheckpoint>,
}

/// A look at a volume, for status.
#[derive(Debug, Clone)]
pub struct Condition {
    /// How it is.
    pub state: State,
    /// Since when everything was observed, but for the gaps.
    pub coverage_since: Seconds,
    /// The last stretches that were not.
    pub gaps: Vec<Gap>,
    /// How many there have been.
    pub gaps_total: u64,
    /// End of the last gap that counts as a use of every file.
    pub gap_end: Option<Seconds>,
    /// The running scan: entries, directories, unreadable, seconds.
    pub scan: Option<(u64, u64, u64, f64)>,
    /// Entries that the last scan could not read.
    pub unreadable: u64,
    /// Events a second.
    pub rate: f64,
    /// Repeated uses that cost nothing.
    pub precision: Precision,
}

/// Reads what an earlier process left of a volume. The kernel is not asked to watch it yet.
///
/// # Errors
/// When nothing lies at its path, or the store cannot be read or is damaged.
pub fn open(config: &VolumeConfig, home: &Home) -> Result<Opened, VolumeError> {
    let missing = |why: String| VolumeError::Missing {
        name: config.name.clone(),
        path: config.path.display().to_string(),
        why,
    };
    let identity = identity(&config.path).map_err(|e| missing(format!("cannot be read: {e}")))?;
    let mut opened = opening::open(home, config, identity, Seconds::now())?;
    // The clock's own file was lost, and the wall clock lies behind what is recorded: nobody knows how much time has passed.
    opened.incomplete |= home.clock.at_least(Seconds(opened.record.last_alive));
    Ok(opened)
}

/// Which file system lies at a path.
fn identity(path: &Path) -> io::Result<Identity> {
    let root = stat::path(path)?;
    Ok(Identity {
        magic: stat::mount(path)?.magic,
        root: root.stat.ino,
        birth: root.stat.birth,
    })
}

impl Volume {
    /// Starts to watch. Every access after this returns is recorded.
    ///
    /// # Errors
    /// [`VolumeError`] says how to mend what is wrong.
    pub fn start(
        config: VolumeConfig,
        home: &Home,
        opened: Opened,
        handover: &mut Handover,
        unfinished: &Unfinished,
    ) -> Result<Arc<Self>, VolumeError> {
        let store = &home.store;
        let name = config.name.clone();
        let missing = |why: String| VolumeError::Missing {
            name: name.clone(),
            path: config.path.display().to_string(),
            why,
        };
        let failed = |source| VolumeError::Store {
            name: name.clone(),
            source,
        };
        let root = stat::path(&config.path).map_err(|e| missing(format!("cannot be read: {e}")))?;
        if root.stat.kind != crate::model::Kind::Directory {
            return Err(missing("is no directory".into()));
        }
        let mount = stat::mount(&config.path).map_err(|e| missing(format!("cannot be read: {e}")))?;
        let filesystem = mount.filesystem.clone();
        let collect = |source| VolumeError::Collect {
            name: name.clone(),
            filesystem: filesystem.clone(),
            source,
        };
        let identity = (mount.magic, root.stat.ino, root.stat.birth);
        let who = match config.ignore_accessors.is_empty() {
            true => Who::Pid,
            false => Who::Process,
        };
        let key = queue_key(&name, identity, who);
        let left = Armed::take_over(handover, &key, &config.path);
        let nothing_missed = left.is_some();
        let armed = left
            .map_or_else(|| Armed::arm(&config.path, who), Ok)
            .map_err(collect)?;
        armed.leave(&key);
        let armed_at = Seconds::now();
        let layout = probe(&config, &mount, root.stat.ino).map_err(collect)?;
        let watching = opened.time_between(armed_at, nothing_missed, home.clock.start.unknown);
        let Opened {
            mut record,
            mut past,
            index,
            journal,
            ..
        } = opened;
        if past == Past::Unknown {
            (record.coverage_since, record.last_alive) = (armed_at.0, armed_at.0);
        } else if record.resume(watching, config.gap_tolerance) && past == Past::Interrupted {
            past = Past::Indexed;
        }
        let baseline = match (config.baseline, mount.keeps_atime) {
            (Baseline::Atime, _) | (Baseline::Auto, true) => "atime",
            (Baseline::Mtime, _) => "mtime",
            (Baseline::Observed, _) | (Baseline::Auto, false) => "observed",
        };
        // Only what the very first scan finds has a past that nobody watched. What is found new later was made
        // unseen, or the index lost it in a crash: doubt counts as use.
        let belief = match baseline {
            _ if past == Past::Indexed => Belief::Since(armed_at),
            "atime" => Belief::Atime,
            "mtime" => Belief::Mtime,
            _ => Belief::Since(armed_at),
        };
        let uses_projects = index.ledger().projects().keys().any(|id| *id != 0);
        let watched = Arc::new(Watched {
            path: config.path.clone(),
            device: root.device,
            own: home
                .own
                .iter()
                .filter(|(device, _)| *device == root.device)
                .map(|(_, ino)| *ino)
                .collect(),
            trash: AtomicU64::new(0),
            projects: Projects::new(uses_projects, root.device),
            touched: Mutex::default(),
            index: RwLock::new(index),
            counting: Mutex::default(),
            journal,
            unlisted: Mutex::default(),
            counters: Counters::default(),
        });
        // What a killed run had in hand is back at its place before anything is looked at.
        if let Err(error) = unfinished.end_those_of(&name, &watched) {
            tracing::error!(volume = %name, %error, "a run that was killed cannot be ended");
        }
        let ended = end_window_of_another(&watched, &armed.access, Seconds(record.window_end));
        ended.map_err(|source| {
            collect(CollectError::Kernel {
                doing: "take ignore marks away",
                source,
            })
        })?;
        let windows = Arc::new(Windows::new(
            Arc::clone(&armed.access),
            config.precision,
            &config.path,
            armed_at,
        ));
        record.window_end = windows.end().0;
        let judges = Judges {
            accessors: Accessors::new(config.ignore_accessors.clone()),
            windows: Arc::clone(&windows),
        };
        let health = Arc::new(Mutex::new(Health {
            record,
            scan: None,
            whole: false,
            unreadable: 0,
            collector_trouble: None,
            index_trouble: None,
            scan_trouble: None,
            journal_trouble: None,
            checkpoint_trouble: None,
            away: None,
            damage: None,
            urgent: false,
            missed_names: false,
            rates: VecDeque::new(),
        }));
        let presence = Presence::watch(&config.path);
        let buffer = opening::directory(&home.state_dir, &name).join("accesses");
        let collector =
            start_collector(armed, layout, &watched, judges, &buffer, &health, &name).map_err(collect)?;
        let (scans, inbox) = mpsc::channel();
        let volume = Arc::new(Self {
            config,
            mount,
            watched,
            baseline,
            keeping: Keeping::default(),
            belief,
            home: home.clone(),
            store: store.clone(),
            health,
            collector: RwLock::new(Some(collector)),
            windows,
            writing: Mutex::new(()),
            scans: Mutex::new(Some(scans)),
            scan_number: AtomicU32::new(0),
            stopping: Arc::default(),
            threads: Mutex::default(),
            presence: Mutex::new(presence),
            guard: LastGuard::default(),
            trash_work: Mutex::default(),
            sweeping: AtomicBool::new(false),
            checkpoint: Mutex::default(),
        });
        volume.save_record().map_err(failed)?;
        volume.request_scan(Extent::Volume);
        let spawn = |what: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(what.into())
                .spawn(run)
                .map_err(|source| {
                    collect(CollectError::Kernel {
                        doing: "start a thread",
                        source,
                    })
                })
        };
        let scanner = {
            let v = Arc::clone(&volume);
            spawn("scanner", Box::new(move || v.scan_when_asked(&inbox)))?
        };
        let keeper = {
            let v = Arc::clone(&volume);
            spawn("keeper", Box::new(move || v.keep()))?
        };
        volume.threads.lock().extend([scanner, keeper]);
        Ok(volume)
    }

    /// Stops watching; everything that was seen is in the store afterwards.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.scans.lock().take();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        self.sync();
        self.collector.write().take();
        self.write_back();
        self.told_alive();
        if let Err(error) = self.save_record() {
            tracing::error!(volume = %self.config.name, %error, "cannot save the volume's record");
        }
        self.take_checkpoint();
    }

    /// What keeps a file that somebody comes to use in the moment of its removal, asked now.
    pub fn guard(&self) -> Guard {
        self.guard.ask(&self.config.path)
    }

    /// The same, as of when it was asked last.
    pub fn last_guard(&self) -> Guard {
        self.guard.last(&self.config.path)
    }

    /// Waits until every access made before this call is in the index. False if the collector is dead.
    pub fn sync(&self) -> bool {
        self.collector.read().as_ref().is_some_and(Collector::sync)
    }

    /// Accesses that wait in the kernel's queue.
    pub fn queued(&self) -> u64 {
        self.windows.queued()
    }

    /// Asks for a scan in the background.
    pub fn request_scan(&self, extent: Extent) {
        // Whoever asks does not want to wait for a slow one.
        self.sweeping.store(false, Relaxed);
        self.queue_scan(extent);
    }

    /// A slow scan of the whole volume, in the background.
    fn request_sweep(&self) {
        self.sweeping.store(true, Relaxed);
        self.queue_scan(Extent::Volume);
    }

    fn queue_scan(&self, extent: Extent) {
        if extent == Extent::Volume {
            let mut health = self.health.lock();
            health
                .scan
                .get_or_insert_with(|| (Arc::default(), Instant::now()));
        }
        if let Some(scans) = &*self.scans.lock() {
            // The scanner lives as long as the sender.
            let _ = scans.send(extent);
        }
    }

    /// Everything that is wrong with it, the worst first.
    pub fn ailments(&self) -> Vec<(Ailment, String)> {
        self.health.lock().ailments()
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        let health = self.health.lock();
        let state = match health.ailments().into_iter().next() {
            Some((_, reason)) => State::Degraded(format!("{reason} (purgectl doctor says what to do)")),
            None if !health.whole => State::Scanning,
            None => State::Tracking,
        };
        let scan = health.scan.as_ref().map(|(p, began)| {
            let numbers = (
                p.entries.load(Relaxed),
                p.directories.load(Relaxed),
                p.unreadable.load(Relaxed),
            );
            (numbers.0, numbers.1, numbers.2, began.elapsed().as_secs_f64())
        });
        let seconds = health.rates.len().saturating_sub(1).max(1) as f64;
        let (first, last) = (health.rates.front().copied(), health.rates.back().copied());
        let seen = last.unwrap_or(0).saturating_sub(first.unwrap_or(0));
        Condition {
            state,
            coverage_since: Seconds(health.record.coverage_since),
            gaps: health.record.gaps.clone(),
            gaps_total: health.record.gaps_total,
            gap_end: health.record.counted_until(),
            scan,
            unreadable: health.unreadable,
            rate: seen as f64 / seconds,
            precision: self.windows.precision(),
        }
    }

    /// Whether the file system at the path still is the one that is indexed.
    ///
    /// # Errors
    /// [`VolumeError`] says what lies there instead.
    pub fn check_identity(&self) -> Result<(), VolumeError> {
        let path = self.config.path.display().to_string();
        let name = self.config.name.clone();
        let found = stat::path(&self.config.path).map_err(|e| VolumeError::Missing {
            name: name.clone(),
            path: path.clone(),
            why: e.to_string(),
        })?;
        let health = self.health.lock();
        let same = found.stat.ino == health.record.root_ino
            && found.stat.birth.0 == health.record.root_birth
            && found.device == self.watched.device;
        if same {
            Ok(())
        } else {
            Err(VolumeError::Replaced { name, path })
        }
    }

    // ------------------------------------------------------------ scanner

    fn scan_when_asked(&self, inbox: &mpsc::Receiver<Extent>) {
        while let Ok(extent) = inbox.recv() {
            if self.stopping.load(Relaxed) {
                return;
            }
            self.scan(&extent);
        }
    }

    fn scan(&self, extent: &Extent) {
        let progress = match extent {
            Extent::Volume => {
                let fresh = (Arc::new(Progress::default()), Instant::now());
                let progress = Arc::clone(&fresh.0);
                self.health.lock().scan = Some(fresh);
                progress
            }
            Extent::Trees(_) => Arc::default(),
        };
        let number = self.scan_number.fetch_add(1, Relaxed) + 1;
        // What comes in from outside, or is found later, is used now, whatever is believed of the time before.
        let belief = match extent {
            Extent::Volume if number == 1 => self.belief,
            Extent::Volume | Extent::Trees(_) => Belief::Since(Seconds::now()),
        };
        let result = scan::run(&self.watched, extent, belief, number, &progress, self);
        {
            let mut health = self.health.lock();
            if *extent == Extent::Volume {
                self.sweeping.store(false, Relaxed);
                health.scan = None;
            }
            match result {
                Ok(outcome) if *extent == Extent::Volume => {
                    health.whole = true;
                    health.record.scanned = true;
                    self.keeping.scans.fetch_add(1, Relaxed);
                    health.unreadable = outcome.unreadable;
                    health.scan_trouble = None;
                    let (entries, seconds) = (outcome.entries, outcome.seconds);
                    let (unreadable, vanished) = (outcome.unreadable, outcome.vanished);
                    tracing::info!(volume = %self.config.name, entries, seconds, unreadable, vanished, "scan finished");
                }
                Ok(_) => {}
                Err(ScanError::Stopped) => return,
                Err(error) => {
                    tracing::error!(volume = %self.config.name, %error, "scan failed");
                    health.scan_trouble =
                        Some(format!("the last scan failed: {error}; try `purgectl rescan`"));
                }
            }
        }
        self.write_back();
        crate::sys::memory::give_back();
        if let Err(error) = self.save_record() {
            self.index_trouble(&error);
        }
    }
}

impl scan::Surroundings for Volume {
    fn sync(&self) {
        Self::sync(self);
    }
    fn write_back(&self) {
        // What could not be written is told by the state.
        let _ = Self::write_back(self);
    }
    fn pace(&self, entries: u64) {
        self.keep_pace(entries);
    }
    fn stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
}

fn probe(config: &VolumeConfig, mount: &Mount, ino: Inode) -> Result<Layout, CollectError> {
    let kernel = |source| CollectError::Kernel {
        doing: "get a file handle",
        source,
    };
    let root = Handle::of_path(&config.path).map_err(kernel)?;
    let unknown = || io::Error::other(format!("the file handles of {} are not known", mount.filesystem));
    Layout::probe(mount.magic, &root, ino).ok_or_else(|| kernel(unknown()))
}

/// What the event queues of a volume are called in systemd's keeping: another file system, or another kind of queue, has
/// another name.
fn queue_key(name: &str, (magic, ino, birth): (u64, Inode, Seconds), who: Who) -> String {
    let who = match who {
        Who::Pid => "p",
        Who::Process => "fd",
    };
    format!("{name}.{magic:x}.{ino:x}.{:x}.{who}", birth.0)
}

fn start_collector(
    armed: Armed,
    layout: Layout,
    watched: &Arc<Watched>,
    judges: Judges,
    buffer: &Path,
    health: &Arc<Mutex<Health>>,
    name: &str,
) -> Result<Collector, CollectError> {
    let (health, name) = (Arc::clone(health), name.to_owned());
    Collector::start(armed, layout, Arc::clone(watched), judges, buffer, move |error| {
        let mut health = health.lock();
        let now = Seconds::now();
        let lost = match &error {
            CollectError::Overflow => Some(Cause::Overflow),
            CollectError::Decode(_) => Some(Cause::Collector),
            _ => None,
        };
        if let Some(cause) = lost {
            // Nobody knows what was dropped: everything counts as used now.
            health.record.add_gap(now, now, cause, 0, true);
            health.urgent = true;
            health.missed_names = true;
            tracing::error!(volume = %name, %error, "events were lost: every file counts as used now");
            return;
        }
        let words = error.to_string();
        if let CollectError::Store(error) = &error
            && error.is_damage()
        {
            health.damage.get_or_insert_with(|| words.clone());
        }
        let known = health.collector_trouble.get_or_insert_with(|| Trouble {
            words: String::new(),
            since: now,
            last: Instant::now(),
        });
        known.last = Instant::now();
        if known.words != words {
            tracing::error!(volume = %name, %error, "events cannot be recorded");
            known.words = words;
        }
    })
}
