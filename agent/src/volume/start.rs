//! From a configuration to a volume that is watched.
//!
//! ```text
//!   open       what an earlier process left; the kernel is not asked to watch yet
//!   arm        from here on every use is reported, and waits
//!   reconcile  what was not watched between the two is a gap; killed runs are ended; what lies in the trash is known
//!   record     the source's thread reads what waits
//!   spawn      scanner and keeper
//! ```
//! The order is the promise. Armed before anything is looked at: what happens during a look is reported afterwards. Killed runs are
//! ended before the first event is read: what they were removing lies at its place again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::at_path::{Lies, identity};
use super::beside::directory;
use super::claim::Claim;
use super::coverage::VolumeRecord;
use super::health::Health;
use super::opening::{self, Opened};
use super::presence::Presence;
use super::reconcile::{Before, reconcile};
use super::{Home, Keeping, Turns, Volume, VolumeError, filesystem};
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::probe::Probe;
use purge_collect::altered::Altered;
use purge_collect::arming::{self, Choice};
use purge_collect::error::CollectError;
use purge_collect::fuse::asking::Asker;
use purge_collect::locks::Locks;
use purge_collect::mounted::Mounted;
use purge_collect::projects::Projects;
use purge_collect::source::{Armed, Kind, Mode, Profile, Watching};
use purge_collect::trashed::Trashed;
use purge_collect::tree::Tree;
use purge_collect::{Counters, Watched};
use purge_config::{Collector, VolumeConfig};
use purge_index::journal::Identity;
use purge_model::Seconds;
use purge_removal::protection::LastGuard;
use purge_removal::run::recover::Unfinished;
use purge_scan::Extent;
use purge_sys::stat::{self, Device, Mount};

/// Reads what an earlier process left of a volume. The kernel is not asked to watch it yet.
///
/// # Errors
/// When nothing lies at its path, or the store cannot be read or is damaged.
pub fn open(config: &VolumeConfig, home: &Home) -> Result<Opened, VolumeError> {
    let missing = |why| VolumeError::missing(config, why);
    Lies::at(config)?;
    let identity = identity(&config.path).map_err(|e| missing(format!("cannot be read: {e}")))?;
    let mut opened = opening::open(home, config, identity, clock::now())?;
    opened.incomplete |= is_time_unknown(&mut opened, home);
    Ok(opened)
}

/// The agent's time lies behind what is recorded: how much has passed is unknown.
fn is_time_unknown(opened: &mut Opened, home: &Home) -> bool {
    let recorded = Seconds(opened.record.last_alive);
    if !home.is_running {
        // The clock's own file was lost.
        return home.clock.at_least(recorded);
    }
    // It was set back while the volume was away. Files of other volumes must not become older by what is recorded here.
    let now = clock::now();
    let is_ahead = recorded > now;
    if is_ahead {
        opened.record.set_back(now.plus(1));
    }
    is_ahead
}

/// Arm: has every use reported from now on. If a later phase fails, the queue is kept for the next start where it can be.
fn arm(
    config: &VolumeConfig,
    home: &Home,
    lies: &Lies,
    of: Identity,
    handover: &mut Handover,
) -> Result<(Box<dyn Armed>, Vec<String>), VolumeError> {
    if !lies.mount.is_local() {
        stat::ask_servers();
    }
    // Another file system has another queue.
    let queue = format!("{}.{:x}.{:x}.{:x}", config.name, of.magic, of.root, of.birth.0);
    let beside = directory(&home.state_dir, &config.name);
    let asked = (choice(config), lies.wish(config, &home.own), lies.on(config));
    let (armed, refusals) = arming::arm(asked, &queue, &beside, handover)
        .map_err(|source| VolumeError::collect(config, &lies.mount, source))?;
    for refusal in &refusals {
        tracing::info!(volume = %config.name, "not watched by {refusal}");
    }
    let profile = armed.profile();
    let (collector, mode) = (profile.kind.word(), profile.mode.word());
    tracing::info!(volume = %config.name, collector, mode, "what watches the volume");
    Ok((armed, refusals.iter().map(ToString::to_string).collect()))
}

/// What the configuration allows a volume to be watched by.
pub(super) fn choice(config: &VolumeConfig) -> Choice {
    match config.collector {
        Collector::Auto => Choice::Any,
        Collector::Fanotify => Choice::Fanotify,
        Collector::Inotify => Choice::Inotify,
        Collector::Fuse => Choice::Fuse,
        Collector::Scan => Choice::Scans,
    }
}

/// What all parts of the volume share. What a killed run was removing is back at its place before anything is looked at.
fn share(
    opened: Opened,
    config: &VolumeConfig,
    home: &Home,
    (device, profile, tree): (Device, &Profile, Option<Arc<Tree>>),
    unfinished: &Unfinished,
) -> Result<(Arc<Watched>, VolumeRecord), VolumeError> {
    let index = opened.index;
    let uses_projects = index.ledger().projects().keys().any(|id| *id != 0);
    let (indexed_in, id) = index.home();
    let trashed = Trashed::load(indexed_in, id).map_err(|source| VolumeError::Store {
        name: config.name.clone(),
        source,
    })?;
    let own = home.own.iter().filter(|(on, _)| *on == device);
    let watched = Arc::new(Watched {
        path: config.path.clone(),
        device,
        own: own.map(|(_, ino)| *ino).collect(),
        trash: AtomicU64::new(0),
        reads: profile.reads,
        tree,
        opens_what_is_used: profile.mode == Mode::Descriptors,
        knows_own: profile.mode != Mode::Watches,
        is_used_for_others: profile.kind == Kind::Fuse,
        asker: match profile.kind {
            Kind::Fuse => Asker::of(&directory(&home.state_dir, &config.name)),
            _ => Asker::default(),
        },
        trashed,
        projects: Projects::new(uses_projects, device),
        touched: Mutex::default(),
        locks: Locks::default(),
        mounted: Mounted::default(),
        index: RwLock::new(index),
        counting: Mutex::default(),
        journal: opened.journal,
        unlisted: Mutex::default(),
        altered: Altered::default(),
        doubtful_links: Mutex::default(),
        counters: Counters::default(),
    });
    if let Err(error) = unfinished.end_those_of(&config.name, &watched) {
        tracing::error!(volume = %config.name, %error, "a run that was killed cannot be ended");
    }
    // Uses of what lies in the trash: it is known by now what does.
    opened.used_lately.into_iter().for_each(|ino| {
        watched.trashed.note(ino);
    });
    Ok((watched, opened.record))
}

/// A volume whose uses are recorded from now on.
struct Recording {
    watched: Arc<Watched>,
    health: Arc<Mutex<Health>>,
    presence: Presence,
    source: Box<dyn Watching>,
    file_system: Probe,
    room: filesystem::Room,
    /// Better ways to watch it, and what they said.
    refused: Vec<String>,
}

/// Begins to record. What precision windows of an earlier process hid is corrected first.
fn record(
    config: &VolumeConfig,
    watched: Arc<Watched>,
    record: VolumeRecord,
    (armed, refused): (Box<dyn Armed>, Vec<String>),
) -> Result<Recording, CollectError> {
    let window_end = Seconds(record.window_end);
    let health = Arc::new(Mutex::new(Health::new(record)));
    let presence = Presence::watch(&config.path);
    let on_error = {
        let (health, name) = (Arc::clone(&health), config.name.clone());
        Box::new(move |error| health.lock().hear(&error, &name))
    };
    let source = armed.run(&watched, window_end, on_error)?;
    if let Some(windows) = source.windows() {
        health.lock().record.window_end = windows.end().0;
    }
    let room = filesystem::Room::default();
    let file_system = filesystem::probe(&watched, &room, &config.name);
    Ok(Recording {
        refused,
        room,
        watched,
        health,
        presence,
        source,
        file_system: file_system.map_err(CollectError::kernel("start a thread"))?,
    })
}

impl Volume {
    /// Starts to watch, in phases: arm, reconcile, record, spawn. Every access after this returns is recorded.
    ///
    /// # Errors
    /// [`VolumeError`] says how to correct what is wrong.
    pub fn start(
        config: VolumeConfig,
        home: &Home,
        mut opened: Opened,
        handover: &mut Handover,
        unfinished: &Unfinished,
    ) -> Result<Arc<Self>, VolumeError> {
        let lies = Lies::at(&config)?;
        let (armed, refused) = arm(&config, home, &lies, opened.journal.identity(), handover)?;
        let state = stat::path(&home.state_dir)
            .map_err(|e| VolumeError::missing(&config, format!("has no state directory: {e}")))?;
        let turns = std::mem::take(&mut opened.turns);
        let profile = armed.profile();
        let since = (armed.since(), profile.reads);
        let before = reconcile(&mut opened, &config, &lies, since, &home.start);
        let on = (lies.root.device, &profile, armed.tree());
        let (watched, known) = share(opened, &config, home, on, unfinished)?;
        let (of, on) = (config.clone(), lies.mount.clone());
        let unwatchable = |source| VolumeError::collect(&of, &on, source);
        let recording = record(&config, watched, known, (armed, refused)).map_err(unwatchable)?;
        let (scans, inbox) = mpsc::channel();
        let claim = Claim::of((state.device, state.stat.ino));
        let volume = Self::assemble(config, home, lies.mount, (before, turns), recording, claim, scans);
        let volume = Arc::new(volume);
        volume.save_record().map_err(|source| VolumeError::Store {
            name: volume.config.name.clone(),
            source,
        })?;
        volume.other_agent();
        volume.request_scan(Extent::Volume);
        let spawned = volume.spawn(inbox).inspect_err(|_| volume.stop(Duration::ZERO));
        spawned.map_err(unwatchable)?;
        Ok(volume)
    }

    fn assemble(
        config: VolumeConfig,
        home: &Home,
        mount: Mount,
        (before, turns): (Before, Turns),
        recording: Recording,
        claim: Claim,
        scans: mpsc::Sender<Extent>,
    ) -> Self {
        let Recording {
            watched,
            health,
            presence,
            source,
            file_system,
            room,
            refused,
        } = recording;
        Self {
            refused,
            config,
            mount,
            baseline: before.baseline,
            keeping: Keeping::default(),
            belief: before.belief,
            closing: before.closing,
            home: home.clone(),
            store: home.store.clone(),
            health,
            source,
            nfs: arming::beside(&watched),
            watched,
            writing: Mutex::new(()),
            scans: Mutex::new(Some(scans)),
            whole_scan_waits: AtomicBool::new(false),
            scan_number: AtomicU32::new(0),
            stopping: Arc::default(),
            has_stopped: AtomicBool::new(false),
            threads: Mutex::default(),
            presence: Mutex::new(presence),
            file_system,
            room,
            guard: LastGuard::default(),
            claim: Mutex::new(claim),
            turns,
            sweeping: AtomicBool::new(false),
            checkpoint: Mutex::default(),
        }
    }

    /// Spawn: the scanner, which makes the first scan, and the keeper, which writes back.
    fn spawn(self: &Arc<Self>, inbox: mpsc::Receiver<Extent>) -> Result<(), CollectError> {
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
            spawned.map_err(CollectError::kernel("start a thread"))
        };
        let (scanner, keeper) = (Arc::clone(self), Arc::clone(self));
        let scanner = thread("scanner", Box::new(move || scanner.scan_when_asked(&inbox)))?;
        let keeper = thread("keeper", Box::new(move || keeper.keep()))?;
        self.threads.lock().extend([scanner, keeper]);
        Ok(())
    }
}
