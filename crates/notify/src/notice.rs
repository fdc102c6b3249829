//! A notice: what one sink tells one audience, and what has become of that (values).

use serde::{Deserialize, Serialize};

use super::event::{Audience, Event};
use crate::settings::Sink;

/// What has become of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is not due yet, and events may join it.
    Gathering,
    /// It is to be sent.
    Waiting,
    /// The sink has taken it.
    Sent,
    /// It was given up.
    Failed,
}

/// Something to be told by one sink to one audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Its name, also for the receiver.
    pub notice_id: String,
    /// By which sink.
    pub sink: String,
    /// What has become of it.
    pub fate: Fate,
    /// To whom.
    pub to: Audience,
    /// When it was made, seconds since 1970.
    pub created_at: u64,
    /// When it is to be sent (again).
    pub due_at: u64,
    /// When it was closed; 0: not yet.
    pub closed_at: u64,
    /// When it was sent or given up; 0: not yet.
    pub ended_at: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed; empty: it did not.
    pub error: String,
    /// What it tells, oldest first.
    pub events: Vec<Event>,
}

impl Notice {
    /// One that gathers from now on.
    pub(super) fn new(notice_id: String, sink: &Sink, to: &Audience, now: u64) -> Self {
        Self {
            notice_id,
            sink: sink.name.clone(),
            fate: Fate::Gathering,
            to: to.clone(),
            created_at: now,
            due_at: now,
            closed_at: 0,
            ended_at: 0,
            attempts: 0,
            error: String::new(),
            events: Vec::new(),
        }
    }

    /// The sink has taken it.
    pub(super) fn has_been_sent(&mut self, now: u64) {
        self.fate = Fate::Sent;
        self.attempts = self.attempts.saturating_add(1);
        self.ended_at = now;
        self.error.clear();
    }

    /// Whether nothing more becomes of it.
    pub fn is_over(&self) -> bool {
        matches!(self.fate, Fate::Sent | Fate::Failed)
    }
}
