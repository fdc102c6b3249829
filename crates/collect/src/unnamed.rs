//! Names where reports do not say which file they are of: kernels without `FAN_REPORT_TARGET_FID` or `FAN_RENAME`. Pure.
//!
//! ```text
//!   CREATE, MOVED_TO     a place alone  --> looked at as ever: what lies there has that name
//!   DELETE, MOVED_FROM   a place alone  --> no file is known to have lost a name by that
//!   ATTRIB, MOVE_SELF    a file alone   --> in doubt: each name that the index has of it is looked at
//!   DELETE_SELF          a file alone   --> its handle leads nowhere: the index forgets it (as on every kernel)
//! ```
//! A name is added when its place is looked at, and removed when its file is. The kernel merges equal reports, so MOVE_SELF may be read
//! before the MOVED_TO that says where the file is now. So a file in doubt is looked at when everything that waited has been read and looked
//! at. If none of its names is there even then, the file has left the volume, or it moves faster than the agent reads: [`judge`].
//!
//! What may never happen: a file that did not leave the volume is forgotten while nothing moves; then its clock would begin again.

use rustc_hash::FxHashMap;

use super::event::{Change, Changes};
use purge_model::Inode;

/// Files in doubt, at most: some MB. Beyond that a scan has to look.
const DOUBTS_MAX: usize = 1 << 17;
/// A file that moves all the time is looked at this often. After that it is forgotten, and taken in where it is met next, as used then.
const ROUNDS_MAX: u8 = 8;

/// Files whose names must be looked at.
#[derive(Debug, Default)]
pub struct Doubts {
    /// With the number of looks at which none of their names was there.
    files: FxHashMap<Inode, u8>,
    /// Reports of names so far.
    heard: u64,
}

/// What lies at a name that the index has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The file.
    There,
    /// Nothing, or another file.
    NotThere,
    /// It cannot be told: the directory is not where the index has it.
    Unknown,
}

/// What follows from a look at all names of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The names that are not there are removed; with the last of them the file.
    Remove,
    /// The names stay, and are looked at once more.
    Again,
    /// The names stay. A scan looks.
    Keep,
}

impl Doubts {
    /// Takes one report. False if there are too many files in doubt, and a scan must look.
    pub fn hear(&mut self, change: &Change<'_>) -> bool {
        self.heard = self.heard.wrapping_add(change.kinds.any(Changes::NAMES).into());
        // Of a directory it is found out where it lies, by its handle. A change of metadata that comes with a name is none of the links.
        let Some(node) = change.of.filter(|_| change.place.is_none()) else {
            return true;
        };
        !change.kinds.any(Changes::MOVED.and(Changes::METADATA)) || self.note(node.ino)
    }

    /// The names of this file must be looked at.
    pub fn note(&mut self, ino: Inode) -> bool {
        if self.files.len() >= DOUBTS_MAX && !self.files.contains_key(&ino) {
            return false;
        }
        self.files.insert(ino, 0);
        true
    }

    /// A file must be looked at once more, after this number of looks.
    pub fn again(&mut self, ino: Inode, rounds: u8) {
        // A later report says more.
        self.files.entry(ino).or_insert(rounds);
    }

    /// Takes those that are in doubt.
    pub fn take(&mut self) -> Vec<(Inode, u8)> {
        std::mem::take(&mut self.files).into_iter().collect()
    }

    /// None is in doubt any more: a scan looks.
    pub fn clear(&mut self) {
        self.files.clear();
    }

    /// How many reports of names came so far: if as many had come before a look, and all is read that waited after it, nothing moved meanwhile.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether none is in doubt.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Judges a look at the names of a file. `is_quiet`: no report of a name came until after the look, and none waited for a look, so no move
/// before it is unknown. `rounds`: how many looks before this one found no name; none for a directory, which is not forgotten for moving fast.
pub fn judge(seen: &[Seen], is_quiet: bool, rounds: Option<u8>) -> Judgement {
    let any = |what| seen.contains(&what);
    // The file keeps its clock by a name that is there.
    if any(Seen::There) || seen.is_empty() {
        return Judgement::Remove;
    }
    let is_over = rounds.is_some_and(|rounds| rounds >= ROUNDS_MAX);
    match any(Seen::Unknown) {
        true if is_over => Judgement::Keep,
        true => Judgement::Again,
        false if is_quiet || is_over => Judgement::Remove,
        false => Judgement::Again,
    }
}

#[cfg(test)]
#[path = "unnamed_tests.rs"]
mod tests;
