//! Who lost what in a run: written down while it goes on, until its owners are told.
//!
//! `STATE_DIR/notices/runs/RUN.jsonl`: a line for each batch and owner, appended once the batch is decided. A run that was killed
//! is counted again from its ledger, and so is its tally.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::event::Entry;
use purge_base::sight::Sight;
use purge_policy::evaluate::Shape;
use purge_removal::candidate::Candidate;
use purge_removal::run::apply::Taken;

/// What an owner lost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// Whose.
    pub uid: u32,
    /// Regular files, also those below directories that went as a whole.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// The first moment at which some of it cannot be restored any more, seconds since 1970; none: nothing can be.
    #[serde(default)]
    pub until: Option<u64>,
    /// Some of them.
    pub entries: Vec<Entry>,
}

/// A run's tally.
#[derive(Debug)]
pub struct Tally {
    inner: Mutex<Inner>,
    root: PathBuf,
    named_max: usize,
}

#[derive(Debug)]
struct Inner {
    file: File,
    named: FxHashMap<u32, usize>,
    sights: FxHashMap<u32, Sight>,
}

impl Inner {
    /// Whether the owner can see all of its path now, without the groups they are in: when they are told, the directories may not exist any more.
    fn sees(&mut self, root: &Path, candidate: &Candidate) -> bool {
        if self.sights.len() >= SIGHTS_MAX {
            self.sights.clear();
        }
        let sight = self.sights.entry(candidate.uid);
        let sight = sight.or_insert_with(|| Sight::of(root, candidate.uid, &[]));
        sight.shown_in(&candidate.dir).is_none()
    }
}

/// Owners whose sight is remembered.
const SIGHTS_MAX: usize = 1000;

fn place(outbox: &Path, run: &str) -> PathBuf {
    outbox.join("runs").join(format!("{run}.jsonl"))
}

impl Tally {
    /// Begins the tally of a run on the volume at `root`, with at most this number of entries named for each owner.
    ///
    /// # Errors
    /// When it cannot be written: owners hear nothing of the run then.
    pub fn begin(outbox: &Path, run: &str, root: &Path, named_max: usize) -> io::Result<Self> {
        purge_sys::private::dir(&outbox.join("runs"))?;
        let file = purge_sys::private::create(&place(outbox, run))?;
        Ok(Self {
            inner: Mutex::new(Inner {
                file,
                named: FxHashMap::default(),
                sights: FxHashMap::default(),
            }),
            root: root.to_owned(),
            named_max,
        })
    }

    /// Adds what was taken. A run does not end because its owners cannot be told.
    pub fn note(&self, taken: &[Taken<'_>]) {
        if let Err(error) = self.add(taken) {
            tracing::error!(%error, "who lost what cannot be noted: its owners do not hear of all of it");
        }
    }

    fn add(&self, taken: &[Taken<'_>]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let mut owners: BTreeMap<u32, Lost> = BTreeMap::new();
        for Taken { candidate, until } in taken {
            let lost = owners.entry(candidate.uid).or_default();
            lost.uid = candidate.uid;
            lost.until = earlier(lost.until, *until);
            match candidate.shape {
                Shape::File => lost.files = lost.files.saturating_add(1),
                // What it led to is told, if it was the owner's.
                Shape::Link(_) => continue,
                Shape::Tree | Shape::EmptyDirectory => {
                    lost.directories = lost.directories.saturating_add(1);
                    lost.files = lost.files.saturating_add(candidate.files);
                }
            }
            lost.bytes = lost.bytes.saturating_add(candidate.size);
            let named = inner.named.entry(candidate.uid).or_default();
            if *named < self.named_max {
                *named = named.saturating_add(1);
                let mut entry = Entry::new(&path_of(&self.root, candidate), candidate.size, None);
                entry.seen = inner.sees(&self.root, candidate);
                lost.entries.push(entry);
            }
        }
        let mut lines = Vec::new();
        for lost in owners.values() {
            serde_json::to_writer(&mut lines, lost)?;
            lines.push(b'\n');
        }
        inner.file.write_all(&lines)
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

fn path_of(root: &Path, candidate: &Candidate) -> Vec<u8> {
    let mut path = root.as_os_str().as_encoded_bytes().to_vec();
    path.push(b'/');
    path.extend(candidate.path());
    path
}

/// What each owner lost in a run; nothing if no tally was kept.
///
/// # Errors
/// When it cannot be read.
pub fn read(outbox: &Path, run: &str) -> io::Result<Vec<Lost>> {
    let text = match fs::read_to_string(place(outbox, run)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut owners: BTreeMap<u32, Lost> = BTreeMap::new();
    // The last line may be torn.
    for part in text.lines().filter_map(|l| serde_json::from_str::<Lost>(l).ok()) {
        let lost = owners.entry(part.uid).or_default();
        lost.uid = part.uid;
        lost.until = earlier(lost.until, part.until);
        lost.files = lost.files.saturating_add(part.files);
        lost.directories = lost.directories.saturating_add(part.directories);
        lost.bytes = lost.bytes.saturating_add(part.bytes);
        lost.entries.extend(part.entries);
    }
    Ok(owners.into_values().collect())
}

/// The runs that left a tally.
///
/// # Errors
/// When the directory cannot be read.
pub fn runs(outbox: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(outbox.join("runs")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        all.extend(
            name.to_str()
                .and_then(|n| n.strip_suffix(".jsonl"))
                .map(str::to_owned),
        );
    }
    all.sort();
    Ok(all)
}

/// All owners were told.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(outbox: &Path, run: &str) -> io::Result<()> {
    match fs::remove_file(place(outbox, run)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_model::{LastUse, Seconds, Source};

    fn candidate(name: &str, uid: u32, shape: Shape) -> Candidate {
        let last = LastUse {
            at: Seconds(0),
            source: Source::Observed,
        };
        Candidate {
            ino: 1,
            shape,
            rule: 0,
            dir: b"d".as_slice().into(),
            name: std::ffi::CString::new(name).unwrap().into(),
            size: 10,
            files: if shape == Shape::Tree { 5 } else { 1 },
            uid,
            links: 1,
            mtime: Seconds(0),
            ctime: Seconds(0),
            ctime_nanos: 0,
            birth: Seconds(0),
            access: last,
            last,
        }
    }

    #[test]
    fn a_run_that_was_killed_left_who_lost_what() {
        let dir = tempfile::tempdir().unwrap();
        let tally = Tally::begin(dir.path(), "r1", Path::new("/v"), 2).unwrap();
        let all: Vec<Candidate> = ["a", "b", "c"]
            .iter()
            .map(|n| candidate(n, 7, Shape::File))
            .collect();
        let tree = candidate("t", 8, Shape::Tree);
        let taken = |candidate, until| Taken { candidate, until };
        tally
            .add(&all.iter().map(|c| taken(c, Some(500))).collect::<Vec<_>>())
            .unwrap();
        tally
            .add(&[taken(&all[0], Some(400)), taken(&tree, None)])
            .unwrap();
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(place(dir.path(), "r1"))
            .unwrap();
        file.write_all(b"{\"uid\":7,\"fil").unwrap();
        assert_eq!(runs(dir.path()).unwrap(), ["r1"]);
        let lost = read(dir.path(), "r1").unwrap();
        assert_eq!((lost[0].uid, lost[0].files, lost[0].bytes), (7, 4, 40));
        assert_eq!(
            lost[0]
                .entries
                .iter()
                .map(|e| e.path.as_str())
                .collect::<Vec<_>>(),
            ["/v/d/a", "/v/d/b"]
        );
        assert_eq!((lost[0].until, lost[1].until), (Some(400), None));
        assert_eq!((lost[1].uid, lost[1].files, lost[1].directories), (8, 5, 1));
        forget(dir.path(), "r1").unwrap();
        forget(dir.path(), "r1").unwrap();
        assert!(runs(dir.path()).unwrap().is_empty() && read(dir.path(), "r1").unwrap().is_empty());
    }
}
