//! What each run took, by path: answers "where is my file?" for as long as the record is kept, also for what was deleted.
//!
//! ```text
//!   STATE_DIR/runs/RUN.taken
//!     "PATAKEN1"  length:u32  names of rules, one a line
//!     block*      "TKB1"  entries:u32  hash:u64 *entries (ascending)  body *entries
//!     body        inode:u64 bytes:u64 files:u32 uid:u32 until:u32 last:u32 at:u32 rule:u16 what:u8 0:u8
//! ```
//! An entry knows its path by a hash only: it can be asked for, and not listed. A directory that went as a whole has one entry, so what lay in it
//! is found by the directories above it. Entries of the directories above what was taken by itself tell that something below them went.
//!
//! Blocks are sorted when they are full, so a run keeps one of them in memory, and a question reads the hashes alone. Nothing depends on this
//! record: one that is lost, or a run that has none, is answered with what is known besides.

mod in_trash;
mod read;
mod write;

use std::path::{Path, PathBuf};

pub use self::in_trash::lies_in;
pub use self::read::{Found, Reader};
pub use self::write::Writer;
use purge_model::{Inode, Seconds};
use sha2::{Digest, Sha256};

/// How the file begins.
const MAGIC: &[u8; 8] = b"PATAKEN1";
/// How a block begins.
const BLOCK_MAGIC: &[u8; 4] = b"TKB1";
/// Entries of one block at most.
const BLOCK_ENTRIES: usize = 1 << 16;
/// Bytes of an entry besides its hash.
const BODY_BYTES: usize = 40;
/// Names of rules at the beginning.
const NAMES_BYTES_MAX: usize = 1 << 20;
/// One run's record is at most this long: about 1.4 million entries. What it took after that is not found.
const RUN_BYTES_MAX: u64 = 64 << 20;
/// All records together. The oldest go first.
const ALL_BYTES_MAX: u64 = 128 << 20;

/// A path, relative to the volume, as entries know it.
pub fn hash(path: &[u8]) -> u64 {
    let digest = Sha256::digest(path);
    let first = digest.first_chunk::<8>();
    first.map_or(0, |first| u64::from_le_bytes(*first))
}

/// Where a run's record lies.
pub fn path(state_dir: &Path, run: &str) -> PathBuf {
    state_dir.join("runs").join(format!("{run}.taken"))
}

/// As what something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A directory with all that was in it.
    Tree,
    /// An empty directory.
    EmptyDirectory,
    /// It stayed, or went later: something below it was taken by itself.
    Above,
}

const WHATS: [What; 5] = [
    What::File,
    What::Link,
    What::Tree,
    What::EmptyDirectory,
    What::Above,
];

/// What a run took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As what.
    pub what: What,
    /// Which.
    pub ino: Inode,
    /// Its size, or that of all files in it.
    pub bytes: u64,
    /// Files that went with it.
    pub files: u32,
    /// Its owner; of a directory above: the owner of what was taken there.
    pub uid: u32,
    /// Until when it lies in the trash, seconds since 1970; 0: it was deleted.
    pub until: u32,
    /// Its last use before.
    pub last: Seconds,
    /// When it was taken.
    pub at: Seconds,
    /// Position of its rule in the names.
    pub rule: u16,
}

impl Entry {
    fn encode(&self) -> [u8; BODY_BYTES] {
        let what = WHATS.iter().position(|what| *what == self.what).unwrap_or(0);
        let mut out = Vec::with_capacity(BODY_BYTES);
        out.extend(self.ino.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        for n in [self.files, self.uid, self.until, self.last.0, self.at.0] {
            out.extend(n.to_le_bytes());
        }
        out.extend(self.rule.to_le_bytes());
        out.extend([u8::try_from(what).unwrap_or(0), 0]);
        out.try_into().unwrap_or([0; BODY_BYTES])
    }

    fn decode(body: &[u8; BODY_BYTES]) -> Option<Self> {
        let long = |at: usize| body.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
        let word = |at: usize| body.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        let rule = body.get(36..)?.first_chunk().map(|b| u16::from_le_bytes(*b));
        Some(Self {
            ino: long(0)?,
            bytes: long(8)?,
            files: word(16)?,
            uid: word(20)?,
            until: word(24)?,
            last: Seconds(word(28)?),
            at: Seconds(word(32)?),
            rule: rule?,
            what: *WHATS.get(usize::from(*body.get(38)?))?,
        })
    }
}

/// Removes the oldest records while all of them take more than they may. Returns what they take.
///
/// # Errors
/// When the directory cannot be read.
pub fn tidy(state_dir: &Path) -> std::io::Result<u64> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(state_dir.join("runs"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "taken") {
            // Another thread may have removed it.
            let bytes = entry.metadata().map_or(0, |is| is.len());
            all.push((entry.path(), bytes));
        }
    }
    // Names of runs are in the order of time.
    all.sort();
    let mut sum = all
        .iter()
        .fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    for (path, bytes) in all {
        if sum <= ALL_BYTES_MAX {
            break;
        }
        std::fs::remove_file(&path)?;
        sum = sum.saturating_sub(bytes);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
