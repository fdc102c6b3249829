//! What runs leave in the trash: the trash keeper counts it, puts it back and frees it.
//!
//! - [`restore`] puts it back; `back`: what comes back, counted
//! - [`taken`]   what runs took, where it is now; `records`: asks what runs took; `listed`: what is there
//! - `unrecorded` what is there though no record tells of it
//! - `figures`   how much there is
//! - `freeing`   frees it when its grace has ended, or when the volume needs the space
//! - `waiting`   what stays longer than its grace
//! - `stuck`     what cannot be freed

mod back;
mod figures;
mod freeing;
mod listed;
mod records;
pub mod restore;
mod stuck;
pub mod taken;
mod unrecorded;
mod waiting;

use std::sync::Arc;

use self::figures::Figures;
use self::stuck::AllStuck;
use self::waiting::Waiting;
use super::Ground;
use super::brakes::Brakes;
use crate::volume::Volume;
use purge_removal::audit::{Audit, Heading};
use purge_removal::runs::{Run, Runs};

/// Keeps the trash of all volumes.
#[derive(Debug)]
pub struct TrashKeeper {
    ground: Arc<Ground>,
    runs: Arc<Runs>,
    audit: Arc<Audit>,
    /// What comes free here counts as freed by a watermark's run.
    brakes: Arc<Brakes>,
    /// What cannot be freed.
    stuck: AllStuck,
    /// What stays longer than its grace.
    waiting: Waiting,
    /// How much there is.
    figures: Figures,
}

impl TrashKeeper {
    pub(super) fn new(
        ground: Arc<Ground>,
        (runs, audit): (Arc<Runs>, Arc<Audit>),
        brakes: Arc<Brakes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            runs,
            audit,
            brakes,
            stuck: AllStuck::default(),
            waiting: Waiting::default(),
            figures: Figures::default(),
        })
    }
}

/// What the audit log says of a run at the head of each line.
fn heading_of(run: &Run, volume: &Volume, by: &str) -> Heading {
    Heading {
        volume: run.volume.clone(),
        root: volume.config.path.clone(),
        plan: run.plan.clone(),
        run: run.id.clone(),
        by: by.into(),
    }
}
