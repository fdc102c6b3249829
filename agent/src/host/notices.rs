//! Notices of what the agent could not do, for the operators.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Ground, HostError};
use purge_base::clock;
use purge_notify::event::{Audience, Event, What, rfc3339};
use purge_notify::sender::Notifier;

/// A failure is told once in this many seconds.
const DAY: u64 = 86_400;

/// Sends notices.
#[derive(Debug)]
pub(super) struct Notices {
    ground: Arc<Ground>,
    notifier: Arc<Notifier>,
    /// Rules that only tell, and whose time has come.
    to_tell: Mutex<BTreeSet<String>>,
}

impl Notices {
    pub(super) fn new(ground: Arc<Ground>, notifier: Arc<Notifier>) -> Arc<Self> {
        Arc::new(Self {
            ground,
            notifier,
            to_tell: Mutex::default(),
        })
    }

    /// The time of a rule that only tells has come.
    pub(super) fn ask_for(&self, rule: &str) {
        self.to_tell.lock().insert(rule.to_owned());
    }

    /// The rules of which that was said since the last call.
    pub(super) fn take_asked(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.to_tell.lock())
    }

    /// A run that the agent wanted to make was not made. Told once a day.
    pub(super) fn tell_of_failure(&self, volume: &str, by: &str, error: &HostError) {
        let now = clock::wall();
        let what = What::RunFailed {
            run_id: String::new(),
            by: by.to_owned(),
            error: error.to_string(),
            failed: 0,
        };
        let day = u64::from(now.0).checked_div(DAY).unwrap_or(0);
        let event = self.event(format!("not-run/{by}/{day}"), volume, Audience::Operator, what);
        if let Err(error) = self.notifier.tell(event, &[]) {
            tracing::error!(by, %error, "the notice that the run was not made cannot be sent");
        }
    }

    /// A watermark has stopped because what it deletes does not come free.
    pub(super) fn tell_of_stop(
        &self,
        volume: &str,
        reason: &str,
        (deleted_bytes, promised_bytes, freed_bytes): (u64, u64, u64),
    ) {
        let what = What::TriggerStopped {
            by: format!("watermark {volume}"),
            reason: reason.to_owned(),
            deleted_bytes,
            promised_bytes,
            freed_bytes,
        };
        let id = format!("trigger-stopped/{volume}/{}", clock::wall().0);
        let event = self.event(id, volume, Audience::Operator, what);
        if let Err(error) = self.notifier.tell(event, &[]) {
            tracing::error!(volume, %error, "the operators cannot be told that the watermark has stopped");
        }
    }

    /// An event of a volume, as of now.
    pub(super) fn event(&self, event_id: String, volume: &str, to: Audience, what: What) -> Event {
        let member = self.ground.member(volume);
        let path = member.as_ref().map(|m| &m.config().path);
        Event {
            event_id,
            at: rfc3339(clock::wall()),
            volume: volume.to_owned(),
            path: path.map_or_else(String::new, |path| path.display().to_string()),
            to,
            what,
            list: None,
        }
    }
}
