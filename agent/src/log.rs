//! The log: for a person on a terminal, as fields to the journal under systemd, as JSON on stderr otherwise.
//!
//! `PURGE_AGENT_LOG=human|json|journal` says otherwise, and `RUST_LOG` what is logged (`info` unless it is set).
//!
//! Names and words of others stand in it: each form passes through [`purge_proto::shown`].

mod journal;
mod line;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use journal::Journal;
use purge_proto::shown::{self, Shown};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Chooses the form.
const VARIABLE: &str = "PURGE_AGENT_LOG";

/// What is told unless `RUST_LOG` says otherwise. The AMQP library logs whole messages that came back; what became of a notice is
/// said by its sender.
const USUAL: &str = "info,lapin=off";
/// Libraries that log what they send, passwords and addresses included: never in more detail than this, with any filter.
const DISCREET: [&str; 6] = [
    "lettre=info",
    "hyper=info",
    "hyper_util=info",
    "hyper_rustls=info",
    "h2=info",
    "amq_protocol=info",
];

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Lines of text on stderr.
    Human,
    /// One JSON object a line on stderr.
    Json,
    /// Fields to systemd's journal.
    Journal,
}

/// Starts the log. To be called once.
pub fn init() {
    init_at("");
}

/// The same with what is told unless `RUST_LOG` says otherwise; empty: the usual.
pub fn init_at(level: &str) {
    let stderr_is_journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stderr(&stream));
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let chosen = choose(&wanted, io::stderr().is_terminal(), stderr_is_journal);
    let filter = || {
        let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| match level {
            "" => USUAL.into(),
            level => level.into(),
        });
        let discreet = DISCREET.iter().filter_map(|words| words.parse().ok());
        discreet.fold(wanted, EnvFilter::add_directive)
    };
    let journal = match chosen {
        Form::Journal => Journal::open(),
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    if let Ok(journal) = journal {
        // VOLUME=scratch, RUN=r1: what `journalctl -u purge-agent VOLUME=scratch` finds.
        tracing_subscriber::registry().with(filter()).with(journal).init();
        return;
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter());
    match chosen {
        Form::Human => {
            let fields = debug_fn(|to, field, value| {
                let text = format!("{value:?}");
                match field.name() {
                    "message" => write!(to, "{}", Shown::text(&text)),
                    name => write!(to, "{name}={}", Shown::text(&text)),
                }
            });
            builder
                .with_target(false)
                .with_writer(io::stderr)
                .fmt_fields(fields.delimited(" "))
                .init();
        }
        // Also where the journal cannot be reached.
        Form::Json | Form::Journal => builder.with_writer(|| Careful).json().flatten_event(true).init(),
    }
    if !wanted.is_empty() && form_of(&wanted).is_none() {
        tracing::warn!(
            wanted,
            "{VARIABLE} knows human, json and journal; it is left aside"
        );
    }
}

/// stderr, for finished lines of JSON.
struct Careful;

impl Write for Careful {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        io::stderr().write_all(shown::json(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn form_of(word: &str) -> Option<Form> {
    match word {
        "human" => Some(Form::Human),
        "json" => Some(Form::Json),
        "journal" => Some(Form::Journal),
        _ => None,
    }
}

fn choose(wanted: &str, is_terminal: bool, is_journal: bool) -> Form {
    form_of(wanted).unwrap_or(match (is_terminal, is_journal) {
        (true, _) => Form::Human,
        (_, true) => Form::Journal,
        _ => Form::Json,
    })
}

/// `JOURNAL_STREAM` (systemd.exec(5)) names device and inode of the journal's stream: stderr may have been sent elsewhere since.
fn is_stderr(stream: &str) -> bool {
    let stat = rustix::fs::fstat(io::stderr().as_fd());
    stat.is_ok_and(|s| stream == format!("{}:{}", s.st_dev, s.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_who_reads() {
        assert_eq!(choose("", true, false), Form::Human);
        assert_eq!(choose("", false, true), Form::Journal);
        assert_eq!(choose("", false, false), Form::Json);
        assert_eq!(choose("human", false, true), Form::Human);
        assert_eq!(choose("yaml", false, false), Form::Json);
        assert!(!is_stderr("1:2"));
    }
}
