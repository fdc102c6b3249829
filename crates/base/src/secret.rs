//! Where secrets are: in files, or in what systemd hands over (`LoadCredential=`, systemd.exec(5)). Never in the configuration.

use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Before the name of a credential.
const CREDENTIAL: &str = "credential:";

/// Bits of a mode that let the group or all others read or write; an ACL's mask is the group's.
const OF_OTHERS: u32 = 0o066;

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

/// A secret from its file, without the end of its line; none: it cannot be read.
pub fn read(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// How others than root can come at a file with a secret, and the cure; none: they cannot. What systemd hands over is looked after
/// by systemd.
pub fn exposed(file: &Path) -> Option<(String, String)> {
    exposed_as(file, &std::fs::metadata(file).ok()?)
}

/// The content of a file with a secret, asked for by the open file: what has its name may change.
///
/// # Errors
/// Why it cannot be read, or who else can read it, and the cure. Such a secret is not used.
pub fn open(file: &Path) -> io::Result<Vec<u8>> {
    let mut open = std::fs::File::open(file)?;
    if let Some((what, cure)) = exposed_as(file, &open.metadata()?) {
        return Err(io::Error::other(format!(
            "{what}; {cure}, or put a new secret there: this one may be known"
        )));
    }
    let mut content = Vec::new();
    open.read_to_end(&mut content)?;
    Ok(content)
}

fn exposed_as(file: &Path, is: &Metadata) -> Option<(String, String)> {
    if file.starts_with(credentials_dir()) {
        return None;
    }
    let shown = file.display();
    if is.uid() != 0 && is.uid() != rustix::process::geteuid().as_raw() {
        let what = format!("{shown} belongs to uid {}, who can read it", is.uid());
        return Some((what, format!("chown root {shown} && chmod 600 {shown}")));
    }
    let mode = is.mode() & 0o777;
    (mode & OF_OTHERS != 0).then(|| {
        let what = format!("{shown} can be read or written by others than root (mode {mode:04o})");
        (what, format!("chmod 600 {shown}"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_exposed) in [
            (0o600, false),
            (0o400, false),
            (0o711, false),
            (0o640, true),
            (0o604, true),
            (0o620, true),
        ] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let found = exposed(file.path());
            assert_eq!(found.is_some(), is_exposed, "{mode:o}");
            assert!(found.is_none_or(|(_, cure)| cure.starts_with("chmod 600 /")));
            assert_eq!(open(file.path()).is_err(), is_exposed, "{mode:o}");
        }
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(file.path(), Some(12345), None).is_ok() {
            assert!(exposed(file.path()).unwrap().0.contains("uid 12345"));
        }
        assert!(exposed(Path::new("/nowhere/at/all")).is_none());
    }

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
