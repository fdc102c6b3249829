//! One watched volume: collector, index and scan wired together, and how it is.
//!
//! Three threads: the collector reads events, the scanner walks when asked, the keeper writes the index back every
//! second. Accesses are recorded from the moment [`Volume::start`] returns, even while the first scan runs.
//!
//! - `absent`     one that cannot be watched for now
//! - `at_path`    what lies at its path: root, mount, file system
//! - `start`      from a configuration to a volume that is watched: open, arm, reconcile, spawn
//! - `reconcile`  what an earlier process left, and what is watched since
//! - `filesystem` whether its file system takes changes
//! - [`trial`]    whether it could be watched, for `check`
//! - `claim`      one agent for each volume
//! - [`claimed`]  which shares of the trash a thread works on
//! - [`coverage`] since when everything is seen, and the gaps (pure)
//! - [`unseen`]   uses in the trash that may have been missed (pure)
//! - `opening`    what an earlier process left: store, journal, checkpoint
//! - `keeper`     writing back, checkpoints, and repairing what can be repaired while the agent runs
//! - `scanning`   one scan after another
//! - `health`     what works, what does not, and what is reported of it
//! - `presence`   whether the file system is still mounted

mod absent;
mod at_path;
pub(crate) mod beside;
mod claim;
pub mod claimed;
mod closing;
pub mod coverage;
mod error;
mod filesystem;
mod health;
mod keeper;
mod opening;
mod presence;
mod reconcile;
pub mod reset;
mod scanning;
mod start;
pub mod trial;
pub mod unseen;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::absent::{Absent, found_at};
use self::at_path::identity_at_a_glance;
pub use self::coverage::Gap;
pub use self::error::VolumeError;
use self::health::Health;
pub use self::health::{Ailment, Condition, State};
pub use self::opening::Opened;
use self::presence::Presence;
pub use self::start::open;
use crate::reboot;
use crate::work::Work;
use purge_base::clock;
use purge_base::probe::{Probe, StateDir};
use purge_base::pulse::Pulse;
use purge_collect::Watched;
use purge_collect::nfsd::NfsServer;
use purge_collect::source::{Barrier, Profile, Watching};
use purge_config::VolumeConfig;
use purge_index::{Store, StoreError};
use purge_model::{Inode, Seconds};
use purge_removal::protection::{Guard, LastGuard};
use purge_scan::{Belief, Extent};
use purge_sys::failure::{Defect, Failure};
use purge_sys::stat::{self, Mount, Space};

/// A question waits so long for what was used last.
const QUESTION_WAITS: Duration = Duration::from_secs(2);
/// Whether a thread has ended is looked at so often.
const JOINED_EVERY: Duration = Duration::from_millis(5);
/// Events a second are an average over this number of seconds.
const RATE_SECONDS: usize = 10;

/// What a volume needs of the host around it.
#[derive(Debug, Clone)]
pub struct Home {
    /// The index.
    pub store: Store,
    /// Where it lies, by descriptor.
    pub state_dir: PathBuf,
    /// Whether that is there and takes changes.
    pub state: Arc<StateDir>,
    /// The agent's time.
    pub clock: Arc<clock::Keeper>,
    /// How that went on when the process started.
    pub start: clock::Start,
    /// Other volumes are watched already.
    pub is_running: bool,
    /// Directories that are not the users'.
    pub own: Vec<(stat::Device, Inode)>,
    /// The store was damaged and is a fresh one: what is not found beside it is lost, not new.
    pub is_fresh: bool,
    /// The highest number of a volume that was given out by this process: others may not be in the store yet.
    pub numbers: Arc<AtomicU32>,
}

impl Home {
    /// For a volume that is opened while the agent goes on. A reboot lies between two processes, and not here.
    #[must_use]
    pub fn while_running(&self) -> Self {
        let start = clock::Start {
            rebooted: false,
            ..self.start
        };
        Self {
            start,
            is_running: true,
            ..self.clone()
        }
    }
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
    /// Until when every use is in the store.
    pub stored_until: AtomicU32,
    /// Checkpoints written.
    pub checkpoints: AtomicU64,
    /// Bytes of the last one.
    pub checkpoint_bytes: AtomicU64,
    /// Whole scans that were finished.
    pub scans: AtomicU64,
    /// How long scans, plans and runs took, and what came of them.
    pub work: Work,
    /// Rounds of the keeper.
    pub pulse: Pulse,
    /// Files that clients of the kernel's NFS server held at the last look.
    pub nfs_held: AtomicU64,
}

/// Who works in the trash of a volume. It stays when the volume is opened again: what has begun on the one before may not have ended.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// One at a time makes the trash, a share in it, or its reserve, or changes what a run's record says of it. Runs wait for it: hold it
    /// for a moment only.
    pub trash_work: Arc<Mutex<()>>,
    /// One at a time restores.
    pub restoring: Arc<Mutex<()>>,
    /// The shares of the trash that are freed or restored from.
    pub claimed: Arc<claimed::Claimed>,
}

impl Turns {
    /// No thread restores from the trash or frees it.
    fn are_free(&self) -> bool {
        self.claimed.is_empty() && self.restoring.try_lock().is_some()
    }
}

/// One watched volume.
#[derive(Debug)]
pub struct Volume {
    /// Better ways to watch it than the one that does, and why each was refused.
    pub refused: Vec<String>,
    /// Its configuration.
    pub config: VolumeConfig,
    /// Its mount.
    pub mount: Mount,
    /// What the collector, the scans and all who ask share.
    pub watched: Arc<Watched>,
    /// What is believed about the time before observation, in the configuration's words.
    pub baseline: &'static str,
    /// Figures for the operator.
    pub keeping: Keeping,
    belief: Belief,
    /// A gap that the first scan may close.
    closing: Option<closing::Closing>,
    home: Home,
    store: Store,
    health: Arc<Mutex<Health>>,
    /// What watches it.
    source: Box<dyn Watching>,
    /// What is asked beside it.
    nfs: NfsServer,
    /// One write-back at a time.
    writing: Mutex<()>,
    scans: Mutex<Option<mpsc::Sender<Extent>>>,
    /// A scan of the whole volume is asked for and has not begun: however often it is asked for, it is made once.
    whole_scan_waits: AtomicBool,
    scan_number: AtomicU32,
    stopping: Arc<AtomicBool>,
    /// It has stopped: nothing of it is written any more.
    has_stopped: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    presence: Mutex<Presence>,
    /// Whether its file system takes changes.
    file_system: Probe,
    /// How full that is.
    room: filesystem::Room,
    guard: LastGuard,
    claim: Mutex<claim::Claim>,
    /// Who works in its trash.
    pub turns: Turns,
    /// The running scan is a slow one.
    sweeping: AtomicBool,
    /// One checkpoint at a time.
    checkpoint: Mutex<keeper::LastCheckpoint>,
}

impl Volume {
    /// Stops watching; everything that was seen is in the store afterwards. What still waits after `patience` is left to the next
    /// process with the queue, or counts as a gap.
    pub fn stop(&self, patience: Duration) {
        self.stopping.store(true, Relaxed);
        self.scans.lock().take();
        let caught_up = self.source.sync_or_give_up(patience);
        // Only now: a scan may be waiting for events as well, and waits no longer when the collector has given up.
        for thread in self.threads.lock().drain(..) {
            self.join(thread);
        }
        // What came meanwhile is read before it ends.
        self.source.end();
        self.write_back();
        match caught_up {
            true => self.told_alive(),
            false => {
                tracing::warn!(volume = %self.config.name, queued = self.queued(),
                    "the agent ends before it has read all events: unless systemd keeps the queue, this will be a gap that counts");
                self.health.lock().record.unread = true;
            }
        }
        if caught_up && self.config.reboots_are_ordered {
            self.note_reboot();
        }
        if let Err(error) = self.save_record() {
            tracing::error!(volume = %self.config.name, %error, "cannot save the volume's record");
        }
        self.take_checkpoint();
        self.give_up_claim();
        let _none_is_written = self.writing.lock();
        self.has_stopped.store(true, Relaxed);
    }

    /// Waits for a thread, but not for one that waits for a file system which does not answer: that ends with the process.
    fn join(&self, thread: JoinHandle<()>) {
        while !thread.is_finished() {
            if self.silence().is_some() {
                tracing::warn!(volume = %self.config.name, "its file system does not answer: a thread that waits for it ends with this process");
                return;
            }
            std::thread::sleep(JOINED_EVERY);
        }
        let _ = thread.join();
    }

    /// That its file system does not answer, if it is so.
    pub fn silence(&self) -> Option<Defect> {
        self.file_system
            .defect()
            .filter(|defect| defect.failure == Failure::Silent)
    }

    /// It was watched until now, and no later process goes on with its queue.
    pub fn release(&self) {
        self.source.release();
    }

    /// It is to be watched by another of its name: nothing begins on this one any more.
    pub fn leave(&self, why: &str) {
        self.health.lock().away.get_or_insert_with(|| why.to_owned());
    }

    /// No thread restores from its trash or frees it.
    pub fn is_at_rest(&self) -> bool {
        self.turns.are_free()
    }

    /// Whether the volume is about to be watched no more.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// What of the uses in the trash may have been missed since a moment; none: all were seen.
    pub fn unseen_since(&self, since: Seconds) -> Option<unseen::Unseen> {
        let unseen = self.health.lock().record.unseen_since(since)?;
        // Also of a gap that an earlier process noted: what it believed is not what the operator says now.
        let traced = unseen.traced && self.config.access_times_are_complete;
        Some(unseen::Unseen { traced, ..unseen })
    }

    /// Notes for the next process that the host is shut down by order, where it is.
    fn note_reboot(&self) {
        match reboot::is_ending(self.watched.open_root()) {
            Ok(boot) => self.health.lock().record.ended_boot = boot.to_vec(),
            Err(why) => {
                tracing::info!(volume = %self.config.name, "what follows will not be taken for a reboot by order: {why}")
            }
        }
    }

    /// Whether it was unmounted, as far as inotify has told by now.
    pub fn was_unmounted(&self) -> bool {
        self.presence.lock().was_unmounted()
    }

    /// What keeps a file that a process begins to use in the moment of its removal, asked now.
    pub fn guard(&self) -> Guard {
        match self.may_rely_on_leases() {
            true => self.or_requests(self.guard.ask(&self.config.path)),
            false => self.or_requests(Guard::Grace),
        }
    }

    /// Where there are no leases: users may come by a mount that keeps them from what is being taken.
    fn or_requests(&self, guard: Guard) -> Guard {
        let mount = || self.watched.asker.talk();
        match guard {
            Guard::Grace if self.watched.knows_own && mount().is_some_and(|mount| mount.guards()) => {
                Guard::Requests
            }
            other => other,
        }
    }

    /// Whether leases may guard its files. They do not where other hosts may use them; nor where no event tells that a user renames a file
    /// while a run takes it, and the source itself opens what was used.
    fn may_rely_on_leases(&self) -> bool {
        !self.mount.may_be_shared() && !self.watched.opens_what_is_used
    }

    /// The same, as of when it was asked last.
    pub fn last_guard(&self) -> Guard {
        match self.may_rely_on_leases() {
            true => self.or_requests(self.guard.last(&self.config.path)),
            false => self.or_requests(Guard::Grace),
        }
    }

    /// What watches it, and what that cannot see.
    pub fn profile(&self) -> Profile {
        self.source.profile()
    }

    /// Waits until every access made before this call is in the index. False if the collector is dead, or waits for a state directory that
    /// does not answer.
    pub fn sync(&self) -> bool {
        self.source.sync_while(&|| !self.home.state.is_silent())
    }

    /// Files in directories that nothing watches count as used now: before anything is judged by the index.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn use_what_is_unwatched(&self) -> Result<(), StoreError> {
        self.watched.use_what_is_unwatched().map(drop)
    }

    /// The same, however long the state directory takes.
    fn sync_patiently(&self) -> bool {
        self.source.sync_while(&|| true)
    }

    /// The same for a question, which nothing is removed by: in a storm it is answered from what was read by then. A thread that waits for
    /// a client waits no longer.
    pub fn sync_soon(&self) -> bool {
        self.source.sync_within(QUESTION_WAITS)
    }

    /// The same, though what was no use after all may be one for a second more: asked often, it makes no caller wait for that.
    /// Waits so long at most.
    pub fn barrier(&self, at_most: Duration) -> Barrier {
        self.source.barrier(at_most)
    }

    /// The agent alone changes names in this directory, and need not hear of it. Ask again now and then: windows end.
    pub fn hide_own(&self, dir: impl AsFd) {
        self.source.hide_own(dir.as_fd());
    }

    /// The agent alone uses this mount of the volume, and need not hear of it.
    ///
    /// # Errors
    /// Where the kernel cannot leave it out.
    pub fn hide_mount(&self, mount: impl AsFd) -> std::io::Result<()> {
        self.source.hide_mount(mount.as_fd())
    }

    /// How full its file system is, as of the last look; none: it is not there, or has not been looked at yet.
    pub fn space(&self) -> Option<Space> {
        *self.room.lock()
    }

    /// Accesses that wait in the kernel's queue.
    pub fn queued(&self) -> u64 {
        self.source.queued()
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
        let identity = identity_at_a_glance(&self.config.path).map_err(|e| VolumeError::Missing {
            name: name.clone(),
            path: path.clone(),
            why: e.to_string(),
        })?;
        if self.watched.journal.identity().is(identity) && found.device == self.watched.device {
            Ok(())
        } else {
            Err(self.replaced())
        }
    }

    fn replaced(&self) -> VolumeError {
        VolumeError::Replaced {
            name: self.config.name.clone(),
            path: self.config.path.display().to_string(),
        }
    }
}
