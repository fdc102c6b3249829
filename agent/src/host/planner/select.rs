//! What a plan takes, as of now: all that rules take, or as much as a quota or a watermark needs.

use std::hash::{BuildHasher as _, RandomState};

use super::Planner;
use super::drawn::draw;
use super::sharing::{Looked, Sharing, look_at};
use super::survey::evaluate_surveyed;
use super::terms::Terms;
use super::too_many::{uids_of, whole_of};
use crate::host::HostError;
use crate::host::asker::{Asker, namer, projects_of};
use crate::host::brakes::withheld::LeftOut;
use crate::host::space::{above, space_of};
use crate::volume::Volume;
use purge_policy::allowance::{Quota, Watermark};
use purge_policy::apart::TOGETHER_MAX;
use purge_policy::evaluate::{Circumstances, Evaluation};
use purge_policy::freed::scaled;
use purge_policy::needed::{Reason, Triggered, choose};
use purge_policy::portion::Portion;
use purge_policy::quota;
use purge_policy::rule::Rule;
use purge_policy::watermark;
use purge_removal::plans::{OwnerProbes, Plan, Promise};

/// What a plan takes.
pub(super) struct Selected {
    pub evaluation: Evaluation,
    /// All files of the volume.
    pub whole: Portion,
    /// Of a quota or watermark: what a pick's `rule` points at.
    pub reasons: Vec<Reason>,
    /// What was left out, for a person.
    pub left_out: Vec<String>,
    /// Of a watermark: what would come free.
    pub promise: Option<Promised>,
    /// Why nothing that may go would help, if that is so.
    pub kept: Option<String>,
    /// Some of the files, to be looked for if too little comes free.
    pub drawn: Vec<OwnerProbes>,
}

impl Selected {
    /// All that rules take.
    pub(super) fn all_of(volume: &Volume, evaluation: Evaluation) -> Self {
        Self {
            evaluation,
            whole: whole_of(volume),
            reasons: Vec::new(),
            left_out: Vec::new(),
            promise: None,
            kept: None,
            drawn: Vec::new(),
        }
    }

    /// As much as a quota or watermark needs.
    fn part_of(volume: &Volume, found: Triggered) -> Self {
        Self {
            reasons: found.reasons,
            left_out: found.left_out,
            ..Self::all_of(volume, found.evaluation)
        }
    }
}

impl Planner {
    /// Asks the index, and the file system where that alone knows. `at` gets what the file system said.
    pub(super) fn select(
        &self,
        volume: &Volume,
        terms: &Terms<'_>,
        at: &mut Circumstances,
    ) -> Result<Selected, HostError> {
        match terms {
            Terms::Rules { rules, .. } => {
                let found = evaluate_surveyed(volume, rules, at, TOGETHER_MAX)?;
                Ok(Selected::all_of(volume, found))
            }
            Terms::Limit { asker, rule, .. } => match asker {
                Asker::Quota(q) => select_for_quota(q, volume, rule, at),
                Asker::Watermark(w) => self.select_for_watermark(w, volume, rule, at),
            },
        }
    }

    fn select_for_watermark(
        &self,
        w: &Watermark,
        volume: &Volume,
        rule: &Rule,
        at: &Circumstances,
    ) -> Result<Selected, HostError> {
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
        let (evaluation, picks) = watermark::may_go(&index.read(), (rule, w.min_age), at)?;
        // The files are asked without the index: a thread that makes a use known does not wait for that.
        let mut sharing = Sharing::new(volume);
        let chosen = choose(picks, need, |pick| sharing.gain(pick));
        let drawn = draw(volume, &chosen.0, need.0 > 0);
        let mut found = watermark::settled(&index.read(), evaluation, chosen, rule, (because, at.now));
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
        Ok(Selected {
            promise,
            kept,
            drawn,
            ..Selected::part_of(volume, found)
        })
    }
}

/// The files of each subject over its limit, in the rule's order, until no more than `low` is left.
fn select_for_quota(
    q: &Quota,
    volume: &Volume,
    rule: &Rule,
    at: &Circumstances,
) -> Result<Selected, HostError> {
    let (named, index) = (projects_of(q, volume), &volume.watched.index);
    let luck = RandomState::new();
    let luck = |ino| luck.hash_one(ino);
    let drawn = quota::to_look_at(&index.read(), (q, &named), at.now, namer(q), luck)?;
    // The files are looked at without the index, as a watermark's are.
    let seen = look_at(volume, drawn);
    let found = quota::quota(&index.read(), (q, &named), seen.as_ref(), rule, at, namer(q))?;
    Ok(Selected::part_of(volume, found))
}

/// What would come free of the files that were looked at.
pub(super) struct Promised {
    useful: Looked,
    wants: (bool, bool),
}

impl Promised {
    /// As much of it as a plan takes.
    pub(super) fn of(&self, plan: &Plan) -> Promise {
        let totals = plan.totals;
        let all = self.useful;
        let part = |whole: u64| scaled(whole, (totals.bytes, all.bytes), (0, 0));
        Promise {
            bytes: part(all.frees),
            files: totals.all_files(),
            allocated: part(all.allocated),
            wants_bytes: self.wants.0,
            wants_files: self.wants.1,
        }
    }
}
