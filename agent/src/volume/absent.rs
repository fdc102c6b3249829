//! A volume that cannot be watched for now: it is reported as degraded, and taken up when what it waits for has come.

use std::path::Path;
use std::time::Instant;

use super::at_path::identity;
use super::opening::{is_adopted, stored_record};
use super::{Home, VolumeError};
use purge_config::VolumeConfig;
use purge_index::journal::Identity;
use purge_model::Kind;
use purge_sys::bounded;

/// A volume of the configuration that is not watched.
#[derive(Debug)]
pub struct Absent {
    /// Its configuration.
    pub config: VolumeConfig,
    /// Its place among the volumes of the configuration.
    pub place: usize,
    /// Why, in words, with its name and the cure.
    pub words: String,
    /// What was found, by itself.
    pub found_there: String,
    /// What to do.
    pub cure: String,
    /// Since when.
    pub since: Instant,
    /// What lay at its path when it could not be watched; none: nothing.
    found: Option<Identity>,
    /// What is in the index; none: nothing yet.
    known: Option<Identity>,
}

impl Absent {
    /// Remembers why a volume cannot be watched.
    pub fn new(config: &VolumeConfig, place: usize, home: &Home, why: &VolumeError) -> Self {
        let words = why.to_string();
        tracing::error!(volume = %config.name, why = %words, "the volume is not watched: it is taken up when it is there");
        let record = stored_record(&home.store, &config.name).ok().flatten();
        Self {
            config: config.clone(),
            place,
            words,
            found_there: why.found(),
            cure: why.cure(),
            since: Instant::now(),
            found: directory(&config.path),
            known: record.map(|r| r.identity()),
        }
    }

    /// The file system in the index; none: nothing is there yet.
    pub fn known(&self) -> Option<Identity> {
        self.known
    }

    /// What it waits for has come. What lay there already when it could not be watched is nothing new: the agent does not begin again for
    /// that.
    pub fn is_back(&self) -> bool {
        let now = directory(&self.config.path);
        let Some(found) = now.filter(|_| now != self.found) else {
            return false;
        };
        let is_ours = |known: Identity| known.is(found) || is_adopted(&self.config, known, found);
        self.known.is_none_or(is_ours)
    }
}

/// The file system of the directory at a path.
fn directory(path: &Path) -> Option<Identity> {
    let root = bounded::path(path).ok()?;
    let found = identity(path).ok()?;
    (root.stat.kind == Kind::Directory).then_some(found)
}
