//! Whom a sink's connection trusts: the authorities of the system, and one that the configuration names.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::SendError;

/// Both what the system trusts and, if given, the certificates of a PEM file.
///
/// # Errors
/// [`SendError::Down`] when the file cannot be read, or when no authority at all would be trusted.
pub fn client(ca: Option<&Path>) -> Result<ClientConfig, SendError> {
    let mut trusted = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    trusted.add_parsable_certificates(system.certs);
    if let Some(file) = ca {
        add(&mut trusted, file).map_err(|why| SendError::Down(format!("{}: {why}", file.display())))?;
    }
    if trusted.is_empty() {
        let why = system
            .errors
            .first()
            .map_or_else(String::new, |e| format!(" ({e})"));
        return Err(SendError::Down(format!(
            "TLS: this system trusts no authority{why}: install ca-certificates, or name a ca_file"
        )));
    }
    config(trusted)
}

/// For connections that are not encrypted: trusts no authority.
pub fn trusting_none() -> Result<ClientConfig, SendError> {
    config(RootCertStore::empty())
}

/// For a connection that is encrypted where it can be: any authority may vouch for the server, or none; the name must be its own.
/// The choice is between this and no encryption at all (RFC 7435).
pub fn trusting_any() -> Result<ClientConfig, SendError> {
    let mut config = trusting_none()?;
    let any = Any(Arc::clone(config.crypto_provider()));
    config.dangerous().set_certificate_verifier(Arc::new(any));
    Ok(config)
}

/// Shakes hands with the server of this name; nothing is said before its certificate is found good.
///
/// # Errors
/// Those of the connection, and when the configuration does not trust the server.
pub async fn encrypt<T: AsyncRead + AsyncWrite + Unpin>(
    below: T,
    host: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<T>> {
    // As in a URL, an IPv6 address stands in brackets.
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, below).await
}

/// Asks for the name only.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What rustls says of a certificate of an authority that is not trusted.
const UNKNOWN_ISSUER: &str = "UnknownIssuer";

/// The words of an error, with what mends it where only the configuration can.
pub fn with_cure(words: String) -> String {
    match words.contains(UNKNOWN_ISSUER) {
        true => format!(
            "{words} (no authority that this host trusts vouches for it: name the certificate of its authority in ca_file)"
        ),
        false => words,
    }
}

fn add(trusted: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let found = CertificateDer::pem_file_iter(file).map_err(|e| e.to_string())?;
    let mut any = false;
    for certificate in found {
        let certificate = certificate.map_err(|e| e.to_string())?;
        trusted.add(certificate).map_err(|e| e.to_string())?;
        any = true;
    }
    any.then_some(())
        .ok_or_else(|| "no certificate in it (PEM)".into())
}

fn config(trusted: RootCertStore) -> Result<ClientConfig, SendError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| SendError::Down(format!("TLS: {e}")))?;
    Ok(builder.with_root_certificates(trusted).with_no_client_auth())
}
