//! What was taken of a volume within the last day and no person looked at before.
//!
//! A run's record has apparent sizes. What its files take is no more than that, and no more than what its plan takes: the smaller of both counts.

use super::Brakes;
use crate::host::HostError;
use purge_base::clock;
use purge_model::Totals;
use purge_policy::portion::{ByOwner, Portion};
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
    pub(in crate::host) triggered_takes: u64,
    /// By schedules too.
    pub(in crate::host) all: Portion,
    /// Of that: the most that can have been this owner's.
    pub(in crate::host) by_owner: ByOwner,
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

/// What a run took: deleted, or moved to the trash and not put back.
pub(super) fn taken(run: &Run) -> (u64, u64) {
    let (deleted, trashed, back) = (run.deleted, run.trashed, run.restored);
    let part = |a: u64, b: u64, back: u64| a.saturating_add(b).saturating_sub(back);
    (
        part(deleted.all_files(), trashed.all_files(), back.all_files()),
        part(deleted.bytes, trashed.bytes, back.bytes),
    )
}

impl Brakes {
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
