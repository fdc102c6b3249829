//! What a file system gives as its own id: the same at every place and time at which it is mounted.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::stat::magic;

/// `_IOR(0x15, 0, struct fsuuid2)` of linux/fs.h (Linux 6.9).
const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;

/// `struct fsuuid2` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// The id of the file system of this type at `path`; 0: it gives none.
///
/// ext4, btrfs and tmpfs make the id that statfs(2) gives of their UUID, and tmpfs has a new one with each mount. xfs gives the number of
/// its device there, which another boot may change, so it is asked for the UUID.
///
/// # Errors
/// What `open(2)` and `statfs(2)` say.
pub fn id(path: &Path, kind: u64) -> io::Result<u64> {
    if kind == magic::XFS {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
        return Ok(uuid(rustix::fs::open(path, flags, Mode::empty())?));
    }
    id_at_a_glance(path, kind)
}

/// [`id`] without opening anything for reading; 0 where that does not tell it.
///
/// # Errors
/// What `open(2)` and `statfs(2)` say.
pub fn id_at_a_glance(path: &Path, kind: u64) -> io::Result<u64> {
    if kind == magic::XFS {
        return Ok(0);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(rustix::fs::fstatvfs(&dir)?.f_fsid)
}

/// Half of the UUID folded upon the other; 0 where the kernel does not tell it.
fn uuid(dir: impl AsFd) -> u64 {
    let mut told = FsUuid::default();
    // SAFETY: the call writes a struct fsuuid2, which `told` is, and which outlives it; the descriptor is open.
    let rc = unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), FS_IOC_GETFSUUID as _, &raw mut told) };
    if rc != 0 || usize::from(told.len) != told.uuid.len() {
        return 0;
    }
    let whole = u128::from_le_bytes(told.uuid);
    (whole as u64) ^ ((whole >> 64) as u64)
}
