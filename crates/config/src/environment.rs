//! What the environment says instead of the file: where things are, for containers and tests. Never what may go.

use std::ffi::OsString;
use std::path::PathBuf;

use super::fault::Fault;
use super::keys::file::{self, FILE};
use super::keys::{Key, Table, listen};
use super::listen::Listen;
use super::origin::{self, Shown};

/// Variables, the whole names of the keys they stand for, and these.
pub fn variables() -> Vec<(&'static str, String, &'static Key)> {
    let of = |table: &Table| {
        let prefix = table.shown_as.filter(|p| !p.is_empty()).map(|p| format!("{p}."));
        let prefix = prefix.unwrap_or_default();
        let keys = table.keys.iter().filter(|key| !key.variable.is_empty());
        keys.map(|key| (key.variable, format!("{prefix}{}", key.name), key))
            .collect::<Vec<_>>()
    };
    FILE.all().iter().flat_map(of).collect()
}

/// What they may change.
pub(super) struct Overridden<'a> {
    pub state_dir: &'a mut Option<PathBuf>,
    pub audit_log: &'a mut Option<PathBuf>,
    pub listen: &'a mut Listen,
    pub shown: &'a mut Vec<Shown>,
}

/// Puts what is set in force.
pub(super) fn apply(
    mut parts: Overridden<'_>,
    variable: impl Fn(&str) -> Option<OsString>,
    faults: &mut Vec<Fault>,
) {
    for (name, whole, key) in variables() {
        let Some(value) = variable(name).filter(|v| !v.is_empty()) else {
            continue;
        };
        match put(&mut parts, key, &value) {
            Ok(()) => show(
                parts.shown,
                origin::of_environment(&whole, key, &value.to_string_lossy(), name),
            ),
            Err(mend) => faults.push(Fault::elsewhere(name, format!("cannot be {value:?}"), mend)),
        }
    }
}

fn put(parts: &mut Overridden<'_>, key: &Key, value: &OsString) -> Result<(), &'static str> {
    let path = || {
        let path = PathBuf::from(value);
        path.is_absolute()
            .then_some(path)
            .ok_or("give an absolute path, or unset it")
    };
    match key.variable {
        v if v == file::STATE_DIR.variable => *parts.state_dir = Some(path()?),
        v if v == file::AUDIT_LOG.variable => *parts.audit_log = Some(path()?),
        v if v == listen::UNIX.variable => parts.listen.unix = path()?,
        _ => {
            let address = value.to_str().and_then(|text| text.parse().ok());
            parts.listen.metrics =
                Some(address.ok_or("give an address and port such as 127.0.0.1:9469, or unset it")?);
        }
    }
    Ok(())
}

fn show(all: &mut Vec<Shown>, now: Shown) {
    match all.iter_mut().find(|s| s.key == now.key) {
        Some(shown) => *shown = now,
        None => all.push(now),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn applied(set: &[(&str, &str)]) -> (Option<PathBuf>, Listen, Vec<Shown>, Vec<Fault>) {
        let (mut state_dir, mut audit_log) = (Some("/of/the/file".into()), None);
        let (mut listen, mut shown, mut faults) = (Listen::at("/socket"), Vec::new(), Vec::new());
        let parts = Overridden {
            state_dir: &mut state_dir,
            audit_log: &mut audit_log,
            listen: &mut listen,
            shown: &mut shown,
        };
        let variable = |name: &str| {
            let found = set.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        };
        apply(parts, variable, &mut faults);
        (state_dir, listen, shown, faults)
    }

    #[test]
    fn the_environment_says_where_things_are() {
        let (state_dir, listen, shown, faults) = applied(&[
            ("PURGE_AGENT_STATE_DIR", "/elsewhere"),
            ("PURGE_AGENT_LISTEN_METRICS", "127.0.0.1:1"),
            ("PURGE_AGENT_LISTEN_UNIX", ""),
        ]);
        assert!(faults.is_empty());
        assert_eq!(state_dir.unwrap(), PathBuf::from("/elsewhere"));
        assert_eq!(listen.unix, PathBuf::from("/socket"), "empty is not set");
        assert_eq!(listen.metrics, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(shown[0].origin, "environment PURGE_AGENT_STATE_DIR");
    }

    #[test]
    fn nonsense_is_a_fault() {
        let (state_dir, _, _, faults) = applied(&[
            ("PURGE_AGENT_STATE_DIR", "here"),
            ("PURGE_AGENT_LISTEN_METRICS", "9469"),
        ]);
        assert_eq!(state_dir.unwrap(), PathBuf::from("/of/the/file"));
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(words.len(), 2);
        assert!(words[0].starts_with("PURGE_AGENT_STATE_DIR: cannot be \"here\"; give an absolute path"));
    }
}
