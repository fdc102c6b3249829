//! What the note of a directory of the trash says of the directory that it stands for.
//!
//! Short: ext4 keeps an attribute of this length in the inode, where it has 256 bytes. A longer one takes a block of its own for each
//! directory, and that costs more than the directory itself.
//!
//! ```text
//!   2  inode:u64  uid:u32 gid:u32 mode:u16  atime:i64 nanos:u32  mtime:i64 nanos:u32  [project:u32 inherited:u8]     little endian
//!   "1 INODE UID GID MODE ATIME NANOS MTIME NANOS PROJECT INHERITED"                            as versions before 0.2.0 wrote it
//! ```

use crate::project::Project;
use purge_model::Inode;

/// The version that is written.
const VERSION: u8 = 2;
const NANOS: std::ops::Range<i64> = 0..1_000_000_000;

/// What a directory was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Was {
    pub(super) ino: Inode,
    /// Owner, group and mode.
    pub(super) access: (u32, u32, u32),
    /// Seconds and nanoseconds.
    pub(super) atime: (i64, i64),
    pub(super) mtime: (i64, i64),
    pub(super) project: Option<Project>,
}

impl Was {
    pub(super) fn to_note(self) -> Vec<u8> {
        let (uid, gid, mode) = self.access;
        let mut note = vec![VERSION];
        note.extend(self.ino.to_le_bytes());
        note.extend(uid.to_le_bytes());
        note.extend(gid.to_le_bytes());
        note.extend(u16::try_from(mode & 0o7777).unwrap_or(0).to_le_bytes());
        for (seconds, nanos) in [self.atime, self.mtime] {
            note.extend(seconds.to_le_bytes());
            note.extend(u32::try_from(nanos).unwrap_or(0).to_le_bytes());
        }
        if let Some(project) = self.project {
            note.extend(project.id.to_le_bytes());
            note.push(project.is_inherited.into());
        }
        note
    }

    pub(super) fn parse(note: &[u8]) -> Option<Self> {
        let was = match note.split_first()? {
            (&VERSION, rest) => Self::of_bytes(rest)?,
            _ => Self::of_text(note)?,
        };
        let is_sound = NANOS.contains(&was.atime.1) && NANOS.contains(&was.mtime.1);
        is_sound.then_some(was)
    }

    fn of_bytes(mut rest: &[u8]) -> Option<Self> {
        let rest = &mut rest;
        let ino = u64::from_le_bytes(taken(rest)?);
        let (uid, gid) = (u32::from_le_bytes(taken(rest)?), u32::from_le_bytes(taken(rest)?));
        let mode = u32::from(u16::from_le_bytes(taken(rest)?)) & 0o7777;
        let mut time = || {
            let seconds = i64::from_le_bytes(taken(rest)?);
            Some((seconds, i64::from(u32::from_le_bytes(taken(rest)?))))
        };
        let (atime, mtime) = (time()?, time()?);
        let project = match rest.is_empty() {
            true => Project::default(),
            false => Project {
                id: u32::from_le_bytes(taken(rest)?),
                is_inherited: taken::<1>(rest)? == [1],
            },
        };
        rest.is_empty().then_some(Self {
            ino,
            access: (uid, gid, mode),
            atime,
            mtime,
            project: Some(project).filter(|p| *p != Project::default()),
        })
    }

    fn of_text(note: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(note).ok()?.split(' ');
        if fields.next()? != "1" {
            return None;
        }
        let ino = fields.next()?.parse().ok()?;
        let mut number = || fields.next()?.parse::<i64>().ok();
        let mut small = || u32::try_from(number()?).ok();
        let access = (small()?, small()?, small()? & 0o7777);
        let (atime, mtime) = ((number()?, number()?), (number()?, number()?));
        let project = Project {
            id: u32::try_from(number()?).ok()?,
            is_inherited: number()? == 1,
        };
        Some(Self {
            ino,
            access,
            atime,
            mtime,
            project: Some(project).filter(|p| *p != Project::default()),
        })
    }
}

/// The first bytes of the rest, which it has no longer.
fn taken<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, more) = rest.split_first_chunk()?;
    *rest = more;
    Some(*first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_earlier_versions_noted_is_understood() {
        let was = Was::parse(b"1 77 4001 4002 488 1600000000 5 -3 6 9 1").unwrap();
        let project = Project {
            id: 9,
            is_inherited: true,
        };
        assert_eq!((was.ino, was.access), (77, (4001, 4002, 0o750)));
        assert_eq!(
            (was.atime, was.mtime, was.project),
            ((1_600_000_000, 5), (-3, 6), Some(project))
        );
        assert!(Was::parse(b"1 77 4001 4002 488 1600000000 5 -3 1000000000 9 1").is_none());
        assert!(Was::parse(b"3 77 4001 4002 488 1600000000 5 -3 6 9 1").is_none());
    }

    proptest! {
        #[test]
        fn notes_are_read_as_they_were_written_and_fit_an_inode(
            (ino, uid, gid, mode) in any::<(u64, u32, u32, u32)>(),
            (a, m) in any::<(i64, i64)>(),
            (an, mn) in (NANOS, NANOS),
            (id, is_inherited) in any::<(u32, bool)>(),
        ) {
            let project = Some(Project { id, is_inherited }).filter(|p| *p != Project::default());
            let access = (uid, gid, mode & 0o7777);
            let was = Was { ino, access, atime: (a, an), mtime: (m, mn), project };
            let note = was.to_note();
            prop_assert!(note.len() <= 56, "ext4 has room for this many bytes beside the name");
            prop_assert_eq!(Was::parse(&note), Some(was));
        }

        #[test]
        fn any_note_is_read_or_refused(note in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Was::parse(&note);
            let _ = Was::parse(&[&[VERSION], &*note].concat());
        }
    }
}
