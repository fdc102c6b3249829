//! The log as fields in systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram an event, `NAME=value` a
//! line. Values are escaped as everywhere, so none has a line's end in it. The message has all facts in it ([`super::line`]), and each fact is
//! a field as well.

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;

use purge_proto::shown::Shown;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::line::Line;

const PLACE: &str = "/run/systemd/journal/socket";
const MESSAGE: &str = "MESSAGE";
/// Of a value: a datagram must fit in a socket's buffer.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// Of an event.
const ENTRY_BYTES_MAX: usize = 96 << 10;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    program: String,
}

impl Journal {
    /// Finds the journal.
    ///
    /// # Errors
    /// When there is none here.
    pub fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // The datagram is empty: it only asks whether a process listens there.
        socket.send_to(&[], PLACE)?;
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(|p| p.file_name());
        let program = program.map_or_else(|| "purge-agent".into(), |n| n.to_string_lossy().into_owned());
        Ok(Self { socket, program })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::of(event.metadata(), &self.program);
        let mut line = Line::default();
        event.record(&mut line);
        entry.put(MESSAGE, &line.in_words());
        event.record(&mut entry);
        // There is no other place to say that the log cannot be written.
        let _ = self.socket.send_to(entry.0.as_bytes(), PLACE);
    }
}

/// An event as the journal takes it.
#[derive(Debug, Default)]
struct Entry(String);

impl Entry {
    fn of(about: &Metadata<'_>, program: &str) -> Self {
        let mut entry = Self::default();
        let priority = match *about.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "5",
            Level::DEBUG => "6",
            Level::TRACE => "7",
        };
        entry.put("PRIORITY", priority);
        entry.put("TARGET", about.target());
        if let (Some(file), Some(line)) = (about.file(), about.line()) {
            entry.put("CODE_FILE", file);
            entry.put("CODE_LINE", &line.to_string());
        }
        entry.put("SYSLOG_IDENTIFIER", program);
        entry
    }

    fn put(&mut self, name: &str, value: &str) {
        let value = Shown::text(value);
        let mut end = value.as_str().len().min(VALUE_BYTES_MAX);
        while !value.as_str().is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let value = value.as_str().get(..end).unwrap_or_default();
        if self.0.len().saturating_add(value.len()) > ENTRY_BYTES_MAX {
            return;
        }
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(value);
        self.0.push('\n');
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        let name = name_of(field.name());
        if name != MESSAGE {
            self.put(&name, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// The journal takes capital letters, digits and `_`, and keeps names that begin with `_` for itself.
fn name_of(field: &str) -> String {
    let taken = field.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    });
    taken.skip_while(|c| !c.is_ascii_alphabetic()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_a_line_and_none_is_endless() {
        let mut entry = Entry::default();
        entry.put("MESSAGE", "a\nPRIORITY=0\x1b[2J\u{202e}");
        entry.put("WHY", &"é".repeat(VALUE_BYTES_MAX));
        assert!(
            entry
                .0
                .starts_with("MESSAGE=a\\nPRIORITY=0\\x1b[2J\\u{202e}\nWHY=éé")
        );
        assert_eq!(entry.0.lines().count(), 2);
        for _ in 0..20 {
            entry.put("MORE", &"x".repeat(VALUE_BYTES_MAX));
        }
        assert!(entry.0.len() < ENTRY_BYTES_MAX + 1000);
        assert_eq!(
            (name_of("_run-id"), name_of("message")),
            ("RUN_ID".into(), "MESSAGE".into())
        );
    }
}
