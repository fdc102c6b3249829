//! `[listen]`: where clients come in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::keys::Key;
use super::keys::listen::{self as key, TLS_TABLE, tls};
use super::section::{Section, Source, value};
use purge_base::accounts::{group_id, user_id};
use purge_base::secret;

/// Where clients come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The unix socket.
    pub unix: PathBuf,
    /// The socket's owner; none: root.
    pub owner: Option<u32>,
    /// The socket's group; none: root's.
    pub group: Option<u32>,
    /// Where clients with certificates come in; none: nowhere.
    pub tcp: Option<SocketAddr>,
    /// The certificates for that.
    pub tls: Option<TlsFiles>,
    /// Where `/metrics` and `/healthz` are answered; none: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The agent's certificate, and those between it and the authority that its clients trust.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities whose clients may come in.
    pub client_ca: PathBuf,
    /// Their lists of what they have revoked; none: nothing is.
    pub crl: Vec<PathBuf>,
}

impl TlsFiles {
    /// All of them.
    pub fn all(&self) -> Vec<&Path> {
        let own: [&Path; 3] = [&self.cert, &self.key, &self.client_ca];
        own.into_iter()
            .chain(self.crl.iter().map(PathBuf::as_path))
            .collect()
    }

    /// Whether only the service itself can read them.
    pub fn are_credentials(&self) -> bool {
        self.all().into_iter().any(secret::is_of_the_service_only)
    }
}

impl Listen {
    /// A unix socket and nothing else.
    pub fn at(unix: impl Into<PathBuf>) -> Self {
        Self {
            unix: unix.into(),
            owner: None,
            group: None,
            tcp: None,
            tls: None,
            metrics: None,
        }
    }
}

pub(super) fn read_listen(s: Section<'_, '_>, src: &mut Source<'_>) -> Listen {
    let unix = value(s.string(src, key::UNIX));
    let owner = read_account(&s, src, key::OWNER, ("user", user_id));
    let group = read_account(&s, src, key::GROUP, ("group", group_id));
    let tcp = read_address(&s, src, key::TCP);
    let tls = read_tls(&s, src);
    if s.has(key::TCP) && !s.has(key::TLS) {
        let mend = "add: tls = { cert = \"...\", key = \"...\", client_ca = \"...\" }";
        src.fault(
            &s.span_of(key::TCP),
            "tcp without tls: the agent could not tell who asks",
            mend,
        );
    }
    if s.has(key::TLS) && !s.has(key::TCP) {
        let mend = "add: tcp = \"0.0.0.0:7443\", or take tls out";
        src.fault(&s.span_of(key::TLS), "tls without tcp", mend);
    }
    let metrics = read_address(&s, src, key::METRICS);
    s.finish(src);
    Listen {
        unix: unix.into(),
        owner,
        group,
        tcp,
        tls,
        metrics,
    }
}

fn read_tls(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<TlsFiles> {
    let (table, span) = s.tables(src, key::TLS).into_iter().next()?;
    let s = Section::new(&TLS_TABLE, table, span);
    let credentials = secret::credentials_dir();
    let mut file = |key: &'static Key| {
        let (text, span) = s.needed(src, key)?;
        secret::file_of(&text, &credentials)
            .map_err(|(what, mend)| src.fault(&span, format!("{} {what}", key.name), mend))
            .ok()
    };
    let (cert, key, client_ca) = (file(tls::CERT), file(tls::KEY), file(tls::CLIENT_CA));
    if let Some((what, cure)) = key.as_deref().and_then(secret::exposed) {
        src.fault(&s.span_of(tls::KEY), format!("key {what}"), cure);
    }
    let mut crl = Vec::new();
    for (text, span) in s.strings(src, tls::CRL).map(|(all, _)| all).unwrap_or_default() {
        match secret::file_of(&text, &credentials) {
            Ok(file) => crl.push(file),
            Err((what, mend)) => src.fault(&span, format!("crl {what}"), mend),
        }
    }
    if crl.is_empty() && s.has(tls::CRL) {
        let mend = "add: crl = \"/etc/purge-agent/tls/crl.pem\", or take crl out";
        src.fault(&s.span_of(tls::CRL), "crl names no file", mend);
    }
    s.finish(src);
    Some(TlsFiles {
        cert: cert?,
        key: key?,
        client_ca: client_ca?,
        crl,
    })
}

fn read_account(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static Key,
    (kind, id_of): (&str, fn(&str) -> Option<u32>),
) -> Option<u32> {
    // Of a socket that names none, the owner stays who made it.
    let (name, span) = s.string(src, key).filter(|_| s.has(key))?;
    let id = id_of(&name);
    if id.is_none() {
        let mend = format!("name a {kind} of this host, or its number");
        src.fault(&span, format!("{} {name:?} is unknown", key.name), mend);
    }
    id
}

fn read_address(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<SocketAddr> {
    let (text, span) = s.string(src, key)?;
    let address = text.parse().ok();
    if address.is_none() {
        let what = format!("{} {text:?} is no address and port", key.name);
        src.fault(&span, what, format!("write such as {}", key.example));
    }
    address
}
