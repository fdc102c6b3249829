//! Nothing goes on deleting when deleting does not help: what a watermark's runs free is measured, and one that frees too little
//! stops until an operator or the space itself says otherwise.
//!
//! What is known of a volume lies in `STATE_DIR/freed`, so that no restart lets a trigger go on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use prost::Message;

use crate::host::planner::promised::Sum;
use crate::host::planner::triggered::{Asker, shares, space_of};
use crate::host::planner::withheld::LeftOut;
use crate::host::{Host, HostError};
use crate::volume::Volume;
use purge_base::clock;
use purge_format::frame::{Frames, put_frame};
use purge_model::{Seconds, Totals};
use purge_policy::allowance::Watermark;
use purge_policy::freed::{Amount, Moment, Verdict, freed, grown, scaled};
use purge_removal::plans::{Plan, Promise};
use purge_removal::runs::Run;

/// A file system frees later than it answers: nothing is held against a run before this number of seconds has passed.
const SETTLES_WITHIN: u64 = 15;

/// What is known of a volume.
#[derive(Clone, PartialEq, Message)]
struct Known {
    #[prost(string, tag = "1")]
    volume: String,
    /// A run, or the freeing of trash, whose effect is not known yet.
    #[prost(message, optional, tag = "2")]
    pending: Option<Pending>,
    /// What was promised and came free since the last verdict.
    #[prost(message, optional, tag = "3")]
    sum: Option<Sum>,
    /// Why nothing more is deleted.
    #[prost(message, optional, tag = "4")]
    stopped: Option<Stopped>,
    /// The last verdict's figures.
    #[prost(message, optional, tag = "5")]
    last: Option<Sum>,
    /// Owners whose deleted files processes keep.
    #[prost(message, repeated, tag = "6")]
    left_out: Vec<LeftOut>,
}

#[derive(Clone, PartialEq, Message)]
struct Pending {
    /// The plan; empty: only trash was freed.
    #[prost(string, tag = "1")]
    plan: String,
    #[prost(message, optional, tag = "2")]
    before: Option<Stored>,
    /// When it was over; 0: it is not, as far as is known.
    #[prost(uint32, tag = "3")]
    ended: u32,
    #[prost(message, optional, tag = "4")]
    at_end: Option<Stored>,
    /// When it began.
    #[prost(uint32, tag = "5")]
    began: u32,
    /// What the trash promised that was freed meanwhile.
    #[prost(message, optional, tag = "6")]
    trash: Option<Sum>,
    /// The plans of that trash.
    #[prost(string, repeated, tag = "7")]
    trash_plans: Vec<String>,
}

/// A [`Moment`].
#[derive(Clone, Copy, PartialEq, Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    used: u64,
    #[prost(uint64, tag = "2")]
    inodes_used: u64,
    #[prost(uint64, tag = "3")]
    allocated: u64,
    #[prost(uint64, tag = "4")]
    files: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Stopped {
    #[prost(uint32, tag = "1")]
    at: u32,
    #[prost(message, optional, tag = "2")]
    sum: Option<Sum>,
    /// Use at that time.
    #[prost(message, optional, tag = "3")]
    moment: Option<Stored>,
}

/// Why a trigger waits; forgotten at a restart, found out again at the next look.
#[derive(Debug, Clone)]
struct Waiting {
    why: String,
    since: Seconds,
}

/// What is known of all volumes.
#[derive(Debug)]
pub(in crate::host) struct Brakes {
    path: PathBuf,
    all: Mutex<BTreeMap<String, Known>>,
    waiting: Mutex<BTreeMap<String, Waiting>>,
}

impl Brakes {
    /// What earlier processes knew.
    pub(in crate::host) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("freed");
        let bytes = fs::read(&path).unwrap_or_default();
        let frames = Frames::new(&bytes).filter_map(|body| Known::decode(body).ok());
        Self {
            path,
            all: Mutex::new(frames.map(|k| (k.volume.clone(), k)).collect()),
            waiting: Mutex::default(),
        }
    }

    fn get(&self, volume: &str) -> Known {
        self.all.lock().get(volume).cloned().unwrap_or_default()
    }

    /// Changes what is known of a volume, on disk as well.
    fn change(&self, volume: &str, change: impl FnOnce(&mut Known)) {
        let mut all = self.all.lock();
        let known = all.entry(volume.to_owned()).or_insert_with(|| Known {
            volume: volume.to_owned(),
            ..Known::default()
        });
        let before = known.clone();
        change(known);
        if *known == before {
            return;
        }
        if let Err(error) = write(&self.path, &all) {
            let path = purge_sys::private::shown(&self.path);
            let path = path.display();
            tracing::error!(volume, %path, %error, "what the volume's watermark freed cannot be written; a restart forgets it");
        }
    }

    pub(in crate::host) fn left_out(&self, volume: &str) -> Vec<LeftOut> {
        self.get(volume).left_out
    }

    pub(in crate::host) fn set_left_out(&self, volume: &str, left_out: Vec<LeftOut>) {
        self.change(volume, |k| k.left_out = left_out);
    }

    /// Notes why a trigger waits; true if that is new.
    pub(in crate::host) fn waits(&self, asker: &str, why: &str) -> bool {
        let mut all = self.waiting.lock();
        let is_new = all.get(asker).is_none_or(|w| w.why != why);
        if is_new {
            let since = all.get(asker).map_or_else(clock::now, |w| w.since);
            let why = why.to_owned();
            all.insert(asker.to_owned(), Waiting { why, since });
        }
        is_new
    }

    pub(in crate::host) fn goes_on(&self, asker: &str) {
        self.waiting.lock().remove(asker);
    }
}

fn write(path: &Path, all: &BTreeMap<String, Known>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for known in all.values() {
        put_frame(&mut bytes, |body| body.extend(known.encode_to_vec()));
    }
    let next = path.with_extension("new");
    let mut file = purge_sys::private::create(&next)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)
}

impl Stored {
    fn moment(self) -> Moment {
        Moment {
            used: self.used,
            inodes_used: self.inodes_used,
            allocated: self.allocated,
            files: self.files,
        }
    }
}

impl Stopped {
    fn why(&self) -> String {
        format!(
            "{}: snapshots, copies that share blocks (reflinks), or files that processes hold open?",
            self.sum.unwrap_or_default().in_words()
        )
    }

    /// Whether the space has moved since: as much came free as was promised.
    fn has_moved(&self, now: Moment) -> bool {
        let (then, sum) = (
            self.moment.unwrap_or_default().moment(),
            self.sum.unwrap_or_default(),
        );
        let (bytes, files) = (
            then.used.saturating_sub(now.used),
            then.inodes_used.saturating_sub(now.inodes_used),
        );
        (sum.wants_bytes && sum.promised_bytes > 0 && bytes >= sum.promised_bytes)
            || (sum.wants_files && sum.promised_files > 0 && files >= sum.promised_files)
    }
}

fn stored(volume: &Volume) -> Result<Stored, HostError> {
    let space = space_of(volume)?;
    let totals = volume.watched.index.read().totals();
    Ok(Stored {
        used: space.used,
        inodes_used: space.inodes_used,
        allocated: totals.allocated,
        files: totals.files,
    })
}

fn is_of_watermark(run: &Run) -> bool {
    run.by == format!("watermark {}", run.volume)
}

/// What a run took: deleted, or moved to the trash and not put back.
pub(in crate::host) fn taken(run: &Run) -> (u64, u64) {
    let (deleted, trashed, back) = (run.deleted, run.trashed, run.restored);
    let part = |a: u64, b: u64, back: u64| a.saturating_add(b).saturating_sub(back);
    (
        part(deleted.files, trashed.files, back.files),
        part(deleted.bytes, trashed.bytes, back.bytes),
    )
}

/// Whether a quota or watermark deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerState {
    /// It deletes when it is asked to.
    Ready,
    /// A run of it goes on or has ended, and what came free is not known yet.
    Measuring,
    /// It deletes nothing now and tries again by itself.
    Waiting,
    /// What it deleted did not come free: it deletes nothing until an operator says so or space comes free.
    Stopped,
}

/// How a quota or watermark is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerStatus {
    /// "watermark VOLUME" or "quota NAME".
    pub name: String,
    /// Whether it deletes.
    pub state: TriggerState,
    /// Why it does not delete now; empty when it is ready.
    pub reason: String,
    /// Since when.
    pub since: Option<Seconds>,
    /// Of a watermark: what was measured last, or why it stopped.
    pub measured: Option<Freed>,
    /// What all quotas and watermarks of the volume took within the last 24 h.
    pub taken_lately: Option<Totals>,
    /// Of a watermark: whose files its plans leave out, and why, in words.
    pub left_out: Vec<String>,
}

/// What runs deleted and what came free of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Apparent size of what was deleted.
    pub deleted_bytes: u64,
    /// What was to come free.
    pub promised_bytes: u64,
    /// What did, with what others wrote meanwhile.
    pub freed_bytes: u64,
    /// Inodes that were to come free.
    pub promised_files: u64,
    /// Inodes that did.
    pub freed_files: u64,
}

impl Host {
    // ------------------------------------------------------------ measuring

    /// Whether a volume's watermark may plan: not while the effect of its last run is unknown, and not when that had none.
    pub(in crate::host) fn may_trigger(&self, w: &Watermark) -> bool {
        let known = self.brakes.get(&w.volume);
        if known.pending.is_some() {
            return false;
        }
        let Some(stopped) = known.stopped else {
            return true;
        };
        let moved = self.volume(&w.volume).and_then(|volume| {
            let (space, inodes) = shares(&space_of(volume)?);
            Ok(space.max(inodes) <= w.high || stopped.has_moved(stored(volume)?.moment()))
        });
        // A volume that cannot be looked at has freed nothing.
        if !moved.unwrap_or(false) {
            return false;
        }
        tracing::info!(volume = %w.volume, "space came free: the watermark goes on");
        self.brakes
            .change(&w.volume, |k| (k.stopped, k.sum) = (None, None));
        true
    }

    /// Notes how full the volume is before a plan of its watermark is applied.
    pub(in crate::host) fn before_run(&self, volume: &Volume, plan: &str) -> Result<(), HostError> {
        let before = stored(volume)?;
        self.brakes.change(&volume.config.name, |k| {
            k.pending = Some(Pending {
                plan: plan.to_owned(),
                before: Some(before),
                began: clock::now().0,
                ..Pending::default()
            });
        });
        Ok(())
    }

    /// The plan is not applied.
    pub(in crate::host) fn no_run(&self, volume: &str) {
        self.brakes.change(volume, |k| k.pending = None);
    }

    /// How full a volume with a watermark is before trash is freed.
    pub(in crate::host) fn before_freeing(&self, volume: &Volume) -> Option<Moment> {
        let name = &volume.config.name;
        let has_one = self.limits.read().watermarks.iter().any(|w| w.volume == *name);
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
        self.brakes.change(&volume.config.name, |k| match &mut k.pending {
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
        if let Some(pending) = self.brakes.get(name).pending
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
            self.brakes.change(name, |k| k.pending = Some(ended));
        }
        let run = run_id.and_then(|id| self.runs.get(id).ok());
        let (deleted, went) = run.as_ref().map_or(((0, 0), (0, 0)), |run| {
            ((run.deleted.files, run.deleted.bytes), taken(run))
        });
        let (promised, _) = promise_of(plan.as_ref(), deleted);
        let (_, gone) = promise_of(plan.as_ref(), went);
        let mut sum = promised.plus(pending.trash.unwrap_or_default());
        let settling = Seconds(pending.ended).age_at(now);
        let is_settled = settling >= SETTLES_WITHIN;
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
        let before = self.brakes.get(name).sum.unwrap_or_default();
        let mut all = before.plus(sum);
        let mut verdict = all.verdict();
        if !is_settled && verdict != Verdict::Helps {
            return;
        }
        let mut left_out = self.brakes.left_out(name);
        if verdict != Verdict::Helps {
            // What processes keep is not held against the others' files.
            let plans = std::iter::once(&pending.plan).chain(&pending.trash_plans);
            let plans = plans.filter_map(|id| self.plans.get(id).ok());
            let drawn: Vec<_> = plans.flat_map(|plan| plan.drawn).collect();
            let (rest, owners) = self.without_kept(volume, &drawn, sum);
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
        };
        if verdict == Verdict::Useless {
            tracing::error!(volume = %name, why = %stopped.why(), "the watermark stops: deleting does not help; see `purgectl resume`");
            self.notices.tell_of_stop(
                name,
                &stopped.why(),
                (all.deleted_bytes, all.promised_bytes, all.freed_bytes),
            );
        }
        self.brakes.change(name, |k| {
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

    // ------------------------------------------------------------ operators

    /// Lets a volume's watermark go on that has stopped.
    ///
    /// # Errors
    /// When there is no such volume, or its watermark has not stopped.
    pub fn resume(&self, volume: &str, by: &str) -> Result<Vec<TriggerStatus>, HostError> {
        let name = self.volume(volume)?.config.name.clone();
        let known = self.brakes.get(&name);
        if known.stopped.is_none() && known.left_out.is_empty() {
            return Err(HostError::Refused(format!(
                "no trigger of volume {name} has stopped; `purgectl status` says how they are"
            )));
        }
        self.brakes.change(&name, |k| {
            (k.stopped, k.sum, k.left_out) = (None, None, Vec::new())
        });
        tracing::info!(volume = %name, by, "the watermark goes on: an operator said so");
        Ok(self.triggers(&name))
    }

    /// How the watermark and the purging quotas of a volume are.
    pub fn triggers(&self, volume: &str) -> Vec<TriggerStatus> {
        let limits = self.limits();
        let watermarks = limits.watermarks.into_iter().filter(|w| w.volume == volume);
        let quotas = limits
            .quotas
            .into_iter()
            .filter(|q| q.volume == volume && q.purges());
        let askers = watermarks.map(Asker::Watermark).chain(quotas.map(Asker::Quota));
        let askers: Vec<Asker> = askers.collect();
        if askers.is_empty() {
            return Vec::new();
        }
        let lately = self.taken_lately(volume).map(|lately| lately.triggered).ok();
        askers
            .iter()
            .map(|asker| self.trigger(asker, volume, lately))
            .collect()
    }

    fn trigger(&self, asker: &Asker, volume: &str, taken_lately: Option<Totals>) -> TriggerStatus {
        let mut status = TriggerStatus {
            name: asker.name(),
            state: TriggerState::Ready,
            reason: String::new(),
            since: None,
            measured: None,
            taken_lately,
            left_out: Vec::new(),
        };
        let waiting = self.brakes.waiting.lock().get(&status.name).cloned();
        if let Some(waiting) = waiting {
            status.state = TriggerState::Waiting;
            status.reason = waiting.why;
            status.since = Some(waiting.since);
        }
        if !matches!(asker, Asker::Watermark(_)) {
            return status;
        }
        let known = self.brakes.get(volume);
        status.left_out = known.left_out.iter().map(LeftOut::in_words).collect();
        let sum = known.stopped.as_ref().and_then(|s| s.sum).or(known.last);
        status.measured = sum.map(|s| Freed {
            deleted_bytes: s.deleted_bytes,
            promised_bytes: s.promised_bytes,
            freed_bytes: s.freed_bytes,
            promised_files: s.promised_files,
            freed_files: s.freed_files,
        });
        if let Some(pending) = &known.pending {
            status.state = TriggerState::Measuring;
            status.since = Some(Seconds(pending.began));
            status.reason = "what its run frees is being measured".into();
        }
        if let Some(stopped) = known.stopped {
            status.state = TriggerState::Stopped;
            status.since = Some(Seconds(stopped.at));
            status.reason = stopped.why();
        }
        status
    }
}

/// What came free if all of that was what its plan said: the promise, and what it took on disk.
fn promise_of(plan: Option<&Plan>, (files, bytes): (u64, u64)) -> (Sum, Amount) {
    let totals = plan.map(|plan| plan.totals);
    let totals = totals.unwrap_or(Totals {
        files,
        directories: 0,
        links: 0,
        bytes,
    });
    // A plan that is forgotten promised what was deleted.
    let promise = plan.and_then(|p| p.promise).unwrap_or(Promise {
        bytes: totals.bytes,
        files: totals.files,
        allocated: totals.bytes,
        wants_bytes: true,
        wants_files: false,
    });
    let part = |whole: u64| scaled(whole, (bytes, totals.bytes), (files, totals.files));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stop_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let sum = Sum {
            promised_bytes: 100,
            wants_bytes: true,
            ..Sum::default()
        };
        let stopped = Stopped {
            at: 7,
            sum: Some(sum),
            moment: Some(Stored {
                used: 1000,
                ..Stored::default()
            }),
        };
        let brakes = Brakes::load(dir.path());
        brakes.change("v", |k| k.stopped = Some(stopped.clone()));
        let again = Brakes::load(dir.path()).get("v").stopped.unwrap();
        assert_eq!(again, stopped);
        let now = |used| Moment {
            used,
            ..Moment::default()
        };
        assert!(!again.has_moved(now(901)) && again.has_moved(now(900)));
        brakes.change("v", |k| k.stopped = None);
        assert_eq!(Brakes::load(dir.path()).get("v").stopped, None);
    }
}
