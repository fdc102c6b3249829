//! Gives a volume's name to the file system that lies at its path now: `purgectl volume reset`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::roster::Member;
use super::{Ground, HostError};
use crate::volume::reset::{self, NoReset};
use purge_config::VolumeConfig;
use purge_index::journal::Identity;
use purge_model::path;
use purge_removal::holds::Holds;
use purge_removal::runs::Runs;

/// What a reset does, or has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// The volume's name.
    pub volume: String,
    /// Its path.
    pub path: PathBuf,
    /// Holds that stay in force.
    pub holds: u64,
    /// Where the files about the old file system are kept.
    pub set_aside: PathBuf,
}

/// Resets volumes.
#[derive(Debug)]
pub struct Resetter {
    ground: Arc<Ground>,
    holds: Arc<Holds>,
    runs: Arc<Runs>,
    /// Volumes that were reset and are not opened yet.
    waiting: Mutex<BTreeSet<String>>,
}

impl Resetter {
    pub(super) fn new(ground: Arc<Ground>, holds: Arc<Holds>, runs: Arc<Runs>) -> Arc<Self> {
        Arc::new(Self {
            ground,
            holds,
            runs,
            waiting: Mutex::default(),
        })
    }

    /// A volume was reset and is not opened yet.
    pub(super) fn is_waiting(&self, volume: &str) -> bool {
        self.waiting.lock().contains(volume)
    }

    /// It was opened, or that was tried.
    pub(super) fn is_done(&self, volume: &str) {
        self.waiting.lock().remove(volume);
    }

    /// Looks whether a volume can be reset; `confirmed`: and resets it.
    ///
    /// # Errors
    /// When there is no such volume, its file system was not replaced, or a run goes on there.
    pub fn reset(&self, volume: &str, confirmed: bool, by: &str) -> Result<Reset, HostError> {
        let (config, known) = self.find(volume)?;
        let failed = |e: NoReset| HostError::Refused(format!("volume {volume}: {e}"));
        let found = reset::candidate(&config, known).map_err(failed)?;
        if self.runs.is_live_on(volume) {
            let why = format!("a run goes on on volume {volume}: wait for it, or `purgectl cancel` it");
            return Err(HostError::Refused(why));
        }
        let state_dir = self.ground.state_dir();
        if confirmed {
            reset::approve(self.ground.anchor(), volume, found).map_err(failed)?;
            tracing::warn!(
                volume,
                by,
                "the volume is reset: the file system that lies at its path now takes its name"
            );
            self.waiting.lock().insert(volume.to_owned());
        }
        let root = config.path.as_os_str().as_encoded_bytes();
        Ok(Reset {
            volume: volume.to_owned(),
            path: config.path.clone(),
            holds: self
                .holds
                .page("", usize::MAX, None)
                .0
                .iter()
                .filter(|h| path::is_within(root, &h.path))
                .count() as u64,
            set_aside: reset::aside(state_dir, volume),
        })
    }

    fn find(&self, name: &str) -> Result<(VolumeConfig, Option<Identity>), HostError> {
        if let Some(Member::Absent(absent)) = self.ground.member(name) {
            return Ok((absent.config.clone(), absent.known()));
        }
        let volume = self.ground.volume(name)?;
        Ok((volume.config.clone(), Some(volume.watched.journal.identity())))
    }
}
