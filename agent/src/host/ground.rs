//! What every part of a host stands on: its volumes, the rules and limits in force, and the state directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::HostError;
use super::roster::{Member, Roster};
use crate::volume::{Absent, Volume};
use purge_archive::settings::Settings;
use purge_base::probe::StateDir;
use purge_config::Config;
use purge_policy::allowance::Limits;
use purge_policy::rule::Rule;
use purge_policy::whom::QuotaSubject;

/// The volumes, what is in force on them, and where the agent keeps what it knows.
#[derive(Debug)]
pub struct Ground {
    roster: Roster,
    pub(super) rules: RwLock<Vec<Rule>>,
    pub(super) limits: RwLock<Limits>,
    archives: RwLock<Vec<Settings>>,
    pub(super) state: Arc<StateDir>,
    pub(super) state_dir: PathBuf,
    /// The same by descriptor: what is written there is written into the directory that was looked at.
    pub(super) anchor: PathBuf,
}

impl Ground {
    /// The rules and limits of a configuration, on its volumes.
    pub(super) fn new(
        config: &Config,
        volumes: Vec<Member>,
        (state, anchor): (Arc<StateDir>, PathBuf),
    ) -> Arc<Self> {
        let ground = Self {
            roster: Roster::new(volumes),
            rules: RwLock::new(config.rules.clone()),
            limits: RwLock::new(config.limits.clone()),
            archives: RwLock::new(config.archives.clone()),
            state,
            state_dir: config.state_dir.clone(),
            anchor,
        };
        ground.want_projects();
        Arc::new(ground)
    }

    /// The volumes that are watched now.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.roster.watched()
    }

    /// Volumes of the configuration that cannot be watched for now.
    pub fn absent(&self) -> Vec<Arc<Absent>> {
        self.roster.absent()
    }

    /// Every volume of the configuration, in its order.
    pub fn members(&self) -> Vec<Member> {
        self.roster.all()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.roster.names()
    }

    /// A volume of the configuration, watched or not.
    pub(super) fn member(&self, name: &str) -> Option<Member> {
        self.roster.find(name)
    }

    /// A volume is watched no more.
    pub(super) fn leave(&self, absent: Absent) {
        self.roster.put(Member::Absent(Arc::new(absent)));
    }

    /// A volume is watched from now on.
    pub(super) fn enter(&self, volume: Arc<Volume>) {
        self.want_projects_of(&volume);
        self.roster.put(Member::Watched(volume));
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

    /// The stores that rules may archive to.
    pub fn archives(&self) -> Vec<Settings> {
        self.archives.read().clone()
    }

    /// Puts other rules, quotas, watermarks and archives in force. Volumes stay as they are until a restart.
    pub fn replace_rules(&self, rules: Vec<Rule>, limits: Limits, archives: Vec<Settings>) {
        *self.archives.write() = archives;
        *self.rules.write() = rules;
        *self.limits.write() = limits;
        self.want_projects();
    }

    fn want_projects(&self) {
        self.volumes().iter().for_each(|v| self.want_projects_of(v));
    }

    /// Quotas on projects need their ids.
    fn want_projects_of(&self, volume: &Volume) {
        let limits = self.limits.read();
        let mut of_volume = limits.quotas.iter().filter(|q| q.volume == volume.config.name);
        if of_volume.any(|q| q.subject == QuotaSubject::Project) {
            volume.watched.projects.are_wanted();
        }
    }

    /// A volume by name; an empty name means the only one.
    ///
    /// # Errors
    /// When there is none of this name, or several and none was named.
    pub fn volume(&self, name: &str) -> Result<Arc<Volume>, HostError> {
        let all = self.members();
        let names = || all.iter().map(Member::name).collect::<Vec<_>>().join(", ");
        if name.is_empty() {
            return match all.as_slice() {
                [only] => self.volume(only.name()),
                _ => Err(HostError::Invalid {
                    field: "volume",
                    why: format!("name one of {}", names()),
                }),
            };
        }
        match all.iter().find(|m| m.name() == name) {
            Some(Member::Watched(volume)) => Ok(Arc::clone(volume)),
            Some(Member::Absent(absent)) => Err(HostError::Refused(format!(
                "volume {name} is not watched now: {}",
                absent.words
            ))),
            None => Err(HostError::NotFound(format!(
                "there is no volume {name:?}; there are {}",
                names()
            ))),
        }
    }
}
