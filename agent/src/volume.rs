//! One watched volume: collector, index and scan wired together, and how it is.
//!
//! Three threads: the collector reads events, the scanner walks when asked, the keeper writes the index back every
//! second. Accesses are recorded from the moment [`Volume::start`] returns, even while the first scan runs.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use prost::Message;

use crate::collect::accessors::Accessors;
use crate::collect::collector::{Armed, CollectError, Collector, Judges};
use crate::collect::fanotify::layout::Layout;
use crate::collect::precision::{Precision, Windows, end_window_of_another};
use crate::collect::{Counters, Watched};
use crate::config::{Baseline, VolumeConfig};
use crate::handover::Handover;
use crate::index::{Batch, Index, Record, Store, StoreError, VolumeId};
use crate::model::{Inode, Seconds};
use crate::scan::{self, Belief, Extent, Progress, ScanError};
use crate::sys::fanotify::Who;
use crate::sys::handle::Handle;
use crate::sys::stat::{self, Mount};

/// How often the index is written back: what a power cut may lose.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How often the store is told that the agent is still watching; a crash makes its gap longer by this at most.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// After writing back more rows than this, what that took is given back to the system.
const ROWS_TO_TRIM: usize = 4000;
/// Gaps that are remembered.
const GAPS_MAX: usize = 100;
/// Events a second are an average over so many seconds.
const RATE_SECONDS: usize = 10;

/// A stretch that was not observed.
#[derive(Clone, PartialEq, Message)]
pub struct Gap {
    /// When observation stopped, seconds since 1970.
    #[prost(uint32, tag = "1")]
    pub from: u32,
    /// When it went on.
    #[prost(uint32, tag = "2")]
    pub to: u32,
    /// Why: stopped, overflow.
    #[prost(string, tag = "3")]
    pub cause: String,
}

/// What the store remembers of a volume.
#[derive(Clone, PartialEq, Message)]
struct VolumeRecord {
    #[prost(uint32, tag = "1")]
    id: u32,
    /// Identity of the file system: its type and its root's inode and birth.
    #[prost(uint64, tag = "2")]
    magic: u64,
    #[prost(uint64, tag = "3")]
    root_ino: u64,
    #[prost(uint32, tag = "4")]
    root_birth: u32,
    #[prost(uint32, tag = "5")]
    coverage_since: u32,
    #[prost(uint32, tag = "6")]
    last_alive: u32,
    /// End of the last gap that counts as a use of every file; 0: none.
    #[prost(uint32, tag = "7")]
    gap_end: u32,
    #[prost(message, repeated, tag = "8")]
    gaps: Vec<Gap>,
    /// A scan has seen the whole volume.
    #[prost(bool, tag = "9")]
    scanned: bool,
    /// End of the last precision window: what the clocks of files say whose further uses were hidden.
    #[prost(uint32, tag = "10")]
    window_end: u32,
}

/// What an earlier process left of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// Nothing: the first scan begins now.
    Unknown,
    /// Part of a first scan that was interrupted a moment ago: it begins again, and believes what it would have.
    Interrupted,
    /// An index. What is not in it was made unseen.
    Indexed,
}

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
    collector_trouble: Option<String>,
    index_trouble: Option<String>,
    scan_trouble: Option<String>,
    rates: VecDeque<u64>,
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
    belief: Belief,
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

impl Volume {
    /// Starts to watch. Every access after this returns is recorded.
    ///
    /// # Errors
    /// [`VolumeError`] says how to mend what is wrong.
    pub fn start(
        config: VolumeConfig,
        store: &Store,
        own: Vec<Inode>,
        handover: &mut Handover,
    ) -> Result<Arc<Self>, VolumeError> {
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
        let (mut record, past) = open_record(store, &config, identity, armed_at, nothing_missed)?;
        let id = VolumeId(u16::try_from(record.id).unwrap_or(u16::MAX));
        let index = match past {
            Past::Indexed | Past::Interrupted => Index::load(store.clone(), id).map_err(failed)?,
            Past::Unknown => {
                store.clear_volume(id).map_err(failed)?;
                Index::new(store.clone(), id)
            }
        };
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
        let watched = Arc::new(Watched {
            path: config.path.clone(),
            device: root.device,
            own,
            index: RwLock::new(index),
            unlisted: Mutex::default(),
            counters: Counters::default(),
        });
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
            rates: VecDeque::new(),
        }));
        let collector = start_collector(armed, layout, &watched, judges, &health, &name).map_err(collect)?;
        let (scans, inbox) = mpsc::channel();
        let volume = Arc::new(Self {
            config,
            mount,
            watched,
            baseline,
            belief,
            store: store.clone(),
            health,
            collector: RwLock::new(Some(collector)),
            windows,
            writing: Mutex::new(()),
            scans: Mutex::new(Some(scans)),
            scan_number: AtomicU32::new(0),
            stopping: Arc::default(),
            threads: Mutex::default(),
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
        self.health.lock().record.last_alive = Seconds::now().0;
        if let Err(error) = self.save_record() {
            tracing::error!(volume = %self.config.name, %error, "cannot save the volume's record");
        }
    }

    /// Waits until every access made before this call is in the index. False if the collector is dead.
    pub fn sync(&self) -> bool {
        self.collector.read().as_ref().is_some_and(Collector::sync)
    }

    /// Asks for a scan in the background.
    pub fn request_scan(&self, extent: Extent) {
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

    /// How it is.
    pub fn condition(&self) -> Condition {
        let health = self.health.lock();
        let trouble = [
            &health.collector_trouble,
            &health.index_trouble,
            &health.scan_trouble,
        ];
        let state = match trouble.into_iter().flatten().next() {
            Some(reason) => State::Degraded(reason.clone()),
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
            gap_end: Some(Seconds(health.record.gap_end)).filter(|g| g.0 > 0),
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

    fn save_record(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let record = self.health.lock().record.encode_to_vec();
        batch.put(Record::Volume, self.config.name.as_bytes(), &record);
        self.store.apply(batch)?;
        self.store.flush()
    }

    // ------------------------------------------------------------ keeper

    fn keep(&self) {
        let mut told_alive = Instant::now();
        while !self.stopping.load(Relaxed) {
            std::thread::sleep(FLUSH_EVERY);
            // A first scan fills the same pages again and again, and if it is interrupted it begins anew: until it is
            // over, only memory asks for writing back (see `scan::Surroundings`).
            let is_first = !self.health.lock().record.scanned;
            if !is_first {
                self.write_back();
                self.tend_windows();
            }
            {
                let mut health = self.health.lock();
                health.rates.push_back(self.watched.counters.events.load(Relaxed));
                if health.rates.len() > RATE_SECONDS + 1 {
                    health.rates.pop_front();
                }
            }
            if told_alive.elapsed() >= ALIVE_EVERY {
                told_alive = Instant::now();
                self.health.lock().record.last_alive = Seconds::now().0;
                if let Err(error) = self.save_record() {
                    self.index_trouble(&error);
                }
            }
            let trees = std::mem::take(&mut *self.watched.unlisted.lock());
            if !trees.is_empty() {
                self.request_scan(Extent::Trees(trees));
            }
        }
    }

    /// Begins a new precision window when the old one is over, and hides the further uses of files that are hot.
    fn tend_windows(&self) {
        let tended = self.windows.roll(&self.watched).and_then(|is_new| {
            if is_new {
                self.health.lock().record.window_end = self.windows.end().0;
                if let Err(error) = self.save_record() {
                    self.index_trouble(&error);
                    return Ok(());
                }
            }
            self.windows.mark_hot(&self.watched, || self.write_back())
        });
        if let Err(error) = tended {
            tracing::warn!(volume = %self.config.name, %error, "the precision window cannot be kept");
        }
    }

    /// Writes what changed to the store. False if it could not be written.
    fn write_back(&self) -> bool {
        let _one = self.writing.lock();
        let write_back = self.watched.index.write().start_write_back();
        let rows = write_back.len();
        let result = match write_back.is_empty() {
            true => Ok(()),
            false => write_back.commit(),
        };
        if rows > ROWS_TO_TRIM {
            crate::sys::memory::give_back();
        }
        self.watched.index.write().written_back(result.is_ok());
        match &result {
            Err(error) => self.index_trouble(error),
            Ok(()) => self.health.lock().index_trouble = None,
        }
        result.is_ok()
    }

    fn index_trouble(&self, error: &StoreError) {
        let mut health = self.health.lock();
        let words = format!("the index cannot be written: {error}; free space for the state directory");
        if health.index_trouble.as_ref() != Some(&words) {
            tracing::error!(volume = %self.config.name, %error, "the index cannot be written");
            health.index_trouble = Some(words);
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
                health.scan = None;
            }
            match result {
                Ok(outcome) if *extent == Extent::Volume => {
                    health.whole = true;
                    health.record.scanned = true;
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

/// What is known of the volume, and whether the index already holds it.
fn open_record(
    store: &Store,
    config: &VolumeConfig,
    (magic, root_ino, root_birth): (u64, Inode, Seconds),
    now: Seconds,
    nothing_missed: bool,
) -> Result<(VolumeRecord, Past), VolumeError> {
    let failed = |source| VolumeError::Store {
        name: config.name.clone(),
        source,
    };
    let mut highest = 0;
    for record in store.records(Record::Volume, b"") {
        let (_, value) = record.map_err(failed)?;
        highest = VolumeRecord::decode(&*value).map_or(highest, |r| r.id.max(highest));
    }
    let stored = store
        .get(Record::Volume, config.name.as_bytes())
        .map_err(failed)?;
    let stored = stored.and_then(|value| VolumeRecord::decode(&*value).ok());
    let Some(mut record) = stored else {
        let fresh = VolumeRecord {
            id: highest + 1,
            magic,
            root_ino,
            root_birth: root_birth.0,
            coverage_since: now.0,
            last_alive: now.0,
            ..VolumeRecord::default()
        };
        return Ok((fresh, Past::Unknown));
    };
    if (record.magic, record.root_ino, record.root_birth) != (magic, root_ino, root_birth.0) {
        return Err(VolumeError::Replaced {
            name: config.name.clone(),
            path: config.path.display().to_string(),
        });
    }
    // Until the first scan has met a file, its uses are only remembered, not stored: if that scan was interrupted, they
    // are lost since it began, and that is a gap like any other.
    let seen_until = if record.scanned {
        record.last_alive
    } else {
        record.coverage_since
    };
    // The kernel went on queueing for this process. But uses that a first scan remembered are in no queue.
    let unseen = match nothing_missed && record.scanned {
        true => 0,
        false => Seconds(seen_until).age_at(now),
    };
    let past = match record.scanned || unseen > config.gap_tolerance {
        true => Past::Indexed,
        false => Past::Interrupted,
    };
    if unseen > 0 {
        record.gaps.push(Gap {
            from: seen_until,
            to: now.0,
            cause: "stopped".into(),
        });
        let excess = record.gaps.len().saturating_sub(GAPS_MAX);
        record.gaps.drain(..excess);
    }
    if unseen > config.gap_tolerance {
        record.gap_end = now.0;
    }
    record.last_alive = now.0;
    Ok((record, past))
}

fn start_collector(
    armed: Armed,
    layout: Layout,
    watched: &Arc<Watched>,
    judges: Judges,
    health: &Arc<Mutex<Health>>,
    name: &str,
) -> Result<Collector, CollectError> {
    let (health, name) = (Arc::clone(health), name.to_owned());
    Collector::start(armed, layout, Arc::clone(watched), judges, move |error| {
        let mut health = health.lock();
        if matches!(error, CollectError::Overflow) {
            // Nobody knows what was dropped: everything counts as used now.
            let now = Seconds::now().0;
            health.record.gap_end = now;
            health.record.gaps.push(Gap {
                from: now,
                to: now,
                cause: "overflow".into(),
            });
            tracing::error!(volume = %name, "events were lost: every file counts as used now");
            return;
        }
        let words = error.to_string();
        if health.collector_trouble.as_ref() != Some(&words) {
            tracing::error!(volume = %name, %error, "events cannot be recorded");
            health.collector_trouble = Some(words);
        }
    })
}
