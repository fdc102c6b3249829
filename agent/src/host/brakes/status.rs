//! How quotas and watermarks are, for operators, who may let one go on that has stopped.

use super::Brakes;
use super::withheld::LeftOut;
use crate::host::HostError;
use crate::host::asker::Asker;
use purge_model::{Seconds, Totals};

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

impl Brakes {
    /// Lets a volume's watermark go on that has stopped.
    ///
    /// # Errors
    /// When there is no such volume, or its watermark has not stopped.
    pub fn resume(&self, volume: &str, by: &str) -> Result<Vec<TriggerStatus>, HostError> {
        let name = self.ground.volume(volume)?.config.name.clone();
        let known = self.known.get(&name);
        if known.stopped.is_none() && known.left_out.is_empty() {
            return Err(HostError::Refused(format!(
                "no trigger of volume {name} has stopped; `purgectl status` says how they are"
            )));
        }
        self.known.change(&name, |k| {
            (k.stopped, k.sum, k.left_out) = (None, None, Vec::new())
        });
        tracing::info!(volume = %name, by, "the watermark goes on: an operator said so");
        Ok(self.triggers(&name))
    }

    /// How the watermark and the purging quotas of a volume are.
    pub fn triggers(&self, volume: &str) -> Vec<TriggerStatus> {
        let limits = self.ground.limits();
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
        let waiting = self.waiting.lock().get(&status.name).cloned();
        if let Some(waiting) = waiting {
            status.state = TriggerState::Waiting;
            status.reason = waiting.why;
            status.since = Some(waiting.since);
        }
        if !matches!(asker, Asker::Watermark(_)) {
            return status;
        }
        let known = self.known.get(volume);
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
