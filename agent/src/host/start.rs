//! Starting: the state directory, what earlier processes left in it, and the volumes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::left::Left;
use super::roster::Member;
use super::{Ground, Host, Records};
use crate::volume::{Absent, Home, Opened, Volume, VolumeError, found_at};
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::probe::StateDir;
use purge_config::Config;
use purge_index::aside;
use purge_notify::sender::Notifier;
use purge_removal::audit::Audit;
use purge_removal::run::recover::Unfinished;
use purge_sys::{private, stat, trusted};

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
        let members = watch(config, &home, left.volumes, &mut handover, &left.unfinished)?;
        handover.drop_rest();
        let is_absent = |volume: &str| {
            let mut absent = members.iter().filter(|m| matches!(m, Member::Absent(_)));
            absent.any(|m| m.name() == volume)
        };
        left.unfinished.save(&left.runs, is_absent)?;
        left.plans.settle(&left.runs)?;
        let state = Arc::clone(&home.state);
        let ground = Ground::new(config, members, (state, anchor));
        let records = Records {
            plans: left.plans,
            runs: Arc::new(left.runs),
            holds: Arc::new(left.holds),
            audit,
            notifier,
        };
        Ok(Self::wire(ground, records, &home))
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
    let clock = Arc::new(clock::Keeper::load(&anchor.join("clock")));
    Ok(Home {
        numbers: Arc::default(),
        state: begin_state(config)?,
        start: clock.start,
        clock,
        is_running: false,
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
) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut unwatchable = None;
    for (volume, opened) in config.volumes.iter().zip(opened) {
        let found = found_at(&volume.path);
        let start = |opened| Volume::start(volume.clone(), home, opened, handover, unfinished);
        match opened.and_then(start) {
            Ok(started) => members.push(Member::Watched(started)),
            // One volume's trouble is no other's.
            Err(error) if error.is_absence() || matches!(error, VolumeError::Collect { .. }) => {
                let absent = Absent::new(volume, home, found, &error).after(None);
                members.push(Member::Absent(Arc::new(absent)));
                unwatchable = Some(error).filter(|e| !e.is_absence()).or(unwatchable);
            }
            Err(error) => {
                watched(&members).for_each(|v| v.stop(Duration::ZERO));
                return Err(error.into());
            }
        }
    }
    // It is this kernel, or what the agent may do.
    match unwatchable.filter(|_| watched(&members).next().is_none()) {
        Some(error) => Err(error.into()),
        None => Ok(members),
    }
}

fn watched(members: &[Member]) -> impl Iterator<Item = &Arc<Volume>> {
    members.iter().filter_map(Member::watched)
}
