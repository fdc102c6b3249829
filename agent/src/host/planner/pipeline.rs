//! The one way from what is wanted to a saved plan, for rules, quotas and watermarks.
//!
//! ```text
//! bind        the rules, and the limits that count when no person looks at the plan
//! as of now   every use up to now is in the index before anything is judged
//! select      what they take: `select`
//! leave out   the files of a few owners by whom a limit is passed: `too_many`, `window`
//! check       how many candidates the client may have
//! save        the head and the candidates
//! describe    what a watermark expects to come free
//! ```

use std::sync::Arc;
use std::time::Instant;

use super::Planner;
use super::select::{Promised, Selected};
use super::survey::evaluate_surveyed;
use super::terms::{Terms, Want, What};
use super::too_many::owners_too_many;
use crate::host::HostError;
use crate::volume::Volume;
use crate::work::{Outcome, Phase};
use purge_base::accounts::largest_named;
use purge_policy::apart::TOGETHER_MAX;
use purge_policy::blind;
use purge_policy::cut;
use purge_policy::evaluate::{Circumstances, Evaluation};
use purge_policy::rule::AUTO_MAX_FRACTION;
use purge_proto::units::format_count;
use purge_removal::plans::{By, Occasion, OwnerProbes, Plan};

/// When a plan was begun.
struct Begun {
    /// By the wall clock, in nanoseconds.
    wall: i64,
    at: Instant,
}

impl Planner {
    /// Makes and saves a plan; none: it is unattended, and there is nothing to take.
    pub(super) fn plan(&self, volume: &Arc<Volume>, want: Want<'_>) -> Result<Option<Plan>, HostError> {
        let made = self.make(volume, want);
        if let Some(made) = made.as_ref().map(Option::as_ref).transpose() {
            volume.keeping.work.plans.count(outcome_of(made));
        }
        made
    }

    fn make(&self, volume: &Arc<Volume>, want: Want<'_>) -> Result<Option<Plan>, HostError> {
        self.judge.check_certain(volume)?;
        let terms = self.bind(volume, want.what, want.unattended)?;
        let profile = volume.profile();
        if let Some(why) = blind::refusal(terms.rules(), (profile.reads, profile.blind), &volume.config.name)
        {
            return Err(HostError::Refused(why));
        }
        let mut at = self.as_of_now(volume)?;
        at.only = want.only.only();
        let begun = Begun {
            at: Instant::now(),
            wall: purge_sys::time::wall(),
        };
        let mut selected = self.select(volume, &terms, &mut at)?;
        // A person who looks at the plan decides by themselves.
        if want.unattended && !self.leave_out(volume, &terms, &mut at, &mut selected)? {
            return Ok(None);
        }
        check_size(&selected.evaluation, want.candidates_max)?;
        selected.left_out.extend(want.only.left_out());
        let expected = selected
            .promise
            .take()
            .map(|p| (p, std::mem::take(&mut selected.drawn)));
        let asked = (want.by, want.is_draft);
        let plan = self.save(volume, (&terms, &at, asked), selected, &begun)?;
        self.describe(plan, expected).map(Some)
    }

    /// The rules that count, with the limits that bind what no person looks at.
    fn bind<'a>(&self, volume: &Volume, what: What<'a>, unattended: bool) -> Result<Terms<'a>, HostError> {
        match what {
            What::Rules { mut rules, own_ttl } => {
                if unattended {
                    for rule in &mut rules {
                        rule.max_fraction.get_or_insert(AUTO_MAX_FRACTION);
                    }
                }
                Ok(Terms::Rules { rules, own_ttl })
            }
            What::Limit(asker) => {
                let mut rule = self.ground.rule_of(asker)?;
                let fingerprint = asker.fingerprint(&rule);
                if unattended {
                    rule.max_fraction.get_or_insert(AUTO_MAX_FRACTION);
                    self.bind_to_window(volume, &mut rule)?;
                }
                Ok(Terms::Limit {
                    asker,
                    rule: Box::new(rule),
                    fingerprint,
                })
            }
        }
    }

    /// Every use up to now is in the index before anything is judged.
    fn as_of_now(&self, volume: &Volume) -> Result<Circumstances, HostError> {
        let name = &volume.config.name;
        if !volume.sync() {
            return Err(HostError::Refused(format!(
                "volume {name}: the collector is not running"
            )));
        }
        volume.use_what_is_unwatched()?;
        self.holds.look_up(name, &volume.config.path);
        Ok(self.judge.circumstances(volume))
    }

    /// Leaves out the files of a few owners by whom a limit is passed. False: a quota or watermark asks for nothing.
    fn leave_out(
        &self,
        volume: &Volume,
        terms: &Terms<'_>,
        at: &mut Circumstances,
        selected: &mut Selected,
    ) -> Result<bool, HostError> {
        match terms {
            Terms::Rules { rules, .. } => {
                if let Some(many) = owners_too_many(volume, rules, &selected.evaluation) {
                    let why = many.why;
                    tracing::warn!(volume = %volume.config.name, %why, "files are left out of the plan");
                    at.left_out.extend(many.uids);
                    selected.left_out.push(why);
                    selected.evaluation = evaluate_surveyed(volume, rules, at, TOGETHER_MAX)?;
                }
            }
            Terms::Limit { asker, rule, .. } => {
                let found = &mut selected.evaluation;
                if found.picks.is_empty() {
                    let kept = selected.kept.take();
                    return kept.map_or(Ok(false), |why| Err(HostError::Refused(why)));
                }
                if let Some(bound) = self.check_window(volume, rule, found)? {
                    let why = bound.many.why.clone();
                    tracing::warn!(by = %asker.name(), %why, "files are left out of the plan");
                    let index = volume.watched.index.read();
                    cut::cut(&index, found, &bound.many.uids, |part| bound.has_room_for(part));
                    if found.picks.is_empty() {
                        return Err(HostError::Refused(why));
                    }
                    selected.left_out.push(why);
                }
            }
        }
        Ok(true)
    }

    /// Writes down what was selected.
    fn save(
        &self,
        volume: &Arc<Volume>,
        (terms, at, (by, is_draft)): (&Terms<'_>, &Circumstances, (By<'_>, bool)),
        selected: Selected,
        begun: &Begun,
    ) -> Result<Plan, HostError> {
        let trigger = terms.trigger(selected.reasons);
        let idle = self.idle_patterns(volume, terms.rules());
        let occasion = Occasion {
            volume: &volume.config.name,
            rules: terms.rules(),
            at,
            began: begun.wall,
            seconds: begun.at.elapsed().as_secs_f64(),
            whole: selected.whole,
            left_out: selected.left_out,
            own_ttl: terms.has_own_ttl(),
            owner_names: largest_named,
            trigger: trigger.as_ref(),
            idle,
            guard: volume.guard(),
            by,
        };
        let phases = &volume.keeping.work.phases;
        phases.observe(Phase::Evaluate, occasion.seconds);
        let began = Instant::now();
        let saved = match is_draft {
            true => self
                .plans
                .draft(&volume.watched.index, selected.evaluation, &occasion)?,
            false => self
                .plans
                .save(&volume.watched.index, selected.evaluation, &occasion)?,
        };
        phases.observe(Phase::Save, began.elapsed().as_secs_f64());
        Ok(saved)
    }

    /// Adds to a watermark's plan what it expects to come free, and the files that are looked for if that does not.
    fn describe(
        &self,
        mut plan: Plan,
        expected: Option<(Promised, Vec<OwnerProbes>)>,
    ) -> Result<Plan, HostError> {
        if let Some((promise, drawn)) = expected {
            plan.promise = Some(promise.of(&plan));
            plan.drawn = drawn;
            // A draft has no name, and is kept nowhere.
            if !plan.id.is_empty() {
                self.plans.put(&plan)?;
            }
        }
        Ok(plan)
    }
}

/// What became of a plan that was asked for.
fn outcome_of(made: Result<&Plan, &HostError>) -> Outcome {
    match made {
        Ok(plan) if plan.refusal.is_some() => Outcome::Refused,
        Ok(_) => Outcome::Done,
        Err(HostError::Store(_)) => Outcome::Failed,
        Err(_) => Outcome::Refused,
    }
}

/// A client may be allowed plans of some size only.
fn check_size(found: &Evaluation, max: Option<u64>) -> Result<(), HostError> {
    let (count, max) = (found.candidates(), max.unwrap_or(u64::MAX));
    if count <= max {
        return Ok(());
    }
    Err(HostError::TooMuch(format!(
        "the plan would have {} candidates; yours may have {} (max_plan_files): name fewer rules, or ask root",
        format_count(count),
        format_count(max)
    )))
}
