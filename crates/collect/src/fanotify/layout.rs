//! From a file handle to the inode, without a system call: each file system lays its handles out in its own way.
//!
//! The layouts are those of the kernel's `export_operations`: `generic_encode_ino32_fh` (ext4),
//! `shmem_encode_fh` (tmpfs), `xfs_fs_encode_fh`, `btrfs_encode_fh`, `zpl_encode_fh` (ZFS). They are not promised by a man page, so
//! [`Layout::probe`] checks the guess against the root's real inode before it is used.

use purge_model::Inode;
use purge_sys::handle::Handle;
use purge_sys::stat::magic;

/// `FILEID_INO32_GEN`, also what tmpfs calls its own.
const INO32_GEN: i32 = 1;
/// `XFS_FILEID_INO64_GEN` without a parent.
const XFS_INO64_GEN: i32 = 0x81;
/// What ZFS says of the length of a file's handle (`SHORT_FID_LEN`). Those of files in snapshots are longer.
const ZFS_BYTES: u16 = 10;
/// `FILEID_BTRFS_WITHOUT_PARENT`.
const BTRFS: i32 = 0x4d;

/// How a file system writes its handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// inode:u32 generation:u32
    Ino32,
    /// generation:u32 inode:u64
    Tmpfs,
    /// length:u16 (10) inode:u48 generation:u32; the inode's lowest byte first on every machine
    Zfs,
    /// inode:u64 generation:u32
    Xfs,
    /// inode:u64 subvolume:u64 generation:u32. Inodes are unique within a subvolume only.
    Btrfs {
        /// The volume's subvolume.
        subvolume: u64,
    },
}

impl Layout {
    /// The layout of a file system, proven on its root: `root` must give `ino`.
    pub fn probe(magic: u64, root: &Handle, ino: Inode) -> Option<Self> {
        let layout = match magic {
            magic::TMPFS => Self::Tmpfs,
            magic::XFS => Self::Xfs,
            magic::ZFS => Self::Zfs,
            magic::BTRFS => Self::Btrfs {
                subvolume: u64_at(root.content(), 8)?,
            },
            _ => Self::Ino32,
        };
        (layout.inode(root) == Some(ino)).then_some(layout)
    }

    /// The inode of a handle; none if it lies in another subvolume or is of another kind.
    #[inline]
    pub fn inode(self, handle: &Handle) -> Option<Inode> {
        let bytes = handle.content();
        match (self, handle.kind()) {
            (Self::Ino32, INO32_GEN) => u32_at(bytes, 0).map(u64::from),
            (Self::Tmpfs, INO32_GEN) => u64_at(bytes, 4),
            (Self::Zfs, INO32_GEN) if u16_at(bytes, 0) == Some(ZFS_BYTES) => u48_at(bytes, 2),
            (Self::Xfs, XFS_INO64_GEN) => u64_at(bytes, 0),
            (Self::Btrfs { subvolume }, BTRFS) if u64_at(bytes, 8) == Some(subvolume) => u64_at(bytes, 0),
            _ => None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u48_at(bytes: &[u8], at: usize) -> Option<u64> {
    let mut whole = [0; 8];
    whole.get_mut(..6)?.copy_from_slice(bytes.get(at..at + 6)?);
    Some(u64::from_le_bytes(whole))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_layout_gives_its_inode() {
        let ext4 = Handle::new(1, &[&12u32.to_ne_bytes()[..], &[9; 4]].concat()).unwrap();
        assert_eq!(Layout::Ino32.inode(&ext4), Some(12));
        let tmpfs = Handle::new(1, &[&[9; 4][..], &(1u64 << 40).to_ne_bytes()].concat()).unwrap();
        assert_eq!(Layout::Tmpfs.inode(&tmpfs), Some(1 << 40));
        let xfs = Handle::new(0x81, &[&77u64.to_ne_bytes()[..], &[9; 4]].concat()).unwrap();
        assert_eq!(Layout::Xfs.inode(&xfs), Some(77));
        let btrfs = Handle::new(
            0x4d,
            &[&257u64.to_ne_bytes()[..], &5u64.to_ne_bytes(), &[9; 4]].concat(),
        )
        .unwrap();
        assert_eq!(Layout::Btrfs { subvolume: 5 }.inode(&btrfs), Some(257));
        assert_eq!(Layout::Btrfs { subvolume: 6 }.inode(&btrfs), None);
    }

    #[test]
    fn a_handle_of_zfs_gives_its_inode_and_one_of_a_snapshot_none() {
        let handle = |length: u8, rest: &[u8]| {
            Handle::new(
                1,
                &[&[length, 0, 0x22, 1, 0, 0, 0, 0x80][..], &[9; 4], rest].concat(),
            )
            .unwrap()
        };
        assert_eq!(Layout::Zfs.inode(&handle(10, &[])), Some(0x8000_0000_0122));
        assert_eq!(Layout::Zfs.inode(&handle(20, &[7; 10])), None);
        assert_eq!(
            Layout::probe(magic::ZFS, &handle(10, &[]), 0x8000_0000_0122),
            Some(Layout::Zfs)
        );
    }

    #[test]
    fn a_guess_that_the_root_disproves_is_not_used() {
        let root = Handle::new(1, &[&2u32.to_ne_bytes()[..], &[0; 4]].concat()).unwrap();
        assert_eq!(Layout::probe(magic::EXT4, &root, 2), Some(Layout::Ino32));
        assert_eq!(Layout::probe(magic::EXT4, &root, 3), None);
        assert_eq!(Layout::probe(magic::XFS, &root, 2), None);
    }
}
