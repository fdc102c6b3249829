//! What earlier processes left in the state directory, opened before any volume is watched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::volume::{self, Home, VolumeError};
use purge_base::clock;
use purge_config::Config;
use purge_index::StoreError;
use purge_notify::sender::Notifier;
use purge_removal::audit::Audit;
use purge_removal::holds::Holds;
use purge_removal::plans::{Plan, Plans};
use purge_removal::run::recover::{Unfinished, Witness, Witnesses};
use purge_removal::runs::Runs;
use purge_removal::taken::Writer;

/// What earlier processes left.
pub(super) struct Left {
    pub(super) holds: Holds,
    pub(super) runs: Runs,
    pub(super) plans: Plans,
    pub(super) unfinished: Unfinished,
    /// Those that lie at their paths, and why others do not.
    pub(super) volumes: Vec<Result<volume::Opened, VolumeError>>,
}

impl Left {
    pub(super) fn open(
        config: &Config,
        home: &Home,
        audit: Arc<Audit>,
        notifier: &Arc<Notifier>,
    ) -> Result<Self, LeftError> {
        let store = &home.store;
        let roots = config.volumes.iter();
        let roots: Vec<_> = roots.map(|v| (v.name.clone(), v.path.clone())).collect();
        let holds = Holds::open(store.clone(), &roots)?;
        holds.tidy()?;
        let runs = Runs::new(store.clone());
        let plans = Plans::open(store.clone(), &runs)?;
        let witnesses = witnesses(notifier, &home.state_dir);
        let unfinished = Unfinished::find(&runs, plans.clone(), &home.state_dir, audit, witnesses)?;
        let mut volumes = Vec::new();
        for config in &config.volumes {
            match volume::open(config, home) {
                Err(error) if !error.is_absence() => return Err(error.into()),
                opened => volumes.push(opened),
            }
        }
        let mut numbers = FxHashSet::default();
        let mut there = volumes.iter().flatten();
        if let Some(twice) = there.find(|v| !numbers.insert(v.number())) {
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

/// Those who must know what was taken in a run that was killed.
pub(super) fn witnesses(notifier: &Arc<Notifier>, state_dir: &Path) -> Arc<dyn Witnesses> {
    Arc::new(Told {
        notifier: Arc::clone(notifier),
        state_dir: state_dir.to_owned(),
    })
}

/// What was taken in a run that was killed: its owners are told, and those who look for it.
#[derive(Debug)]
struct Told {
    notifier: Arc<Notifier>,
    state_dir: PathBuf,
}

impl Witnesses for Told {
    fn of_run(&self, run: &str, plan: &Plan, root: &Path) -> Witness {
        let owners = self.notifier.of_run(run, plan, root);
        let names = plan.rules.iter().map(|rule| rule.name.as_str());
        let record = Writer::create(&self.state_dir, run, names).ok();
        Box::new(move |taken| {
            owners(taken);
            if let Some(record) = &record {
                record.note(taken, clock::now());
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LeftError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl LeftError {
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Store(e) | Self::Volume(VolumeError::Store { source: e, .. }) => e.is_damage(),
            Self::Volume(_) => false,
        }
    }
}
