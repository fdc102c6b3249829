//! Where secrets are: in files, or in what systemd hands over (`LoadCredential=`, systemd.exec(5)). Never in the configuration.

use std::path::{Path, PathBuf};

/// Before the name of a credential.
const CREDENTIAL: &str = "credential:";

const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The file that `/absolute/path` or `credential:NAME` means.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn file_of(text: &str, credentials: &Path) -> Result<PathBuf, (String, &'static str)> {
    let Some(name) = text.strip_prefix(CREDENTIAL) else {
        return match text.starts_with('/') {
            true => Ok(text.into()),
            false => Err((
                format!("{text:?} is no absolute path"),
                "write /etc/purge-agent/FILE, or credential:NAME for what the unit loads (LoadCredential=NAME:PATH)",
            )),
        };
    };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err((
            format!("{text:?} names no credential"),
            "write credential:NAME, with the name that LoadCredential= gives it",
        ));
    }
    Ok(credentials.join(name))
}

/// Whether a file is a credential of the service, and this process is not the service.
pub fn is_of_the_service_only(file: &Path) -> bool {
    std::env::var_os(DIRECTORY).is_none() && file.starts_with(credentials_dir())
}

/// Where systemd puts the credentials of this service: it says so to the service, and always puts them there.
pub fn credentials_dir() -> PathBuf {
    std::env::var_os(DIRECTORY).map_or_else(|| "/run/credentials/purge-agent.service".into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_are_in_files_and_credentials() {
        let dir = Path::new("/run/credentials/purge-agent.service");
        assert_eq!(file_of("/etc/key", dir).unwrap(), Path::new("/etc/key"));
        let found = file_of("credential:tls.key", dir).unwrap();
        assert_eq!(found, Path::new("/run/credentials/purge-agent.service/tls.key"));
        for bad in ["key", "credential:../shadow", "credential:"] {
            assert!(file_of(bad, dir).is_err(), "{bad}");
        }
    }
}
