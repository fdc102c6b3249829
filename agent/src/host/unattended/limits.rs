//! Looking now and then whether a quota or watermark asks for a plan, and applying it.

use std::cell::Cell;

use super::Unattended;
use crate::host::asker::Asker;
use crate::host::space::{above, space_of};
use crate::host::{HostError, Manner};
use crate::volume::Volume;
use purge_model::Totals;
use purge_policy::allowance::{Quota, Watermark};
use purge_policy::needed::Need;
use purge_removal::plans::Plan;
use purge_removal::trash::Share;

impl Unattended {
    /// Looks at a volume's space; if it is over its watermark, makes the plan and applies it.
    pub fn keep_watermark(&self, watermark: &Watermark) {
        let Ok(volume) = self.ground.volume(&watermark.volume) else {
            return;
        };
        if !self.brakes.may_trigger(watermark) {
            return;
        }
        let asker = Asker::Watermark(watermark.clone());
        match self.is_over(watermark, &volume) {
            Ok(true) => self.plan_and_apply(&asker),
            Ok(false) => self.brakes.goes_on(&asker.name()),
            Err(error) => {
                tracing::error!(volume = %watermark.volume, %error, "its space cannot be looked after");
            }
        }
    }

    /// Whether a volume is over its watermark, once what may be freed of its trash for that is.
    fn is_over(&self, watermark: &Watermark, volume: &Volume) -> Result<bool, HostError> {
        let needs = |trash: &Totals| Ok(above(watermark, &space_of(volume)?, trash).0);
        let all: Result<Need, HostError> = needs(&Totals::default());
        let all = all?;
        if watermark.free_trash && all != (0, 0) {
            // The trash is freed first: no user has missed it yet. No more of it is freed than ought to do: whether it did is measured.
            let freed = Cell::new((0u128, 0u128));
            let is_enough = |share: &Share| {
                let (bytes, files) = freed.get();
                let left = self.trash.in_trash_of(&share.run);
                freed.set((
                    bytes.saturating_add(left.bytes.into()),
                    files.saturating_add(left.files.into()),
                ));
                let promised = bytes >= all.0 && files >= all.1;
                promised || needs(&Totals::default()).is_ok_and(|need| need == (0, 0))
            };
            let freed = self.trash.free_trash_early(volume, is_enough);
            freed.map_err(|e| HostError::Refused(format!("the trash: {e}")))?;
            if !self.brakes.may_trigger(watermark) {
                return Ok(false);
            }
        }
        Ok(needs(&self.trash.trash_of(&watermark.volume))? != (0, 0))
    }

    /// Applies what a quota with `action = "purge"` asks for.
    pub fn keep_quota(&self, quota: &Quota) {
        if quota.purges() {
            self.plan_and_apply(&Asker::Quota(quota.clone()));
        }
    }

    fn plan_and_apply(&self, asker: &Asker) {
        // A run frees space by itself; what is still needed afterwards is asked for the next time.
        if self.runs.is_live_on(asker.volume()) {
            return;
        }
        let name = asker.name();
        let done = self.planner.plan_unattended(asker).and_then(|plan| match plan {
                Some(plan) => self.apply_triggered(asker, &plan).map(|()| None),
                None if matches!(asker, Asker::Watermark(_)) => {
                    let why = "over the watermark, and nothing may go: everything is younger than min_age, held or excluded";
                    Ok(Some(why))
                }
                None => Ok(None),
            });
        match done {
            Ok(None) => self.brakes.goes_on(&name),
            Ok(Some(why)) => {
                if self.brakes.waits(&name, why) {
                    tracing::warn!(by = %name, volume = %asker.volume(), why, "nothing is deleted");
                }
            }
            Err(error) => {
                if self.brakes.waits(&name, &error.to_string()) {
                    tracing::error!(by = %name, volume = %asker.volume(), %error, "the plan was not made or not applied");
                }
                self.notices.tell_of_failure(asker.volume(), &name, &error);
            }
        }
    }

    fn apply_triggered(&self, asker: &Asker, plan: &Plan) -> Result<(), HostError> {
        tracing::info!(by = %asker.name(), volume = %asker.volume(), plan = %plan.id, candidates = %plan.totals, "plan made");
        if !self.ground.rule_of(asker)?.action.is_applied() {
            return Ok(());
        }
        let is_measured = matches!(asker, Asker::Watermark(_));
        if is_measured {
            self.brakes
                .before_run(&*self.ground.volume(asker.volume())?, &plan.id)?;
        }
        let applied = self.applier.apply(&plan.id, Manner::default(), &asker.name());
        if applied.is_err() && is_measured {
            self.brakes.no_run(asker.volume());
        }
        applied.map(|_| ())
    }
}
