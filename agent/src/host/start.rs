//! Starting: the state directory, what earlier processes left in it, and the volumes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::left::Left;
use super::{Ground, Host, Records};
use crate::volume::{Absent, Home, Opened, Volume, VolumeError};
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::probe::StateDir;
use purge_config::Config;
use purge_index::aside;
use purge_notify::sender::Notifier;
use purge_removal::audit::Audit;
use purge_removal::run::recover::Unfinished;
use purge_sys::{private, stat, trusted};

/// Volumes that are watched, and those that cannot be for now.
type Started = (Vec<Arc<Volume>>, Vec<Absent>);

impl Host {
    /// Opens the index and starts to watch every volume.
    ///
    /// # Errors
    /// When the index or a volume cannot be had.
    pub fn start(config: &Config, mut handover: Handover) -> anyhow::Result<Arc<Self>> {
        let anchor = prepare(&config.state_dir)?;
        let notifier = Notifier::open(&anchor, config.notify.clone(), &mut handover).with_context(|| {
            format!(
                "cannot open the notices in {}",
                config.state_dir.join("notices").display()
            )
        })?;
        let mut home = open_home(config, &anchor)?;
        let audit = Arc::new(Audit::open(config.audit_log.clone())?);
        let left = open_left(config, &mut home, &audit, &notifier)?;
        let (volumes, absent) = watch(config, &home, left.volumes, &mut handover, &left.unfinished)?;
        handover.drop_rest();
        let is_absent = |volume: &str| absent.iter().any(|a| a.config.name == volume);
        left.unfinished.save(&left.runs, is_absent)?;
        left.plans.settle(&left.runs)?;
        let state = Arc::clone(&home.state);
        let ground = Ground::new(config, (volumes, absent), (state, anchor));
        let records = Records {
            plans: left.plans,
            runs: Arc::new(left.runs),
            holds: Arc::new(left.holds),
            audit,
            notifier,
        };
        Ok(Self::wire(ground, records, home.store.clone()))
    }
}

/// Makes the state directory root's alone. What is returned leads to it by descriptor.
fn prepare(state_dir: &Path) -> anyhow::Result<PathBuf> {
    // Before anything is changed there: what is above it leads where root wants it to.
    if let Some(above) = state_dir.parent() {
        trusted::holder(above, 0o755)
            .map_err(std::io::Error::from)
            .context("the state directory")?;
    }
    private::dir(state_dir)
        .with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
    let loose = private::tighten(state_dir).context("the state directory")?;
    if loose > 0 {
        let dir = state_dir.display();
        tracing::warn!(%dir, loose, "others could open what is in the state directory: it is root's alone now");
    }
    // Everything in it is used by name: no other user may be able to exchange it.
    trusted::directory(state_dir)
        .map_err(std::io::Error::from)
        .with_context(|| format!("the state directory {} is not root's alone", state_dir.display()))?;
    private::anchored(state_dir).context("the state directory")
}

fn begin_state(config: &Config) -> anyhow::Result<Arc<StateDir>> {
    let begun = StateDir::begin(&config.state_dir).map(Arc::new);
    begun.with_context(|| format!("the state directory {}", config.state_dir.display()))
}

/// Opens the index store.
fn open_home(config: &Config, anchor: &Path) -> anyhow::Result<Home> {
    let own = stat::path(anchor).map(|l| vec![(l.device, l.stat.ino)]);
    let (store, is_fresh) = aside::open(anchor)?;
    Ok(Home {
        numbers: Arc::default(),
        state: begin_state(config)?,
        clock: Arc::new(clock::Keeper::load(&anchor.join("clock"))),
        store,
        state_dir: anchor.to_owned(),
        own: own.unwrap_or_default(),
        is_fresh,
    })
}

/// Opens what earlier processes left. A damaged store is made again; what is damaged then as well is not the fault of a store.
fn open_left(
    config: &Config,
    home: &mut Home,
    audit: &Arc<Audit>,
    notifier: &Arc<Notifier>,
) -> anyhow::Result<Left> {
    match Left::open(config, home, Arc::clone(audit), notifier) {
        Err(error) if error.is_damage() => {
            home.store.close();
            home.store = aside::set_aside(&home.state_dir, &error.to_string())?;
            home.state = begin_state(config)?;
            home.is_fresh = true;
            Ok(Left::open(config, home, Arc::clone(audit), notifier)?)
        }
        opened => Ok(opened?),
    }
}

/// Starts to watch the volumes that are there.
fn watch(
    config: &Config,
    home: &Home,
    opened: Vec<Result<Opened, VolumeError>>,
    handover: &mut Handover,
    unfinished: &Unfinished,
) -> anyhow::Result<Started> {
    let (mut volumes, mut absent) = Started::default();
    let mut unwatchable = None;
    for (place, (volume, opened)) in config.volumes.iter().zip(opened).enumerate() {
        let start = |opened| Volume::start(volume.clone(), home, opened, handover, unfinished);
        match opened.and_then(start) {
            Ok(started) => volumes.push(started),
            // One volume's trouble is no other's.
            Err(error) if error.is_absence() || matches!(error, VolumeError::Collect { .. }) => {
                absent.push(Absent::new(volume, place, home, &error));
                unwatchable = Some(error).filter(|e| !e.is_absence()).or(unwatchable);
            }
            Err(error) => {
                volumes.iter().for_each(|v| v.stop(Duration::ZERO));
                return Err(error.into());
            }
        }
    }
    // It is this kernel, or what the agent may do.
    match unwatchable.filter(|_| volumes.is_empty()) {
        Some(error) => Err(error.into()),
        None => Ok((volumes, absent)),
    }
}
