//! The agent's certificates: read at the start, read again when their files change, also on a reload. A pair that does not fit
//! leaves the running one in force.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::asn1_rs::{Tag, ToDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::roles::{Peer, Standing};
use purge_base::secret;
use purge_config::subject::Value;
use purge_config::{Subject, TlsFiles};

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
    lists: Vec<RevocationList>,
    /// What checks each client that came in under these authorities.
    trust: Arc<Trust>,
    stamps: Vec<Stamp>,
    /// Why the files that are there now are not in force.
    trouble: Option<String>,
}

/// What decides about clients that have come in.
#[derive(Debug)]
struct Trust {
    /// False once the authorities are others: all clients have to come in again.
    stands: AtomicBool,
    /// Looks at a certificate, with the lists of what is revoked that are in force.
    now: RwLock<Verifier>,
}

#[derive(Debug, Clone)]
struct Verifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Another one has another number.
    number: u64,
}

/// A list of revoked certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// Where it was read.
    pub file: PathBuf,
    /// When the next one is due, in seconds since 1970; none: it does not say.
    pub ends: Option<i64>,
}

/// A certificate that has come in is looked at again after so long: its list of revoked ones may have ended.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(30);

/// What a client has shown.
#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    trust: Arc<Trust>,
    /// With which verifier, and when, it was found good.
    good: Mutex<(u64, Instant)>,
}

impl Standing for Shown {
    fn check(&self) -> Result<(), &'static str> {
        if !self.trust.stands.load(Relaxed) {
            return Err("the authorities that clients may come from have changed; connect again");
        }
        let now = self.trust.now.read().clone();
        let (number, at) = *self.good.lock();
        if number == now.number && at.elapsed() < LOOKED_AT_EVERY {
            return Ok(());
        }
        let (own, between) = self
            .chain
            .split_first()
            .ok_or("the client has shown no certificate")?;
        let found = now.verifier.verify_client_cert(own, between, UnixTime::now());
        found.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::Revoked) => "the client's certificate has been revoked",
            rustls::Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
                "the agent has no list of revoked certificates (listen.tls.crl) of the authority that issued the client's"
            }
            rustls::Error::InvalidCertificate(
                CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. },
            ) => "the agent's list of revoked certificates (listen.tls.crl) has ended; its operator has to put a newer one there",
            _ => "the client's certificate is no longer good; connect with another",
        })?;
        *self.good.lock() = (now.number, Instant::now());
        Ok(())
    }
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
        let fresh = load(files);
        let mut loaded = self.0.lock();
        let mut fresh = fresh.inspect_err(|error| loaded.trouble = Some(error.to_string()))?;
        if fresh.authorities == loaded.authorities {
            // Those who are connected are looked at once more, with the lists of now.
            let mut now = loaded.trust.now.write();
            *now = Verifier {
                verifier: Arc::clone(&fresh.trust.now.read().verifier),
                number: now.number.saturating_add(1),
            };
            drop(now);
            fresh.trust = Arc::clone(&loaded.trust);
        } else {
            loaded.trust.stands.store(false, Relaxed);
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
            let stamps = stamps(&loaded.files);
            if stamps == loaded.stamps {
                return Ok(false);
            }
            loaded.stamps = stamps;
            loaded.files.clone()
        };
        self.replace(&files).map(|()| true)
    }

    /// Why the files that are there now are not in force, if they are not.
    pub fn trouble(&self) -> Option<String> {
        self.0.lock().trouble.clone()
    }

    /// When the agent's own certificate ends, in seconds since 1970.
    pub fn ends(&self) -> Option<i64> {
        self.0.lock().ends
    }

    /// Lists of revoked certificates, and when each ends.
    pub fn lists(&self) -> Vec<RevocationList> {
        self.0.lock().lists.clone()
    }

    /// Greets a client, which must show a certificate.
    ///
    /// # Errors
    /// When it does not, or no authority vouches for it.
    pub async fn greet(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let (config, trust, number) = {
            let loaded = self.0.lock();
            let number = loaded.trust.now.read().number;
            (Arc::clone(&loaded.config), Arc::clone(&loaded.trust), number)
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = Shown {
            chain: chain.iter().map(|c| c.clone().into_owned()).collect(),
            trust,
            good: Mutex::new((number, Instant::now())),
        };
        let peer =
            peer_of(shown).ok_or_else(|| io::Error::other("the client's certificate cannot be read"))?;
        Ok((stream, peer))
    }
}

fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
    // Before the content: what changes in between is read again.
    let stamps = stamps(files);
    let chain = certificates(&files.cert)?;
    let ends = chain.first().and_then(|own| {
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    let key = secret::open(&files.key).map_err(|source| TlsError::Read {
        path: files.key.clone(),
        source,
    })?;
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
    let (revoked, lists) = revocation_lists(files)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    // With lists, every certificate of a chain must be on none of them, and each authority must have one that has not ended: doubt is no.
    let verifier = match revoked.is_empty() {
        true => verifier,
        false => verifier.with_crls(revoked).enforce_revocation_expiration(),
    };
    let verifier = verifier.build().map_err(|e| unfit(e.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unfit(e.to_string()))?
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_single_cert(chain, key);
    let mut config = config.map_err(|e| unfit(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection shows its certificate again: none is resumed that was let in under other authorities.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded {
        files: files.clone(),
        config: Arc::new(config),
        authorities,
        ends,
        lists,
        trust: Arc::new(Trust {
            stands: AtomicBool::new(true),
            now: RwLock::new(Verifier { verifier, number: 0 }),
        }),
        stamps,
        trouble: None,
    })
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    files.all().into_iter().map(stamp).collect()
}

/// The lists in the files, and when they end.
fn revocation_lists(
    files: &TlsFiles,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Vec<RevocationList>), TlsError> {
    let (mut ders, mut lists) = (Vec::new(), Vec::new());
    for file in &files.crl {
        let wrong = |why: String| TlsError::Pem {
            path: file.clone(),
            what: "list of revoked certificates (PEM)",
            why,
        };
        let text = read(file)?;
        let before = ders.len();
        for der in CertificateRevocationListDer::pem_slice_iter(&text) {
            let der = der.map_err(|e| wrong(e.to_string()))?;
            let (_, list) = x509_parser::revocation_list::CertificateRevocationList::from_der(&der)
                .map_err(|e| wrong(e.to_string()))?;
            lists.push(RevocationList {
                file: file.clone(),
                ends: list.next_update().map(|at| at.timestamp()),
            });
            ders.push(der.clone());
        }
        if ders.len() == before {
            return Err(wrong("it has no BEGIN X509 CRL".into()));
        }
    }
    Ok((ders, lists))
}

fn stamp(path: &Path) -> Stamp {
    let m = fs::metadata(path).ok()?;
    Some((m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    // To open a pipe would wait for a process that writes to it.
    let is_file = fs::metadata(path).and_then(|is| match is.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("is no regular file")),
    });
    is_file
        .and_then(|()| fs::read(path))
        .map_err(|source| TlsError::Read {
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
        true => Err(wrong("it has no BEGIN CERTIFICATE".into())),
        false => Ok(all),
    }
}

fn peer_of(shown: Shown) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(shown.chain.first()?).ok()?;
    let value = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| match (a.attr_value().tag(), a.as_str()) {
        // A value that is no plain string is taken as it is encoded: nothing of a name is passed over.
        (Tag::Utf8String | Tag::PrintableString | Tag::Ia5String, Ok(text)) => Value::Text(text.to_owned()),
        _ => Value::Encoded(encoded(a)),
    };
    let steps = certificate.subject().iter().map(|step| {
        let attributes = step.iter().map(|a| (a.attr_type().to_id_string(), value(a)));
        attributes.collect()
    });
    Some(Peer::Certificate {
        subject: Subject::new(steps)?,
        not_after: certificate.validity().not_after.timestamp(),
        standing: Arc::new(shown),
    })
}

/// As it stands in the certificate.
fn encoded(a: &x509_parser::x509::AttributeTypeAndValue<'_>) -> Vec<u8> {
    // One that cannot be written again is still nothing that a configuration can name.
    a.attr_value().to_der_vec().unwrap_or_default()
}
