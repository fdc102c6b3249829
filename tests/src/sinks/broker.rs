//! RabbitMQ with a directory, a node name and ports of its own.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;

use super::{end, free_port, is_open, serve};
use crate::certs::{Authority, Validity};
use crate::files;
use crate::skip::Unmet;
use crate::wait::{LONG, until};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The broker. What it has confirmed outlives [`Broker::stop`].
#[derive(Debug)]
pub struct Broker {
    port: u16,
    names_port: u16,
    node_port: u16,
    dir: TempDir,
    /// A port for TLS, if it has a certificate.
    tls_port: Option<u16>,
    child: Option<Child>,
    /// Erlang's port mapper: with one of its own, none stays behind.
    names: Child,
}

impl Broker {
    /// A broker on this port that is not running yet.
    ///
    /// # Errors
    /// When RabbitMQ is not installed.
    ///
    /// # Panics
    /// When its directory cannot be made.
    pub fn new(port: u16) -> Result<Self, Unmet> {
        if !fs::exists(SERVER).unwrap_or(false) {
            return Err(Unmet("needs rabbitmq-server".into()));
        }
        let dir = files::temp_dir();
        let names_port = free_port();
        let log = fs::File::create(dir.path().join("names.log")).expect("a log");
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &names_port.to_string()]);
        let names = serve(&mut command, log);
        Ok(Self {
            port,
            names_port,
            node_port: free_port(),
            dir,
            tls_port: None,
            child: None,
            names,
        })
    }

    /// From its next start on it listens for TLS as well, with a certificate for `localhost` that this authority vouches for.
    ///
    /// # Panics
    /// When its certificate cannot be written.
    pub fn vouched_for(&mut self, authority: &Authority) {
        let dir = self.dir.path();
        let pair = authority.vouch(dir, "broker", Validity::Long);
        let ca = authority.write(&dir.join("broker-ca.pem"));
        let port = free_port();
        let lines = [
            format!("listeners.ssl.1 = 127.0.0.1:{port}"),
            format!("ssl_options.cacertfile = {}", ca.display()),
            format!("ssl_options.certfile = {}", pair.cert.display()),
            format!("ssl_options.keyfile = {}", pair.key.display()),
            "ssl_options.verify = verify_none".into(),
            "ssl_options.fail_if_no_peer_cert = false\n".into(),
        ];
        fs::write(dir.join("broker.conf"), lines.join("\n")).expect("the broker's configuration");
        self.tls_port = Some(port);
    }

    /// Its address for TLS.
    ///
    /// # Panics
    /// When it has no certificate.
    pub fn tls_url(&self) -> String {
        let port = self.tls_port.expect("a broker with a certificate");
        format!("amqps://guest:guest@localhost:{port}/%2f")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Listens.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn start(&mut self) {
        let dir = self.dir.path();
        let log = fs::File::create(dir.join("log")).expect("a log");
        let mut command = Command::new(SERVER);
        command
            .env("HOME", dir)
            .env("RABBITMQ_NODENAME", format!("purge{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.node_port.to_string())
            .env("ERL_EPMD_PORT", self.names_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", dir.join("logs"))
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("broker.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("none.conf"));
        self.child = Some(serve(&mut command, log));
        until("RabbitMQ listens", LONG, || {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(ended.is_none(), "RabbitMQ ended: {ended:?}\n{}", self.words());
            let ports = [Some(self.port), self.tls_port];
            ports.into_iter().flatten().all(is_open).then_some(())
        });
    }

    /// Goes away.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
            // The shell that started it may end before it does.
            for _ in 0..100 {
                if !is_open(self.port) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn words(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
        end(&mut self.names);
        if std::thread::panicking() {
            eprintln!("--- RabbitMQ\n{}\n---", self.words());
        }
    }
}
