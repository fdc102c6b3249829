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
//! link row       the same, of one inode that has more than a few names; the page's name row then has none of it
//! directory row  for each of 64 consecutive directory ids: state:u8 and, unless free, ino parent length:u8 name
//! ```
//! Parents are directory ids. The first byte of every stored row is [`VERSION`]; `store` adds and checks it.

mod attributes;
mod clocks;
mod dirs;
mod names;

pub use self::attributes::{AttributeReader, Attributes, put_attributes};
pub use self::clocks::{put_clocks, read_clocks, split_present};
pub use self::dirs::{DirEntry, put_dir, read_dirs};
pub use self::names::{NameEntry, cut_name, names, pack_names, put_name, unpack_names};

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

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
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
