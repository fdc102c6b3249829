//! Which volumes of the configuration are watched now, and which are not. One that comes back takes its place here while the agent goes on.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::volume::{Absent, Volume};
use purge_config::VolumeConfig;

/// A volume of the configuration.
#[derive(Debug, Clone)]
pub enum Member {
    /// It is watched.
    Watched(Arc<Volume>),
    /// It cannot be watched for now.
    Absent(Arc<Absent>),
}

impl Member {
    /// Its configuration.
    pub fn config(&self) -> &VolumeConfig {
        match self {
            Self::Watched(volume) => &volume.config,
            Self::Absent(absent) => &absent.config,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config().name
    }

    /// It, if it is watched.
    pub(super) fn watched(&self) -> Option<&Arc<Volume>> {
        match self {
            Self::Watched(volume) => Some(volume),
            Self::Absent(_) => None,
        }
    }

    fn absent(&self) -> Option<&Arc<Absent>> {
        match self {
            Self::Watched(_) => None,
            Self::Absent(absent) => Some(absent),
        }
    }
}

/// Every volume of the configuration, in its order.
#[derive(Debug)]
pub(super) struct Roster(RwLock<Vec<Member>>);

impl Roster {
    /// As they are after the start.
    pub fn new(members: Vec<Member>) -> Self {
        Self(RwLock::new(members))
    }

    /// All of them, at one moment.
    pub fn all(&self) -> Vec<Member> {
        self.0.read().clone()
    }

    /// Their names. None of them is held meanwhile, so a caller never frees one.
    pub fn names(&self) -> Vec<String> {
        self.0.read().iter().map(|m| m.name().to_owned()).collect()
    }

    /// One by its name.
    pub fn find(&self, name: &str) -> Option<Member> {
        self.0.read().iter().find(|m| m.name() == name).cloned()
    }

    /// Those that are watched.
    pub fn watched(&self) -> Vec<Arc<Volume>> {
        self.0
            .read()
            .iter()
            .filter_map(Member::watched)
            .cloned()
            .collect()
    }

    /// Those that are not.
    pub fn absent(&self) -> Vec<Arc<Absent>> {
        self.0.read().iter().filter_map(Member::absent).cloned().collect()
    }

    /// Puts one in the place of the one that has its name.
    pub fn put(&self, member: Member) {
        let mut all = self.0.write();
        if let Some(place) = all.iter_mut().find(|m| m.name() == member.name()) {
            *place = member;
        }
    }
}
