//! The catalogue: a line of JSON for each copy, in objects of the store that people can read without the agent.
//!
//! ```text
//!   PREFIX/.purge-agent/catalogue/VOLUME/RUN/000000.ndjson   lines; fetched back and compared before any file that they name is removed
//!   PREFIX/.purge-agent/catalogue/VOLUME/RUN/end.json        how many there are, and the hash of each: the run came to its end
//! ```
//! A line says what a copy was: that its file was removed afterwards is in the run's record and in the audit log. What was used meanwhile
//! stays on the volume, and its copy and line stay in the store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use purge_model::{LastUse, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::content::Hash;
use crate::key::{OWN, hex};

/// What a line says of an entry of a volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Path relative to the volume; not all of it where it is not UTF-8.
    pub path: String,
    /// The whole path in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// "file", "directory" or "symlink".
    pub kind: String,
    /// The key of the copy; empty where there is nothing but this line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Bytes of content.
    #[serde(default)]
    pub size: u64,
    /// Their SHA-256, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The copy was in the store before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub found: bool,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// The owner's name on this host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// The group's name on this host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Permission bits in octal digits.
    pub mode: String,
    /// Modification time, to the nanosecond.
    pub mtime: String,
    /// The last use that the rule went by.
    pub last_access: String,
    /// Who says so.
    pub source: String,
    /// Extended attributes with ACLs, by name; values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// All names of a file with several, in base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Where a symbolic link leads, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The rule.
    pub rule: String,
    /// The run.
    pub run: String,
    /// Its plan.
    pub plan: String,
    /// The volume's name.
    pub volume: String,
    /// The host.
    pub host: String,
    /// When the copy was compared.
    pub archived_at: String,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Line {
    /// With this path.
    #[must_use]
    pub fn at(mut self, path: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(path);
        self.path_bytes = std::str::from_utf8(path).is_err().then(|| STANDARD.encode(path));
        self.path = shown.into_owned();
        self
    }

    /// The path; none: the line is damaged.
    pub fn path(&self) -> Option<Vec<u8>> {
        match &self.path_bytes {
            Some(bytes) => STANDARD.decode(bytes).ok(),
            None => Some(self.path.clone().into_bytes()),
        }
    }

    /// As it is written, with the end of the line.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and maps of strings always become JSON.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The lines of an object, and how many of them are none.
pub fn lines(bytes: &[u8]) -> (Vec<Line>, usize) {
    let all = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (mut good, mut damaged) = (Vec::new(), 0);
    for line in all {
        match serde_json::from_slice(line) {
            Ok(line) => good.push(line),
            Err(_) => damaged += 1,
        }
    }
    (good, damaged)
}

/// Where the catalogues of a volume are.
pub fn of_volume(volume: &str) -> String {
    format!("{OWN}/catalogue/{volume}")
}

/// The key of one object of a run's catalogue.
pub fn object(volume: &str, run: &str, number: u32) -> String {
    format!("{}/{run}/{number:06}.ndjson", of_volume(volume))
}

/// The key of what says that a run came to its end.
pub fn end(volume: &str, run: &str) -> String {
    format!("{}/{run}/end.json", of_volume(volume))
}

/// What is said of a run that came to its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The run.
    pub run: String,
    /// How it ended.
    pub state: String,
    /// Files that were copied, or found copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The objects of its catalogue.
    pub objects: Vec<EndObject>,
}

/// An object of a catalogue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndObject {
    /// Its key.
    pub key: String,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

impl EndObject {
    /// An object with this hash.
    pub fn of(key: &str, hash: &Hash) -> Self {
        Self {
            key: key.to_owned(),
            sha256: hex(hash),
        }
    }
}

/// A moment as a line has it.
pub fn moment(seconds: i64, nanos: u32) -> String {
    let at = DateTime::<Utc>::from_timestamp(seconds, nanos).unwrap_or_default();
    let form = if nanos == 0 {
        SecondsFormat::Secs
    } else {
        SecondsFormat::Nanos
    };
    at.to_rfc3339_opts(form, true)
}

/// A last use as a line has it.
pub fn last_use(last: LastUse) -> (String, &'static str) {
    let source = match last.source {
        Source::Baseline => "baseline",
        Source::Observed => "observed",
        Source::Atime => "atime",
        Source::Mtime => "mtime",
        Source::Ctime => "ctime",
        Source::Birth => "birth",
        Source::Gap => "gap",
    };
    (moment(last.at.unix(), 0), source)
}

/// The bytes that a line has; none: they are damaged.
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Bytes as a line has them.
pub fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(path in prop::collection::vec(1u8..=255, 1..60), size in any::<u64>()) {
            let line = Line { kind: "file".into(), size, ..Line::default() }.at(&path);
            let bytes = [line.to_json(), b"no json\n".to_vec(), line.to_json()].concat();
            let (read, damaged) = lines(&bytes);
            prop_assert_eq!((&read[..], damaged), (&[line.clone(), line][..], 1));
            prop_assert_eq!(read[0].path().unwrap(), path);
        }

        #[test]
        fn any_bytes_are_lines_or_damaged(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (good, damaged) = lines(&bytes);
            prop_assert!(good.len() + damaged <= bytes.len());
        }
    }

    #[test]
    fn a_moment_has_its_nanoseconds() {
        assert_eq!(moment(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(1_600_000_000, 5), "2020-09-13T12:26:40.000000005Z");
    }
}
