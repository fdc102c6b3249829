//! The configuration in force: what it says, where each value comes from, and the certificates that it named.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::tls::{Certificates, RevocationList};
use purge_config::{Config, Shown, origin};

/// The configuration in force, for those who ask.
#[derive(Debug, Default)]
pub struct InForce {
    started: Vec<Shown>,
    now: RwLock<Vec<Shown>>,
    certificates: Option<Arc<Certificates>>,
}

impl InForce {
    /// As the agent was started.
    pub fn new(config: &Config, certificates: Option<Arc<Certificates>>) -> Self {
        Self {
            certificates,
            started: config.shown.clone(),
            now: RwLock::new(config.shown.clone()),
        }
    }

    /// Every value, and where it comes from.
    pub fn shown(&self) -> Vec<Shown> {
        self.now.read().clone()
    }

    /// When the agent's certificate ends, in seconds since 1970; none: it has none.
    pub fn certificate_ends(&self) -> Option<i64> {
        self.certificates.as_ref()?.ends()
    }

    /// Why the certificates that are there now are not in force, if they are not.
    pub fn certificate_trouble(&self) -> Option<String> {
        self.certificates.as_ref()?.trouble()
    }

    /// The agent's lists of revoked certificates.
    pub fn revocation_lists(&self) -> Vec<RevocationList> {
        self.certificates.as_ref().map(|c| c.lists()).unwrap_or_default()
    }

    /// Another configuration is in force from now on.
    pub fn replace(&self, config: &Config) {
        *self.now.write() = origin::after_reload(&self.started, &config.shown);
    }
}
