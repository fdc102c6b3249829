//! Which directory something was taken out of, and how it was protected there: so that it goes back into that very directory, or into one that
//! protects it as well. A user who owns a directory further up may have exchanged it for another since.
//!
//! ```text
//!   volume / team / alice / results / a.dat         the origin of a.dat: [results, alice, team], each with its inode, birth, owner, mode, ACL
//! ```
//! A run without a grace notes it in its ledger, batch by batch, before anything is moved. What is kept apart has it beside itself.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::candidate::Candidate;
use purge_format::Damaged;
use purge_format::integers::{Cursor, put_signed, put_varint};
use purge_model::{Inode, Seconds, Stat};
use purge_policy::evaluate::Shape;
use purge_sys::likeness::Likeness;
use purge_sys::protection::Protection;
use purge_sys::{beneath, stat};

/// Of a directory that is deeper only the nearest are noted. Then only that very directory takes a thing back.
const LEVELS_MAX: usize = 64;
/// The same of a batch: what a run notes has a bound, however its candidates lie.
const LEVELS_OF_A_BATCH_MAX: usize = 1024;
/// The version of what is noted beside a thing that is kept.
const VERSION: u8 = b'1';

/// A directory, as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    ino: Inode,
    /// None where it is not known.
    birth: Option<Seconds>,
    /// None where its ACL is too long to be noted.
    protection: Option<Protection>,
}

impl Level {
    /// As the trash remembers it.
    pub fn like(like: &Likeness) -> Self {
        Self {
            ino: like.ino(),
            birth: None,
            protection: Some(like.protection()),
        }
    }

    fn of(dir: &OwnedFd) -> io::Result<Self> {
        let found = stat::open_file(dir)?;
        Ok(Self {
            ino: found.stat.ino,
            birth: found.keeps_birth.then_some(found.stat.birth),
            protection: Protection::of_found(dir, &found).ok(),
        })
    }

    fn recorded(dir: &OwnedFd) -> io::Result<Self> {
        Likeness::recorded(dir).map(|like| Self::like(&like))
    }

    /// Whether this is that very directory.
    pub fn is(&self, found: &Stat) -> bool {
        self.ino == found.ino && self.birth == Some(found.birth)
    }

    /// Who could do what in it.
    pub fn protection(&self) -> Option<&Protection> {
        self.protection.as_ref()
    }

    fn put(&self, out: &mut Vec<u8>) {
        let acl = self.protection.as_ref().and_then(|known| known.acl.as_ref());
        let flags = u8::from(self.birth.is_some())
            | u8::from(self.protection.is_some()) << 1
            | u8::from(acl.is_some()) << 2;
        put_varint(out, self.ino);
        out.push(flags);
        if let Some(birth) = self.birth {
            put_signed(out, birth.unix());
        }
        if let Some(known) = &self.protection {
            [known.uid, known.gid, known.mode]
                .into_iter()
                .for_each(|n| put_varint(out, n.into()));
        }
        if let Some(acl) = acl {
            put_varint(out, acl.len() as u64);
            out.extend_from_slice(acl);
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, Damaged> {
        let (ino, flags) = (from.varint()?, from.byte()?);
        let birth = match flags & 1 {
            0 => None,
            _ => Some(Seconds::from_unix(from.signed()?)),
        };
        let access = match flags & 2 {
            0 => None,
            _ => Some((from.varint32()?, from.varint32()?, from.varint32()?)),
        };
        let acl = match flags & 4 {
            0 => None,
            _ => {
                let len = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
                Some(from.take(len)?.to_vec())
            }
        };
        let protection = access.map(|(uid, gid, mode)| Protection { uid, gid, mode, acl });
        Ok(Self {
            ino,
            birth,
            protection,
        })
    }
}

/// The directories above something, as they were: the nearest first, without the volume's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Without some where `is_whole` is false.
    levels: Vec<Level>,
    /// They lead up to the root.
    is_whole: bool,
}

impl Origin {
    /// Of what lies in an open directory of the volume, at `path` below the root.
    pub fn of(dir: &OwnedFd, path: &[u8]) -> Self {
        Self::climb(dir, depth(path), Level::of)
    }

    /// Of what lies in an open directory of the trash, so far below the directory that stands for the root.
    pub fn recorded(dir: &OwnedFd, depth: usize) -> Self {
        Self::climb(dir, depth, Level::recorded)
    }

    /// Of these levels; none if something is not known of one.
    pub fn known(levels: Vec<Option<Level>>) -> Option<Self> {
        let levels: Option<Vec<_>> = levels.into_iter().collect();
        levels.map(|levels| Self {
            levels,
            is_whole: true,
        })
    }

    fn climb(dir: &OwnedFd, depth: usize, look: fn(&OwnedFd) -> io::Result<Level>) -> Self {
        let mut levels = Vec::new();
        let mut here = beneath::open_dir(dir, b"");
        while levels.len() < depth.min(LEVELS_MAX) {
            let Ok(open) = &here else { break };
            let Ok(level) = look(open) else { break };
            levels.push(level);
            here = beneath::open_listable_parent(open);
        }
        let is_whole = levels.len() == depth;
        Self { levels, is_whole }
    }

    /// Whether an open directory is the very one.
    pub fn is_in(&self, dir: &OwnedFd) -> bool {
        let found = stat::open_file(dir);
        let nearest = self.levels.first();
        nearest.is_some_and(|level| found.is_ok_and(|found| level.is(&found.stat)))
    }

    /// The `nth` directory below the root of a way that has `depth`; none: that is not known.
    pub fn level(&self, nth: usize, depth: usize) -> Option<&Level> {
        let is_whole = self.is_whole && self.levels.len() == depth;
        let from_below = depth.checked_sub(nth)?.checked_sub(1)?;
        self.levels.get(from_below).filter(|_| is_whole)
    }

    /// Writes it down.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_whole));
        put_varint(out, self.levels.len() as u64);
        self.levels.iter().for_each(|level| level.put(out));
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Damaged`] if it is.
    pub fn take(from: &mut Cursor<'_>) -> Result<Self, Damaged> {
        let is_whole = from.byte()? == 1;
        let count = from.varint()?;
        let levels = (0..count).map(|_| Level::take(from)).collect::<Result<_, _>>()?;
        Ok(Self { levels, is_whole })
    }

    /// As a note, which may have no byte 0.
    pub fn to_note(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        let mut note = String::from(char::from(VERSION));
        for byte in bytes {
            let _ = write!(note, "{byte:02x}");
        }
        note.into_bytes()
    }

    /// What such a note says; none if it is damaged, or of another version.
    pub fn of_note(note: &[u8]) -> Option<Self> {
        let (version, digits) = note.split_first()?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        let read = Self::take(&mut Cursor::new(&bytes?, "origin"));
        read.ok().filter(|_| *version == VERSION)
    }
}

/// How many directories a path leads through.
pub fn depth(path: &[u8]) -> usize {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).count()
}

/// Directories that a worker has looked at a moment ago. What is noted of a batch may be as old as the batch is held, up to a second. So the
/// directories high up, which many batches have in common, need not be opened again for each of them.
#[derive(Debug, Default)]
pub struct Recent {
    levels: HashMap<Box<[u8]>, Level>,
    since: Option<Instant>,
}

/// So long.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// This many at most.
const KNOWN_MAX: usize = 4096;

impl Recent {
    /// Where the candidates of a batch are to be taken out of, each with its position. Those that follow each other in one directory have it
    /// once.
    pub fn of_batch(&mut self, root: &OwnedFd, candidates: &[Candidate]) -> Vec<(usize, Origin)> {
        self.forget_old();
        let mut seen: HashSet<Arc<[u8]>> = HashSet::new();
        let mut left = LEVELS_OF_A_BATCH_MAX;
        let mut origins = Vec::new();
        for (position, candidate) in candidates.iter().enumerate() {
            let is_moved = candidate.shape != Shape::EmptyDirectory && !candidate.dir.is_empty();
            if !is_moved || !seen.insert(Arc::clone(&candidate.dir)) {
                continue;
            }
            let origin = self.above(root, &candidate.dir, left);
            left = left.saturating_sub(origin.levels.len());
            origins.push((position, origin));
        }
        origins
    }

    fn forget_old(&mut self) {
        let is_old = self.since.is_none_or(|since| since.elapsed() > KNOWN_FOR);
        if is_old || self.levels.len() > KNOWN_MAX {
            self.levels.clear();
            self.since = Some(Instant::now());
        }
    }

    /// The directories at the end of a path; those that are known are not looked at again.
    fn above(&mut self, root: &OwnedFd, path: &[u8], left: usize) -> Origin {
        let mut levels = Vec::new();
        let mut below: Option<OwnedFd> = None;
        let mut at = path;
        // The nearest is always noted.
        while !at.is_empty() && (levels.is_empty() || levels.len() < left.min(LEVELS_MAX)) {
            if let Some(level) = self.levels.get(at) {
                levels.push(level.clone());
                below = None;
            } else {
                let open = match &below {
                    Some(below) => beneath::open_listable_parent(below),
                    None => beneath::open_dir(root, at),
                };
                let looked = open.and_then(|open| Ok((Level::of(&open)?, open)));
                let Ok((level, open)) = looked else { break };
                self.levels.insert(at.into(), level.clone());
                levels.push(level);
                below = Some(open);
            }
            let cut = at.iter().rposition(|b| *b == b'/').unwrap_or(0);
            at = at.get(..cut).unwrap_or_default();
        }
        Origin {
            levels,
            is_whole: at.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = Level> {
        let access = (any::<u32>(), any::<u32>(), 0u32..0o10000);
        let acl = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
        let protection = prop::option::of((access, acl));
        (any::<u64>(), prop::option::of(any::<u32>()), protection).prop_map(|(ino, birth, protection)| {
            Level {
                ino,
                birth: birth.map(|at| Seconds::from_unix(at.into())),
                protection: protection.map(|((uid, gid, mode), acl)| Protection { uid, gid, mode, acl }),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_noted_is_read_again(levels in prop::collection::vec(level(), 0..9), is_whole in any::<bool>()) {
            let origin = Origin { levels, is_whole };
            let note = origin.to_note();
            prop_assert!(!note.contains(&0));
            prop_assert_eq!(Origin::of_note(&note), Some(origin));
        }

        #[test]
        fn any_note_is_read_without_harm(note in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Origin::of_note(&note);
        }
    }

    #[test]
    fn each_directory_above_is_noted_once() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("a/b/c")).unwrap();
        let root = beneath::open_root(tmp.path()).unwrap();
        let c = beneath::open_dir(&root, b"a/b/c").unwrap();
        let origin = Origin::of(&c, b"a/b/c");
        assert!(origin.is_whole && origin.is_in(&c));
        let mut recent = Recent::default();
        assert_eq!(recent.above(&root, b"a/b/c", 9), origin);
        assert_eq!(recent.above(&root, b"a/b", 9).levels, origin.levels[1..]);
        let cut = recent.above(&root, b"a/b/c", 1);
        assert!(cut.levels.len() == 1 && !cut.is_whole && cut.is_in(&c));
        assert_eq!(origin.level(0, 3), origin.levels.last());
        assert_eq!((origin.level(0, 2), cut.level(2, 3)), (None, None));
    }
}
