//! `[listen]`: where clients come in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::section::{Section, Source};
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

pub(super) fn read_listen(mut s: Section<'_, '_>, src: &mut Source<'_>) -> Listen {
    let unix = s
        .string(src, "unix")
        .map_or_else(|| purge_proto::DEFAULT_SOCKET.to_owned(), |(path, _)| path);
    let owner = read_account(&mut s, src, "owner", ("user", user_id));
    let group = read_account(&mut s, src, "group", ("group", group_id));
    let tcp = read_address(&mut s, src, "tcp", "0.0.0.0:7443");
    let tls = read_tls(&mut s, src);
    if s.has("tcp") && !s.has("tls") {
        let mend = "add: tls = { cert = \"...\", key = \"...\", client_ca = \"...\" }";
        src.fault(
            &s.span_of("tcp"),
            "tcp without tls: nobody could tell who asks",
            mend,
        );
    }
    if s.has("tls") && !s.has("tcp") {
        let mend = "add: tcp = \"0.0.0.0:7443\", or take tls out";
        src.fault(&s.span_of("tls"), "tls without tcp", mend);
    }
    let metrics = read_address(&mut s, src, "metrics", "127.0.0.1:9469");
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

fn read_tls(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<TlsFiles> {
    let (table, span) = s.tables(src, "tls").into_iter().next()?;
    let mut s = Section::new("tls", table, span);
    let credentials = secret::credentials_dir();
    let mut file = |key: &'static str| {
        let Some((text, span)) = s.string(src, key) else {
            if !s.has(key) {
                let mend = format!("add: {key} = \"/etc/purge-agent/tls/{key}.pem\"");
                src.fault(&s.span.clone(), format!("tls has no {key}"), mend);
            }
            return None;
        };
        secret::file_of(&text, &credentials)
            .map_err(|(what, mend)| src.fault(&span, format!("{key} {what}"), mend))
            .ok()
    };
    let (cert, key, client_ca) = (file("cert"), file("key"), file("client_ca"));
    if let Some((what, cure)) = key.as_deref().and_then(secret::exposed) {
        src.fault(&s.span_of("key"), format!("key {what}"), cure);
    }
    let mut crl = Vec::new();
    for (text, span) in s.strings(src, "crl").map(|(all, _)| all).unwrap_or_default() {
        match secret::file_of(&text, &credentials) {
            Ok(file) => crl.push(file),
            Err((what, mend)) => src.fault(&span, format!("crl {what}"), mend),
        }
    }
    if crl.is_empty() && s.has("crl") {
        let mend = "add: crl = \"/etc/purge-agent/tls/crl.pem\", or take crl out";
        src.fault(&s.span_of("crl"), "crl names no file", mend);
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
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
    (kind, id_of): (&str, fn(&str) -> Option<u32>),
) -> Option<u32> {
    let (name, span) = s.string(src, key)?;
    let id = id_of(&name);
    if id.is_none() {
        let mend = format!("name a {kind} of this host, or its number");
        src.fault(&span, format!("{key} {name:?} is unknown"), mend);
    }
    id
}

fn read_address(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
    example: &str,
) -> Option<SocketAddr> {
    let (text, span) = s.string(src, key)?;
    let address = text.parse().ok();
    if address.is_none() {
        let what = format!("{key} {text:?} is no address and port");
        src.fault(&span, what, format!("write such as {example:?}"));
    }
    address
}
