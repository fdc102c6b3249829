//! Certificates of an authority of the test's own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use purgectl::tls::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::cable::HERE;
use crate::files;

/// An authority that signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Pair {
    /// PEM.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// How long a certificate lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For years to come.
    Long,
    /// It has ended.
    Over,
}

impl Authority {
    /// Another one.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer }
    }

    /// Its own certificate, as a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, file: &Path) -> PathBuf {
        std::fs::write(file, self.issuer.pem()).expect("writing a certificate");
        file.to_owned()
    }

    /// Vouches for `CN=name,O=Example` on the loopback and on a cable; the files are called `name` in `dir`.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn vouch(&self, dir: &Path, name: &str, validity: Validity) -> Pair {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        subject.push(DnType::OrganizationName, "Example");
        self.vouch_for(dir, (name, subject), serial_of(name), validity)
    }

    /// Vouches for `CN=common,O=Example`; the files are called `name`.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn vouch_as(&self, dir: &Path, name: &str, common: &str) -> Pair {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, common);
        subject.push(DnType::OrganizationName, "Example");
        self.vouch_for(dir, (name, subject), serial_of(name), Validity::Long)
    }

    /// Vouches for `CN=first,CN=second` and nothing else; the files are called `name`.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn vouch_for_two(&self, dir: &Path, name: &str, [first, second]: [&str; 2]) -> Pair {
        let mut subject = DistinguishedName::new();
        // rcgen takes one name of each type. Written as a number, the type is another one to rcgen, and the same to all other programs.
        subject.push(DnType::CommonName, first);
        subject.push(DnType::CustomDnType(vec![2, 5, 4, 3]), second);
        self.vouch_for(dir, (name, subject), serial_of(name), Validity::Long)
    }

    /// Writes a list that revokes what it vouched for under these names, good for years or over for years.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_list(&self, file: &Path, revoked: &[&str], validity: Validity) -> PathBuf {
        let of = |name: &&str| RevokedCertParams {
            serial_number: serial_of(name),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: match validity {
                Validity::Long => date_time_ymd(2090, 1, 1),
                Validity::Over => date_time_ymd(2021, 1, 1),
            },
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(of).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        let beside = file.with_extension("new");
        std::fs::write(&beside, list.pem().expect("PEM")).expect("writing a list");
        std::fs::rename(&beside, file).expect("putting a list in its place");
        file.to_owned()
    }

    fn vouch_for(
        &self,
        dir: &Path,
        (name, subject): (&str, DistinguishedName),
        serial: SerialNumber,
        validity: Validity,
    ) -> Pair {
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), HERE.to_owned()];
        let mut params = CertificateParams::new(hosts).expect("names of hosts");
        params.distinguished_name = subject;
        params.serial_number = Some(serial);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match validity {
            Validity::Long => date_time_ymd(2090, 1, 1),
            Validity::Over => date_time_ymd(2021, 1, 1),
        };
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair {
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        std::fs::write(&pair.cert, cert.pem()).expect("writing a certificate");
        files::write_secret(&pair.key, &key.serialize_pem());
        pair
    }
}

/// Certificates of one name have one number.
fn serial_of(name: &str) -> SerialNumber {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&name.as_bytes()[..name.len().min(15)]);
    SerialNumber::from(bytes)
}

/// Lines of `[listen]` for TCP at `port`, with a list of what is revoked.
pub fn listen_keys_with_list(port: u16, agent: &Pair, client_ca: &Path, list: &Path) -> String {
    let keys = listen_keys(port, agent, client_ca);
    format!("{}, crl = {list:?} }}", keys.trim_end_matches(" }"))
}

/// Lines of `[listen]` for TCP at `port`.
pub fn listen_keys(port: u16, agent: &Pair, client_ca: &Path) -> String {
    format!(
        "tcp = \"127.0.0.1:{port}\"\ntls = {{ cert = {:?}, key = {:?}, client_ca = {client_ca:?} }}",
        agent.cert, agent.key
    )
}

/// What a client shows, and whom it trusts.
pub fn client_files(ca: &Path, shown: &Pair) -> Tls {
    Tls {
        ca: Some(ca.to_owned()),
        cert: Some(shown.cert.clone()),
        key: Some(shown.key.clone()),
    }
}

/// A port of the loopback on which no process listens.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}
