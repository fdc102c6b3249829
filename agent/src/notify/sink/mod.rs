//! The means by which a notice reaches somebody. Each sends one notice and says whether it was taken.

mod amqp;
mod amqps;
mod exec;
mod smtp;
mod tls;
mod webhook;

use serde_json::{Value, json};

use super::event::{Audience, Entry};
use super::notice::Notice;
use super::receipts::Receipt;
use super::text::{About, Texts, Words, with_entries};
use crate::config::{Means, Notify, Sink};
use crate::model::Seconds;
use crate::sys::socket::{EAFNOSUPPORT, NETWORK_CURE};

/// A notice ready to be sent.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The notice.
    pub notice: Notice,
    /// Beside its events: the entries each speaks of.
    pub lists: Vec<Vec<Entry>>,
    /// In words.
    pub words: Words,
    /// This host.
    pub host: String,
}

/// Why a notice was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody is there, or cannot take anything now: others need not be tried.
    #[error("{0}")]
    Down(String),
    /// This one was not taken; it may be later.
    #[error("{0}")]
    Refused(String),
    /// This one never will be.
    #[error("{0}")]
    Never(String),
}

/// Somebody who can be told.
pub enum Teller {
    /// By mail.
    Smtp(smtp::Mailer),
    /// By HTTP.
    Webhook(webhook::Poster),
    /// By AMQP.
    Amqp(amqp::Publisher),
    /// By a program.
    Exec(exec::Program),
}

impl Teller {
    /// Gets ready. Nobody is connected to yet.
    pub fn new(sink: &Sink, all: &Notify) -> Self {
        match &sink.means {
            Means::Smtp(c) => Self::Smtp(smtp::Mailer::new(c.clone(), all.addresses.clone())),
            Means::Webhook(c) => Self::Webhook(webhook::Poster::new(c.clone())),
            Means::Amqp(c) => Self::Amqp(amqp::Publisher::new(c.clone())),
            Means::Exec(c) => Self::Exec(exec::Program::new(c.clone())),
        }
    }

    /// Sends one notice. When this returns well, somebody else is answerable for it; the receipt has been told first.
    ///
    /// # Errors
    /// [`SendError`] says whether it is worth trying again.
    pub async fn send(&mut self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        let sent = match self {
            Self::Smtp(mailer) => mailer.send(letter, receipt).await,
            Self::Webhook(poster) => poster.send(letter, receipt).await,
            Self::Amqp(publisher) => publisher.send(letter, receipt).await,
            Self::Exec(program) => program.send(letter, receipt).await,
        };
        sent.map_err(|e| match e {
            SendError::Down(why) if is_without_network(&why) => {
                SendError::Down(format!("{why}; {NETWORK_CURE}"))
            }
            other => other,
        })
    }

    /// Where a reader of its notices finds a list.
    pub fn list_place(sink: &Sink) -> &'static str {
        match sink.means {
            Means::Smtp(_) => "the attachment",
            _ => "events[].list",
        }
    }
}

impl Letter {
    /// A notice in words, with its lists.
    pub fn write(notice: Notice, lists: Vec<Vec<Entry>>, texts: &Texts, about: &About<'_>) -> Self {
        let words = texts.words(&notice, &lists, about);
        Self {
            notice,
            lists,
            words,
            host: about.host.to_owned(),
        }
    }

    /// As programs read it.
    pub fn json(&self) -> Value {
        let created = Seconds::from_unix(i64::try_from(self.notice.created_at).unwrap_or(i64::MAX));
        let events: Vec<Value> = self
            .notice
            .events
            .iter()
            .zip(self.lists.iter().map(Some).chain(std::iter::repeat(None)))
            .map(|(event, entries)| with_entries(event, entries.map_or(&[], Vec::as_slice)))
            .collect();
        json!({
            "notice_id": self.notice.notice_id,
            "created_at": super::event::rfc3339(created),
            "host": self.host,
            "event": self.kind(),
            "to": self.notice.to,
            "subject": self.words.subject,
            "text": self.words.body,
            "events": events,
        })
    }

    /// The kind of its only event, or "digest".
    pub fn kind(&self) -> &'static str {
        match self.notice.events.as_slice() {
            [only] => only.what.kind().as_str(),
            _ => "digest",
        }
    }

    /// Whether it goes to whoever keeps the storage.
    pub fn owner(&self) -> Option<&str> {
        match &self.notice.to {
            Audience::Owner { user, .. } => Some(user),
            Audience::Operator => None,
        }
    }
}

/// Whether an error of a library says that the process may not have sockets of the internet.
fn is_without_network(why: &str) -> bool {
    why.contains(&std::io::Error::from_raw_os_error(EAFNOSUPPORT).to_string())
}

/// A secret from its file, without the end of its line.
fn secret(path: &std::path::Path) -> Result<String, SendError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|e| SendError::Down(format!("{}: {e}", path.display())))
}
