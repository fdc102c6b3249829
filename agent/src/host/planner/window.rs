//! All that quotas and watermarks take within a day is bound by the limits of their rules together, and by `max_fraction` together with
//! what schedules took. What counts is the number of files and what they take on the disk.
//!
//! A run's record has apparent sizes. What its files take is no more than that, and no more than what its plan takes: the smaller of both counts.

use purge_proto::units::format_size;

use crate::host::planner::freed::taken;
use crate::host::planner::plans::{Going, TooMany, whole_of};
use crate::host::{Host, HostError};
use crate::volume::Volume;
use purge_base::clock;
use purge_model::Totals;
use purge_policy::evaluate::Evaluation;
use purge_policy::portion::{ByOwner, Portion};
use purge_policy::rule::Rule;
use purge_removal::plans::Plan;
use purge_removal::runs::Run;

/// What triggered plans took counts for so long.
const WINDOW_SECONDS: u64 = 86_400;

/// What was taken of a volume within the last day and no person looked at before.
#[derive(Debug, Default)]
pub(in crate::host) struct Lately {
    /// By quotas and watermarks.
    pub triggered: Totals,
    /// The same, on the disk.
    triggered_takes: u64,
    /// By schedules too.
    all: Portion,
    /// Of that: the most that can have been this owner's.
    by_owner: ByOwner,
}

/// Some owners by whose files a plan passes `max_fraction`.
pub(in crate::host) struct Bound {
    pub many: TooMany,
    /// What goes besides, with what went within the last day.
    rest: Portion,
    whole: Portion,
    limit: f64,
}

impl Bound {
    /// Whether so much of those owners' may go as well.
    pub(in crate::host) fn has_room_for(&self, part: Portion) -> bool {
        self.rest.plus(part).share_of(self.whole) <= self.limit
    }
}

/// Who asks for runs that no person looked at.
fn is_triggered(run: &Run) -> bool {
    run.by.starts_with("watermark ") || run.by.starts_with("quota ")
}

impl Lately {
    fn add(&mut self, run: &Run, plan: Option<&Plan>) {
        let (files, bytes) = taken(run);
        let takes = plan.and_then(|p| p.takes).map_or(bytes, |takes| takes.min(bytes));
        if is_triggered(run) {
            let sum = &mut self.triggered;
            sum.files = sum.files.saturating_add(files);
            sum.bytes = sum.bytes.saturating_add(bytes);
            self.triggered_takes = self.triggered_takes.saturating_add(takes);
        }
        let took = Portion { files, bytes, takes };
        self.all = self.all.plus(took);
        let Some(plan) = plan else { return };
        let owners = plan.by_owner.iter().map(|o| {
            let part = Portion {
                files: o.files,
                bytes: o.bytes,
                takes: o.takes,
            };
            (o.uid, part)
        });
        let owners: Vec<(u32, Portion)> = owners.collect();
        let planned = owners
            .iter()
            .fold(Portion::default(), |sum, (_, part)| sum.plus(*part));
        for (uid, part) in owners {
            let sum = self.by_owner.entry(uid).or_default();
            *sum = sum.plus(surely_of(took, planned, part));
        }
    }
}

/// What of `took` was one owner's at least: the others' part of the plan may all have been taken.
fn surely_of(took: Portion, planned: Portion, part: Portion) -> Portion {
    took.minus(planned.minus(part))
}

impl Host {
    /// What was taken of a volume within the last day and no person looked at before.
    pub(in crate::host) fn taken_lately(&self, volume: &str) -> Result<Lately, HostError> {
        let now = clock::now();
        let mut lately = Lately::default();
        for run in self.runs.list()? {
            let over = run.finished.unwrap_or(now);
            let counts = is_triggered(&run) || run.by == "schedule";
            if run.volume != volume || over.age_at(now) >= WINDOW_SECONDS || !counts {
                continue;
            }
            let plan = self.plans.get(&run.plan).ok();
            lately.add(&run, plan.as_ref());
        }
        Ok(lately)
    }

    /// Leaves of a rule's limits what triggers have not taken within the last day.
    ///
    /// # Errors
    /// When nothing is left.
    pub(in crate::host) fn bind_to_window(&self, volume: &Volume, rule: &mut Rule) -> Result<(), HostError> {
        let lately = self.taken_lately(&volume.config.name)?;
        let limits = [
            ("max_files", &mut rule.max_files, lately.triggered.files),
            ("max_bytes", &mut rule.max_bytes, lately.triggered_takes),
        ];
        let took = (lately.triggered.files, lately.triggered_takes);
        for (key, limit, taken) in limits {
            // 0: there is no limit.
            if *limit > 0 && taken >= *limit {
                let reached = format!("{key} of rule {} ({limit})", rule.name);
                return Err(HostError::Refused(used_up(&reached, took)));
            }
            *limit = limit.saturating_sub(taken);
        }
        Ok(())
    }

    /// Whether so much more of the volume may go within the same day. It may without some files of a few owners: then which.
    ///
    /// # Errors
    /// When it is too much.
    pub(in crate::host) fn check_window(
        &self,
        volume: &Volume,
        rule: &Rule,
        found: &Evaluation,
    ) -> Result<Option<Bound>, HostError> {
        let Some(limit) = rule.max_fraction else {
            return Ok(None);
        };
        let lately = self.taken_lately(&volume.config.name)?;
        let whole = whole_of(volume).plus(lately.all);
        let going = found.portion().plus(lately.all);
        let share = going.share_of(whole);
        let asked = Going {
            plan: &found.by_owner,
            all: going,
            before: &lately.by_owner,
            whole,
        };
        if let Some(many) = TooMany::find(volume, limit, &asked) {
            let rest = going.minus(many.part);
            return Ok(Some(Bound {
                many,
                rest,
                whole,
                limit,
            }));
        }
        // The plan alone is compared when it is saved.
        if share <= limit || (lately.all.files, lately.all.takes) == (0, 0) {
            return Ok(None);
        }
        let reached = format!(
            "max_fraction of rule {} ({}%; with what is wanted now it would be {:.1}%)",
            rule.name,
            limit * 100.0,
            share * 100.0
        );
        Err(HostError::Refused(used_up(
            &reached,
            (lately.all.files, lately.all.takes),
        )))
    }
}

fn used_up(limit: &str, (files, takes): (u64, u64)) -> String {
    format!(
        "{limit} is used up: {files} files, {} on the disk, were taken within the last 24 h without a person; it waits until these 24 h \
         have passed. To take more now, look at a plan and apply it (purgectl plan, purgectl apply), or raise the limit in the rule and \
         reload",
        format_size(takes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use purge_removal::plans::OwnerShare;

    fn run(by: &str, files: u64, bytes: u64) -> Run {
        Run {
            by: by.into(),
            deleted: Totals {
                files,
                bytes,
                ..Totals::default()
            },
            ..Run::default()
        }
    }

    fn owner(uid: u32, files: u64, bytes: u64, takes: u64) -> OwnerShare {
        OwnerShare {
            owner: String::new(),
            uid,
            files,
            bytes,
            takes,
        }
    }

    #[test]
    fn a_sparse_file_uses_up_no_more_than_its_blocks() {
        let plan = Plan {
            takes: Some(4096),
            by_owner: vec![owner(1, 1, 1 << 50, 0), owner(2, 1, 4096, 4096)],
            ..Plan::default()
        };
        let mut lately = Lately::default();
        lately.add(&run("watermark v", 2, (1 << 50) + 4096), Some(&plan));
        assert_eq!(lately.triggered_takes, 4096);
        assert_eq!(lately.all.takes, 4096);
        // Nothing is known of the plan: what the run says counts.
        lately.add(&run("schedule", 1, 100), None);
        assert_eq!((lately.triggered_takes, lately.all.takes), (4096, 4196));
    }

    #[test]
    fn what_one_owner_lost_is_no_more_than_the_others_cannot_have_lost() {
        let plan = Plan {
            takes: Some(1000),
            by_owner: vec![owner(1, 90, 900, 900), owner(2, 10, 100, 100)],
            ..Plan::default()
        };
        let mut lately = Lately::default();
        // Of a hundred files thirty went: ten of them may have been the other owner's.
        lately.add(&run("schedule", 30, 300), Some(&plan));
        let of = |uid| lately.by_owner.get(&uid).copied().unwrap_or_default();
        assert_eq!((of(1).files, of(1).takes), (20, 200));
        assert_eq!((of(2).files, of(2).takes), (0, 0));
    }
}
