//! What runs of a watermark free: measured once they are over, and held against what their plans promised.

use super::Brakes;
use super::known::{Pending, Stopped, Stored, stored};
use super::lately::taken;
use super::promised::Sum;
use super::withheld::{named, without_kept};
use crate::host::HostError;
use crate::volume::Volume;
use purge_base::clock;
use purge_collect::open_files;
use purge_model::{Seconds, Totals};
use purge_policy::freed::{Amount, Moment, Verdict, freed, grown, scaled};
use purge_removal::plans::{Plan, Promise};
use purge_removal::runs::Run;
use purge_sys::stat::magic;

/// A file system frees later than it answers: nothing is held against a run before this number of seconds has passed.
const SETTLES_WITHIN: u64 = 15;
/// The same of ZFS: it removes files in groups of changes, of which the next is written every five seconds, and large ones over several of these.
const SETTLES_WITHIN_ON_ZFS: u64 = 60;

fn is_of_watermark(run: &Run) -> bool {
    run.by == format!("watermark {}", run.volume)
}

impl Brakes {
    /// How full a volume with a watermark is before trash is freed.
    pub(in crate::host) fn before_freeing(&self, volume: &Volume) -> Option<Moment> {
        let name = &volume.config.name;
        let has_one = self
            .ground
            .limits
            .read()
            .watermarks
            .iter()
            .any(|w| w.volume == *name);
        has_one.then(|| stored(volume).ok().map(Stored::moment)).flatten()
    }

    /// What the watermark's runs among these promised must come free now that their trash is freed.
    pub(in crate::host) fn after_freeing(&self, volume: &Volume, before: Moment, freed: &[(Run, Totals)]) {
        let (mut sum, mut plans) = (Sum::default(), Vec::new());
        for (run, left) in freed.iter().filter(|(run, _)| is_of_watermark(run)) {
            let plan = self.plans.get(&run.plan).ok();
            sum = sum.plus(promise_of(plan.as_ref(), (left.files, left.bytes)).0);
            plans.push(run.plan.clone());
        }
        if (sum.promised_bytes, sum.promised_files) == (0, 0) {
            return;
        }
        self.known.change(&volume.config.name, |k| match &mut k.pending {
            Some(pending) => {
                pending.trash = Some(pending.trash.unwrap_or_default().plus(sum));
                pending.trash_plans.extend(plans);
                pending.ended = 0;
            }
            None => {
                k.pending = Some(Pending {
                    before: Some(Stored {
                        used: before.used,
                        inodes_used: before.inodes_used,
                        allocated: before.allocated,
                        files: before.files,
                    }),
                    began: clock::now().0,
                    trash: Some(sum),
                    trash_plans: plans,
                    ..Pending::default()
                });
            }
        });
    }

    /// Looks at what a volume's runs have freed by now.
    pub fn look_at_freed(&self, volume: &Volume) {
        let name = &volume.config.name;
        if let Some(pending) = self.known.get(name).pending
            && let Err(error) = self.measure(volume, pending)
        {
            tracing::debug!(volume = %name, %error, "what came free cannot be measured now");
        }
    }

    fn measure(&self, volume: &Volume, mut pending: Pending) -> Result<(), HostError> {
        let name = &volume.config.name;
        let plan = match pending.plan.as_str() {
            "" => None,
            id => self.plans.get(id).ok(),
        };
        let run_id = plan.as_ref().and_then(|plan| plan.run.as_deref());
        if run_id.is_some_and(|id| self.runs.live(id).is_some()) {
            return Ok(());
        }
        let now = clock::now();
        if pending.ended == 0 {
            // What is freed only when the file system has written it down is free now.
            volume.sync();
            let mount = volume.watched.open_mount();
            if let Err(error) = mount.and_then(purge_sys::stat::sync) {
                tracing::warn!(volume = %name, %error, "the file system cannot be synced; what came free is measured without");
            }
            (pending.ended, pending.at_end) = (clock::now().0.max(1), Some(stored(volume)?));
            let ended = pending.clone();
            self.known.change(name, |k| k.pending = Some(ended));
        }
        let run = run_id.and_then(|id| self.runs.get(id).ok());
        let (deleted, went) = run.as_ref().map_or(((0, 0), (0, 0)), |run| {
            ((run.deleted.all_files(), run.deleted.bytes), taken(run))
        });
        let (promised, _) = promise_of(plan.as_ref(), deleted);
        let (_, gone) = promise_of(plan.as_ref(), went);
        let mut sum = promised.plus(pending.trash.unwrap_or_default());
        let settling = Seconds(pending.ended).age_at(now);
        let is_settled = settling >= settles_within(volume);
        let (before, after) = (
            pending.before.unwrap_or_default().moment(),
            stored(volume)?.moment(),
        );
        let outside = match (is_settled, pending.at_end) {
            (true, Some(end)) => grown(
                end.moment(),
                after,
                settling.max(1),
                Seconds(pending.began).age_at(now),
            ),
            _ => Amount::default(),
        };
        let free = freed(before, after, gone, outside);
        (sum.freed_bytes, sum.freed_files) = (free.bytes, free.files);
        match (sum.promised_bytes, sum.promised_files) {
            // All of it went into the trash, or stayed.
            (0, 0) => self.no_run(name),
            _ => self.conclude(volume, (sum, &pending), is_settled, after),
        }
        Ok(())
    }

    fn conclude(
        &self,
        volume: &Volume,
        (mut sum, pending): (Sum, &Pending),
        is_settled: bool,
        after: Moment,
    ) {
        let name = &volume.config.name;
        let before = self.known.get(name).sum.unwrap_or_default();
        let mut all = before.plus(sum);
        let mut verdict = all.verdict();
        if !is_settled && verdict != Verdict::Helps {
            return;
        }
        let mut left_out = self.known.get(name).left_out;
        if verdict != Verdict::Helps {
            // What processes keep is not held against the others' files.
            let plans = std::iter::once(&pending.plan).chain(&pending.trash_plans);
            let plans = plans.filter_map(|id| self.plans.get(id).ok());
            let drawn: Vec<_> = plans.flat_map(|plan| plan.drawn).collect();
            let (rest, owners) = without_kept(volume, &drawn, sum);
            left_out.retain(|known| owners.iter().all(|o| o.uid != known.uid));
            left_out.extend(owners);
            (sum, all) = (rest, before.plus(rest));
            verdict = all.verdict();
        }
        let stopped = Stopped {
            at: clock::now().0,
            sum: Some(all),
            moment: Some(Stored {
                used: after.used,
                inodes_used: after.inodes_used,
                allocated: after.allocated,
                files: after.files,
            }),
            nameless: match verdict {
                Verdict::Useless => named(open_files::who_has_nameless(&volume.watched)).unwrap_or_default(),
                _ => String::new(),
            },
        };
        if verdict == Verdict::Useless {
            tracing::error!(volume = %name, why = %stopped.why(), "the watermark stops: deleting does not help; see `purgectl resume`");
            self.notices.tell_of_stop(
                name,
                &stopped.why(),
                (all.deleted_bytes, all.promised_bytes, all.freed_bytes),
            );
        }
        self.known.change(name, |k| {
            k.pending = None;
            k.last = Some(sum);
            k.left_out = left_out;
            match verdict {
                Verdict::Unclear => k.sum = Some(all),
                Verdict::Helps => k.sum = None,
                Verdict::Useless => (k.sum, k.stopped) = (None, Some(stopped)),
            }
        });
    }
}

/// How long a volume's file system may take until all is free that was removed.
fn settles_within(volume: &Volume) -> u64 {
    match volume.mount.magic {
        magic::ZFS => SETTLES_WITHIN_ON_ZFS,
        _ => SETTLES_WITHIN,
    }
}

/// What came free if all of that was what its plan said: the promise, and what it took on disk.
fn promise_of(plan: Option<&Plan>, (files, bytes): (u64, u64)) -> (Sum, Amount) {
    let totals = plan.map(|plan| plan.totals);
    let totals = totals.unwrap_or(Totals {
        files,
        bytes,
        ..Totals::default()
    });
    // A plan that is forgotten promised what was deleted.
    let promise = plan.and_then(|p| p.promise).unwrap_or(Promise {
        bytes: totals.bytes,
        files: totals.all_files(),
        allocated: totals.bytes,
        wants_bytes: true,
        wants_files: false,
    });
    let part = |whole: u64| scaled(whole, (bytes, totals.bytes), (files, totals.all_files()));
    let sum = Sum {
        promised_bytes: part(promise.bytes),
        promised_files: part(promise.files),
        deleted_bytes: bytes,
        deleted_files: files,
        wants_bytes: promise.wants_bytes,
        wants_files: promise.wants_files,
        ..Sum::default()
    };
    let gone = Amount {
        bytes: part(promise.allocated),
        files,
    };
    (sum, gone)
}
