//! The agent's certificates: read at the start, read again when their files change, also on a reload. A pair that does not fit
//! leaves the running one in force.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::roles::Peer;
use crate::config::{Subject, TlsFiles};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what}: {why}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// They do not fit together.
    #[error("the certificate {}, its key or the authorities do not fit: {why}", cert.display())]
    Unfit {
        /// The certificate's file.
        cert: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A file as it was: another one, or another content, has another stamp.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What is in force.
#[derive(Debug)]
struct Loaded {
    files: TlsFiles,
    config: Arc<ServerConfig>,
    authorities: Vec<CertificateDer<'static>>,
    /// When the agent's own certificate ends, in seconds since 1970.
    ends: Option<i64>,
    /// Of everybody who came in under these authorities.
    trusted: Arc<AtomicBool>,
    stamps: [Stamp; 3],
}

/// The certificates in force.
#[derive(Debug)]
pub struct Certificates(Mutex<Loaded>);

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// When they cannot be read or do not fit together.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self(Mutex::new(load(files)?)))
    }

    /// Reads them again, from these files. Connections stay, unless the authorities have changed: then their calls are refused
    /// until they connect again.
    ///
    /// # Errors
    /// When they cannot be read or do not fit together: those in force stay.
    pub fn replace(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let mut fresh = load(files)?;
        let mut loaded = self.0.lock();
        if fresh.authorities == loaded.authorities {
            fresh.trusted = Arc::clone(&loaded.trusted);
        } else {
            loaded.trusted.store(false, Relaxed);
        }
        *loaded = fresh;
        Ok(())
    }

    /// Reads them again if a file is not what it was. True: they are new.
    ///
    /// # Errors
    /// As for [`Certificates::replace`]; told once for each change.
    pub fn follow(&self) -> Result<bool, TlsError> {
        let files = {
            let mut loaded = self.0.lock();
            let stamps = loaded.files.all().map(stamp);
            if stamps == loaded.stamps {
                return Ok(false);
            }
            loaded.stamps = stamps;
            loaded.files.clone()
        };
        self.replace(&files).map(|()| true)
    }

    /// When the agent's own certificate ends, in seconds since 1970.
    pub fn ends(&self) -> Option<i64> {
        self.0.lock().ends
    }

    /// Greets a client, which must show a certificate.
    ///
    /// # Errors
    /// When it does not, or nobody vouches for it.
    pub async fn greet(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let (config, trusted) = {
            let loaded = self.0.lock();
            (Arc::clone(&loaded.config), Arc::clone(&loaded.trusted))
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
        let peer = shown
            .and_then(|der| peer_of(der, trusted))
            .ok_or_else(|| io::Error::other("the client's certificate cannot be read"))?;
        Ok((stream, peer))
    }
}

fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
    // Before the content: what changes in between is read again.
    let stamps = files.all().map(stamp);
    let chain = certificates(&files.cert)?;
    let ends = chain.first().and_then(|own| {
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    let key = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| TlsError::Pem {
        path: files.key.clone(),
        what: "private key (PEM)",
        why: e.to_string(),
    })?;
    let authorities = certificates(&files.client_ca)?;
    let unfit = |why: String| TlsError::Unfit {
        cert: files.cert.clone(),
        why,
    };
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|e| unfit(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| unfit(e.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unfit(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key);
    let mut config = config.map_err(|e| unfit(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection shows its certificate anew: none is resumed that was let in under other authorities.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded {
        files: files.clone(),
        config: Arc::new(config),
        authorities,
        ends,
        trusted: Arc::new(AtomicBool::new(true)),
        stamps,
    })
}

fn stamp(path: &Path) -> Stamp {
    let m = fs::metadata(path).ok()?;
    Some((m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate (PEM)",
        why,
    };
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|e| wrong(e.to_string()))?;
    match all.is_empty() {
        true => Err(wrong("there is none in it".into())),
        false => Ok(all),
    }
}

fn peer_of(der: &CertificateDer<'_>, trusted: Arc<AtomicBool>) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let attributes = certificate.subject().iter_attributes().filter_map(|a| {
        let kind = match x509_parser::objects::oid2abbrev(a.attr_type(), x509_parser::objects::oid_registry())
        {
            Ok(short) => short.to_ascii_uppercase(),
            Err(_) => a.attr_type().to_id_string(),
        };
        Some((kind, a.as_str().ok()?.to_owned()))
    });
    Some(Peer::Certificate {
        subject: Subject::new(attributes),
        not_after: certificate.validity().not_after.timestamp(),
        trusted,
    })
}
