//! What was told already, so that no sink gets it again. One JSON file, replaced whole after its events are in the outbox.
//!
//! An event's name is made from what is in here, and what is in here moves on only once the event is durable. A crash
//! between the two makes the same event again, with the same name, and the outbox knows it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::event::Audience;
use super::expiring::Told;
use super::file::{Sync, replace};

/// Its name in the outbox's directory.
pub const FILE: &str = "memory.json";
/// What was told once is remembered for this long: longer than anything could find it again.
const REMEMBERED_SECONDS: u64 = 90 * 86_400;

/// A state that begins and ends, such as being over a quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// How many there have been: names the next event.
    pub number: u64,
    /// It goes on.
    pub on: bool,
    /// Who was told.
    #[serde(default)]
    pub to: Option<Audience>,
}

/// What was told.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// By quota and subject, or by watermark.
    #[serde(default)]
    pub episodes: BTreeMap<String, Episode>,
    /// By volume, rule and owner.
    #[serde(default)]
    pub expiring: BTreeMap<String, Told>,
    /// Runs, gaps and failures by name, and when they were told.
    #[serde(default)]
    pub once: BTreeMap<String, u64>,
    /// Notices were just switched on: until then (seconds since 1970) no owner is told what will happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<u64>,
}

/// The file.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    /// There was none: everything that is long past is not told any more.
    pub is_new: bool,
    /// What was told.
    pub told: Record,
    changed: bool,
}

impl Memory {
    /// Reads it. A damaged one is a new one: better told twice than never.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let (told, is_new) = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(told) => (told, false),
                Err(error) => {
                    tracing::error!(%error, "what was told is not known any more: some notices may come twice");
                    (Record::default(), true)
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => (Record::default(), true),
            Err(e) => return Err(e),
        };
        Ok(Self {
            path,
            is_new,
            told,
            changed: is_new,
        })
    }

    /// One in which nothing was told yet. It is not to be saved.
    pub fn blank(dir: &Path) -> Self {
        Self {
            path: dir.join(FILE),
            is_new: true,
            told: Record::default(),
            changed: false,
        }
    }

    /// Until when owners are told nothing, if so.
    pub fn held_until(&self, now: u64) -> Option<u64> {
        self.told.first_at.filter(|at| *at > now)
    }

    /// Owners are told nothing before then.
    pub fn hold_until(&mut self, at: u64) {
        self.told.first_at = Some(at);
        self.changed = true;
    }

    /// Whether something that happens once was told.
    pub fn has(&self, id: &str) -> bool {
        self.told.once.contains_key(id)
    }

    /// It was told.
    pub fn note(&mut self, id: &str, now: u64) {
        self.told.once.insert(id.to_owned(), now);
        self.changed = true;
    }

    /// An episode as it is.
    pub fn episode(&self, key: &str) -> Episode {
        self.told.episodes.get(key).cloned().unwrap_or_default()
    }

    /// The episodes that go on, of those whose names begin so: the rest of the name.
    pub fn going_on(&self, prefix: &str) -> Vec<String> {
        let all = self.told.episodes.iter().filter(|(_, e)| e.on);
        all.filter_map(|(key, _)| Some(key.strip_prefix(prefix)?.to_owned()))
            .collect()
    }

    /// An episode began or ended.
    pub fn turn(&mut self, key: &str, to: Episode) {
        self.told.episodes.insert(key.to_owned(), to);
        self.changed = true;
    }

    /// What an owner was told of a rule.
    pub fn heard(&self, key: &str) -> Option<&Told> {
        self.told.expiring.get(key)
    }

    /// An owner was told.
    pub fn hear(&mut self, key: &str, told: Told) {
        self.told.expiring.insert(key.to_owned(), told);
        self.changed = true;
    }

    /// Makes it durable, if it changed.
    ///
    /// # Errors
    /// When it cannot be written: it is tried again the next time.
    pub fn save(&mut self, now: u64) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.told
            .once
            .retain(|_, at| now.saturating_sub(*at) < REMEMBERED_SECONDS);
        replace(&self.path, &serde_json::to_vec(&self.told)?, Sync::First)?;
        (self.changed, self.is_new) = (false, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_told_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(dir.path()).unwrap();
        assert!(memory.is_new && !memory.has("run/r1"));
        memory.note("run/r1", 100);
        memory.turn(
            "quota/q/alice",
            Episode {
                number: 3,
                on: true,
                to: None,
            },
        );
        memory.hear(
            "v/r/7",
            Told {
                times: 2,
                ..Told::default()
            },
        );
        memory.save(100).unwrap();
        let mut memory = Memory::open(dir.path()).unwrap();
        assert!(!memory.is_new && memory.has("run/r1"));
        assert_eq!(memory.episode("quota/q/alice").number, 3);
        assert_eq!(memory.going_on("quota/q/"), ["alice"]);
        assert_eq!(memory.heard("v/r/7").map(|t| t.times), Some(2));
        memory.note("run/r2", 100 + REMEMBERED_SECONDS);
        memory.save(100 + REMEMBERED_SECONDS).unwrap();
        assert!(!memory.has("run/r1") && memory.has("run/r2"));
    }
}
