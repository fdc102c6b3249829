//! What can be asked of one path.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use purge_proto::v1;

use super::{Host, HostError, lossy};
use crate::config::Rule;
use crate::policy::explain::{self, Subject, Verdict};
use crate::sys::stat;
use crate::volume::Volume;

impl Host {
    /// What the index knows of a path, and what every rule says of it.
    ///
    /// # Errors
    /// When no volume holds it or nothing lies there.
    pub fn explain(&self, path: &[u8]) -> Result<(Arc<Volume>, Subject, Vec<Verdict>), HostError> {
        let (volume, below) = self.locate(path)?;
        volume.sync();
        let unknown = |why: &str| HostError::NotFound(format!("{}: {why}", lossy(path)));
        let found =
            stat::path(Path::new(std::ffi::OsStr::from_bytes(path))).map_err(|e| unknown(&e.to_string()))?;
        let at = self.circumstances(volume);
        let index = volume.watched.index.read();
        let known = index
            .get(found.stat.ino)
            .filter(|_| found.device == volume.watched.device);
        let (attributes, access) =
            known.ok_or_else(|| unknown("is not in the index (yet); `purgectl rescan` looks again"))?;
        let subject = Subject {
            ino: found.stat.ino,
            attributes,
            access,
            path: below.to_vec(),
        };
        let rules: Vec<Rule> = self
            .rules()
            .into_iter()
            .filter(|r| r.volume == volume.config.name)
            .collect();
        let verdicts = explain::explain(&index, &rules, &at, &subject)?;
        drop(index);
        Ok((Arc::clone(volume), subject, verdicts))
    }

    /// The holds that keep an entry: on itself or on a directory above.
    pub fn holds_over(&self, path: &[u8]) -> Vec<v1::Hold> {
        let covers =
            |hold: &[u8]| path == hold || path.strip_prefix(hold).is_some_and(|r| r.first() == Some(&b'/'));
        self.holds
            .list()
            .into_iter()
            .filter(|h| covers(&h.path))
            .collect()
    }
}
