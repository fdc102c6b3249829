//! Looking at notices before they are sent: what would be told now, and the first notices after notices were switched on.
//!
//! An agent that ran without notices and gets some would write to every owner in the same minute. So the first ones wait, the operators hear of how
//! many there are, and an operator can look at them, release them, or switch the notices off again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use parking_lot::Mutex;

use super::{LookError, Lookout, wall};
use purge_base::clock;
use purge_model::Seconds;
use purge_notify::event::{Audience, What, rfc3339};
use purge_notify::memory::Memory;
use purge_notify::preview::Found;

impl Lookout {
    /// What would be told now; `again`: as if nothing had been told yet. Nothing is sent, and nothing is noted.
    pub(in crate::host) fn preview(mut self, again: bool) -> Result<Vec<Found>, LookError> {
        if again {
            self.memory = Memory::blank(self.notifier.outbox.dir());
        }
        self.shown = Some(Mutex::default());
        let limits = self.ground.limits();
        for watermark in &limits.watermarks {
            self.watermark(watermark)?;
        }
        self.ground.meet_all_owners();
        for quota in &limits.quotas {
            self.quota(quota)?;
        }
        for rule in self.ground.rules() {
            self.rule(&rule)?;
        }
        Ok(self.shown.take().map(Mutex::into_inner).unwrap_or_default())
    }

    /// Whether owners are told nothing now.
    pub(super) fn is_held(&self) -> bool {
        self.shown.is_none() && self.memory.held_until(wall()).is_some()
    }

    /// Begins or ends the time in which the first notices wait.
    pub(super) fn begin(&mut self) -> Result<(), LookError> {
        if self.notifier.take_release() && self.is_held() {
            self.memory.hold_until(wall());
            (self.quotas.next, self.expiring.next) = (Instant::now(), Instant::now());
            tracing::info!("the first notices are released: they are sent now");
        }
        let hold = self.notifier.config().hold_first;
        if !self.memory.is_new || !self.was_silent || hold == 0 {
            return Ok(());
        }
        let until = wall().saturating_add(hold);
        // What cannot be counted now waits all the same.
        let counted = self.first_of_owners();
        let volumes = self.ground.volumes();
        let is_certain = counted.is_ok() && volumes.iter().all(|v| self.judge.check_certain(v).is_ok());
        let waiting = counted.unwrap_or_default();
        if waiting.is_empty() && is_certain {
            return Ok(());
        }
        self.memory.hold_until(until);
        for (volume, (notices, owners)) in waiting {
            self.announce_first(&volume, (notices, owners), until)?;
        }
        Ok(())
    }

    /// By volume: how many events there are for owners, and for how many owners.
    fn first_of_owners(&self) -> Result<BTreeMap<String, (u64, u64)>, LookError> {
        let mut owners: BTreeMap<String, (u64, BTreeSet<u32>)> = BTreeMap::new();
        for (event, _) in self.apart()?.preview(true)? {
            if let Audience::Owner { uid, .. } = event.to {
                let (events, uids) = owners.entry(event.volume).or_default();
                *events = events.saturating_add(1);
                uids.insert(uid);
            }
        }
        let counted =
            |(volume, (events, uids)): (String, (u64, BTreeSet<u32>))| (volume, (events, uids.len() as u64));
        Ok(owners.into_iter().map(counted).collect())
    }

    fn announce_first(
        &self,
        volume: &str,
        (notices, owners): (u64, u64),
        until: u64,
    ) -> Result<(), LookError> {
        let at = rfc3339(Seconds::from_unix(i64::try_from(until).unwrap_or(i64::MAX)));
        tracing::warn!(
            volume,
            notices,
            owners,
            until = at,
            cure = "look at them with `purgectl notices preview`, then `purgectl notices release`, or dry_run = true in [notify]",
            "notices are switched on: the first ones to owners wait"
        );
        let what = What::FirstNotices {
            notices,
            owners,
            until: at,
        };
        let id = format!("first-notices/{volume}/{until}");
        let event = self.notices.event(id, volume, Audience::Operator, what);
        self.tell(event, Vec::new(), 0)
    }

    /// Another one that looks at the same, and has told nothing.
    fn apart(&self) -> Result<Self, LookError> {
        let parts = (
            (&self.ground, &self.judge, &self.trash),
            (&self.plans, &self.runs),
            (&self.notices, &self.notifier),
        );
        let ((ground, judge, trash), (plans, runs), (notices, notifier)) = parts;
        Ok(Self::new(
            (ground.clone(), judge.clone(), trash.clone()),
            (plans.clone(), runs.clone()),
            (notices.clone(), notifier.clone()),
        )?)
    }
}

/// When the first notices are sent, if they wait.
pub(in crate::host) fn held_until(dir: &std::path::Path) -> Option<u64> {
    Memory::open(dir).ok()?.held_until(clock::wall().0.into())
}
