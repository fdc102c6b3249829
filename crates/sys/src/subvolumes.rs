//! How many subvolumes of btrfs lie in a subvolume (`BTRFS_IOC_GET_SUBVOL_ROOTREF`, since Linux 4.18, ioctl of linux/btrfs.h). They are
//! other file systems to everything that asks by device, and are not covered by a volume that lies above them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};

/// `_IOWR(0x94, 61, struct btrfs_ioctl_get_subvol_rootref_args)`; `_IOWR` is the same on the architectures that the agent is built for.
const GET_SUBVOL_ROOTREF: libc::c_ulong = 0xd000_943d;
/// Of one call: `BTRFS_MAX_ROOTREF_BUFFER_NUM`.
const BATCH: usize = 255;
/// The counting stops here: a user may make as many as they like.
const COUNTED_MAX: u64 = 100_000;
/// The inode of a subvolume's top directory: `BTRFS_FIRST_FREE_OBJECTID`.
pub const TOP_INODE: u64 = 256;

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
struct Refs {
    from_tree: u64,
    /// Number of the tree, inode of the directory.
    found: [[u64; 2]; BATCH],
    count: u8,
    padding: [u8; 7],
}

/// How many lie directly in the subvolume of this directory, at any place in it.
///
/// # Errors
/// ENOTTY on another file system, and what `ioctl(2)` says.
pub fn within(dir: impl AsFd) -> io::Result<u64> {
    // The descriptor that leads there need not be one to read by.
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(dir, c".", readable, Mode::empty())?;
    let (mut all, mut from_tree) = (0u64, 0u64);
    loop {
        let mut refs = Refs {
            from_tree,
            found: [[0; 2]; BATCH],
            count: 0,
            padding: [0; 7],
        };
        // SAFETY: the kernel reads and writes one `struct btrfs_ioctl_get_subvol_rootref_args` at the address, which is that of one: plain
        // integers without padding of their own.
        let done = unsafe { libc::ioctl(dir.as_raw_fd(), GET_SUBVOL_ROOTREF as _, &raw mut refs) };
        let error = io::Error::last_os_error();
        all = all.saturating_add(refs.count.into());
        let is_more = done != 0 && error.raw_os_error() == Some(libc::EOVERFLOW);
        match done {
            0 => return Ok(all),
            // The kernel has set the tree that comes next.
            _ if is_more && refs.from_tree > from_tree && all < COUNTED_MAX => from_tree = refs.from_tree,
            _ if is_more => return Ok(all),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_struct_is_as_long_as_the_number_of_the_call_says() {
        assert_eq!(
            size_of::<Refs>() as libc::c_ulong,
            GET_SUBVOL_ROOTREF >> 16 & 0x3fff
        );
    }
}
