//! What every part of a host stands on: its volumes, the rules and limits in force, and the state directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::HostError;
use crate::volume::{Absent, Volume};
use purge_base::probe::StateDir;
use purge_config::Config;
use purge_policy::allowance::Limits;
use purge_policy::rule::Rule;
use purge_policy::whom::QuotaSubject;

/// The volumes, what is in force on them, and where the agent keeps what it knows.
#[derive(Debug)]
pub struct Ground {
    pub(super) volumes: Vec<Arc<Volume>>,
    /// Those that cannot be watched for now.
    pub(super) absent: Vec<Absent>,
    pub(super) rules: RwLock<Vec<Rule>>,
    pub(super) limits: RwLock<Limits>,
    pub(super) state: Arc<StateDir>,
    pub(super) state_dir: PathBuf,
    /// The same by descriptor: what is written there is written into the directory that was looked at.
    pub(super) anchor: PathBuf,
}

impl Ground {
    /// The rules and limits of a configuration, on volumes that are watched already.
    pub(super) fn new(
        config: &Config,
        (volumes, absent): (Vec<Arc<Volume>>, Vec<Absent>),
        (state, anchor): (Arc<StateDir>, PathBuf),
    ) -> Arc<Self> {
        let ground = Self {
            volumes,
            absent,
            rules: RwLock::new(config.rules.clone()),
            limits: RwLock::new(config.limits.clone()),
            state,
            state_dir: config.state_dir.clone(),
            anchor,
        };
        ground.want_projects();
        Arc::new(ground)
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

    /// The state directory, for everything that is done there.
    pub fn anchor(&self) -> &Path {
        &self.anchor
    }

    /// Where the index lies.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The rules in force.
    pub fn rules(&self) -> Vec<Rule> {
        self.rules.read().clone()
    }

    /// The quotas and watermarks in force.
    pub fn limits(&self) -> Limits {
        self.limits.read().clone()
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
