//! One host: its volumes, rules, plans, runs and holds, and what can be asked of them together.
//!
//! - `own`       what ordinary users may ask for: what is theirs
//! - `announce`  publishes what announcing rules will take; `lists`: as files for people
//! - [`forecast`] what will expire, and which limits will be reached; `growth`: what there was before
//! - [`mine`]     what will expire soon, for those whose it is
//! - `purges`    runs, and what they leave in the trash
//! - `telling`   what people are told of
//! - `triggered` what quotas and watermarks ask for

mod announce;
pub mod forecast;
mod growth;
mod lists;
pub mod mine;
mod own;
mod purges;
pub mod telling;
mod triggered;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use purge_proto::v1;
use rustc_hash::FxHashSet;

pub use self::own::Wish;
pub use self::purges::Manner;
use crate::clock;
use crate::config::{AUTO_MAX_FRACTION, Config, Limits, QuotaSubject, Rule, user_name};
use crate::handover::Handover;
use crate::index::{Store, StoreError, aside};
use crate::model::Seconds;
use crate::notify::sender::Notifier;
use crate::policy::evaluate::{Circumstances, Evaluation, evaluate};
use crate::policy::explain::{self, Subject, Verdict};
use crate::purge::audit::Audit;
use crate::purge::holds::{HoldError, Holds};
use crate::purge::plans::{Occasion, PlanError, PlanRecord, Plans};
use crate::purge::recover::Unfinished;
use crate::purge::runs::{RunError, Runs};
use crate::sys::stat;
use crate::volume::{self, Home, State, Volume, VolumeError};

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
            HoldError::Path { .. } | HoldError::Unknown(_) => Self::NotFound(e.to_string()),
            HoldError::NotTheirs { .. } => Self::Denied(e.to_string()),
            HoldError::Store(e) => Self::Store(e),
        }
    }
}

/// Which plan is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Rules by name; empty: all of the volume.
    pub rules: Vec<String>,
    /// Volume by name; empty: the rules', or the only one.
    pub volume: String,
    /// Instead of the rules' own.
    pub ttl: Option<u64>,
    /// Nobody looks at the plan before it is applied.
    pub unattended: bool,
    /// More candidates than this are refused; none: as many as there are.
    pub candidates_max: Option<u64>,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    volumes: Vec<Arc<Volume>>,
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
    /// When lists of announcing rules were published.
    published: Mutex<announce::Published>,
    /// How much there was at earlier times.
    history: growth::History,
    store: Store,
    state_dir: PathBuf,
    started: Instant,
}

/// What earlier processes left.
struct Left {
    holds: Holds,
    runs: Runs,
    plans: Plans,
    unfinished: Unfinished,
    volumes: Vec<volume::Opened>,
}

impl Left {
    fn open(
        config: &Config,
        home: &Home,
        audit: Arc<Audit>,
        notifier: &Arc<Notifier>,
    ) -> Result<Self, LeftError> {
        let store = &home.store;
        let holds = Holds::open(store.clone())?;
        let runs = Runs::new(store.clone());
        let plans = Plans::new(store.clone());
        let witnesses = Box::new(Arc::clone(notifier));
        let unfinished = Unfinished::find(&runs, plans.clone(), &config.state_dir, audit, witnesses)?;
        plans.tidy(Seconds::now())?;
        let volumes: Result<Vec<_>, VolumeError> =
            config.volumes.iter().map(|v| volume::open(v, home)).collect();
        let volumes = volumes?;
        let mut numbers = FxHashSet::default();
        if let Some(twice) = volumes.iter().find(|v| !numbers.insert(v.number())) {
            return Err(LeftError::Store(StoreError::Corrupt {
                doing: "tell volumes apart",
                why: format!("two of them have the number {}", twice.number()),
            }));
        }
        Ok(Self {
            holds,
            runs,
            plans,
            unfinished,
            volumes,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum LeftError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl LeftError {
    fn is_damage(&self) -> bool {
        match self {
            Self::Store(e) | Self::Volume(VolumeError::Store { source: e, .. }) => e.is_damage(),
            Self::Volume(_) => false,
        }
    }
}

impl Host {
    /// Opens the index and starts to watch every volume.
    ///
    /// # Errors
    /// When the index or a volume cannot be had.
    pub fn start(config: &Config, mut handover: Handover) -> anyhow::Result<Arc<Self>> {
        use anyhow::Context;
        std::fs::create_dir_all(&config.state_dir)
            .with_context(|| format!("cannot make the state directory {}", config.state_dir.display()))?;
        let own = stat::path(&config.state_dir)
            .map(|l| vec![(l.device, l.stat.ino)])
            .unwrap_or_default();
        let notifier = Notifier::open(&config.state_dir, config.notify.clone()).with_context(|| {
            format!(
                "cannot open the notices in {}",
                config.state_dir.join("notices").display()
            )
        })?;
        let (store, is_fresh) = aside::open(&config.state_dir)?;
        let mut home = Home {
            numbers: Arc::default(),
            clock: Arc::new(clock::Keeper::load(&config.state_dir.join("clock"))),
            store,
            state_dir: config.state_dir.clone(),
            own,
            is_fresh,
        };
        let audit = Arc::new(Audit::open(config.audit_log.clone())?);
        let left = match Left::open(config, &home, Arc::clone(&audit), &notifier) {
            // A damaged store is made anew; what is damaged then as well is no store's fault.
            Err(error) if error.is_damage() => {
                home.store.close();
                home.store = aside::set_aside(&config.state_dir, &error.to_string())?;
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
        let mut volumes: Vec<Arc<Volume>> = Vec::new();
        for (volume, opened) in config.volumes.iter().zip(opened) {
            match Volume::start(volume.clone(), &home, opened, &mut handover, &unfinished) {
                Ok(started) => volumes.push(started),
                Err(error) => {
                    volumes.iter().for_each(|v| v.stop());
                    return Err(error.into());
                }
            }
        }
        handover.drop_rest();
        unfinished.save(&runs)?;
        let rules = RwLock::new(config.rules.clone());
        let limits = RwLock::new(config.limits.clone());
        let host = Arc::new(Self {
            volumes,
            rules,
            limits,
            plans,
            runs,
            holds,
            notifier,
            to_tell: Mutex::default(),
            audit,
            published: Mutex::default(),
            history: growth::History::load(&config.state_dir),
            store,
            state_dir: config.state_dir.clone(),
            started: Instant::now(),
        });
        host.want_projects();
        Ok(host)
    }

    /// Why the agent must be started again, if so: an index that must be set aside, or a volume that is mounted again.
    pub fn wants_restart(&self) -> Option<String> {
        if let Some((volume, why)) = self.volumes.iter().find_map(|v| Some((v, v.damage()?))) {
            return match aside::condemn(&self.state_dir, &why) {
                Ok(()) => Some(format!("the index is damaged: {why}")),
                Err(error) => {
                    tracing::error!(volume = %volume.config.name, %error, "the damaged index cannot be set aside");
                    None
                }
            };
        }
        let back = self.volumes.iter().find(|v| v.is_back())?;
        Some(format!("volume {} is mounted again", back.config.name))
    }

    /// Ends everything; what was seen is in the store afterwards.
    pub fn stop(&self) {
        self.runs.cancel_all();
        let patience = Instant::now();
        while self.runs.any_live() && patience.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.volumes.iter().for_each(|v| v.stop());
    }

    /// The volumes.
    pub fn volumes(&self) -> &[Arc<Volume>] {
        &self.volumes
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
            self.volumes
                .iter()
                .map(|v| v.config.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if name.is_empty() {
            return match self.volumes.as_slice() {
                [only] => Ok(only),
                _ => Err(HostError::Invalid {
                    field: "volume",
                    why: format!("name one of {}", names()),
                }),
            };
        }
        let found = self.volumes.iter().find(|v| v.config.name == name);
        found
            .ok_or_else(|| HostError::NotFound(format!("there is no volume {name:?}; there are {}", names())))
    }

    /// The volume that holds a path, and the path below it.
    ///
    /// # Errors
    /// When no volume holds it.
    pub fn locate<'p>(&self, path: &'p [u8]) -> Result<(&Arc<Volume>, &'p [u8]), HostError> {
        for volume in &self.volumes {
            let root = volume.config.path.as_os_str().as_bytes();
            if let Some(rest) = path.strip_prefix(root) {
                match rest.split_first() {
                    None => return Ok((volume, rest)),
                    Some((b'/', below)) => return Ok((volume, below)),
                    Some(_) => {}
                }
            }
        }
        Err(HostError::NotFound(format!(
            "no volume holds {}; `purgectl status` names the volumes",
            lossy(path)
        )))
    }

    // ------------------------------------------------------------ plans

    /// Evaluates rules and saves the plan.
    ///
    /// # Errors
    /// When the rules are unknown or do not belong together, or the volume is in doubt.
    pub fn create_plan(&self, wanted: &Wanted) -> Result<PlanRecord, HostError> {
        let (volume, mut rules) = self.choose_rules(wanted)?;
        self.check_certain(volume)?;
        if wanted.unattended {
            for rule in &mut rules {
                rule.max_fraction.get_or_insert(AUTO_MAX_FRACTION);
            }
        }
        // Every use up to now is in the index before anything is judged.
        if !volume.sync() {
            return Err(HostError::Refused(format!(
                "volume {}: the collector is not running",
                volume.config.name
            )));
        }
        let at = self.circumstances(volume);
        let began = Instant::now();
        let (found, volume_bytes) = {
            let index = volume.watched.index.read();
            (evaluate(&index, &rules, &at)?, index.totals().bytes)
        };
        check_size(&found, wanted.candidates_max)?;
        let occasion = Occasion {
            volume: &volume.config.name,
            rules: &rules,
            now: at.now,
            seconds: began.elapsed().as_secs_f64(),
            volume_bytes,
            own_ttl: wanted.ttl.is_some() || wanted.unattended,
            owner_name: user_name,
            trigger: None,
            guard: volume.guard(),
        };
        Ok(self.plans.save(&volume.watched.index, found, &occasion)?)
    }

    fn choose_rules(&self, wanted: &Wanted) -> Result<(&Arc<Volume>, Vec<Rule>), HostError> {
        let all = self.rules();
        let mut chosen = Vec::new();
        for name in &wanted.rules {
            let rule = all.iter().find(|r| r.name == *name);
            let known: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
            let known = if known.is_empty() {
                "there are none".into()
            } else {
                format!("there are {}", known.join(", "))
            };
            chosen.push(
                rule.cloned()
                    .ok_or_else(|| HostError::NotFound(format!("there is no rule {name:?}; {known}")))?,
            );
        }
        let volume = match (chosen.first(), wanted.volume.is_empty()) {
            (Some(rule), true) => self.volume(&rule.volume)?,
            (None, true) if self.volumes.len() > 1 => {
                let mut named = all.iter().map(|r| r.volume.as_str());
                let first = named.next().filter(|f| named.all(|n| n == *f));
                self.volume(first.unwrap_or_default())?
            }
            _ => self.volume(&wanted.volume)?,
        };
        let name = &volume.config.name;
        if let Some(stray) = chosen.iter().find(|r| r.volume != *name) {
            let why = format!(
                "rule {} speaks of volume {}, not {name}: make one plan for each",
                stray.name, stray.volume
            );
            return Err(HostError::Invalid { field: "rules", why });
        }
        if wanted.rules.is_empty() {
            chosen = all.into_iter().filter(|r| r.volume == *name).collect();
        }
        match wanted.ttl {
            Some(0) => {
                let why = "is 0: everything would go; give a time such as 28d".into();
                return Err(HostError::Invalid {
                    field: "ttl_seconds",
                    why,
                });
            }
            Some(ttl) if wanted.rules.is_empty() => chosen = vec![Rule::everything_older(name, ttl)],
            Some(ttl) => chosen.iter_mut().for_each(|r| r.ttl = Some(ttl)),
            None if chosen.is_empty() => {
                let why = format!(
                    "volume {name} has no rule; write one into the configuration, or give a TTL (--ttl 28d)"
                );
                return Err(HostError::Invalid { field: "rules", why });
            }
            None => {}
        }
        Ok((volume, chosen))
    }

    /// There is no plan for what is not wholly seen.
    fn check_certain(&self, volume: &Volume) -> Result<(), HostError> {
        let name = &volume.config.name;
        volume
            .check_identity()
            .map_err(|e: VolumeError| HostError::Refused(e.to_string()))?;
        match volume.condition().state {
            State::Tracking => Ok(()),
            State::Scanning => Err(HostError::Refused(format!(
                "volume {name} is still being scanned; `purgectl status` shows how far it is"
            ))),
            State::Degraded(reason) => {
                Err(HostError::Refused(format!("volume {name} is degraded: {reason}")))
            }
        }
    }

    /// What besides index and rules decides, now.
    pub fn circumstances(&self, volume: &Volume) -> Circumstances {
        let now = Seconds::judged();
        Circumstances {
            now,
            gap_end: volume.condition().gap_end,
            held: self.holds.held(&volume.config.name),
            announced: self.announced(volume, now),
        }
    }

    // ------------------------------------------------------------ questions

    /// What the index knows of a path, and what every rule says of it.
    ///
    /// # Errors
    /// When no volume holds it or nothing lies there.
    pub fn explain(&self, path: &[u8]) -> Result<(Arc<Volume>, Subject, Vec<Verdict>), HostError> {
        let (volume, below) = self.locate(path)?;
        volume.sync();
        let unknown = |why: &str| HostError::NotFound(format!("{}: {why}", lossy(path)));
        let found =
            stat::path(Path::new(std::ffi::OsStr::from_bytes(path))).map_err(|e| unknown(&e.to_string()))?;
        let at = self.circumstances(volume);
        let index = volume.watched.index.read();
        let known = index
            .get(found.stat.ino)
            .filter(|_| found.device == volume.watched.device);
        let (attributes, access) =
            known.ok_or_else(|| unknown("is not in the index (yet); `purgectl rescan` looks again"))?;
        let subject = Subject {
            ino: found.stat.ino,
            attributes,
            access,
            path: below.to_vec(),
        };
        let rules: Vec<Rule> = self
            .rules()
            .into_iter()
            .filter(|r| r.volume == volume.config.name)
            .collect();
        let verdicts = explain::explain(&index, &rules, &at, &subject)?;
        drop(index);
        Ok((Arc::clone(volume), subject, verdicts))
    }

    /// The holds that keep an entry: on itself or on a directory above.
    pub fn holds_over(&self, path: &[u8]) -> Vec<v1::Hold> {
        let covers =
            |hold: &[u8]| path == hold || path.strip_prefix(hold).is_some_and(|r| r.first() == Some(&b'/'));
        self.holds
            .list()
            .into_iter()
            .filter(|h| covers(&h.path))
            .collect()
    }

    // ------------------------------------------------------------ schedule

    /// Makes (and with `auto_apply` applies) the plan of one rule whose time has come.
    pub fn run_scheduled(self: &Arc<Self>, rule: &Rule) {
        let wanted = Wanted {
            rules: vec![rule.name.clone()],
            volume: rule.volume.clone(),
            ttl: None,
            unattended: rule.auto_apply,
            candidates_max: None,
        };
        let done = self.create_plan(&wanted).and_then(|record| {
            let plan = record.plan.unwrap_or_default();
            tracing::info!(rule = %rule.name, plan = %plan.plan_id, candidates = ?plan.candidates, "scheduled plan");
            if rule.tells_only {
                self.to_tell.lock().insert(rule.name.clone());
            }
            if rule.auto_apply && !rule.tells_only {
                self.apply(&plan.plan_id, Manner::default(), "schedule")?;
            }
            Ok(())
        });
        if let Err(error) = done {
            tracing::error!(rule = %rule.name, %error, "the scheduled plan was not made or not applied");
            self.tell_of_failure(&rule.volume, &format!("rule {}", rule.name), &error);
        }
    }
}

/// A client may be allowed plans of some size only.
fn check_size(found: &Evaluation, max: Option<u64>) -> Result<(), HostError> {
    let (count, max) = (found.picks.len() as u64, max.unwrap_or(u64::MAX));
    if count <= max {
        return Ok(());
    }
    Err(HostError::TooMuch(format!(
        "the plan would have {count} candidates; yours may have {max} (max_plan_files): name fewer rules, or ask root"
    )))
}

/// A path for a message.
pub fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
