//! Asks what a run took.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{BLOCK_ENTRIES, BLOCK_MAGIC, BODY_BYTES, Entry, MAGIC, NAMES_BYTES_MAX};

const HASH_BYTES: usize = 8;
const HEAD_BYTES: usize = 8;

/// The record of a run.
#[derive(Debug)]
pub struct Reader {
    file: File,
    rules: Vec<String>,
    first_block: u64,
}

/// An entry that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Position of its hash among those that were asked for.
    pub asked: usize,
    /// What it says.
    pub entry: Entry,
}

impl Reader {
    /// Opens the record of a run; none: it has none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(state_dir: &Path, run: &str) -> io::Result<Option<Self>> {
        let file = match File::open(super::path(state_dir, run)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut head = [0u8; 12];
        let read = file.read_exact_at(&mut head, 0);
        let (magic, length) = head.split_at(MAGIC.len());
        let length = length.first_chunk().map_or(0, |l| u32::from_le_bytes(*l));
        // A process was killed before it had written the beginning.
        if read.is_err() || magic != MAGIC || length as usize > NAMES_BYTES_MAX {
            return Ok(None);
        }
        let mut names = vec![0u8; length as usize];
        if file.read_exact_at(&mut names, head.len() as u64).is_err() {
            return Ok(None);
        }
        let names = String::from_utf8_lossy(&names);
        Ok(Some(Self {
            rules: names.lines().map(str::to_owned).collect(),
            first_block: u64::from(length).saturating_add(head.len() as u64),
            file,
        }))
    }

    /// The name of an entry's rule.
    pub fn rule(&self, entry: &Entry) -> Option<&str> {
        let name = self.rules.get(usize::from(entry.rule));
        name.map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The entries with one of some hashes, which are in order and each there once. The same is read whether there are any or not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(&self, asked: &[u64]) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut at = self.first_block;
        let mut hashes = Vec::new();
        // What is behind a torn block is not believed.
        while let Some(count) = self.block(at)? {
            let begin = at.saturating_add(HEAD_BYTES as u64);
            hashes.resize(count.saturating_mul(HASH_BYTES), 0u8);
            if self.file.read_exact_at(&mut hashes, begin).is_err() {
                break;
            }
            let bodies = begin.saturating_add(hashes.len() as u64);
            for (n, place) in matches(&hashes, asked) {
                let mut body = [0u8; BODY_BYTES];
                let from = bodies.saturating_add((place as u64).saturating_mul(BODY_BYTES as u64));
                let read = self.file.read_exact_at(&mut body, from);
                let entry = read.ok().and_then(|()| Entry::decode(&body));
                found.extend(entry.map(|entry| Found { asked: n, entry }));
            }
            at = bodies.saturating_add((count as u64).saturating_mul(BODY_BYTES as u64));
        }
        Ok(found)
    }

    /// How many entries the block at `at` has; none: there is none.
    fn block(&self, at: u64) -> io::Result<Option<usize>> {
        let mut head = [0u8; HEAD_BYTES];
        match self.file.read_exact_at(&mut head, at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (magic, count) = head.split_at(BLOCK_MAGIC.len());
        let count = count.first_chunk().map_or(0, |c| u32::from_le_bytes(*c)) as usize;
        Ok((magic == BLOCK_MAGIC && count <= BLOCK_ENTRIES).then_some(count))
    }
}

/// Which of the hashes that are asked for a block has, and where: both are in order. The fewer ones are looked for among the more.
fn matches(hashes: &[u8], asked: &[u64]) -> Vec<(usize, usize)> {
    let (all, _) = hashes.as_chunks::<HASH_BYTES>();
    let value = |hash: &[u8; HASH_BYTES]| u64::from_le_bytes(*hash);
    if all.len() < asked.len() {
        let known = |(place, hash)| Some((asked.binary_search(&value(hash)).ok()?, place));
        return all.iter().enumerate().filter_map(known).collect();
    }
    let places = |wanted: u64| {
        let begin = all.partition_point(|hash| value(hash) < wanted);
        let end = all.partition_point(|hash| value(hash) <= wanted);
        begin..end
    };
    let asked = asked.iter().enumerate();
    asked
        .flat_map(|(n, hash)| places(*hash).map(move |place| (n, place)))
        .collect()
}
