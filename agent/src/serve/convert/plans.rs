//! Plans, runs and holds.

use purge_proto::v1;

use super::timestamp;
use crate::host::trash::restore::Restored;
use crate::host::views::questions::Answer;
use purge_model::Totals;
use purge_policy::kept::Kept;
use purge_removal::fate::Skip;
use purge_removal::holds::Hold;
use purge_removal::plans::{IdlePattern, OwnerShare, Plan, RuleShare};
use purge_removal::protection::Guard;
use purge_removal::runs::{Failure, OwnerFailures, Progress, Run, RunState, Skipped};
use purge_removal::trash::restore::Item;

pub(in crate::serve) fn totals(t: Totals) -> v1::Totals {
    v1::Totals {
        files: t.files,
        directories: t.directories,
        bytes: t.bytes,
        links: t.links,
        files_inside: t.files_inside,
    }
}

/// A plan, with as many of its owners, those with the most bytes first.
pub(in crate::serve) fn plan(plan: Plan, owners_max: usize) -> v1::Plan {
    let goes_with = |(rule, files)| v1::GoesWith { rule, files };
    let rule = |share: RuleShare| v1::RuleShare {
        rule: share.name,
        totals: Some(totals(share.totals)),
        remark: share.remark,
        because: share.because.unwrap_or_default(),
        archive: share.archive.map(|to| v1::Destination {
            name: to.name,
            url: to.url,
        }),
        goes_with: share.goes_with.into_iter().map(goes_with).collect(),
    };
    let owner = |share: OwnerShare| v1::OwnerShare {
        owner: share.owner,
        uid: share.uid,
        files: share.files,
        bytes: share.bytes,
        takes: share.takes,
    };
    v1::Plan {
        plan_id: plan.id,
        created_at: Some(timestamp(plan.created)),
        expires_at: Some(timestamp(plan.expires)),
        volume: plan.volume,
        rules: plan.rules.into_iter().map(rule).collect(),
        evaluation_seconds: plan.seconds,
        index_files: plan.index_files,
        examined_files: plan.examined,
        candidates: Some(totals(plan.totals)),
        kept: Some(kept(&plan.kept)),
        by_owner: plan.by_owner.into_iter().take(owners_max).map(owner).collect(),
        refusal: plan.refusal.unwrap_or_default(),
        run_id: plan.run.unwrap_or_default(),
        guard: plan.guard.map_or("", Guard::name).into(),
        grace_seconds: plan.grace,
        forgiven: plan.forgiven.map(|f| v1::Forgiven {
            stretches: f.stretches,
            seconds: f.seconds,
            candidates: f.taken,
        }),
        idle_patterns: plan.idle.into_iter().map(idle).collect(),
        times_ahead: plan.times_ahead,
        takes: plan.takes,
        left_out: plan.left_out,
        mounted: plan.mounted,
        requested_by: plan.by,
        trigger: plan.trigger.unwrap_or_default(),
        // Of the volume: see `plan_on`.
        blind: Vec::new(),
        reads: String::new(),
    }
}

fn kept(kept: &Kept) -> v1::Kept {
    v1::Kept {
        held: kept.held,
        excluded: kept.excluded,
        young: kept.young,
        uncovered: kept.uncovered,
        limit: kept.limit,
        out_of_scope: kept.out_of_scope,
        announced: kept.announced,
        ripe_from: kept.ripe.map(|(from, _)| timestamp(from)),
        ripe_until: kept.ripe.map(|(_, until)| timestamp(until)),
        mounted: kept.mounted,
        other_subjects: kept.other_subjects,
        not_needed: kept.not_needed,
    }
}

pub(in crate::serve) fn idle(idle: IdlePattern) -> v1::IdlePattern {
    v1::IdlePattern {
        rule: idle.rule,
        pattern: idle.pattern,
        did_you_mean: idle.did_you_mean.unwrap_or_default(),
    }
}

pub(in crate::serve) fn run(run: Run) -> v1::Run {
    let owner = |o: OwnerFailures| v1::OwnerFailures {
        uid: o.uid,
        owner: o.owner,
        failed: o.failed,
    };
    let left = run.left_in_trash();
    // What a run has not come to yet is not left alone.
    let mut inside = run.skipped_inside;
    if run.state == RunState::Running {
        inside.unreached = 0;
    }
    v1::Run {
        run_id: run.id,
        plan_id: run.plan,
        volume: run.volume,
        state: state(run.state).into(),
        started_at: Some(timestamp(run.started)),
        finished_at: run.finished.map(timestamp),
        deleted: Some(totals(run.deleted)),
        trashed: Some(totals(run.trashed)),
        archived: Some(totals(run.archived)),
        skipped: Some(skipped(&run.skipped)),
        skipped_files_inside: Some(skipped(&inside)),
        failed: run.failed.into_iter().map(failure).collect(),
        failed_total: run.failed_total,
        seconds: run.seconds,
        requested_by: run.by,
        error: run.error.unwrap_or_default(),
        trash_until: run.trash_until.map(timestamp),
        restored: (run.restored != Totals::default()).then(|| totals(run.restored)),
        trash_freed_at: run.trash_freed.map(timestamp),
        trash_stuck: run.trash_stuck.map(totals),
        failed_by_owner: run.failed_by_owner.into_iter().map(owner).collect(),
        locked_by: run.locked_by,
        in_trash: Some(totals(left)),
        rules: run.rules,
    }
}

/// How far a run is. Its failures are cut by `cut`.
pub(in crate::serve) fn progress(p: Progress, cut: impl Fn(v1::Run) -> v1::Run) -> v1::RunProgress {
    v1::RunProgress {
        run: Some(cut(run(p.run))),
        total: p.total,
        done: p.done,
    }
}

fn state(state: RunState) -> v1::RunState {
    match state {
        RunState::Running => v1::RunState::Running,
        RunState::Completed => v1::RunState::Completed,
        RunState::Partial => v1::RunState::Partial,
        RunState::Cancelled => v1::RunState::Cancelled,
        RunState::Failed => v1::RunState::Failed,
    }
}

fn skipped(skipped: &Skipped) -> v1::Skipped {
    let count = |why| skipped.count(why);
    v1::Skipped {
        accessed: count(Skip::Accessed),
        changed: count(Skip::Changed),
        open: count(Skip::Open),
        locked: count(Skip::Locked),
        held: count(Skip::Held),
        gone: count(Skip::Gone),
        hardlinked: count(Skip::Hardlinked),
        cancelled: skipped.unreached,
        leased: count(Skip::Leased),
        deep: count(Skip::Deep),
        quota: count(Skip::Quota),
        mounted: count(Skip::Mounted),
        protected: count(Skip::Protected),
        many_names: count(Skip::ManyNames),
    }
}

fn failure(failure: Failure) -> v1::Failure {
    v1::Failure {
        path: failure.path,
        error: failure.error,
    }
}

pub(in crate::serve) fn restored(report: Restored, (run, dry_run): (&str, bool)) -> v1::RestoreReport {
    let newest = || report.runs.first().cloned().unwrap_or_default();
    let item = |item: Item| v1::RestoreItem {
        path: item.path,
        kind: super::kind(item.kind).into(),
        bytes: item.bytes,
        files_inside: item.files_inside,
    };
    v1::RestoreReport {
        run_id: if run.is_empty() { newest() } else { run.to_owned() },
        run_ids: report.runs,
        older_total: report.older_total,
        items: report.items.into_iter().map(item).collect(),
        items_total: report.items_total,
        dry_run,
        restored: Some(totals(report.restored)),
        failed: report.failed.into_iter().map(failure).collect(),
        failed_total: report.failed_total,
    }
}

pub(in crate::serve) fn hold(hold: Hold) -> v1::Hold {
    v1::Hold {
        hold_id: hold.id,
        path: hold.path,
        reason: hold.reason,
        created_at: Some(timestamp(hold.created)),
        expires_at: hold.expires.map(timestamp),
        created_by: hold.by,
    }
}

/// What holds something. Of holds of other users the caller learns only that there is one.
pub(super) fn holds_of(answer: &mut Answer) -> Vec<v1::Hold> {
    let mut holds: Vec<v1::Hold> = std::mem::take(&mut answer.holds).into_iter().map(hold).collect();
    if answer.is_held_by_another {
        holds.push(v1::Hold {
            path: answer.path.clone(),
            reason: "a hold of another user keeps it".into(),
            ..v1::Hold::default()
        });
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reason that is added to the values must not be forgotten here: clients would count fewer candidates than there were.
    #[test]
    fn clients_are_told_every_reason() {
        for why in Skip::ALL {
            let mut one = Skipped::default();
            one.add(why, 1);
            assert_ne!(skipped(&one), v1::Skipped::default(), "{why:?}");
        }
    }
}
