//! An event as one line of words: what happened, its facts in parentheses, and last why. `journalctl` shows no other field than the message, so
//! the message must be enough.

use std::fmt;

use tracing::field::{Field, Visit};

/// Fields that say why: they end the line.
const REASONS: [&str; 4] = ["error", "why", "fault", "reason"];
/// The field that says what to do.
const CURE: &str = "cure";
/// Other programs wait for these lines word by word.
const BARE: [&str; 1] = ["ready"];

/// What an event says.
#[derive(Debug, Default)]
pub struct Line {
    message: String,
    facts: Vec<String>,
    reasons: Vec<String>,
    cure: Option<String>,
}

impl Line {
    /// All of it in words: `the index cannot be written (volume scratch): No space left on device; to do: free some`.
    pub fn in_words(self) -> String {
        if BARE.contains(&self.message.as_str()) {
            return self.message;
        }
        let mut line = self.message;
        if !self.facts.is_empty() {
            line.push_str(&format!(" ({})", self.facts.join(", ")));
        }
        for reason in self.reasons {
            line.push_str(": ");
            line.push_str(&reason);
        }
        if let Some(cure) = self.cure {
            line.push_str("; to do: ");
            line.push_str(&cure);
        }
        line
    }

    fn put(&mut self, name: &str, value: String) {
        match name {
            "message" => self.message = value,
            CURE => self.cure = Some(value),
            _ if REASONS.contains(&name) => self.reasons.push(value),
            _ => self
                .facts
                .push(format!("{} {value}", name.replace(['_', '.'], " "))),
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let value = if value { "yes" } else { "no" };
        self.put(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: &[(&str, &str)]) -> String {
        let mut line = Line::default();
        for (name, value) in fields {
            line.put(name, (*value).to_owned());
        }
        line.in_words()
    }

    #[test]
    fn a_line_says_what_with_its_facts_and_why() {
        let all = [
            ("volume", "scratch"),
            ("error", "No space left on device"),
            ("cure", "free some"),
            ("message", "the index cannot be written"),
            ("run_id", "r1"),
        ];
        assert_eq!(
            line(&all),
            "the index cannot be written (volume scratch, run id r1): No space left on device; to do: free some"
        );
        assert_eq!(line(&[("message", "stopped")]), "stopped");
        assert_eq!(line(&[("message", "ready"), ("volumes", "1")]), "ready");
    }
}
