//! Attribute rows.

use super::{DirId, flag};
use purge_format::Damaged;
use purge_format::integers::{Cursor, put_difference, put_varint};
use purge_model::{Kind, Seconds};

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

impl Attributes {
    /// What its removal takes away at most: no more than is in it, and no more than is on the disk. A sparse file counts for its blocks,
    /// and blocks that were reserved ahead count for nothing.
    pub fn takes(&self) -> u64 {
        self.size.min(self.allocated)
    }
}

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
            from: Cursor::new(bytes, "attribute"),
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
            let allocated = self.from.varint()?.checked_mul(SECTOR_BYTES);
            let allocated = allocated.ok_or_else(|| self.from.damaged())?;
            (allocated, self.from.varint32()?)
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
    }
}
