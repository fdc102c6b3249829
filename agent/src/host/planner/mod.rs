//! Plans: what rules, quotas and watermarks ask for becomes a list of candidates.
//!
//! - `wanted`   what a client wants a plan of
//! - `terms`    the same inside the agent, with the rules and limits that count
//! - `pipeline` the one way from there to a saved plan
//! - `select`   what a plan takes
//! - `survey`   what only the file system knows: links, empty directories
//! - `sharing`  what deleting a file would free
//! - `drawn`    some of the files that a plan takes, to be looked for afterwards
//! - `too_many` owners by whose files a plan passes a limit
//! - `window`   what quotas and watermarks may take within a day
//! - `patterns` exclude patterns that match nothing

mod drawn;
mod patterns;
mod pipeline;
mod select;
mod sharing;
pub(super) mod survey;
mod terms;
mod too_many;
mod wanted;
mod window;

use std::sync::Arc;

use self::patterns::Looked;
use self::terms::{Want, What};
pub use self::wanted::{Part, Wanted};
use super::asker::Asker;
use super::brakes::Brakes;
use super::judge::Judge;
use super::trash::TrashKeeper;
use super::{Ground, HostError};
use purge_policy::allowance::Quota;
use purge_removal::holds::Holds;
use purge_removal::plans::{By, Plan, Plans};

/// Makes plans.
#[derive(Debug)]
pub struct Planner {
    ground: Arc<Ground>,
    judge: Arc<Judge>,
    plans: Plans,
    holds: Arc<Holds>,
    /// What quotas and watermarks may not take.
    brakes: Arc<Brakes>,
    /// What lies there will be free without a plan.
    trash: Arc<TrashKeeper>,
    /// Patterns that were looked for.
    patterns: Looked,
}

impl Planner {
    pub(super) fn new(
        (ground, judge): (Arc<Ground>, Arc<Judge>),
        (plans, holds): (Plans, Arc<Holds>),
        (brakes, trash): (Arc<Brakes>, Arc<TrashKeeper>),
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            judge,
            plans,
            holds,
            brakes,
            trash,
            patterns: Looked::default(),
        })
    }

    /// Evaluates rules and saves the plan.
    ///
    /// # Errors
    /// When the rules are unknown or do not belong together, or the volume is in doubt.
    pub fn create_plan(&self, wanted: &Wanted, by: By<'_>) -> Result<Plan, HostError> {
        let (volume, rules) = wanted.choose(&self.ground)?;
        let want = Want {
            what: What::Rules {
                rules,
                own_ttl: wanted.ttl.is_some() || wanted.unattended,
            },
            unattended: wanted.unattended,
            candidates_max: wanted.candidates_max,
            only: wanted.only.clone(),
            is_draft: wanted.is_draft,
            by,
        };
        self.plan(&volume, want)?
            .ok_or_else(|| HostError::Refused("the rules ask for nothing".into()))
    }

    /// Makes the plan of a quota: for all subjects that are over it, down to `low`.
    ///
    /// # Errors
    /// When there is none of this name, or the volume is in doubt.
    pub fn create_quota_plan(
        &self,
        name: &str,
        (candidates_max, is_draft): (Option<u64>, bool),
        by: By<'_>,
    ) -> Result<Plan, HostError> {
        self.ground.meet_all_owners();
        let asker = Asker::Quota(self.quota(name)?);
        self.plan_of_limit(&asker, (candidates_max, is_draft), by)?
            .ok_or_else(|| HostError::Refused(format!("quota {name} asks for nothing")))
    }

    /// Makes the plan of a volume's watermark; an empty name means the only one.
    ///
    /// # Errors
    /// When the volume has none, or is in doubt.
    pub fn create_watermark_plan(
        &self,
        volume: &str,
        (candidates_max, is_draft): (Option<u64>, bool),
        by: By<'_>,
    ) -> Result<Plan, HostError> {
        let volume = &self.ground.volume(volume)?.config.name.clone();
        self.ground.meet_owners(volume);
        let mut watermarks = self.ground.limits().watermarks.into_iter();
        let watermark = watermarks.find(|w| w.volume == *volume).ok_or_else(|| {
            HostError::NotFound(format!(
                "volume {volume} has no [[watermark]] in the configuration"
            ))
        })?;
        self.plan_of_limit(&Asker::Watermark(watermark), (candidates_max, is_draft), by)?
            .ok_or_else(|| HostError::Refused(format!("the watermark of {volume} asks for nothing")))
    }

    /// The plan of a quota or watermark that no person looks at; none: there is nothing to take.
    pub(super) fn plan_unattended(&self, asker: &Asker) -> Result<Option<Plan>, HostError> {
        let name = asker.name();
        let want = Want {
            what: What::Limit(asker),
            unattended: true,
            candidates_max: None,
            only: Part::default(),
            is_draft: false,
            by: By::agent(&name),
        };
        self.plan(&self.ground.volume(asker.volume())?, want)
    }

    fn plan_of_limit(
        &self,
        asker: &Asker,
        (candidates_max, is_draft): (Option<u64>, bool),
        by: By<'_>,
    ) -> Result<Option<Plan>, HostError> {
        let want = Want {
            what: What::Limit(asker),
            unattended: false,
            candidates_max,
            only: Part::default(),
            is_draft,
            by,
        };
        self.plan(&self.ground.volume(asker.volume())?, want)
    }

    fn quota(&self, name: &str) -> Result<Quota, HostError> {
        let all = self.ground.limits().quotas;
        let known: Vec<&str> = all.iter().map(|q| q.name.as_str()).collect();
        let known = known.join(", ");
        let found = all.iter().find(|q| q.name == name).cloned();
        found.ok_or_else(|| HostError::NotFound(format!("there is no quota {name:?}; there are [{known}]")))
    }
}
