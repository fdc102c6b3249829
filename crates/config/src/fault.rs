//! What is wrong with a configuration, where, and how to mend it.

use std::fmt;
use std::ops::Range;

use purge_proto::shown::Shown;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the option it came from.
    pub place: String,
    /// Line and column, from 1; none where the whole file or an option is meant.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// How to mend it; may be empty.
    pub mend: String,
}

impl Fault {
    /// Something wrong at a byte range of a file's text.
    pub fn at(
        file: &str,
        text: &str,
        span: &Range<usize>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        let before = text.get(..span.start.min(text.len())).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self {
            place: file.into(),
            position: Some((line, column)),
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// Something wrong with a whole file or an option.
    pub fn elsewhere(place: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            position: None,
            what: what.into(),
            mend: mend.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self
            .position
            .map_or_else(String::new, |(line, column)| format!("{line}:{column}:"));
        let cure = if self.mend.is_empty() { "" } else { "; " };
        // Keys and values of the file stand in it.
        let words = format!("{}:{position} {}{cure}{}", self.place, self.what, self.mend);
        Shown::from(words).fmt(f)
    }
}
