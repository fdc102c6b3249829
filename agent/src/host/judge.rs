//! What decides beside the index and the rules: whether all that happened on a volume is known, and the time, gaps, holds and
//! announcements that count now.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::announced::Lists;
use super::{Ground, HostError};
use crate::volume::{State, Volume, VolumeError};
use purge_base::clock;
use purge_collect::exports;
use purge_collect::source::Blind;
use purge_policy::evaluate::{Circumstances, Only, Survey};
use purge_removal::holds::Holds;

/// So long a plan waits for what the disks say.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Says whether a volume may be judged, and under which circumstances.
#[derive(Debug)]
pub(super) struct Judge {
    ground: Arc<Ground>,
    holds: Arc<Holds>,
    /// What announcing rules have named.
    pub(super) lists: Lists,
}

impl Judge {
    pub(super) fn new(ground: Arc<Ground>, holds: Arc<Holds>) -> Arc<Self> {
        let lists = Lists::of(&ground.anchor);
        Arc::new(Self { ground, holds, lists })
    }

    /// There is no plan for what is not wholly seen.
    pub(super) fn check_certain(&self, volume: &Volume) -> Result<(), HostError> {
        let name = &volume.config.name;
        if volume.mount.may_be_shared() && !volume.config.sole_client {
            return Err(HostError::Refused(format!(
                "volume {name} is on {}, which other hosts may use as well, and what they use is not seen here; where no other host does, write \
                 sole_client = true in its [[volume]]",
                volume.mount.filesystem
            )));
        }
        if volume.profile().blind.contains(&Blind::Bypass) && !volume.config.sole_client {
            return Err(HostError::Refused(format!(
                "volume {name} is watched through one mount, and what is used through another one is not seen; where there is none, write \
                 sole_client = true in its [[volume]]"
            )));
        }
        if let Some(defect) = volume.silence() {
            let cure = defect.failure.cure_of_volume();
            return Err(HostError::Refused(format!(
                "volume {name} is degraded: {}; {cure}",
                defect.words
            )));
        }
        if volume.profile().blind.contains(&Blind::Handles)
            && let Some(exported) = exports::of(&volume.config.path)
        {
            return Err(HostError::Refused(format!(
                "volume {name}: {} is exported by an NFS server, and what its clients open is not seen where each directory is watched by \
                 itself; end the export, or watch the file system as a whole (`purgectl doctor` says what that needs)",
                exported.display()
            )));
        }
        volume
            .check_identity()
            .map_err(|e: VolumeError| HostError::Refused(e.to_string()))?;
        volume.other_agent();
        // What has happened since the last look counts.
        let state = self.ground.state.look_now(ANSWERS_WITHIN);
        let refused = state.map(|d| (d.words, d.failure.cure_of_state()));
        let file_system = || volume.file_system_now(ANSWERS_WITHIN);
        let refused = refused.or_else(|| file_system().map(|d| (d.words, d.failure.cure_of_volume())));
        if let Some((words, cure)) = refused {
            return Err(HostError::Refused(format!(
                "volume {name} is degraded: {words}; {cure}"
            )));
        }
        match volume.condition().state {
            State::Tracking => Ok(()),
            State::Scanning => Err(HostError::Refused(format!(
                "volume {name} is still being scanned; `purgectl status` shows how far it is"
            ))),
            State::Degraded(reason) => {
                Err(HostError::Refused(format!("volume {name} is degraded: {reason}")))
            }
        }
    }

    /// What besides index and rules decides, now.
    pub fn circumstances(&self, volume: &Volume) -> Circumstances {
        let now = clock::judged();
        let condition = volume.condition();
        Circumstances {
            now,
            gap_end: condition.gap_end,
            forgiven: condition.forgiven,
            held: self.holds.held(&volume.config.name, &volume.config.path),
            announced: self
                .lists
                .announced(&self.ground.rules(), &volume.config.name, now),
            mounted: volume
                .watched
                .mounted
                .lately(&volume.watched)
                .inodes()
                .unwrap_or_default(),
            survey: Survey::default(),
            left_out: FxHashSet::default(),
            only: Only::default(),
        }
    }
}
