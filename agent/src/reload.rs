//! SIGHUP: what can change without a restart changes, and what cannot is named. A file with a fault leaves everything as it is.

pub mod answer;

use std::sync::Arc;

use crate::host::Host;
use crate::in_force::InForce;
use crate::serve::gate::Doors;
use crate::serve::incoming;
use crate::tls::Certificates;
use purge_config::{Config, Fault, Listen, origin};

/// What a reload reaches.
#[derive(Debug)]
pub struct Reload {
    /// Rules, quotas, watermarks.
    pub host: Arc<Host>,
    /// Who may ask what.
    pub doors: Arc<Doors>,
    /// Where TCP is served.
    pub certificates: Option<Arc<Certificates>>,
    /// What is told of it.
    pub in_force: Arc<InForce>,
    /// As the agent was started.
    pub started: Config,
}

impl Reload {
    /// Puts a configuration in force, as far as it goes. False: it has a fault, and everything stays as it was.
    pub async fn take(&self, read: Result<Config, Vec<Fault>>) -> bool {
        let config = match read {
            Ok(config) => config,
            Err(faults) => {
                for fault in faults {
                    tracing::error!(%fault, "the configuration has a fault: everything stays as it was");
                }
                return false;
            }
        };
        for what in origin::waiting(&self.started.shown, &config.shown) {
            tracing::warn!(
                what,
                "this change needs a restart (systemctl restart purge-agent)"
            );
        }
        self.in_force.replace(&config);
        // The socket stays where it is until a restart; who may come in changes now.
        let listen = Listen {
            unix: self.started.listen.unix.clone(),
            ..config.listen
        };
        if let Err(error) = incoming::open_to(&listen, &config.access) {
            tracing::error!(%error, "the socket keeps its owner, group and mode");
        }
        if let (Some(certificates), Some(files)) = (&self.certificates, &listen.tls) {
            match certificates.replace(files) {
                Ok(()) => tracing::info!("the certificates were read again"),
                Err(error) => {
                    tracing::error!(%error, "the new certificates cannot be used: those in force stay");
                }
            }
        }
        self.doors.replace(config.access);
        let rules = config.rules.len();
        let ground = &self.host.ground;
        ground.replace_rules(config.rules, config.limits, config.archives);
        self.host.notifier.replace(config.notify).await;
        tracing::info!(rules, "rules, limits, notices and access were read again");
        true
    }
}
