//! SIGHUP: what can change without a restart changes, and what cannot is named. A file with a fault leaves everything as it is.

pub mod answer;

use std::sync::Arc;

use crate::host::Host;
use crate::in_force::InForce;
use crate::serve::gate::Doors;
use crate::serve::incoming;
use crate::tls::Certificates;
use purge_config::{Config, Fault, Listen};

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
        for what in needs_restart(&self.started, &config) {
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
        self.host.replace_rules(config.rules, config.limits);
        self.host.notifier.replace(config.notify).await;
        tracing::info!(rules, "rules, limits, notices and access were read again");
        true
    }
}

/// What differs and stays as it is until a restart.
fn needs_restart(started: &Config, now: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let mut differs = |what: &str, does: bool| {
        if does {
            all.push(what.to_owned());
        }
    };
    differs("state_dir", started.state_dir != now.state_dir);
    differs("audit_log", started.audit_log != now.audit_log);
    differs("listen.unix", started.listen.unix != now.listen.unix);
    differs("listen.tcp", started.listen.tcp != now.listen.tcp);
    differs("listen.metrics", started.listen.metrics != now.listen.metrics);
    for volume in &started.volumes {
        let same = now.volumes.iter().find(|v| v.name == volume.name);
        differs(&format!("volume {}", volume.name), same != Some(volume));
    }
    for volume in &now.volumes {
        let is_new = !started.volumes.iter().any(|v| v.name == volume.name);
        differs(&format!("volume {} (new)", volume.name), is_new);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let config = |volume: &str| {
            Config::for_volume(volume.as_ref(), Some(60), "/state".into(), "/socket".into()).unwrap()
        };
        let (one, mut two) = (config("/export/a"), config("/export/a"));
        two.rules.clear();
        assert!(needs_restart(&one, &two).is_empty(), "rules need none");
        two.volumes[0].gap_tolerance += 1;
        two.listen.tcp = Some(([127, 0, 0, 1], 7443).into());
        assert_eq!(needs_restart(&one, &two), ["listen.tcp", "volume a"]);
        assert_eq!(
            needs_restart(&one, &config("/export/b")),
            ["volume a", "volume b (new)"]
        );
    }
}
