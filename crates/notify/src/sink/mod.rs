//! The means by which a notice reaches its receiver. Each sends one notice and says whether it was taken.

mod amqp;
mod bounded;
mod exec;
mod frames;
#[cfg(test)]
mod hostile_tests;
mod reactor;
mod smtp;
mod starttls;
mod tls;
mod webhook;

use purge_proto::shown::{self, Shown};
use serde_json::{Value, json};

use super::event::{Audience, Entry};
use super::notice::Notice;
use super::receipts::Receipt;
use super::text::{About, Texts, Words, with_entries};
use crate::settings::{Means, Notify, Sink};
use purge_model::Seconds;
use purge_sys::socket::{EAFNOSUPPORT, NETWORK_CURE};

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
    /// No receiver is there, or it cannot take anything now: others need not be tried.
    #[error("{0}")]
    Down(String),
    /// This one was not taken; it may be later.
    #[error("{0}")]
    Refused(String),
    /// This one never will be.
    #[error("{0}")]
    Never(String),
}

impl SendError {
    /// Without what must not be repeated, and without what a terminal would obey.
    fn cleared(self, secrets: &[String]) -> Self {
        let clear = |words: String| {
            let mut secrets: Vec<&String> = secrets.iter().filter(|s| s.len() >= SECRET_BYTES_MIN).collect();
            secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
            let hidden = secrets
                .iter()
                .fold(words, |words, s| words.replace(s.as_str(), HIDDEN));
            Shown::from(hidden).into_string()
        };
        match self {
            Self::Down(words) => Self::Down(clear(words)),
            Self::Refused(words) => Self::Refused(clear(words)),
            Self::Never(words) => Self::Never(clear(words)),
        }
    }
}

/// What stands for a secret.
const HIDDEN: &str = "***";
/// What is shorter is found in any text.
const SECRET_BYTES_MIN: usize = 3;

/// A receiver that can be told.
pub struct Teller {
    means: Means,
    by: By,
}

enum By {
    /// By mail.
    Smtp(smtp::Mailer),
    /// By HTTP.
    Webhook(Box<webhook::Poster>),
    /// By AMQP.
    Amqp(amqp::Publisher),
    /// By a program.
    Exec(exec::Program),
}

impl Teller {
    /// Gets ready. No connection is made yet.
    pub fn new(sink: &Sink, all: &Notify) -> Self {
        let by = match &sink.means {
            Means::Smtp(c) => By::Smtp(smtp::Mailer::new(c.clone(), all.addresses.clone())),
            Means::Webhook(c) => By::Webhook(Box::new(webhook::Poster::new(c.clone()))),
            Means::Amqp(c) => By::Amqp(amqp::Publisher::new(c.clone())),
            Means::Exec(c) => By::Exec(exec::Program::new(c.clone())),
        };
        Self {
            means: sink.means.clone(),
            by,
        }
    }

    /// Sends one notice. When this returns well, the receiver is answerable for it; the receipt has been told first.
    ///
    /// # Errors
    /// [`SendError`] says whether it is worth trying again.
    pub async fn send(&mut self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        let sent = match &mut self.by {
            By::Smtp(mailer) => mailer.send(letter, receipt).await,
            By::Webhook(poster) => poster.send(letter, receipt).await,
            By::Amqp(publisher) => publisher.send(letter, receipt).await,
            By::Exec(program) => program.send(letter, receipt).await,
        };
        let sent = sent.map_err(|e| match e {
            SendError::Down(why) if is_without_network(&why) => {
                SendError::Down(format!("{why}; {NETWORK_CURE}"))
            }
            other => other,
        });
        sent.map_err(|error| error.cleared(&self.means.secrets()))
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

    /// [`Self::json`] as it is sent.
    pub fn text(&self) -> String {
        shown::json(&self.json().to_string()).into_owned()
    }

    /// The kind of its only event, or "digest".
    pub fn kind(&self) -> &'static str {
        match self.notice.events.as_slice() {
            [only] => only.what.kind().as_str(),
            _ => "digest",
        }
    }

    /// The owner it goes to; none: it goes to the person who keeps the storage.
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

/// A secret from its file, without the end of its line. One that others can read meanwhile is not used.
fn secret(path: &std::path::Path) -> Result<String, SendError> {
    let text = purge_base::secret::open(path)
        .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|e| SendError::Down(format!("{}: {e}", path.display())))
}
