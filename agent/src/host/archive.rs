//! What archives hold, for those who ask: where a path belongs, and which store is meant.

use std::path::Path;
use std::sync::Arc;

use super::{Ground, HostError};
use purge_archive::archive;
use purge_archive::reading::Catalogues;
use purge_archive::settings::Settings;
use purge_archive::store::Store;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The archive; empty: the only one.
    pub archive: String,
    /// The volume; empty: every one.
    pub volume: String,
    /// The run; empty: every one.
    pub run: String,
    /// At or below this path, relative to the volume; empty: everything.
    pub below: Vec<u8>,
}

/// A store, and what its catalogues say.
pub struct Opened {
    /// The store's name.
    pub name: String,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What was not read yet.
    pub catalogues: Catalogues,
    /// What is looked for.
    pub asked: Asked,
}

impl Ground {
    /// Opens the catalogues that a client asks for.
    ///
    /// # Errors
    /// When there is no such archive, or it cannot be read.
    pub fn open_archive(&self, mut asked: Asked) -> Result<Opened, HostError> {
        let settings = self.archive_named(&asked.archive)?;
        if asked.below.starts_with(b"/") {
            self.make_relative(&mut asked)?;
        }
        while asked.below.ends_with(b"/") {
            asked.below.pop();
        }
        let refused =
            |why: &dyn std::fmt::Display| HostError::Refused(format!("archive {}: {why}", settings.name));
        let store = archive::open(&settings).map_err(|e| refused(&e))?;
        let catalogues =
            Catalogues::open(Arc::clone(&store), &asked.volume, &asked.run).map_err(|e| refused(&e))?;
        Ok(Opened {
            name: settings.name.clone(),
            store,
            catalogues,
            asked,
        })
    }

    fn archive_named(&self, name: &str) -> Result<Settings, HostError> {
        let all = self.archives();
        let names = || all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        match (name, all.as_slice()) {
            ("", []) => Err(HostError::Refused(
                "no archive is configured: add an [[archive]] table".into(),
            )),
            ("", [only]) => Ok(only.clone()),
            ("", _) => Err(HostError::Invalid {
                field: "archive",
                why: format!("name one of {}", names()),
            }),
            (name, all) => all.iter().find(|s| s.name == name).cloned().ok_or_else(|| {
                HostError::NotFound(format!("there is no archive {name:?}; there are {}", names()))
            }),
        }
    }

    /// The volume of an absolute path, and the path in it. The volume need not be watched now.
    fn make_relative(&self, asked: &mut Asked) -> Result<(), HostError> {
        let members = self.members();
        let below = |root: &Path| {
            let rest = asked.below.strip_prefix(root.as_os_str().as_encoded_bytes())?;
            match rest.strip_prefix(b"/") {
                Some(rest) => Some(rest.to_vec()),
                None => rest.is_empty().then(Vec::new),
            }
        };
        let found = members
            .iter()
            .find_map(|m| Some((m.name().to_owned(), below(&m.config().path)?)));
        let Some((volume, rest)) = found else {
            return Err(HostError::NotFound(
                "the path is on no volume; name it as it was in its volume, without a / at the beginning, and the volume (--volume)".into(),
            ));
        };
        if !asked.volume.is_empty() && asked.volume != volume {
            return Err(HostError::Invalid {
                field: "volume",
                why: format!("the path is on volume {volume}"),
            });
        }
        (asked.volume, asked.below) = (volume, rest);
        Ok(())
    }
}

impl Asked {
    /// Whether a path is at or below the one that is asked for.
    pub fn has(&self, path: &[u8]) -> bool {
        self.below.is_empty()
            || path
                .strip_prefix(&*self.below)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_covers_what_lies_below_it_and_nothing_beside() {
        let of = |below: &[u8]| Asked {
            below: below.to_vec(),
            ..Asked::default()
        };
        assert!(of(b"").has(b"a") && of(b"a").has(b"a") && of(b"a").has(b"a/b"));
        assert!(!of(b"a").has(b"ab") && !of(b"a/b").has(b"a"));
    }
}
