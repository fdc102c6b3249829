//! Writes what a run took.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::{BLOCK_ENTRIES, BLOCK_MAGIC, Entry, MAGIC, NAMES_BYTES_MAX, RUN_BYTES_MAX, What, hash};
use crate::run::surroundings::Taken;
use purge_model::Seconds;
use purge_policy::evaluate::Shape;

/// What was taken can be asked for after so long, also while the run goes on.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// Directories above that are remembered, so that each is written once as a rule.
const ABOVE_MAX: usize = 1 << 16;

/// The record of a run that goes on. What it holds back is written when it is dropped.
#[derive(Debug)]
pub struct Writer(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    written: u64,
    block: Vec<(u64, Entry)>,
    since: Instant,
    above: FxHashSet<(u64, u32)>,
}

impl Writer {
    /// Begins the record of a run whose plan has these rules.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create<'r>(state_dir: &Path, run: &str, rules: impl Iterator<Item = &'r str>) -> io::Result<Self> {
        let mut names = rules
            .map(|name| name.replace('\n', " "))
            .collect::<Vec<_>>()
            .join("\n");
        if names.len() > NAMES_BYTES_MAX {
            names.clear();
        }
        let length = u32::try_from(names.len()).unwrap_or(0);
        let head = [MAGIC.as_slice(), &length.to_le_bytes(), names.as_bytes()].concat();
        let mut file = purge_sys::private::create(&super::path(state_dir, run))?;
        file.write_all(&head)?;
        Ok(Self(Mutex::new(Inner {
            file,
            written: head.len() as u64,
            block: Vec::new(),
            since: Instant::now(),
            above: FxHashSet::default(),
        })))
    }

    /// Notes what was taken. A run does not end because that cannot be written.
    pub fn note(&self, taken: &[Taken<'_>], at: Seconds) {
        let mut inner = self.0.lock();
        for each in taken {
            inner.add(each, at);
        }
        if inner.since.elapsed() >= WRITTEN_WITHIN {
            inner.write();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().write();
    }
}

impl Inner {
    fn add(&mut self, taken: &Taken<'_>, at: Seconds) {
        let c = taken.candidate;
        let what = match c.shape {
            Shape::File => What::File,
            Shape::Link(_) => What::Link,
            Shape::Tree => What::Tree,
            Shape::EmptyDirectory => What::EmptyDirectory,
        };
        let until = taken
            .until
            .map_or(0, |until| u32::try_from(until).unwrap_or(u32::MAX));
        let entry = Entry {
            what,
            ino: c.ino,
            bytes: c.size,
            files: u32::try_from(c.files).unwrap_or(u32::MAX),
            uid: c.uid,
            until,
            // To look into a directory is no use of what is in it: the rule decided by what was.
            last: match c.shape {
                Shape::Tree | Shape::EmptyDirectory => c.last.at,
                Shape::File | Shape::Link(_) => c.last_use(),
            },
            at,
            rule: c.rule,
        };
        self.add_above(&c.dir, &entry);
        self.push(hash(&c.path()), entry);
    }

    /// The directories above it, but for the volume's root: below that something was taken in any case.
    fn add_above(&mut self, dir: &[u8], entry: &Entry) {
        let mut end = dir.len();
        while let Some(above) = dir.get(..end).filter(|above| !above.is_empty()) {
            let key = (hash(above), entry.uid);
            if self.above.len() >= ABOVE_MAX {
                self.above.clear();
            }
            // Those above it were written with it.
            if !self.above.insert(key) {
                return;
            }
            let above = Entry {
                what: What::Above,
                ino: 0,
                bytes: 0,
                files: 0,
                until: 0,
                ..entry.clone()
            };
            self.push(key.0, above);
            end = dir
                .get(..end)
                .and_then(|dir| dir.iter().rposition(|b| *b == b'/'))
                .unwrap_or(0);
        }
    }

    fn push(&mut self, hash: u64, entry: Entry) {
        self.block.push((hash, entry));
        if self.block.len() >= BLOCK_ENTRIES {
            self.write();
        }
    }

    fn write(&mut self) {
        self.since = Instant::now();
        let mut block = std::mem::take(&mut self.block);
        if block.is_empty() || self.written >= RUN_BYTES_MAX {
            return;
        }
        block.sort_by_key(|(hash, _)| *hash);
        let count = u32::try_from(block.len()).unwrap_or(0);
        let mut out = [BLOCK_MAGIC.as_slice(), &count.to_le_bytes()].concat();
        out.extend(block.iter().flat_map(|(hash, _)| hash.to_le_bytes()));
        out.extend(block.iter().flat_map(|(_, entry)| entry.encode()));
        self.written = self.written.saturating_add(out.len() as u64);
        if let Err(error) = self.file.write_all(&out) {
            // A part of a block ends the record.
            self.written = RUN_BYTES_MAX;
            tracing::warn!(%error, "what the run took cannot be noted: `purgectl explain` will not find all of it");
        }
    }
}
