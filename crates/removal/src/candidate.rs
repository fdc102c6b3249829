//! What a plan says of one entry, and how chunks of candidates are stored. Pure.
//!
//! ```text
//! chunk      candidate*
//! candidate  flags:u8  [[shared:varint] dir length, bytes]  name length, bytes  ino rule size files uid links ctime nanoseconds
//!            mtime:u32 ctime:u32 birth:u32 access:u32 last:u32     flags: 0-1 shape, 2 directory as before, 3-4 why a link goes
//!            access source:u8 last source:u8                       integers without a width are varints
//!            flags: 7 the directory begins with this many bytes of the one before
//! ```

use std::ffi::{CStr, CString};
use std::ops::{Deref, Range};
use std::sync::Arc;

use purge_format::Damaged;
use purge_format::integers::{Cursor, put_varint};
use purge_model::{Inode, Kind, LastUse, Seconds, Source};
use purge_policy::evaluate::{Shape, Why};

/// Candidates of one chunk, at most.
pub const CHUNK_CANDIDATES: usize = 1024;
/// The paths of the directories of one chunk, at most: a user can make each of them 32 KiB long.
pub const CHUNK_DIR_BYTES: usize = 1 << 20;

/// One entry of a saved plan: where it was, and everything it is compared with before it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub ino: Inode,
    /// As what it goes.
    pub shape: Shape,
    /// Position of its rule in the plan's rules.
    pub rule: u16,
    /// Directory that holds it, relative to the volume; empty for the root.
    pub dir: Arc<[u8]>,
    /// Its name there.
    pub name: Arc<CStr>,
    /// Bytes that go with it.
    pub size: u64,
    /// Regular files that go with it.
    pub files: u64,
    /// Owner.
    pub uid: u32,
    /// Number of names.
    pub links: u32,
    /// mtime when the plan was made.
    pub mtime: Seconds,
    /// ctime when the plan was made.
    pub ctime: Seconds,
    /// The rest of ctime.
    pub ctime_nanos: u32,
    /// Birth time.
    pub birth: Seconds,
    /// Its access clock when the plan was made.
    pub access: LastUse,
    /// Its last use as the rule saw it.
    pub last: LastUse,
}

/// Candidates of a chunk that follow each other.
#[derive(Debug, Clone)]
pub struct Part {
    chunk: Arc<[Candidate]>,
    range: Range<usize>,
}

impl Part {
    /// Those in `range`.
    pub fn of(chunk: &Arc<[Candidate]>, range: Range<usize>) -> Self {
        Self {
            chunk: Arc::clone(chunk),
            range,
        }
    }

    /// The first `count`, and the rest.
    pub fn split(self, count: usize) -> (Self, Self) {
        let middle = self.range.start.saturating_add(count).min(self.range.end);
        let first = Self::of(&self.chunk, self.range.start..middle);
        (first, Self::of(&self.chunk, middle..self.range.end))
    }
}

impl Deref for Part {
    type Target = [Candidate];

    fn deref(&self) -> &[Candidate] {
        self.chunk.get(self.range.clone()).unwrap_or_default()
    }
}

impl Candidate {
    /// The last use that was known when the plan was made.
    pub fn last_use(&self) -> Seconds {
        self.access.at.max(self.last.at)
    }

    /// Path relative to the volume.
    pub fn path(&self) -> Vec<u8> {
        let mut path = Vec::new();
        self.put_path(&mut path);
        path
    }

    /// Path below a volume's root.
    pub fn path_below(&self, root: &std::path::Path) -> Vec<u8> {
        let root = root.as_os_str().as_encoded_bytes();
        let mut path = Vec::with_capacity(root.len() + self.dir.len() + self.name.count_bytes() + 2);
        path.extend_from_slice(root);
        path.push(b'/');
        self.put_path(&mut path);
        path
    }

    fn put_path(&self, path: &mut Vec<u8>) {
        path.extend_from_slice(&self.dir);
        if !self.dir.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name.to_bytes());
    }

    /// What it is on disk.
    pub fn kind(&self) -> Kind {
        match self.shape {
            Shape::File => Kind::File,
            Shape::Tree | Shape::EmptyDirectory => Kind::Directory,
            Shape::Link(_) => Kind::Symlink,
        }
    }
}

const DIR_AS_BEFORE: u8 = 1 << 2;
const DIR_SHARES: u8 = 1 << 7;
/// Shorter beginnings are not worth while.
const SHARED_MIN: usize = 16;
const WHY_SHIFT: u32 = 3;
const WHYS: [Why; 3] = [Why::Dangling, Why::WithTarget, Why::Expired];

/// A chunk's row.
pub fn encode(candidates: &[Candidate]) -> Vec<u8> {
    let mut out = Vec::with_capacity(candidates.len() * 64);
    let mut before: Option<&[u8]> = None;
    for c in candidates {
        let same = before == Some(&c.dir);
        let shared = before.map_or(0, |b| b.iter().zip(&*c.dir).take_while(|(a, b)| a == b).count());
        let shares = !same && shared >= SHARED_MIN;
        let shape = match c.shape {
            Shape::File => 0,
            Shape::Tree => 1,
            Shape::EmptyDirectory => 2,
            Shape::Link(why) => 3 | (why as u8) << WHY_SHIFT,
        };
        let as_before = if same { DIR_AS_BEFORE } else { 0 };
        out.push(shape | as_before | if shares { DIR_SHARES } else { 0 });
        if shares {
            put_varint(&mut out, shared as u64);
        }
        if !same {
            let rest = c.dir.get(if shares { shared } else { 0 }..).unwrap_or_default();
            put_varint(&mut out, rest.len() as u64);
            out.extend_from_slice(rest);
        }
        put_varint(&mut out, c.name.count_bytes() as u64);
        out.extend_from_slice(c.name.to_bytes());
        for n in [
            c.ino,
            c.rule.into(),
            c.size,
            c.files,
            c.uid.into(),
            c.links.into(),
            c.ctime_nanos.into(),
        ] {
            put_varint(&mut out, n);
        }
        for t in [c.mtime, c.ctime, c.birth, c.access.at, c.last.at] {
            out.extend_from_slice(&t.0.to_le_bytes());
        }
        out.extend([c.access.source as u8, c.last.source as u8]);
        before = Some(&c.dir);
    }
    out
}

/// The candidates of a chunk's row.
///
/// # Errors
/// [`Damaged`] when the bytes are no chunk.
pub fn decode(row: &[u8]) -> Result<Vec<Candidate>, Damaged> {
    let mut from = Cursor::new(row, "candidate");
    let mut out: Vec<Candidate> = Vec::new();
    let mut shared_bytes = 0usize;
    while !from.is_empty() {
        let damaged = Damaged {
            row: "candidate",
            at: out.len(),
        };
        let flags = from.byte()?;
        let shape = match flags & 3 {
            0 => Shape::File,
            1 => Shape::Tree,
            2 => Shape::EmptyDirectory,
            _ => {
                let why = WHYS.get(usize::from(flags >> WHY_SHIFT & 3)).copied();
                Shape::Link(why.ok_or(damaged)?)
            }
        };
        let dir = match flags & DIR_AS_BEFORE != 0 {
            true => Arc::clone(&out.last().ok_or(damaged)?.dir),
            false if flags & DIR_SHARES != 0 => {
                let shared = usize::try_from(from.varint()?).map_err(|_| damaged)?;
                let before = &out.last().ok_or(damaged)?.dir;
                let shared = before.get(..shared).ok_or(damaged)?;
                let dir: Arc<[u8]> = [shared, read_bytes(&mut from)?].concat().into();
                // Of a damaged row, few bytes could become many.
                shared_bytes = shared_bytes.saturating_add(dir.len());
                if shared_bytes > 2 * CHUNK_DIR_BYTES {
                    return Err(damaged);
                }
                dir
            }
            false => read_bytes(&mut from)?.into(),
        };
        let name = CString::new(read_bytes(&mut from)?).map_err(|_| damaged)?.into();
        let ino = from.varint()?;
        let rule = u16::try_from(from.varint()?).map_err(|_| damaged)?;
        let (size, files) = (from.varint()?, from.varint()?);
        let (uid, links, ctime_nanos) = (from.varint32()?, from.varint32()?, from.varint32()?);
        let mut time = || {
            Ok(Seconds(
                from.take(4)?
                    .try_into()
                    .map(u32::from_le_bytes)
                    .unwrap_or(u32::MAX),
            ))
        };
        let (mtime, ctime, birth, access, last) = (time()?, time()?, time()?, time()?, time()?);
        let mut source = || Source::from_u8(from.byte()?).ok_or(damaged);
        let access = LastUse {
            at: access,
            source: source()?,
        };
        let last = LastUse {
            at: last,
            source: source()?,
        };
        out.push(Candidate {
            ino,
            shape,
            rule,
            dir,
            name,
            size,
            files,
            uid,
            links,
            mtime,
            ctime,
            ctime_nanos,
            birth,
            access,
            last,
        });
    }
    Ok(out)
}

fn read_bytes<'a>(from: &mut Cursor<'a>) -> Result<&'a [u8], Damaged> {
    let len = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
    from.take(len)
}

#[cfg(test)]
pub mod testing {
    //! Candidates for tests.
    use super::*;

    /// A file of one name, or a directory with that many files.
    pub fn candidate(ino: u64, rule: u16, files: u64) -> Candidate {
        let shape = if files > 3000 { Shape::Tree } else { Shape::File };
        let at = LastUse {
            at: Seconds(0),
            source: Source::Observed,
        };
        Candidate {
            ino,
            shape,
            rule,
            dir: Arc::default(),
            name: c"f".into(),
            size: 0,
            files,
            uid: 0,
            links: 1,
            mtime: Seconds(0),
            ctime: Seconds(0),
            ctime_nanos: 0,
            birth: Seconds(0),
            access: at,
            last: at,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        let link = prop_oneof![Just(Why::Dangling), Just(Why::WithTarget), Just(Why::Expired)];
        let shape = prop_oneof![
            Just(Shape::File),
            Just(Shape::Tree),
            Just(Shape::EmptyDirectory),
            link.prop_map(Shape::Link)
        ];
        let bytes = || prop::collection::vec(1..=u8::MAX, 0..20);
        let dir = (any::<bool>(), bytes()).prop_map(|(is_long, end)| {
            let begin = if is_long {
                &b"some/directory/of/many/names/"[..]
            } else {
                b""
            };
            [begin, &end].concat()
        });
        let numbers = (
            any::<u64>(),
            any::<u16>(),
            any::<u64>(),
            any::<u64>(),
            any::<u32>(),
            any::<u32>(),
        );
        (shape, dir, bytes(), numbers, any::<[u32; 5]>(), 0u8..7).prop_map(|(shape, dir, name, n, t, s)| {
            Candidate {
                ino: n.0,
                shape,
                rule: n.1,
                dir: dir.into(),
                name: CString::new(name).unwrap().into(),
                size: n.2,
                files: n.3,
                uid: n.4,
                links: n.5,
                mtime: Seconds(t[0]),
                ctime: Seconds(t[1]),
                ctime_nanos: t[2],
                birth: Seconds(t[2]),
                access: LastUse {
                    at: Seconds(t[3]),
                    source: Source::from_u8(s).unwrap(),
                },
                last: LastUse {
                    at: Seconds(t[4]),
                    source: Source::from_u8(6 - s).unwrap(),
                },
            }
        })
    }

    proptest! {
        #[test]
        fn candidates_come_back_as_they_were_saved(candidates in prop::collection::vec(candidate(), 0..40)) {
            prop_assert_eq!(decode(&encode(&candidates)).unwrap(), candidates);
        }

        #[test]
        fn damaged_chunks_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
