//! From a configuration to a volume that is watched.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use rustix::fs::StatVfsMountFlags;

use super::claim::Claim;
use super::claimed::Claimed;
use super::closing::Closing;
use super::coverage::Cause;
use super::health::{Health, Trouble};
use super::opening::{self, Opened, Past};
use super::presence::Presence;
use super::{Home, Keeping, Volume, VolumeError};
use crate::reboot;
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::probe::{Look, Probe};
use purge_collect::accessors::Accessors;
use purge_collect::atimes::{self, AtimeKeeping};
use purge_collect::collector::{self, Armed, CollectError, Collector, Judges};
use purge_collect::fanotify::layout::Layout;
use purge_collect::locks::Locks;
use purge_collect::mounted::Mounted;
use purge_collect::precision::{Windows, end_window_of_another};
use purge_collect::projects::Projects;
use purge_collect::trashed::Trashed;
use purge_collect::{Counters, Watched};
use purge_config::{Baseline, VolumeConfig};
use purge_index::journal::Identity;
use purge_model::{Inode, Kind, Seconds};
use purge_removal::protection::LastGuard;
use purge_removal::recover::Unfinished;
use purge_removal::trash::Trash;
use purge_scan::{Belief, Extent};
use purge_sys::failure::{Defect, Failure};
use purge_sys::fanotify::Who;
use purge_sys::handle::Handle;
use purge_sys::shared::SharedBuffer;
use purge_sys::stat::{self, Located, Mount};
use purge_sys::{bounded, filesystem};

/// Reads what an earlier process left of a volume. The kernel is not asked to watch it yet.
///
/// # Errors
/// When nothing lies at its path, or the store cannot be read or is damaged.
pub fn open(config: &VolumeConfig, home: &Home) -> Result<Opened, VolumeError> {
    let missing = |why| VolumeError::missing(config, why);
    look(config)?;
    let identity = identity(&config.path).map_err(|e| missing(format!("cannot be read: {e}")))?;
    let mut opened = opening::open(home, config, identity, clock::now())?;
    // The clock's own file was lost, and the wall clock lies behind what is recorded: nobody knows how much time has passed.
    opened.incomplete |= home.clock.at_least(Seconds(opened.record.last_alive));
    Ok(opened)
}

/// The root of a volume, and its mount.
///
/// # Errors
/// When no directory lies there. A symbolic link is not followed.
pub(super) fn look(config: &VolumeConfig) -> Result<(Located, Mount), VolumeError> {
    let missing = |why| VolumeError::missing(config, why);
    let unreadable = |e: io::Error| missing(format!("cannot be read: {e}"));
    let root = bounded::path(&config.path).map_err(unreadable)?;
    match root.stat.kind {
        Kind::Directory => {}
        Kind::Symlink => {
            let words =
                "is a symbolic link, and the volume's path is not followed: write the path that it leads to";
            return Err(missing(words.into()));
        }
        Kind::File | Kind::Special => return Err(missing("is no directory".into())),
    }
    let mount = stat::mount(&config.path).map_err(unreadable)?;
    Ok((root, mount))
}

/// How events of a volume name whoever made them.
fn who(config: &VolumeConfig) -> Who {
    match config.ignore_accessors.is_empty() {
        true => Who::Pid,
        false => Who::Process,
    }
}

/// Has the kernel watch the file system of a volume.
///
/// # Errors
/// See [`Armed::arm`].
pub(super) fn arm(config: &VolumeConfig) -> Result<Armed, CollectError> {
    Armed::arm(&config.path, who(config))
}

/// Which file system lies at a path.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    identity_by(path, filesystem::id)
}

/// The same, as far as it is told without an event of our own: the root is not opened for it.
pub(super) fn identity_at_a_glance(path: &Path) -> io::Result<Identity> {
    identity_by(path, filesystem::id_at_a_glance)
}

fn identity_by(path: &Path, id: impl Fn(&Path, u64) -> io::Result<u64>) -> io::Result<Identity> {
    let root = stat::path(path)?;
    let kind = stat::mount(path)?.magic;
    Ok(Identity {
        magic: Identity::fold(kind, id(path, kind)?),
        root: root.stat.ino,
        // The change time, which stands for it elsewhere, moves with everything that is done to the root.
        birth: match root.keeps_birth {
            true => root.stat.birth,
            false => Seconds::MIN,
        },
    })
}

/// Whether the stretch that nothing watched was a reboot by order, as far as that can be known.
fn was_a_reboot(volume: &str, ended_boot: &[u8], is_first: bool, device: stat::Device) -> bool {
    let known = match ended_boot {
        [] => Err("the agent did not end in a shutdown by order".into()),
        ended => reboot::has_begun(ended, is_first, device),
    };
    match known {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!(
                volume,
                "this is not taken for a reboot by order, and counts as a gap: {why}"
            );
            false
        }
    }
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
        let failed = |source| VolumeError::Store {
            name: name.clone(),
            source,
        };
        let (root, mount) = look(&config)?;
        if !mount.is_local() {
            stat::ask_servers();
        }
        let (of, on) = (config.clone(), mount.clone());
        let collect = |source| VolumeError::collect(&of, &on, source);
        let who = who(&config);
        let key = queue_key(&name, opened.journal.identity(), who);
        let left = Armed::take_over(handover, &key, &config.path);
        let nothing_missed = left.is_some();
        let armed = left.map_or_else(|| arm(&config), Ok).map_err(collect)?;
        armed.leave(&key);
        let armed_at = clock::now();
        let layout = probe(&config, &mount, root.stat.ino).map_err(collect)?;
        let mut watching = opened.time_between(armed_at, nothing_missed, home.clock.start.unknown);
        let state = stat::path(&home.state_dir)
            .map_err(|e| VolumeError::missing(&config, format!("has no state directory: {e}")))?;
        let state_dir = (state.device, state.stat.ino);
        let keeping = AtimeKeeping::find(&mount, root.device);
        let Opened {
            mut record,
            mut past,
            index,
            journal,
            used_unknown,
            ..
        } = opened;
        let mut closing = None;
        if past == Past::Unknown {
            (record.coverage_since, record.last_alive) = (armed_at.0, armed_at.0);
        } else {
            let vouched = config.reboots_are_ordered;
            let ended_boot = std::mem::take(&mut record.ended_boot);
            watching.ordered = vouched
                && !nothing_missed
                && was_a_reboot(&name, &ended_boot, home.clock.start.rebooted, root.device);
            let counts = record.forgive_no_more_than(config.gap_tolerance, vouched);
            let (earlier_end, unread) = (record.gap_end, record.unread);
            let missed = record.resume(watching, config.gap_tolerance);
            if missed && past == Past::Indexed && record.scanned && !watching.unknown && !unread {
                closing = Closing::of(&record, earlier_end, &record.atimes, keeping.as_ref());
                if closing.is_some()
                    && let Some(gap) = record.gaps.last_mut()
                {
                    gap.traced = true;
                }
            }
            if (missed || counts) && past == Past::Interrupted {
                past = Past::Indexed;
            }
        }
        record.atimes = keeping.map_or_else(String::new, |k| k.word().to_owned());
        // Where one of several mounts keeps no access times, whoever read there left none.
        let keeps_atime = mount.keeps_atime && !atimes::some_mount_keeps_none(root.device);
        let baseline = match (config.baseline, keeps_atime) {
            (Baseline::Atime, _) | (Baseline::Auto, true) => "atime",
            (Baseline::Mtime, _) => "mtime",
            (Baseline::Observed, _) | (Baseline::Auto, false) => "observed",
        };
        // Only what the very first scan finds has a past that nobody watched. What is found new later was made
        // unseen, or the index lost it in a crash: doubt counts as use.
        let belief = match baseline {
            _ if past == Past::Indexed => Belief::Since(armed_at),
            "atime" => Belief::Atime(armed_at),
            "mtime" => Belief::Mtime,
            _ => Belief::Since(armed_at),
        };
        let uses_projects = index.ledger().projects().keys().any(|id| *id != 0);
        let (indexed_in, id) = index.home();
        let trashed = Trashed::load(indexed_in, id).map_err(failed)?;
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
            trashed,
            projects: Projects::new(uses_projects, root.device),
            touched: Mutex::default(),
            locks: Locks::default(),
            mounted: Mounted::default(),
            index: RwLock::new(index),
            counting: Mutex::default(),
            journal,
            unlisted: Mutex::default(),
            doubtful_links: Mutex::default(),
            counters: Counters::default(),
        });
        // What a killed run had in hand is back at its place before anything is looked at.
        if let Err(error) = unfinished.end_those_of(&name, &watched) {
            tracing::error!(volume = %name, %error, "a run that was killed cannot be ended");
        }
        used_unknown.into_iter().for_each(|ino| {
            watched.trashed.note(ino);
        });
        let ended = end_window_of_another(&watched, &armed.queue, Seconds(record.window_end));
        ended.map_err(|source| {
            collect(CollectError::Kernel {
                doing: "take ignore marks away",
                source,
            })
        })?;
        let windows = Arc::new(Windows::new(
            Arc::clone(&armed.queue),
            config.precision,
            &config.path,
            armed_at,
        ));
        record.window_end = windows.end().0;
        let judges = Judges {
            accessors: Accessors::new(config.ignore_accessors.clone()),
            windows: Arc::clone(&windows),
        };
        let health = Arc::new(Mutex::new(Health::new(record)));
        let presence = Presence::watch(&config.path);
        let beside = opening::directory(&home.state_dir, &name);
        let buffer = collector::buffer(handover, &key, &beside).map_err(|source| {
            collect(CollectError::Kernel {
                doing: "make a buffer",
                source,
            })
        })?;
        let collector =
            start_collector(armed, layout, &watched, judges, buffer, &health, &name).map_err(collect)?;
        let file_system = {
            let (watched, name) = (Arc::clone(&watched), format!("the file system of volume {name}"));
            Probe::begin(name, move |how| look_at_file_system(&watched, how))
        };
        let file_system = file_system.map_err(|source| {
            collect(CollectError::Kernel {
                doing: "start a thread",
                source,
            })
        })?;
        let (scans, inbox) = mpsc::channel();
        let volume = Arc::new(Self {
            config,
            mount,
            watched,
            baseline,
            keeping: Keeping::default(),
            belief,
            closing,
            home: home.clone(),
            store: store.clone(),
            health,
            collector: RwLock::new(Some(collector)),
            windows,
            writing: Mutex::new(()),
            scans: Mutex::new(Some(scans)),
            whole_scan_waits: AtomicBool::new(false),
            scan_number: AtomicU32::new(0),
            stopping: Arc::default(),
            threads: Mutex::default(),
            presence: Mutex::new(presence),
            file_system,
            guard: LastGuard::default(),
            claim: Mutex::new(Claim::of(state_dir)),
            trash_work: Mutex::default(),
            restoring: Mutex::default(),
            claimed: Claimed::default(),
            sweeping: AtomicBool::new(false),
            checkpoint: Mutex::default(),
        });
        volume.save_record().map_err(failed)?;
        volume.other_agent();
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
}

/// Whether the file system of a volume takes changes. What lies there instead of it is told elsewhere.
fn look_at_file_system(watched: &Watched, how: Look) -> Option<Defect> {
    let trash = match how {
        Look::Thorough => Trash::open(watched).and_then(|trash| trash.map_or(Ok(()), |trash| trash.touch())),
        Look::Glance => Ok(()),
    };
    let looked = trash.and_then(|()| watched.open_root()).and_then(|root| {
        let is = rustix::fs::fstatvfs(&root)?;
        match is.f_flag.contains(StatVfsMountFlags::RDONLY) {
            true => Err(rustix::io::Errno::ROFS.into()),
            false => Ok(()),
        }
    });
    let error = looked.err()?;
    let failure = Failure::of(&error);
    let what = match failure {
        Failure::ReadOnly => "is read-only, nothing can be removed",
        Failure::Broken => "fails, or was shut down after an error",
        _ => return None,
    };
    Some(Defect {
        failure,
        words: format!("the file system at {} {what}: {error}", watched.path.display()),
    })
}

pub(super) fn probe(config: &VolumeConfig, mount: &Mount, ino: Inode) -> Result<Layout, CollectError> {
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
fn queue_key(name: &str, of: Identity, who: Who) -> String {
    let who = match who {
        Who::Pid => "p",
        Who::Process => "fd",
    };
    format!("{name}.{:x}.{:x}.{:x}.{who}", of.magic, of.root, of.birth.0)
}

fn start_collector(
    armed: Armed,
    layout: Layout,
    watched: &Arc<Watched>,
    judges: Judges,
    buffer: SharedBuffer,
    health: &Arc<Mutex<Health>>,
    name: &str,
) -> Result<Collector, CollectError> {
    let (health, name) = (Arc::clone(health), name.to_owned());
    Collector::start(armed, layout, Arc::clone(watched), judges, buffer, move |error| {
        let mut health = health.lock();
        let now = clock::now();
        let lost = match &error {
            CollectError::Overflow => Some(Cause::Overflow),
            CollectError::Backlog(_) => Some(Cause::Backlog),
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
        if let CollectError::Names { since } = error {
            // Every use was recorded, so none counts for the others: only where files lie is not known.
            health.record.add_gap(since, now, Cause::Names, u64::MAX, false);
            health.urgent = true;
            health.missed_names = true;
            tracing::warn!(volume = %name, %error, "names were not followed");
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
