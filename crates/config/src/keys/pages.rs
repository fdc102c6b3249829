//! Pages for people, made from the entries of the keys.

mod example;
mod reference;

pub use example::example;
pub use reference::reference;

use super::{Form, Key, Preset, Reload};

impl Form {
    /// What is written, in words.
    pub fn in_words(self) -> String {
        match self {
            Self::Text(what) => what.into(),
            Self::Duration => "a duration".into(),
            Self::Size => "a size".into(),
            Self::Count => "a whole number".into(),
            Self::Share => "a number from 0 to 1".into(),
            Self::Percent => "a percentage".into(),
            Self::Flag => "true or false".into(),
            Self::FlagOr(word) => format!("true, false or {word:?}"),
            Self::Choice(words) => {
                let words = words.iter().filter(|w| !w.later);
                let words: Vec<String> = words.map(|w| format!("{:?}", w.name)).collect();
                words.join(" | ")
            }
            Self::Texts(what) => format!("{what}, a list"),
            Self::Tables(_) => "a table".into(),
            Self::Later => "for a later version".into(),
        }
    }
}

impl Key {
    /// What holds where it is left out, in words; empty: nothing of the kind.
    pub fn default_in_words(&self) -> String {
        let value = match self.preset {
            Preset::Required => return "required".into(),
            Preset::Value(value) => value,
            Preset::Nothing => "",
        };
        match (value, self.unless) {
            ("", None) => String::new(),
            ("", Some(unless)) => format!("default {} {}", unless.value, unless.words),
            (value, None) => format!("default {value}"),
            (value, Some(unless)) => format!("default {value}, and {} {}", unless.value, unless.words),
        }
    }

    /// When a change takes effect, in words.
    pub fn reload_in_words(&self) -> &'static str {
        match self.reload {
            Reload::AtOnce => "at a reload",
            Reload::AtRestart => "at a restart",
        }
    }
}

/// Words in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}
