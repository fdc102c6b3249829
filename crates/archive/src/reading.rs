//! Reading a catalogue back: the newest run first, one object at a time. What it says is what a store says: others may have changed it.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::catalogue::{self, Line};
use crate::content::Hash;
use crate::key::{OWN, hex};
use crate::store::{Store, StoreError};

/// No object of a catalogue is larger.
const OBJECT_MAX: u64 = 64 << 20;
/// Bytes that are read at a time.
const STEP: usize = 256 << 10;

/// The objects of catalogues that were not read yet.
#[derive(Debug)]
pub struct Catalogues {
    store: Arc<dyn Store>,
    /// The next one last.
    keys: Vec<String>,
}

/// What an object of a catalogue says.
#[derive(Debug)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its lines.
    pub lines: Vec<Line>,
    /// How many lines are none.
    pub damaged: usize,
}

impl Catalogues {
    /// The catalogues of a volume, of one run or of all; with no volume, of all volumes.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn open(store: Arc<dyn Store>, volume: &str, run: &str) -> Result<Self, StoreError> {
        let place = match volume {
            "" => format!("{OWN}/catalogue"),
            volume => catalogue::of_volume(volume),
        };
        let mut keys = store.list(&place)?;
        keys.retain(|key| key.ends_with(".ndjson") && (run.is_empty() || run_of(key) == Some(run)));
        // Names of runs have the order of time.
        keys.sort_by(|a, b| (run_of(a), b).cmp(&(run_of(b), a)));
        Ok(Self { store, keys })
    }

    fn read(&self, key: String) -> Result<Object, StoreError> {
        let mut bytes = Vec::new();
        let read = self.store.get(&key)?.take(OBJECT_MAX).read_to_end(&mut bytes);
        read.map_err(|e| StoreError::Broken(format!("cannot read {key:?} from the store: {e}")))?;
        let (lines, damaged) = catalogue::lines(&bytes);
        Ok(Object { key, lines, damaged })
    }
}

/// What each object says. After one that cannot be read the next can be asked for.
impl Iterator for Catalogues {
    type Item = Result<Object, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.keys.pop()?;
        Some(self.read(key))
    }
}

fn run_of(key: &str) -> Option<&str> {
    key.rsplit('/').nth(1)
}

/// A copy that is read again, step by step.
pub struct Reading {
    from: Box<dyn Read + Send>,
    hasher: Sha256,
    read: u64,
    size: u64,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

/// What a step has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// These bytes, and there may be more.
    Bytes(Vec<u8>),
    /// That was all, and it is what the line says.
    Good,
    /// It is not what the line says.
    Differs,
}

impl Reading {
    /// The copy that a line names.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn begin(store: &dyn Store, line: &Line) -> Result<Self, StoreError> {
        Ok(Self {
            from: store.get(&line.key)?,
            hasher: Sha256::new(),
            read: 0,
            size: line.size,
        })
    }

    /// Reads on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn step(&mut self, line: &Line) -> Result<Found, StoreError> {
        let mut bytes = vec![0; STEP];
        let read = loop {
            match self.from.read(&mut bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read =
            read.map_err(|e| StoreError::Broken(format!("cannot read {:?} from the store: {e}", line.key)))?;
        self.read = self.read.saturating_add(read as u64);
        if read == 0 {
            let hash: Hash = std::mem::take(&mut self.hasher).finalize().into();
            let is_good = self.read == self.size && hex(&hash) == line.sha256;
            return Ok(if is_good { Found::Good } else { Found::Differs });
        }
        if self.read > self.size {
            return Ok(Found::Differs);
        }
        bytes.truncate(read);
        self.hasher.update(&bytes);
        Ok(Found::Bytes(bytes))
    }

    /// Reads on for a while and keeps nothing; none: there is more.
    ///
    /// # Errors
    /// As for [`Reading::step`].
    pub fn check(&mut self, line: &Line, for_so_long: Duration) -> Result<Option<bool>, StoreError> {
        let began = Instant::now();
        while began.elapsed() < for_so_long {
            match self.step(line)? {
                Found::Bytes(_) => {}
                Found::Good => return Ok(Some(true)),
                Found::Differs => return Ok(Some(false)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::content::Content;
    use crate::file::Directory;

    fn line(key: &str, bytes: &[u8]) -> Line {
        Line {
            key: key.into(),
            size: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
            ..Line::default()
        }
    }

    #[test]
    fn the_newest_run_is_read_first_and_what_is_damaged_is_counted() {
        let tmp = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(tmp.path()).unwrap());
        let put = |run: &str, number: u32, bytes: &[u8]| {
            let key = catalogue::object("v", run, number);
            store.put(&key, &mut Content::of_bytes(bytes.to_vec())).unwrap();
        };
        put("r2", 0, &line("second", b"").to_json());
        put("r2", 1, b"{broken\n");
        put("r1", 0, &line("first", b"").to_json());
        let read = |run: &str| {
            let all = Catalogues::open(Arc::clone(&store), "v", run).unwrap();
            let each = all.map(|one| one.unwrap());
            each.map(|one| {
                (
                    one.key.rsplit('/').take(2).collect::<Vec<_>>().join("<"),
                    one.lines.len(),
                    one.damaged,
                )
            })
            .collect::<Vec<_>>()
        };
        let of = |name: &str, lines, damaged| (name.to_owned(), lines, damaged);
        let all = [
            of("000000.ndjson<r2", 1, 0),
            of("000001.ndjson<r2", 0, 1),
            of("000000.ndjson<r1", 1, 0),
        ];
        assert_eq!(read(""), all);
        assert_eq!(read("r1"), all[2..]);
        assert_eq!(Catalogues::open(store, "", "").unwrap().keys.len(), 3);
    }

    #[test]
    fn a_copy_is_good_only_if_it_is_what_the_line_says() {
        let tmp = tempfile::tempdir().unwrap();
        let store = Directory::open(tmp.path()).unwrap();
        let bytes = vec![7; 700_000];
        store.put("f", &mut Content::of_bytes(bytes.clone())).unwrap();
        let check = |line: &Line| {
            let mut reading = Reading::begin(&store, line).unwrap();
            loop {
                if let Some(is_good) = reading.check(line, Duration::from_secs(1)).unwrap() {
                    return is_good;
                }
            }
        };
        assert!(check(&line("f", &bytes)));
        assert!(!check(&line("f", &bytes[1..])));
        assert!(!check(&line("f", &vec![7; 700_001])));
        assert!(!check(&Line {
            sha256: String::new(),
            ..line("f", &bytes)
        }));
        assert!(Reading::begin(&store, &line("g", b"")).is_err());
    }
}
