//! Plans that a quota or a watermark asks for, and looking now and then whether one does.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::drawn::draw;
use super::plans::uids_of;
use crate::host::asker::{Asker, namer, projects_of};
use crate::host::brakes::withheld::LeftOut;
use crate::host::planner::plans::{check_size, outcome_of, whole_of};
use crate::host::planner::sharing::{Looked, Sharing, look_at};
use crate::host::space::{above, space_of};
use crate::host::{Host, HostError, Manner};
use crate::volume::Volume;
use purge_base::accounts::largest_named;
use purge_model::Totals;
use purge_policy::allowance::{Quota, Watermark};
use purge_policy::cut;
use purge_policy::evaluate::Circumstances;
use purge_policy::freed::scaled;
use purge_policy::quota::{self, Need, Triggered};
use purge_policy::rule::{AUTO_MAX_FRACTION, Rule};
use purge_removal::plans::{By, Occasion, OwnerProbes, Plan, Promise, Trigger};
use purge_removal::trash::Share;

impl Host {
    /// Makes the plan of a quota: for all subjects that are over it, down to `low`.
    ///
    /// # Errors
    /// When there is none of this name, or the volume is in doubt.
    pub fn create_quota_plan(
        &self,
        name: &str,
        candidates_max: Option<u64>,
        by: By<'_>,
    ) -> Result<Plan, HostError> {
        self.meet_all_owners();
        let asker = Asker::Quota(self.quota(name)?);
        self.plan_for(&asker, false, candidates_max, by)?
            .ok_or_else(|| HostError::Refused(format!("quota {name} asks for nothing")))
    }

    /// Makes the plan of a volume's watermark; an empty name means the only one.
    ///
    /// # Errors
    /// When the volume has none, or is in doubt.
    pub fn create_watermark_plan(
        &self,
        volume: &str,
        candidates_max: Option<u64>,
        by: By<'_>,
    ) -> Result<Plan, HostError> {
        let volume = &self.volume(volume)?.config.name;
        self.meet_owners(volume);
        let watermark = self.limits().watermarks.into_iter().find(|w| w.volume == *volume);
        let watermark = watermark.ok_or_else(|| {
            HostError::NotFound(format!(
                "volume {volume} has no [[watermark]] in the configuration"
            ))
        })?;
        self.plan_for(&Asker::Watermark(watermark), false, candidates_max, by)?
            .ok_or_else(|| HostError::Refused(format!("the watermark of {volume} asks for nothing")))
    }

    fn quota(&self, name: &str) -> Result<Quota, HostError> {
        let all = self.limits().quotas;
        let known: Vec<&str> = all.iter().map(|q| q.name.as_str()).collect();
        let known = known.join(", ");
        let found = all.iter().find(|q| q.name == name).cloned();
        found.ok_or_else(|| HostError::NotFound(format!("there is no quota {name:?}; there are [{known}]")))
    }

    /// None: unattended, and there is nothing to take.
    fn plan_for(
        &self,
        asker: &Asker,
        unattended: bool,
        candidates_max: Option<u64>,
        by: By<'_>,
    ) -> Result<Option<Plan>, HostError> {
        let volume = self.volume(asker.volume())?;
        let made = self.make_plan_for(volume, asker, (unattended, candidates_max), by);
        if let Some(made) = made.as_ref().map(Option::as_ref).transpose() {
            volume.keeping.work.plans.count(outcome_of(made));
        }
        made
    }

    fn make_plan_for(
        &self,
        volume: &Arc<Volume>,
        asker: &Asker,
        (unattended, candidates_max): (bool, Option<u64>),
        by: By<'_>,
    ) -> Result<Option<Plan>, HostError> {
        self.judge.check_certain(volume)?;
        let configured = self.ground.rule_of(asker)?;
        let mut rule = configured.clone();
        if unattended {
            rule.max_fraction.get_or_insert(AUTO_MAX_FRACTION);
            self.bind_to_window(volume, &mut rule)?;
        }
        if !volume.sync() {
            let why = format!("volume {}: the collector is not running", volume.config.name);
            return Err(HostError::Refused(why));
        }
        self.holds.look_up(&volume.config.name, &volume.config.path);
        let at = self.judge.circumstances(volume);
        let (began, wall) = (Instant::now(), purge_sys::time::wall());
        let asked = self.ask(asker, volume, &rule, &at)?;
        let Asked {
            found, promise, kept, ..
        } = asked;
        let mut found = found;
        let mut left_out = std::mem::take(&mut found.left_out);
        if unattended {
            let picks = &found.evaluation.picks;
            if picks.is_empty() {
                return kept.map_or(Ok(None), |why| Err(HostError::Refused(why)));
            }
            if let Some(bound) = self.check_window(volume, &rule, &found.evaluation)? {
                let why = bound.many.why.clone();
                tracing::warn!(by = %asker.name(), %why, "files are left out of the plan");
                let index = volume.watched.index.read();
                cut::cut(&index, &mut found.evaluation, &bound.many.uids, |part| {
                    bound.has_room_for(part)
                });
                if found.evaluation.picks.is_empty() {
                    return Err(HostError::Refused(why));
                }
                left_out.push(why);
            }
        }
        check_size(&found.evaluation, candidates_max)?;
        let trigger = Trigger {
            name: asker.name(),
            fingerprint: asker.fingerprint(&configured),
            reasons: found.reasons,
        };
        let idle = self.idle_patterns(volume, std::slice::from_ref(&rule));
        let occasion = Occasion {
            volume: &volume.config.name,
            rules: &[rule],
            at: &at,
            began: wall,
            seconds: began.elapsed().as_secs_f64(),
            whole: whole_of(volume),
            left_out,
            own_ttl: true,
            owner_names: largest_named,
            trigger: Some(&trigger),
            idle,
            guard: volume.guard(),
            by,
        };
        let mut plan = self.save_plan(volume, found.evaluation, &occasion)?;
        if let Some(promise) = promise {
            plan.promise = Some(promise.of(&plan));
            plan.drawn = asked.drawn;
            self.plans.put(&plan)?;
        }
        Ok(Some(plan))
    }

    fn ask(
        &self,
        asker: &Asker,
        volume: &Volume,
        rule: &Rule,
        at: &Circumstances,
    ) -> Result<Asked, HostError> {
        match asker {
            Asker::Quota(q) => {
                let (named, index) = (projects_of(q, volume), &volume.watched.index);
                let luck = RandomState::new();
                let luck = |ino| luck.hash_one(ino);
                let drawn = quota::to_look_at(&index.read(), (q, &named), at.now, namer(q), luck)?;
                // The files are looked at without the index, as a watermark's are.
                let seen = look_at(volume, drawn);
                let found = quota::quota(&index.read(), (q, &named), seen.as_ref(), rule, at, namer(q))?;
                Ok(Asked {
                    found,
                    promise: None,
                    kept: None,
                    drawn: Vec::new(),
                })
            }
            Asker::Watermark(w) => self.ask_watermark(w, volume, rule, at),
        }
    }

    fn ask_watermark(
        &self,
        w: &Watermark,
        volume: &Volume,
        rule: &Rule,
        at: &Circumstances,
    ) -> Result<Asked, HostError> {
        let space = space_of(volume)?;
        let (need, because) = above(w, &space, &self.trash.trash_of(&w.volume));
        let index = &volume.watched.index;
        let owners = self.brakes.left_out(volume);
        let without;
        let at = match owners.is_empty() {
            true => at,
            false => {
                without = Circumstances {
                    left_out: uids_of(volume, &owners.iter().map(|owner| owner.uid).collect()),
                    ..at.clone()
                };
                &without
            }
        };
        let (evaluation, picks) = quota::may_go(&index.read(), (rule, w.min_age), at)?;
        // The files are asked without the index: a thread that makes a use known does not wait for that.
        let mut sharing = Sharing::new(volume);
        let chosen = quota::choose(picks, need, |pick| sharing.gain(pick));
        let drawn = draw(volume, &chosen.0, need.0 > 0);
        let mut found = quota::settled(&index.read(), evaluation, chosen, rule, (because, at.now));
        found.left_out = owners.iter().map(LeftOut::in_words).collect();
        let why = sharing
            .in_words()
            .into_iter()
            .chain(found.left_out.iter().cloned());
        let why: Vec<String> = why.collect();
        let kept = (!why.is_empty())
            .then(|| why.join("; "))
            .map(|why| format!("nothing may go that would help: {why}"));
        let wants = (need.0 > 0, need.1 > 0);
        let promise = Some(Promised {
            useful: sharing.useful,
            wants,
        });
        Ok(Asked {
            found,
            promise,
            kept,
            drawn,
        })
    }

    /// Whether the quota or watermark that asked for a plan is still what it was then.
    pub(in crate::host) fn trigger_is_unchanged(&self, plan: &Plan) -> bool {
        let limits = self.limits();
        let quotas = limits.quotas.into_iter().map(Asker::Quota);
        let mut askers = quotas.chain(limits.watermarks.into_iter().map(Asker::Watermark));
        askers
            .find(|a| Some(a.name()) == plan.trigger)
            .and_then(|a| Some(a.fingerprint(&self.ground.rule_of(&a).ok()?)))
            .is_some_and(|now| now == plan.fingerprint)
    }

    /// Looks at a volume's space; if it is over its watermark, makes the plan and applies it.
    pub fn keep_watermark(self: &Arc<Self>, watermark: &Watermark) {
        let Ok(volume) = self.volume(&watermark.volume) else {
            return;
        };
        if !self.brakes.may_trigger(watermark) {
            return;
        }
        let asker = Asker::Watermark(watermark.clone());
        match self.is_over(watermark, volume) {
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
    pub fn keep_quota(self: &Arc<Self>, quota: &Quota) {
        if quota.purges() {
            self.plan_and_apply(&Asker::Quota(quota.clone()));
        }
    }

    fn plan_and_apply(self: &Arc<Self>, asker: &Asker) {
        // A run frees space by itself; what is still needed afterwards is asked for the next time.
        if self.runs.is_live_on(asker.volume()) {
            return;
        }
        let name = asker.name();
        let done = self
            .plan_for(asker, true, None, By::agent(&name))
            .and_then(|plan| match plan {
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
                    tracing::warn!(volume = %asker.volume(), why, "nothing is deleted");
                }
            }
            Err(error) => {
                if self.brakes.waits(&name, &error.to_string()) {
                    tracing::error!(by = %name, %error, "the plan was not made or not applied");
                }
                self.notices.tell_of_failure(asker.volume(), &name, &error);
            }
        }
    }

    fn apply_triggered(self: &Arc<Self>, asker: &Asker, plan: &Plan) -> Result<(), HostError> {
        tracing::info!(by = %asker.name(), plan = %plan.id, candidates = ?plan.totals, "plan");
        if !self.ground.rule_of(asker)?.action.is_applied() {
            return Ok(());
        }
        let is_measured = matches!(asker, Asker::Watermark(_));
        if is_measured {
            self.brakes.before_run(self.volume(asker.volume())?, &plan.id)?;
        }
        let applied = self.apply(&plan.id, Manner::default(), &asker.name());
        if applied.is_err() && is_measured {
            self.brakes.no_run(asker.volume());
        }
        applied.map(|_| ())
    }
}

/// What would go.
struct Asked {
    found: Triggered,
    /// Of a watermark: what would come free.
    promise: Option<Promised>,
    /// Why nothing that may go would help, if that is so.
    kept: Option<String>,
    /// Some of the files, to be looked for if too little comes free.
    drawn: Vec<OwnerProbes>,
}

/// What would come free of the files that were looked at.
struct Promised {
    useful: Looked,
    wants: (bool, bool),
}

impl Promised {
    /// As much of it as a plan takes.
    fn of(&self, plan: &Plan) -> Promise {
        let totals = plan.totals;
        let all = self.useful;
        let part = |whole: u64| scaled(whole, (totals.bytes, all.bytes), (0, 0));
        Promise {
            bytes: part(all.frees),
            files: totals.files,
            allocated: part(all.allocated),
            wants_bytes: self.wants.0,
            wants_files: self.wants.1,
        }
    }
}
