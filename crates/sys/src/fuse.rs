//! The kernel's side of a FUSE mount (`fuse(4)`): its descriptor, and the files that it reads and writes by itself.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// What the table of mounts calls it.
pub const KIND: &str = "fuse.purge-agent";

/// `struct fuse_backing_map` of `linux/fuse.h`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// `FUSE_DEV_IOC_BACKING_OPEN`: _IOW(229, 1, struct fuse_backing_map).
const BACKING_OPEN: libc::Ioctl = 0x4010_e501;
/// `FUSE_DEV_IOC_BACKING_CLOSE`: _IOW(229, 2, uint32_t).
const BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// Mounts at `point`: each user comes in, and the kernel looks at modes before a request is made. What the mount that lies behind forbids
/// (setuid programs, devices, programs, changes) is forbidden there as well.
///
/// # Errors
/// What `open(2)` of `/dev/fuse` or `mount(2)` says.
pub fn mount(behind: impl AsFd, source: &Path, point: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open(c"/dev/fuse", flags, Mode::empty())?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let options = CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
    let behind = rustix::fs::fstatvfs(behind)?.f_flag;
    let forbids = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    ];
    let flags = forbids.into_iter().filter(|(of, _)| behind.contains(*of));
    let flags = flags.fold(MountFlags::empty(), |all, (_, flag)| all | flag);
    rustix::mount::mount(
        source.as_os_str().as_bytes(),
        point.as_os_str().as_bytes(),
        KIND,
        flags,
        options.as_c_str(),
    )?;
    Ok(device)
}

/// Unmounts. `now`: no path leads there any more though files are open.
///
/// # Errors
/// EBUSY while files are open, and what `umount2(2)` says.
pub fn unmount(point: &Path, now: bool) -> io::Result<()> {
    let flags = match now {
        true => UnmountFlags::DETACH,
        false => UnmountFlags::empty(),
    };
    Ok(rustix::mount::unmount(
        point.as_os_str().as_bytes(),
        flags | UnmountFlags::NOFOLLOW,
    )?)
}

/// Reads a request. None: there is no mount any more.
///
/// # Errors
/// What `read(2)` says.
pub fn read(device: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<usize>> {
    use rustix::io::Errno;
    loop {
        match rustix::io::read(device, &mut *into) {
            Ok(length) => return Ok(Some(length)),
            // ENOENT: the one who asked was killed before the request was read.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NODEV) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes an answer.
///
/// # Errors
/// ENOENT: no process waits for it any more; and what `write(2)` says.
pub fn write(device: BorrowedFd<'_>, answer: &[u8]) -> io::Result<()> {
    rustix::io::write(device, answer)?;
    Ok(())
}

/// Has the kernel read and write a file by itself. The number stands for it until [`forget`].
///
/// # Errors
/// ENOTTY before Linux 6.9, EPERM without CAP_SYS_ADMIN, ELOOP for a file of a file system that is itself stacked.
pub fn register(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<i32> {
    let map = BackingMap {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: the call reads one `struct fuse_backing_map`, which outlives it.
    let number = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_OPEN, &raw const map) };
    match number {
        ..=0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// The kernel needs not keep a file any longer than it is open.
pub fn forget(device: BorrowedFd<'_>, number: i32) {
    // SAFETY: the call reads one number, which outlives it.
    unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const number) };
}
