//! Colours: what is well, what wants a look, and what is bad.

use std::io::{self, IsTerminal};

/// What a text says by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    Plain,
    /// It is a heading.
    Head,
    /// All is well.
    Good,
    /// It goes on, waits, or wants a look.
    Note,
    /// Something does not work, or was refused.
    Bad,
}

/// A part of a line, in one tone. Its text is escaped where it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What is written.
    pub text: String,
    /// In which colour.
    pub tone: Tone,
}

impl Span {
    /// A text in a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }

    /// A text without colour.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }

    /// A word for a state, in its colour.
    pub fn state(word: &str) -> Self {
        Self::new(word, Tone::of_state(word))
    }
}

impl Tone {
    /// What a word for a state says: of volumes, runs, plans, notices, triggers, schedules and findings.
    pub fn of_state(word: &str) -> Self {
        match word {
            "tracking" | "good" | "done" | "completed" | "sent" | "ready" => Self::Good,
            "scanning" | "running" | "waiting" | "note" | "due" | "partial" | "measuring" | "cancelled" => {
                Self::Note
            }
            "degraded" | "bad" | "failed" | "refused" | "stopped" => Self::Bad,
            _ => Self::Plain,
        }
    }

    /// What a terminal is told before the text.
    pub(super) fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Head => Some("\x1b[1m"),
            Self::Good => Some("\x1b[32m"),
            Self::Note => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[1;31m"),
        }
    }
}

/// Ends a colour.
pub(super) const PLAIN: &str = "\x1b[0m";

/// Whether stdout gets colours: a terminal does, unless `NO_COLOR` is set or it is dumb; `CLICOLOR_FORCE` asks for them also elsewhere.
pub(super) fn is_wanted() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let is_forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0");
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_set("NO_COLOR") && (is_forced || (io::stdout().is_terminal() && !is_dumb))
}
