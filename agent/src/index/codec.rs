//! The rows of the index, to the byte. Pure: bytes in, values out, nothing panics on damaged input.
//!
//! All integers are little-endian or LEB128 varints; signed differences are zigzag coded. A *page* is 64
//! consecutive inode numbers; its entries stand in ascending order of their offset (`inode % 64`).
//!
//! ```text
//! clock row      present:u64  n x access:u32  n x source:u8                       (n = number of bits in present)
//! attribute row  present:u64  n x entry
//!     entry      flags:u8  parent~  size  [uid gid]  [links]  ctime~  [nanoseconds:u32]  [mtime~ctime]  [birth~ctime]
//!                [sectors  project]
//!                flags: 0-1 kind, 2 owner as before, 3 links given, 4 mtime given, 5 birth given, 6 nanoseconds given,
//!                7 sectors of 512 bytes and project id given; otherwise the size in whole blocks of 4 KiB, and none
//!                x~ is the difference to the entry before (parent, ctime), x~y to that other field
//! name row       entries { offset:u8  parent~  shared:u8  length:u8  rest of the name }, ascending offsets; several for
//!                one offset: hard links. A name begins with `shared` bytes of the name before
//!                (while its names are changed, a row is kept unpacked: { offset:u8  parent  length:u8  name })
//! directory row  for each of 64 consecutive directory ids: state:u8 and, unless free, ino parent length:u8 name
//! ```
//! Parents are directory ids. The first byte of every stored row is [`VERSION`]; `store` adds and checks it.

use crate::model::{Inode, Kind, Seconds, Source};

/// Version of all rows that are written. An index with another version is set aside and rebuilt, never misread.
pub const VERSION: u8 = 2;

/// The oldest version that is read as well: 1 had no bit 7 in the flags of an attribute row.
pub const OLDEST_VERSION: u8 = 1;

/// Inodes of one page.
pub const PAGE_INODES: u64 = 64;

/// A directory's number in the index: dense, so that tables over directories are arrays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirId(pub u32);

impl DirId {
    /// The volume's root.
    pub const ROOT: Self = Self(0);

    /// As an index into a table over directories.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the attribute row says of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The directory of its first name. A directory's own parent; the root is its own.
    pub parent: DirId,
    /// What it is.
    pub kind: Kind,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes of disk it takes: whole sectors of 512.
    pub allocated: u64,
    /// Project id; 0 where there is none.
    pub project: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Number of names the file system counts.
    pub links: u32,
    /// mtime.
    pub mtime: Seconds,
    /// ctime.
    pub ctime: Seconds,
    /// The rest of ctime.
    pub ctime_nanos: u32,
    /// Birth time.
    pub birth: Seconds,
}

/// A row that cannot be what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged {row} row at byte {at}")]
pub struct Damaged {
    /// Which kind of row.
    pub row: &'static str,
    /// Where reading stopped making sense.
    pub at: usize,
}

// ---------------------------------------------------------------- attributes

const OWNER_AS_BEFORE: u8 = 1 << 2;
const LINKS_GIVEN: u8 = 1 << 3;
const MTIME_GIVEN: u8 = 1 << 4;
const BIRTH_GIVEN: u8 = 1 << 5;
const NANOS_GIVEN: u8 = 1 << 6;
const DISK_GIVEN: u8 = 1 << 7;

/// `statx(2)` counts in these.
const SECTOR_BYTES: u64 = 512;

/// What a file takes on disk that has no holes and no preallocation, where blocks have 4 KiB.
fn whole_blocks(size: u64) -> u64 {
    size.checked_next_multiple_of(4096).unwrap_or(size)
}

/// Appends the entries of an attribute row.
pub fn put_attributes<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = &'a Attributes>) {
    let mut before = Before::default();
    for entry in entries {
        let same_owner = (entry.uid, entry.gid) == before.owner;
        let disk_given = entry.project != 0 || entry.allocated != whole_blocks(entry.size);
        let flags = kind_bits(entry.kind)
            | flag(same_owner, OWNER_AS_BEFORE)
            | flag(entry.links != 1, LINKS_GIVEN)
            | flag(entry.mtime != entry.ctime, MTIME_GIVEN)
            | flag(entry.birth != entry.ctime, BIRTH_GIVEN)
            | flag(entry.ctime_nanos != 0, NANOS_GIVEN)
            | flag(disk_given, DISK_GIVEN);
        out.push(flags);
        put_difference(out, entry.parent.0, before.parent);
        put_varint(out, entry.size);
        if !same_owner {
            put_varint(out, entry.uid.into());
            put_varint(out, entry.gid.into());
        }
        if entry.links != 1 {
            put_varint(out, entry.links.into());
        }
        put_difference(out, entry.ctime.0, before.ctime);
        if entry.ctime_nanos != 0 {
            out.extend_from_slice(&entry.ctime_nanos.to_le_bytes());
        }
        if entry.mtime != entry.ctime {
            put_difference(out, entry.mtime.0, entry.ctime.0);
        }
        if entry.birth != entry.ctime {
            put_difference(out, entry.birth.0, entry.ctime.0);
        }
        if disk_given {
            put_varint(out, entry.allocated / SECTOR_BYTES);
            put_varint(out, entry.project.into());
        }
        before = Before {
            parent: entry.parent.0,
            owner: (entry.uid, entry.gid),
            ctime: entry.ctime.0,
        };
    }
}

/// What differences refer to.
#[derive(Default, Clone, Copy)]
struct Before {
    parent: u32,
    owner: (u32, u32),
    ctime: u32,
}

/// Reads the entries of an attribute row one after another.
#[derive(Clone)]
pub struct AttributeReader<'a> {
    from: Cursor<'a>,
    before: Before,
}

impl<'a> AttributeReader<'a> {
    /// A reader of entries as [`put_attributes`] wrote them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            from: Cursor {
                bytes,
                at: 0,
                row: "attribute",
            },
            before: Before::default(),
        }
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`Damaged`] when the bytes are no entry.
    #[inline]
    pub fn next_entry(&mut self) -> Result<Attributes, Damaged> {
        let flags = self.from.byte()?;
        let parent = self.from.difference(self.before.parent)?;
        let size = self.from.varint()?;
        let (uid, gid) = if flags & OWNER_AS_BEFORE != 0 {
            self.before.owner
        } else {
            (self.from.varint32()?, self.from.varint32()?)
        };
        let links = if flags & LINKS_GIVEN != 0 {
            self.from.varint32()?
        } else {
            1
        };
        let ctime = self.from.difference(self.before.ctime)?;
        let ctime_nanos = if flags & NANOS_GIVEN != 0 {
            self.from.fixed32()?
        } else {
            0
        };
        let mtime = if flags & MTIME_GIVEN != 0 {
            self.from.difference(ctime)?
        } else {
            ctime
        };
        let birth = if flags & BIRTH_GIVEN != 0 {
            self.from.difference(ctime)?
        } else {
            ctime
        };
        let (allocated, project) = if flags & DISK_GIVEN != 0 {
            let sectors = self.from.varint()?;
            (sectors.saturating_mul(SECTOR_BYTES), self.from.varint32()?)
        } else {
            (whole_blocks(size), 0)
        };
        self.before = Before {
            parent,
            owner: (uid, gid),
            ctime,
        };
        Ok(Attributes {
            parent: DirId(parent),
            kind: kind_of(flags),
            size,
            allocated,
            project,
            uid,
            gid,
            links,
            mtime: Seconds(mtime),
            ctime: Seconds(ctime),
            ctime_nanos,
            birth: Seconds(birth),
        })
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn kind_bits(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
        Kind::Special => 3,
    }
}

fn kind_of(flags: u8) -> Kind {
    match flags & 3 {
        0 => Kind::File,
        1 => Kind::Directory,
        2 => Kind::Symlink,
        _ => Kind::Special,
    }
}

// ---------------------------------------------------------------- clocks

/// Appends a clock row.
pub fn put_clocks(out: &mut Vec<u8>, present: u64, clocks: &[u32], sources: &[u8]) {
    out.extend_from_slice(&present.to_le_bytes());
    for clock in clocks {
        out.extend_from_slice(&clock.to_le_bytes());
    }
    out.extend_from_slice(sources);
}

/// Reads a clock row: which offsets are present, their access times and sources.
///
/// # Errors
/// [`Damaged`] when the length does not fit the number of entries, or a source has no meaning.
pub fn read_clocks(row: &[u8]) -> Result<(u64, Vec<u32>, Vec<u8>), Damaged> {
    let damaged = |at| Damaged { row: "clock", at };
    let (present, rest) = split_present(row).ok_or(damaged(0))?;
    let count = present.count_ones() as usize;
    if rest.len() != count * 5 {
        return Err(damaged(row.len()));
    }
    let (clocks, sources) = rest.split_at(count * 4);
    if sources.iter().any(|s| Source::from_u8(*s).is_none()) {
        return Err(damaged(8 + count * 4));
    }
    let clocks = clocks
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| u32::from_le_bytes(*c))
        .collect();
    Ok((present, clocks, sources.to_vec()))
}

/// The first eight bytes of a clock or attribute row, and the rest.
pub fn split_present(row: &[u8]) -> Option<(u64, &[u8])> {
    row.split_first_chunk::<8>()
        .map(|(head, rest)| (u64::from_le_bytes(*head), rest))
}

// ---------------------------------------------------------------- names

/// One name of one inode of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameEntry<'a> {
    /// `inode % 64`.
    pub offset: u8,
    /// The directory that holds the name.
    pub parent: DirId,
    /// The name, at most 255 bytes.
    pub name: &'a [u8],
}

/// Appends one entry to an unpacked name row. Names longer than 255 bytes do not exist on Linux (`NAME_MAX`).
pub fn put_name(out: &mut Vec<u8>, entry: NameEntry<'_>) {
    let name = entry.name.get(..entry.name.len().min(255)).unwrap_or(&[]);
    out.push(entry.offset);
    put_varint(out, entry.parent.0.into());
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

/// The entries of an unpacked name row; ends with an error where it is damaged.
pub fn names(row: &[u8]) -> impl Iterator<Item = Result<NameEntry<'_>, Damaged>> {
    let mut from = Cursor {
        bytes: row,
        at: 0,
        row: "name",
    };
    std::iter::from_fn(move || {
        if from.at >= from.bytes.len() {
            return None;
        }
        let entry = read_name(&mut from);
        if entry.is_err() {
            from.at = from.bytes.len();
        }
        Some(entry)
    })
}

fn read_name<'a>(from: &mut Cursor<'a>) -> Result<NameEntry<'a>, Damaged> {
    let offset = from.byte()?;
    if u64::from(offset) >= PAGE_INODES {
        return Err(from.damaged());
    }
    let parent = DirId(from.varint32()?);
    let len = from.byte()?;
    Ok(NameEntry {
        offset,
        parent,
        name: from.take(len.into())?,
    })
}

/// The form in which a name row is stored: neighbours in inode order mostly lie in one directory and have names that
/// begin alike. Names of one inode stay in their order.
pub fn pack_names(unpacked: &[u8]) -> Vec<u8> {
    let mut entries: Vec<_> = names(unpacked).map_while(Result::ok).collect();
    entries.sort_by_key(|e| e.offset);
    let mut out = Vec::with_capacity(unpacked.len());
    let mut before: (DirId, &[u8]) = (DirId::ROOT, &[]);
    for entry in entries {
        let shared = entry
            .name
            .iter()
            .zip(before.1)
            .take_while(|(a, b)| a == b)
            .count();
        let rest = entry.name.get(shared..).unwrap_or(&[]);
        out.push(entry.offset);
        put_difference(&mut out, entry.parent.0, before.0.0);
        out.push(u8::try_from(shared).unwrap_or(u8::MAX));
        out.push(u8::try_from(rest.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(rest);
        before = (entry.parent, entry.name);
    }
    out
}

/// What [`pack_names`] made, unpacked.
///
/// # Errors
/// [`Damaged`] when it is none.
pub fn unpack_names(packed: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut from = Cursor::new(packed, "name");
    let mut out = Vec::with_capacity(packed.len().saturating_mul(2));
    let (mut parent, mut name) = (0, Vec::new());
    while !from.is_empty() {
        let offset = from.byte()?;
        parent = from.difference(parent)?;
        let (shared, rest) = (usize::from(from.byte()?), usize::from(from.byte()?));
        if u64::from(offset) >= PAGE_INODES || shared > name.len() || shared + rest > 255 {
            return Err(from.damaged());
        }
        name.truncate(shared);
        name.extend_from_slice(from.take(rest)?);
        let parent = DirId(parent);
        put_name(
            &mut out,
            NameEntry {
                offset,
                parent,
                name: &name,
            },
        );
    }
    Ok(out)
}

// ---------------------------------------------------------------- directories

/// One directory of a directory row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its inode.
    pub ino: Inode,
    /// The directory that holds it; the root is its own parent.
    pub parent: DirId,
    /// Its name there; empty for the root.
    pub name: Box<[u8]>,
    /// Something in it could not be read.
    pub unreadable: bool,
    /// It holds a mount point.
    pub has_mounts: bool,
}

const DIR_USED: u8 = 1;
const DIR_UNREADABLE: u8 = 2;
const DIR_MOUNTS: u8 = 4;

/// Appends one slot of a directory row.
pub fn put_dir(out: &mut Vec<u8>, slot: Option<&DirEntry>) {
    let Some(dir) = slot else {
        out.push(0);
        return;
    };
    out.push(DIR_USED | flag(dir.unreadable, DIR_UNREADABLE) | flag(dir.has_mounts, DIR_MOUNTS));
    put_varint(out, dir.ino);
    put_varint(out, dir.parent.0.into());
    let name = dir.name.get(..dir.name.len().min(255)).unwrap_or(&[]);
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

/// Reads the slots of a directory row.
///
/// # Errors
/// [`Damaged`] when the bytes are no directory row.
pub fn read_dirs(row: &[u8]) -> Result<Vec<Option<DirEntry>>, Damaged> {
    let mut from = Cursor {
        bytes: row,
        at: 0,
        row: "directory",
    };
    let mut slots = Vec::with_capacity(PAGE_INODES as usize);
    while from.at < row.len() {
        let state = from.byte()?;
        if state & DIR_USED == 0 {
            slots.push(None);
            continue;
        }
        let ino = from.varint()?;
        let parent = DirId(from.varint32()?);
        let len = from.byte()?;
        let name = from.take(len.into())?.into();
        let (unreadable, has_mounts) = (state & DIR_UNREADABLE != 0, state & DIR_MOUNTS != 0);
        slots.push(Some(DirEntry {
            ino,
            parent,
            name,
            unreadable,
            has_mounts,
        }));
    }
    Ok(slots)
}

// ---------------------------------------------------------------- integers

/// Appends an unsigned LEB128 integer.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed integer, zigzag coded.
pub fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

fn put_difference(out: &mut Vec<u8>, to: u32, from: u32) {
    put_signed(out, i64::from(to) - i64::from(from));
}

/// Reads varints and bytes; every read is checked.
#[derive(Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    row: &'static str,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`; `row` names them in errors.
    pub fn new(bytes: &'a [u8], row: &'static str) -> Self {
        Self { bytes, at: 0, row }
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn damaged(&self) -> Damaged {
        Damaged {
            row: self.row,
            at: self.at,
        }
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Damaged`] at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Damaged> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.damaged())?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`Damaged`] when there are not so many.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let end = self.at.checked_add(len).ok_or_else(|| self.damaged())?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.damaged())?;
        self.at = end;
        Ok(taken)
    }

    /// An unsigned LEB128 integer.
    ///
    /// # Errors
    /// [`Damaged`] at the end, or when it does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Damaged> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(self.damaged());
            }
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.damaged())
    }

    /// A varint that fits 32 bits.
    ///
    /// # Errors
    /// [`Damaged`] when it does not.
    #[inline]
    pub fn varint32(&mut self) -> Result<u32, Damaged> {
        let n = self.varint()?;
        u32::try_from(n).map_err(|_| self.damaged())
    }

    /// Four bytes.
    #[inline]
    fn fixed32(&mut self) -> Result<u32, Damaged> {
        let bytes = self.take(4)?;
        Ok(bytes.try_into().map(u32::from_le_bytes).unwrap_or_default())
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// A signed integer, zigzag coded.
    ///
    /// # Errors
    /// As for [`Cursor::varint`].
    #[inline]
    pub fn signed(&mut self) -> Result<i64, Damaged> {
        let coded = self.varint()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    #[inline]
    fn difference(&mut self, from: u32) -> Result<u32, Damaged> {
        let to = i64::from(from)
            .checked_add(self.signed()?)
            .ok_or_else(|| self.damaged())?;
        u32::try_from(to).map_err(|_| self.damaged())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn attributes() -> impl Strategy<Value = Attributes> {
        let kind = prop_oneof![
            Just(Kind::File),
            Just(Kind::Directory),
            Just(Kind::Symlink),
            Just(Kind::Special)
        ];
        let numbers = (
            any::<u32>(),
            any::<u64>(),
            any::<u32>(),
            any::<u32>(),
            any::<u32>(),
        );
        let times = (any::<u32>(), any::<u32>(), any::<u32>());
        (kind, numbers, times, any::<bool>()).prop_map(|(kind, n, t, same)| Attributes {
            parent: DirId(n.0),
            kind,
            size: n.1,
            allocated: if same {
                whole_blocks(n.1)
            } else {
                u64::from(n.4) * SECTOR_BYTES
            },
            project: if same { 0 } else { n.3 },
            uid: n.2,
            gid: n.3,
            links: if same { 1 } else { n.4 },
            mtime: Seconds(t.0),
            ctime: Seconds(if same { t.0 } else { t.1 }),
            ctime_nanos: if same { 0 } else { t.2 },
            birth: Seconds(t.2),
        })
    }

    proptest! {
        #[test]
        fn attributes_come_back_as_they_were_put(entries in prop::collection::vec(attributes(), 0..64)) {
            let mut row = Vec::new();
            put_attributes(&mut row, entries.iter());
            let mut reader = AttributeReader::new(&row);
            for entry in &entries {
                prop_assert_eq!(reader.next_entry().unwrap(), *entry);
            }
            prop_assert!(reader.next_entry().is_err());
        }

        #[test]
        fn clocks_come_back_as_they_were_put(present: u64, seed: u32) {
            let n = present.count_ones();
            let clocks: Vec<u32> = (0..n).map(|i| seed.wrapping_mul(i)).collect();
            let sources: Vec<u8> = (0..n).map(|i| (i % 7) as u8).collect();
            let mut row = Vec::new();
            put_clocks(&mut row, present, &clocks, &sources);
            prop_assert_eq!(read_clocks(&row).unwrap(), (present, clocks, sources));
        }

        #[test]
        fn names_come_back_as_they_were_put(
            entries in prop::collection::vec((0u8..64, any::<u32>(), prop::collection::vec(any::<u8>(), 0..=255)), 0..20)
        ) {
            let mut row = Vec::new();
            for (offset, parent, name) in &entries {
                put_name(&mut row, NameEntry { offset: *offset, parent: DirId(*parent), name });
            }
            let back: Vec<_> = names(&row).map(|e| e.unwrap()).map(|e| (e.offset, e.parent.0, e.name.to_vec())).collect();
            prop_assert_eq!(&back, &entries);
            let packed = pack_names(&row);
            let unpacked = unpack_names(&packed).unwrap();
            let mut sorted = entries;
            sorted.sort_by_key(|e| e.0);
            let back: Vec<_> = names(&unpacked).map(|e| e.unwrap()).map(|e| (e.offset, e.parent.0, e.name.to_vec())).collect();
            prop_assert_eq!(back, sorted);
        }

        #[test]
        fn directories_come_back_as_they_were_put(
            slots in prop::collection::vec(
                prop::option::of((any::<u64>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..=255), any::<bool>(), any::<bool>())), 0..64)
        ) {
            let slots: Vec<Option<DirEntry>> = slots.into_iter().map(|s| s.map(|(ino, parent, name, unreadable, has_mounts)|
                DirEntry { ino, parent: DirId(parent), name: name.into(), unreadable, has_mounts })).collect();
            let mut row = Vec::new();
            for slot in &slots {
                put_dir(&mut row, slot.as_ref());
            }
            prop_assert_eq!(read_dirs(&row).unwrap(), slots);
        }

        #[test]
        fn damaged_rows_are_refused_not_believed(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read_clocks(&bytes);
            let _ = read_dirs(&bytes);
            names(&bytes).for_each(drop);
            let _ = unpack_names(&bytes);
            let mut reader = AttributeReader::new(&bytes);
            while reader.next_entry().is_ok() {}
        }
    }
}
