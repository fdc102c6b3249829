//! Certificates: whom purgectl trusts, and what it shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::CtlError;

/// Files for an https endpoint.
#[derive(Debug, Clone, Default, Args)]
pub struct Tls {
    /// For https: the authority that vouches for the agent (PEM).
    #[arg(long, global = true, hide_short_help = true, help_heading = crate::CONNECTION, value_name = "FILE", env = "PURGECTL_CA")]
    pub ca: Option<PathBuf>,
    /// For https: the certificate to show (PEM).
    #[arg(long, global = true, hide_short_help = true, help_heading = crate::CONNECTION, value_name = "FILE", env = "PURGECTL_CERT")]
    pub cert: Option<PathBuf>,
    /// For https: its key (PEM).
    #[arg(long, global = true, hide_short_help = true, help_heading = crate::CONNECTION, value_name = "FILE", env = "PURGECTL_KEY")]
    pub key: Option<PathBuf>,
}

/// Greets agents.
#[derive(Clone)]
pub struct Greeter {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// `host:port`.
    address: String,
}

impl Tls {
    /// Reads the files, for an agent at `host:port`.
    ///
    /// # Errors
    /// When one is missing, or makes no sense.
    pub fn greeter(&self, address: &str) -> Result<Greeter, CtlError> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else {
            let missing = [("--ca", &self.ca), ("--cert", &self.cert), ("--key", &self.key)]
                .into_iter()
                .filter(|(_, file)| file.is_none())
                .map(|(name, _)| format!("{name} FILE"));
            let missing: Vec<String> = missing.collect();
            return Err(CtlError::Usage(format!("https needs {}", missing.join(" "))));
        };
        let wrong = |why: String| CtlError::Usage(format!("https: {why}"));
        let mut roots = RootCertStore::empty();
        for authority in certificates(ca)? {
            let added = roots.add(authority);
            added.map_err(|e| wrong(format!("{}: {e}", ca.display())))?;
        }
        let key_der = PrivateKeyDer::from_pem_file(key)
            .map_err(|e| wrong(format!("{} holds no key (PEM): {e}", key.display())))?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| wrong(e.to_string()))?
                .with_root_certificates(roots)
                .with_client_auth_cert(certificates(cert)?, key_der)
                .map_err(|e| {
                    wrong(format!(
                        "{} and {} do not fit: {e}",
                        cert.display(),
                        key.display()
                    ))
                })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (host, port) = address
            .rsplit_once(':')
            .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            .ok_or_else(|| {
                wrong(format!(
                    "{address:?} is no host and port; write https://host:7443"
                ))
            })?;
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| wrong(format!("{host:?} is no name of a host")))?;
        Ok(Greeter {
            connector: TlsConnector::from(Arc::new(config)),
            name,
            address: format!("{host}:{port}"),
        })
    }
}

impl Greeter {
    /// Connects and greets.
    ///
    /// # Errors
    /// When no server answers, or no trusted authority has signed its certificate.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CtlError> {
    let wrong =
        |why: String| CtlError::Usage(format!("{} holds no certificate (PEM): {why}", file.display()));
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|e| wrong(e.to_string()))?
        .collect();
    let all = all.map_err(|e| wrong(e.to_string()))?;
    match all.is_empty() {
        true => Err(wrong("it has no BEGIN CERTIFICATE".into())),
        false => Ok(all),
    }
}
