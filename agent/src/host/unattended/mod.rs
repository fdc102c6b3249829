//! What begins without a request.
//!
//! - [`due`]  rules whose time has come
//! - `served` until when their schedules were served
//! - `limits` looks whether quotas and watermarks ask for a plan

pub mod due;
mod limits;
pub mod looks;
mod served;

use self::looks::Looks;
use std::sync::Arc;

use self::due::Schedules;
use self::served::Served;
use super::Ground;
use super::applier::Applier;
use super::brakes::Brakes;
use super::judge::Judge;
use super::notices::Notices;
use super::planner::Planner;
use super::trash::TrashKeeper;
use purge_removal::runs::Runs;

/// Makes plans and applies them because their time has come, or a limit is passed.
#[derive(Debug)]
pub struct Unattended {
    ground: Arc<Ground>,
    judge: Arc<Judge>,
    planner: Arc<Planner>,
    applier: Arc<Applier>,
    trash: Arc<TrashKeeper>,
    brakes: Arc<Brakes>,
    notices: Arc<Notices>,
    runs: Arc<Runs>,
    /// Rules whose time has come.
    schedules: Schedules,
    /// Until when their schedules were served.
    served: Served,
    /// When quotas and watermarks are looked at next.
    pub looks: Looks,
}

impl Unattended {
    /// With what earlier processes served.
    pub(super) fn load(
        (ground, judge, runs): (Arc<Ground>, Arc<Judge>, Arc<Runs>),
        (planner, applier): (Arc<Planner>, Arc<Applier>),
        (trash, brakes): (Arc<TrashKeeper>, Arc<Brakes>),
        notices: Arc<Notices>,
    ) -> Arc<Self> {
        Arc::new(Self {
            served: Served::load(&ground.anchor),
            ground,
            judge,
            planner,
            applier,
            trash,
            brakes,
            notices,
            runs,
            schedules: Schedules::default(),
            looks: Looks::default(),
        })
    }
}
