//! Directory rows.

use smallvec::SmallVec;

use super::{DirId, PAGE_INODES, flag};
use purge_format::Damaged;
use purge_format::integers::{Cursor, put_varint};
use purge_model::Inode;

/// Most names of directories are short, and there may be millions: those need no memory elsewhere.
pub type DirName = SmallVec<[u8; 16]>;

/// One directory of a directory row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its inode.
    pub ino: Inode,
    /// The directory that holds it; the root is its own parent.
    pub parent: DirId,
    /// Its name there; empty for the root.
    pub name: DirName,
    /// Something in it could not be read.
    pub unreadable: bool,
    /// It holds a mount point.
    pub has_mounts: bool,
    /// It holds a name that is not kept, of a file with too many.
    pub crowded: bool,
}

const DIR_USED: u8 = 1;
const DIR_UNREADABLE: u8 = 2;
const DIR_MOUNTS: u8 = 4;
const DIR_CROWDED: u8 = 8;

/// Appends one slot of a directory row.
pub fn put_dir(out: &mut Vec<u8>, slot: Option<&DirEntry>) {
    let Some(dir) = slot else {
        out.push(0);
        return;
    };
    let doubts = flag(dir.unreadable, DIR_UNREADABLE) | flag(dir.has_mounts, DIR_MOUNTS);
    out.push(DIR_USED | doubts | flag(dir.crowded, DIR_CROWDED));
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
    let mut from = Cursor::new(row, "directory");
    let mut slots = Vec::with_capacity(PAGE_INODES as usize);
    while !from.is_empty() {
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
            crowded: state & DIR_CROWDED != 0,
        }));
    }
    Ok(slots)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn directories_come_back_as_they_were_put(
            slots in prop::collection::vec(
                prop::option::of((any::<u64>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..=255), any::<[bool; 3]>())), 0..64)
        ) {
            let slots: Vec<Option<DirEntry>> = slots.into_iter().map(|s| s.map(|(ino, parent, name, [unreadable, has_mounts, crowded])|
                DirEntry { ino, parent: DirId(parent), name: name.into(), unreadable, has_mounts, crowded })).collect();
            let mut row = Vec::new();
            for slot in &slots {
                put_dir(&mut row, slot.as_ref());
            }
            prop_assert_eq!(read_dirs(&row).unwrap(), slots);
        }
    }
}
