//! One host: its volumes, rules, plans, runs and holds, and what can be asked of them together.
//!
//! - [`planner`]    plans that rules, quotas and watermarks ask for
//! - [`brakes`]     stops a watermark whose runs free too little
//! - [`applier`]    runs
//! - [`trash`]      what runs leave in the trash: putting it back, freeing it
//! - [`unattended`] what begins without a request: rules whose time has come
//! - [`teller`]     what people are told
//! - [`views`]      answers that change nothing
//! - [`ground`]     what all of these stand on
//! - `judge`       whether a volume may be judged, and under which circumstances; `announced`: what announcing rules have named
//! - `asker`       who asks for plans besides rules; `space`: how full a volume is
//! - `notices`     notices of what the agent could not do
//! - [`holder`]     makes holds
//! - `owners`      whom the names of rules and overrides mean
//! - `left`        what earlier processes left
//! - [`place`]      where a path from a client leads

mod announced;
pub mod applier;
mod asker;
pub mod brakes;
mod error;
pub mod ground;
pub mod holder;
mod judge;
mod left;
mod notices;
mod owners;
pub mod place;
pub mod planner;
mod space;
pub mod teller;
pub mod trash;
pub mod unattended;
pub mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::applier::Applier;
pub use self::applier::Manner;
use self::brakes::Brakes;
pub use self::error::{HostError, lossy, shown};
pub use self::ground::Ground;
use self::holder::Holder;
pub use self::holder::Wish;
use self::judge::Judge;
use self::left::Left;
use self::notices::Notices;
pub use self::planner::{Planner, Wanted};
use self::teller::announce::Announcer;
use self::teller::lookout::Lookout;
use self::trash::TrashKeeper;
use self::unattended::Unattended;
use self::views::forecast::Forecaster;
use self::views::questions::Questions;
pub use self::views::questions::User;
use crate::volume::{Absent, Home, Volume, VolumeError};
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::probe::StateDir;
use purge_config::Config;
use purge_index::{Store, aside};
use purge_notify::sender::Notifier;
use purge_removal::audit::Audit;
use purge_removal::holds::Holds;
use purge_removal::plans::Plans;
use purge_removal::runs::Runs;
use purge_sys::{stat, trusted};

/// At the end, all volumes together may take so long to read what waits. The unit's TimeoutStopSec leaves three times as much for
/// that, for runs that end, for notices that are being sent, and for writing the index.
const READS_WITHIN: Duration = Duration::from_secs(20);

/// A call of the store that does not end within so long, on a disk that answers, never will.
const STORE_LOST_AFTER: Duration = Duration::from_secs(40);

/// One host.
#[derive(Debug)]
pub struct Host {
    ground: Arc<Ground>,
    /// Saved plans.
    pub plans: Plans,
    /// Past and current runs.
    pub runs: Arc<Runs>,
    /// Holds.
    pub holds: Arc<Holds>,
    judge: Arc<Judge>,
    notices: Arc<Notices>,
    /// Notices.
    pub notifier: Arc<Notifier>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Applies plans.
    pub applier: Arc<Applier>,
    /// Makes plans.
    pub planner: Arc<Planner>,
    /// Publishes what announcing rules will take.
    pub announcer: Announcer,
    /// Answers what will expire, and which limits will be reached.
    pub forecaster: Forecaster,
    /// Answers what is known of paths and owners.
    pub questions: Questions,
    /// Makes holds.
    pub holder: Holder,
    /// What runs leave in the trash.
    pub trash: Arc<TrashKeeper>,
    /// What stops quotas and watermarks.
    pub brakes: Arc<Brakes>,
    store: Store,
    /// Since when a call of the store does not end.
    silent_since: Mutex<Option<Instant>>,
    started: Instant,
    /// Begins what no client asked for.
    pub unattended: Arc<Unattended>,
}

impl std::ops::Deref for Host {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Host {
    /// Opens the index and starts to watch every volume.
    ///
    /// # Errors
    /// When the index or a volume cannot be had.
    pub fn start(config: &Config, mut handover: Handover) -> anyhow::Result<Arc<Self>> {
        use anyhow::Context;
        // Before anything is changed there: what is above it leads where root wants it to.
        if let Some(above) = config.state_dir.parent() {
            trusted::holder(above, 0o755)
                .map_err(std::io::Error::from)
                .context("the state directory")?;
        }
        purge_sys::private::dir(&config.state_dir)
            .with_context(|| format!("cannot make the state directory {}", config.state_dir.display()))?;
        let loose = purge_sys::private::tighten(&config.state_dir).context("the state directory")?;
        if loose > 0 {
            let dir = config.state_dir.display();
            tracing::warn!(%dir, loose, "others could open what is in the state directory: it is root's alone now");
        }
        // Everything in it is used by name: no other user may be able to exchange it.
        trusted::directory(&config.state_dir)
            .map_err(std::io::Error::from)
            .with_context(|| {
                format!(
                    "the state directory {} is not root's alone",
                    config.state_dir.display()
                )
            })?;
        let anchor = purge_sys::private::anchored(&config.state_dir).context("the state directory")?;
        let own = stat::path(&anchor)
            .map(|l| vec![(l.device, l.stat.ino)])
            .unwrap_or_default();
        let notifier = Notifier::open(&anchor, config.notify.clone(), &mut handover).with_context(|| {
            format!(
                "cannot open the notices in {}",
                config.state_dir.join("notices").display()
            )
        })?;
        let (store, is_fresh) = aside::open(&anchor)?;
        let state_dir = || {
            let begun = StateDir::begin(&config.state_dir).map(Arc::new);
            begun.with_context(|| format!("the state directory {}", config.state_dir.display()))
        };
        let mut home = Home {
            numbers: Arc::default(),
            state: state_dir()?,
            clock: Arc::new(clock::Keeper::load(&anchor.join("clock"))),
            store,
            state_dir: anchor.clone(),
            own,
            is_fresh,
        };
        let audit = Arc::new(Audit::open(config.audit_log.clone())?);
        let left = match Left::open(config, &home, Arc::clone(&audit), &notifier) {
            // A damaged store is made again; what is damaged then as well is not the fault of a store.
            Err(error) if error.is_damage() => {
                home.store.close();
                home.store = aside::set_aside(&anchor, &error.to_string())?;
                home.state = state_dir()?;
                home.is_fresh = true;
                Left::open(config, &home, Arc::clone(&audit), &notifier)
            }
            opened => opened,
        }?;
        let store = home.store.clone();
        let Left {
            holds,
            runs,
            plans,
            unfinished,
            volumes: opened,
        } = left;
        let (mut volumes, mut absent): (Vec<Arc<Volume>>, Vec<Absent>) = Default::default();
        let mut unwatchable = None;
        for (place, (volume, opened)) in config.volumes.iter().zip(opened).enumerate() {
            let start = |opened| Volume::start(volume.clone(), &home, opened, &mut handover, &unfinished);
            match opened.and_then(start) {
                Ok(started) => volumes.push(started),
                // One volume's trouble is no other's.
                Err(error) if error.is_absence() || matches!(error, VolumeError::Collect { .. }) => {
                    absent.push(Absent::new(volume, place, &home, &error));
                    unwatchable = Some(error).filter(|e| !e.is_absence()).or(unwatchable);
                }
                Err(error) => {
                    volumes.iter().for_each(|v| v.stop(Duration::ZERO));
                    return Err(error.into());
                }
            }
        }
        // It is this kernel, or what the agent may do.
        if let Some(error) = unwatchable.filter(|_| volumes.is_empty()) {
            return Err(error.into());
        }
        handover.drop_rest();
        unfinished.save(&runs, |volume| absent.iter().any(|a| a.config.name == volume))?;
        plans.settle(&runs)?;
        let state = Arc::clone(&home.state);
        let ground = Ground::new(config, (volumes, absent), (state, anchor.clone()));
        let holds = Arc::new(holds);
        let runs = Arc::new(runs);
        let notices = Notices::new(Arc::clone(&ground), Arc::clone(&notifier));
        let records = (plans.clone(), Arc::clone(&runs));
        let brakes = Brakes::load(Arc::clone(&ground), records, Arc::clone(&notices));
        let records = (Arc::clone(&runs), Arc::clone(&audit));
        let trash = TrashKeeper::new(Arc::clone(&ground), records, Arc::clone(&brakes));
        let judge = Judge::new(Arc::clone(&ground), Arc::clone(&holds));
        let planner = Planner::new(
            (Arc::clone(&ground), Arc::clone(&judge)),
            (plans.clone(), Arc::clone(&holds)),
            (Arc::clone(&brakes), Arc::clone(&trash)),
        );
        let applier = Applier::new(
            (Arc::clone(&ground), Arc::clone(&judge), Arc::clone(&trash)),
            (plans.clone(), Arc::clone(&runs), Arc::clone(&holds)),
            (Arc::clone(&audit), Arc::clone(&notifier)),
        );
        let unattended = Unattended::load(
            (Arc::clone(&ground), Arc::clone(&judge), Arc::clone(&runs)),
            (Arc::clone(&planner), Arc::clone(&applier)),
            (Arc::clone(&trash), Arc::clone(&brakes)),
            Arc::clone(&notices),
        );
        let announcer = Announcer::new(Arc::clone(&ground), Arc::clone(&judge));
        let of_now = (Arc::clone(&ground), Arc::clone(&judge));
        let forecaster = Forecaster::load(of_now, Arc::clone(&trash));
        let of_now = (Arc::clone(&ground), Arc::clone(&judge));
        let questions = Questions::new(of_now, Arc::clone(&holds));
        let holder = Holder::new(Arc::clone(&ground), Arc::clone(&holds));
        Ok(Arc::new(Self {
            applier,
            judge,
            notices,
            ground,
            plans,
            runs,
            holds,
            notifier,
            audit,
            announcer,
            forecaster,
            questions,
            holder,
            trash,
            brakes,
            store,
            unattended,
            silent_since: Mutex::default(),
            started: Instant::now(),
            planner,
        }))
    }

    /// What looks for what people must be told.
    ///
    /// # Errors
    /// When what was told already cannot be read.
    pub fn lookout(&self) -> std::io::Result<Lookout> {
        Lookout::new(
            (
                Arc::clone(&self.ground),
                Arc::clone(&self.judge),
                Arc::clone(&self.trash),
            ),
            (self.plans.clone(), Arc::clone(&self.runs)),
            (Arc::clone(&self.notices), Arc::clone(&self.notifier)),
        )
    }

    /// Why the agent must be started again, if so: an index that must be set aside, or a volume that is mounted again.
    pub fn wants_restart(&self) -> Option<String> {
        if let Some((volume, why)) = self.volumes.iter().find_map(|v| Some((v, v.damage()?))) {
            return match aside::condemn(&self.anchor, &why) {
                Ok(()) => Some(format!("the index is damaged: {why}")),
                Err(error) => {
                    tracing::error!(volume = %volume.config.name, %error, "the damaged index cannot be set aside");
                    None
                }
            };
        }
        self.state.tell();
        if self.is_store_lost() {
            return Some("the index store does not answer, and its directory does".into());
        }
        if let Some(back) = self.volumes.iter().find(|v| v.is_back()) {
            return Some(format!("volume {} is mounted again", back.config.name));
        }
        let come = self.absent.iter().find(|v| v.is_back())?;
        Some(format!("volume {} is there now", come.config.name))
    }

    /// A call of the store does not end though nothing is wrong with its directory any more: only another process can open it.
    fn is_store_lost(&self) -> bool {
        let mut since = self.silent_since.lock();
        if !self.store.is_silent() || self.state.defect().is_some() {
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() > STORE_LOST_AFTER
    }

    /// Ends everything; what was seen is in the store afterwards.
    pub fn stop(&self) {
        self.unattended.begin_nothing();
        let patience = Instant::now();
        while self.runs.any_live() && patience.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let began = Instant::now();
        for volume in &self.volumes {
            volume.stop(READS_WITHIN.saturating_sub(began.elapsed()));
        }
    }

    /// Why what must be written at the end cannot be, if that is so; asks for so long at most.
    pub fn hindrance(&self, at_most: Duration) -> Option<String> {
        if self.store.is_silent() {
            return Some("the index store does not answer".into());
        }
        self.state.look_now(at_most).map(|defect| defect.words)
    }

    /// Opens the audit log by its name again, as after a rotation; not where it lies in a state directory that is another one.
    pub fn reopen_audit(&self) {
        if self.state.is_away() && self.audit.path().starts_with(&self.state_dir) {
            tracing::warn!(
                "the audit log lies in the state directory, which is not there: the open one is written on"
            );
            return;
        }
        self.audit.reopen();
    }

    /// How long the agent has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes of the index on disk.
    pub fn index_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }
}
