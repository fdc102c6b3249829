//! Whom a sink's connection trusts: the authorities of the system, and one that the configuration names.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

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
