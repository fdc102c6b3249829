//! What stops a watermark whose runs free too little: what its runs free is measured, and one that frees too little stops until an
//! operator or the space itself says otherwise.
//!
//! - `measuring` what runs free, against what their plans promised
//! - `promised`  sums of that
//! - `withheld`  deleted files that processes keep: their owners' files are left out
//! - `lately`    what was taken within a day without a person
//! - `known`     what is remembered of it, in `STATE_DIR/freed`
//! - [`status`]  how quotas and watermarks are, and letting one go on

mod known;
mod lately;
mod measuring;
mod promised;
pub mod status;
pub(super) mod withheld;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use self::known::{AllKnown, Pending, stored};
use super::notices::Notices;
use super::space::{shares, space_of};
use super::{Ground, HostError};
use crate::volume::Volume;
use purge_base::clock;
use purge_model::Seconds;
use purge_policy::allowance::Watermark;
use purge_removal::plans::Plans;
use purge_removal::runs::Runs;
use purge_sys::stat::magic;

/// Why a trigger waits; forgotten at a restart, found out again at the next look.
#[derive(Debug, Clone)]
struct Waiting {
    why: String,
    since: Seconds,
}

/// What stops quotas and watermarks.
#[derive(Debug)]
pub struct Brakes {
    ground: Arc<Ground>,
    plans: Plans,
    runs: Arc<Runs>,
    notices: Arc<Notices>,
    known: AllKnown,
    waiting: Mutex<BTreeMap<String, Waiting>>,
}

impl Brakes {
    /// With what earlier processes knew.
    pub(super) fn load(
        ground: Arc<Ground>,
        (plans, runs): (Plans, Arc<Runs>),
        notices: Arc<Notices>,
    ) -> Arc<Self> {
        Arc::new(Self {
            known: AllKnown::load(&ground.anchor),
            ground,
            plans,
            runs,
            notices,
            waiting: Mutex::default(),
        })
    }

    /// Whether a volume's watermark may plan: not while the effect of its last run is unknown, and not when that had none.
    pub(super) fn may_trigger(&self, w: &Watermark) -> bool {
        let known = self.known.get(&w.volume);
        if known.pending.is_some() {
            return false;
        }
        let Some(stopped) = known.stopped else {
            return true;
        };
        let moved = self.ground.volume(&w.volume).and_then(|volume| {
            let (space, inodes) = shares(&space_of(&volume)?);
            // On ZFS the share in use falls with each file that is removed, also with those that a snapshot holds.
            let is_below = volume.mount.magic != magic::ZFS && space.max(inodes) <= w.high;
            Ok(is_below || stopped.has_moved(stored(&volume)?.moment()))
        });
        // A volume that cannot be looked at has freed nothing.
        if !moved.unwrap_or(false) {
            return false;
        }
        tracing::info!(volume = %w.volume, "space came free: the watermark goes on");
        self.known
            .change(&w.volume, |k| (k.stopped, k.sum) = (None, None));
        true
    }

    /// Notes how full the volume is before a plan of its watermark is applied.
    pub(super) fn before_run(&self, volume: &Volume, plan: &str) -> Result<(), HostError> {
        let before = stored(volume)?;
        self.known.change(&volume.config.name, |k| {
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
    pub(super) fn no_run(&self, volume: &str) {
        self.known.change(volume, |k| k.pending = None);
    }

    /// Notes why a trigger waits; true if that is new.
    pub(super) fn waits(&self, asker: &str, why: &str) -> bool {
        let mut all = self.waiting.lock();
        let is_new = all.get(asker).is_none_or(|w| w.why != why);
        if is_new {
            let since = all.get(asker).map_or_else(clock::now, |w| w.since);
            let why = why.to_owned();
            all.insert(asker.to_owned(), Waiting { why, since });
        }
        is_new
    }

    /// A trigger waits no longer.
    pub(super) fn goes_on(&self, asker: &str) {
        self.waiting.lock().remove(asker);
    }
}
