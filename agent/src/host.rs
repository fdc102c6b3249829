//! One host: its volumes, rules, plans, runs and holds, and what can be asked of them together.
//!
//! - [`planner`]    plans that rules, quotas and watermarks ask for
//! - [`applier`]    runs
//! - [`trash`]      what runs leave in the trash: putting it back, freeing it
//! - [`unattended`] what begins without a request: rules whose time has come
//! - [`teller`]     what people are told
//! - [`views`]      answers that change nothing
//! - `own`         what ordinary users may ask for: what is theirs
//! - `owners`      whom the names of rules and overrides mean
//! - `left`        what earlier processes left
//! - [`place`]      where a path from a client leads

pub mod applier;
mod left;
mod own;
mod owners;
pub mod place;
pub mod planner;
pub mod teller;
pub mod trash;
pub mod unattended;
pub mod views;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub use self::applier::purges::Manner;
use self::left::Left;
pub use self::own::Wish;
pub use self::planner::plans::Wanted;
pub use self::views::questions::User;
use crate::volume::{Absent, Home, Volume, VolumeError};
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::probe::StateDir;
use purge_config::Config;
use purge_index::{Store, StoreError, aside};
use purge_notify::sender::Notifier;
use purge_policy::allowance::Limits;
use purge_policy::rule::Rule;
use purge_policy::whom::QuotaSubject;
use purge_removal::audit::Audit;
use purge_removal::holds::{HoldError, Holds};
use purge_removal::plans::{PlanError, Plans};
use purge_removal::runs::{RunError, Runs};
use purge_sys::{stat, trusted};

/// At the end, all volumes together may take so long to read what waits. The unit's TimeoutStopSec leaves three times as much for
/// that, for runs that end, for notices that are being sent, and for writing the index.
const READS_WITHIN: Duration = Duration::from_secs(20);

/// A call of the store that does not end within so long, on a disk that answers, never will.
const STORE_LOST_AFTER: Duration = Duration::from_secs(40);

/// What was asked cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A name or value in the request is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// The request's field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing of this name.
    #[error("{0}")]
    NotFound(String),
    /// A safety limit, a stale plan, or a volume in doubt.
    #[error("{0}")]
    Refused(String),
    /// The caller may not do that.
    #[error("{0}")]
    Denied(String),
    /// More than the caller may have.
    #[error("{0}")]
    TooMuch(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PlanError> for HostError {
    fn from(e: PlanError) -> Self {
        match e {
            PlanError::Unknown(_) => Self::NotFound(e.to_string()),
            PlanError::Full(_) => Self::TooMuch(e.to_string()),
            PlanError::Busy(_) => Self::Refused(e.to_string()),
            PlanError::Store(e) => Self::Store(e),
        }
    }
}

impl From<RunError> for HostError {
    fn from(e: RunError) -> Self {
        match e {
            RunError::Unknown(_) => Self::NotFound(e.to_string()),
            RunError::Busy { .. } => Self::Refused(e.to_string()),
            RunError::Store(e) => Self::Store(e),
        }
    }
}

impl From<HoldError> for HostError {
    fn from(e: HoldError) -> Self {
        match e {
            HoldError::Unknown(_) => Self::NotFound(e.to_string()),
            HoldError::NotTheirs { .. } => Self::Denied(e.to_string()),
            HoldError::Full(_) => Self::TooMuch(e.to_string()),
            HoldError::Store(e) => Self::Store(e),
        }
    }
}

/// One host.
#[derive(Debug)]
pub struct Host {
    volumes: Vec<Arc<Volume>>,
    /// Those that cannot be watched for now.
    absent: Vec<Absent>,
    rules: RwLock<Vec<Rule>>,
    limits: RwLock<Limits>,
    /// Saved plans.
    pub plans: Plans,
    /// Past and current runs.
    pub runs: Runs,
    /// Holds.
    pub holds: Holds,
    /// Notices.
    pub notifier: Arc<Notifier>,
    /// Rules that only tell, and whose time has come.
    to_tell: Mutex<BTreeSet<String>>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Patterns that were looked for.
    patterns: planner::Looked,
    /// When lists of announcing rules were published.
    published: Mutex<teller::announce::Published>,
    /// How much there was at earlier times.
    history: views::growth::History,
    /// What of the trash cannot be freed.
    stuck: trash::stuck::AllStuck,
    /// What of the trash stays longer than its grace.
    waiting: trash::waiting::Waiting,
    /// What triggered runs have freed.
    brakes: planner::freed::Brakes,
    store: Store,
    state_dir: PathBuf,
    /// The same by descriptor: what is written there is written into the directory that was looked at.
    anchor: PathBuf,
    state: Arc<StateDir>,
    /// Since when a call of the store does not end.
    silent_since: Mutex<Option<Instant>>,
    started: Instant,
    /// Rules whose time has come.
    schedules: unattended::due::Schedules,
    /// Until when their schedules were served.
    served: unattended::served::Served,
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
        let rules = RwLock::new(config.rules.clone());
        let limits = RwLock::new(config.limits.clone());
        let host = Arc::new(Self {
            volumes,
            absent,
            rules,
            limits,
            plans,
            runs,
            holds,
            notifier,
            to_tell: Mutex::default(),
            audit,
            published: Mutex::default(),
            history: views::growth::History::load(&anchor),
            stuck: trash::stuck::AllStuck::default(),
            waiting: trash::waiting::Waiting::default(),
            brakes: planner::freed::Brakes::load(&anchor),
            store,
            state_dir: config.state_dir.clone(),
            served: unattended::served::Served::load(&anchor),
            anchor,
            state: Arc::clone(&home.state),
            silent_since: Mutex::default(),
            started: Instant::now(),
            schedules: unattended::due::Schedules::default(),
            patterns: planner::Looked::default(),
        });
        host.want_projects();
        Ok(host)
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
        self.begin_nothing();
        let patience = Instant::now();
        while self.runs.any_live() && patience.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let began = Instant::now();
        for volume in &self.volumes {
            volume.stop(READS_WITHIN.saturating_sub(began.elapsed()));
        }
    }

    /// The volumes.
    pub fn volumes(&self) -> &[Arc<Volume>] {
        &self.volumes
    }

    /// Volumes of the configuration that cannot be watched for now.
    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// How the state directory is.
    pub fn state(&self) -> &StateDir {
        &self.state
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

    /// The state directory, for everything that is done there.
    pub fn anchor(&self) -> &Path {
        &self.anchor
    }

    /// Where the index lies.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// How long the agent has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes of the index on disk.
    pub fn index_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    /// The rules in force.
    pub fn rules(&self) -> Vec<Rule> {
        self.rules.read().clone()
    }

    /// Puts other rules, quotas and watermarks in force. Volumes stay as they are until a restart.
    pub fn replace_rules(&self, rules: Vec<Rule>, limits: Limits) {
        *self.rules.write() = rules;
        *self.limits.write() = limits;
        self.want_projects();
    }

    /// Quotas on projects need their ids.
    fn want_projects(&self) {
        let limits = self.limits.read();
        let wants = |v: &&Arc<Volume>| {
            let mut of_volume = limits.quotas.iter().filter(|q| q.volume == v.config.name);
            of_volume.any(|q| q.subject == QuotaSubject::Project)
        };
        for volume in self.volumes.iter().filter(wants) {
            volume.watched.projects.are_wanted();
        }
    }

    /// A volume by name; an empty name means the only one.
    ///
    /// # Errors
    /// When there is none of this name, or several and none was named.
    pub fn volume(&self, name: &str) -> Result<&Arc<Volume>, HostError> {
        let names = || {
            let there = self.volumes.iter().map(|v| v.config.name.as_str());
            let absent = self.absent.iter().map(|v| v.config.name.as_str());
            there.chain(absent).collect::<Vec<_>>().join(", ")
        };
        if name.is_empty() {
            return match self.volumes.as_slice() {
                [only] if self.absent.is_empty() => Ok(only),
                _ => Err(HostError::Invalid {
                    field: "volume",
                    why: format!("name one of {}", names()),
                }),
            };
        }
        if let Some(absent) = self.absent.iter().find(|v| v.config.name == name) {
            return Err(HostError::Refused(format!(
                "volume {name} is not watched now: {}",
                absent.words
            )));
        }
        let found = self.volumes.iter().find(|v| v.config.name == name);
        found
            .ok_or_else(|| HostError::NotFound(format!("there is no volume {name:?}; there are {}", names())))
    }
}

/// A path for a message.
pub fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// As much of a client's words, or of a path, as an error or a line of the log has room for: errors travel in the headers of an answer.
pub fn shown(words: &[u8]) -> String {
    lossy(&purge_proto::shown::cut(words, purge_proto::shown::LOGGED_MAX))
}
