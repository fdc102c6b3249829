//! What a run has copied before it takes it. The copying itself is done elsewhere: a run knows only what a copy is, and that nothing of a rule
//! that archives is taken without one.

use std::fs::File;
use std::io;

use crate::candidate::Candidate;
use crate::fate::{Fate, Skip};
use crate::refusal;

/// Copies what a run takes.
pub trait Copier: Send + Sync {
    /// Candidates that may be copied at a time.
    fn at_a_time(&self) -> usize;

    /// Copies one. What it returns was fetched back and compared. It may take as long as it takes: nothing is leased meanwhile.
    ///
    /// # Errors
    /// Why there is no copy.
    fn copy(&self, original: &Original<'_>) -> Result<Copy, NotCopied>;

    /// Writes down where copies are, with their [`Copy::line`]. It lasts when this returns: nothing is taken before.
    ///
    /// # Errors
    /// Why it is not written.
    fn write_down(&self, lines: Vec<u8>) -> Result<(), String>;

    /// The run is over, in this state.
    fn end(&self, state: &str);
}

/// What is copied: an entry of the volume that was compared with its plan in a moment in which no process had it open.
#[derive(Debug)]
pub struct Original<'a> {
    /// As the plan knows it.
    pub candidate: &'a Candidate,
    /// The file or directory, open for reading; a symbolic link, open for a look only.
    pub open: &'a File,
    /// All names of a file that has several, relative to the volume.
    pub names: &'a [Vec<u8>],
    /// Where a symbolic link leads.
    pub target: &'a [u8],
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The store's key; empty for what has no content.
    pub key: String,
    /// The hash of its content.
    pub sha256: [u8; 32],
    /// What is written down of it.
    pub line: Vec<u8>,
}

/// Why there is no copy.
#[derive(Debug)]
pub enum NotCopied {
    /// The file cannot be read.
    Original(io::Error),
    /// It cannot be archived, for what it is: its owner can cause this.
    Kept(String),
    /// The store does not hold it as it was sent.
    Failed(String),
    /// The store does not do what it is asked for. The run ends.
    Broken(String),
}

impl NotCopied {
    /// What becomes of the candidate; what ends the run is an error.
    ///
    /// # Errors
    /// Why the run ends.
    pub fn fate(self) -> Result<Fate, String> {
        Ok(match self {
            // Fewer bytes than before, or other ones.
            Self::Original(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
                ) =>
            {
                Fate::Skipped(Skip::Changed)
            }
            Self::Original(e) => refusal::fate(e),
            Self::Kept(why) => Fate::Failed(refusal::failure(why, &[])),
            Self::Failed(why) => Fate::Failed(io::Error::other(why)),
            Self::Broken(why) => return Err(why),
        })
    }
}
