//! A volume that cannot be watched for now: it is reported as degraded, and taken up when what it waits for has come.

use std::path::Path;
use std::time::{Duration, Instant};

use super::at_path::identity;
use super::opening::{is_adopted, stored_record};
use super::{Home, VolumeError};
use purge_config::VolumeConfig;
use purge_index::journal::Identity;
use purge_model::Kind;
use purge_sys::bounded;

/// One that could not be watched though its file system is there is tried again after this.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A volume of the configuration that is not watched.
#[derive(Debug)]
pub struct Absent {
    /// Its configuration.
    pub config: VolumeConfig,
    /// Why, in words, with its name and the cure.
    pub words: String,
    /// What was found, by itself.
    pub found_there: String,
    /// What to do.
    pub cure: String,
    /// Since when.
    pub since: Instant,
    /// When it was tried last.
    tried: Instant,
    /// What lay at its path when it was tried; none: nothing.
    found: Option<Identity>,
    /// What is in the index; none: nothing yet.
    known: Option<Identity>,
}

impl Absent {
    /// Remembers why a volume cannot be watched. `found` lay at its path before it was tried.
    pub fn new(config: &VolumeConfig, home: &Home, found: Option<Identity>, why: &VolumeError) -> Self {
        let record = stored_record(&home.store, &config.name).ok().flatten();
        Self {
            config: config.clone(),
            words: why.to_string(),
            found_there: why.found(),
            cure: why.cure(),
            since: Instant::now(),
            tried: Instant::now(),
            found,
            known: record.map(|r| r.identity()),
        }
    }

    /// A volume that was watched as this file system, and is about to be opened again.
    pub fn opening(config: &VolumeConfig, known: Identity) -> Self {
        let found = format!("{} is there again, and the agent opens it", config.path.display());
        Self {
            config: config.clone(),
            words: format!("volume {}: {found}", config.name),
            found_there: found,
            cure: "nothing: `purgectl status` shows when it is watched again".into(),
            since: Instant::now(),
            tried: Instant::now(),
            found: None,
            known: Some(known),
        }
    }

    /// The same since an earlier try. It is told if it is not the same for which it was away then.
    pub fn after(mut self, before: Option<&Self>) -> Self {
        if before.is_none_or(|before| before.words != self.words) {
            tracing::error!(volume = %self.config.name, why = %self.words, "the volume is not watched: it is taken up when it is there");
        }
        self.since = before.map_or(self.since, |before| before.since);
        self
    }

    /// The file system in the index; none: nothing is there yet.
    pub fn known(&self) -> Option<Identity> {
        self.known
    }

    /// What it waits for has come. What lay there already when it could not be watched is nothing new, and is tried again some time later.
    pub fn is_back(&self) -> bool {
        let Some(found) = found_at(&self.config.path) else {
            return false;
        };
        let is_new = self.found != Some(found) || self.tried.elapsed() >= TRIED_AGAIN_AFTER;
        let is_ours = |known: Identity| known.is(found) || is_adopted(&self.config, known, found);
        is_new && self.known.is_none_or(is_ours)
    }
}

/// The file system of the directory at a path.
pub fn found_at(path: &Path) -> Option<Identity> {
    let root = bounded::path(path).ok()?;
    let found = identity(path).ok()?;
    (root.stat.kind == Kind::Directory).then_some(found)
}
