//! Project ids of ext4 and xfs (`file_getattr(2)`, Linux 6.17; `xfs_quota(8)`).
//!
//! Older kernels tell them only of open files, and opening every file is no way to ask: there, every file has project 0.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// The same number on every architecture that Rust builds for.
const SYS_FILE_GETATTR: libc::c_long = 468;

/// `struct file_attr` of linux/fs.h, version 0.
#[repr(C)]
#[derive(Default)]
struct FileAttr {
    xflags: u64,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
}

/// The project id of the entry `name` of the directory `dir`, not followed if it is a symlink. 0: none.
///
/// # Errors
/// ENOSYS before Linux 6.17, EOPNOTSUPP where the file system keeps none, and what `file_getattr(2)` says.
pub fn of_entry(dir: impl AsFd, name: &CStr) -> io::Result<u32> {
    ask(dir.as_fd().as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW)
}

/// The project id of what is behind a descriptor, also of one that was opened with O_PATH.
///
/// # Errors
/// As for [`of_entry`].
pub fn of_open(fd: impl AsFd) -> io::Result<u32> {
    // With AT_EMPTY_PATH the call refuses O_PATH descriptors (EBADF).
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    ask(libc::AT_FDCWD, &CString::new(link)?, 0)
}

/// Whether this kernel tells project ids.
pub fn is_known() -> bool {
    of_entry(rustix::fs::CWD, c"/")
        .err()
        .and_then(|e| e.raw_os_error())
        != Some(libc::ENOSYS)
}

fn ask(dir: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<u32> {
    let mut attr = FileAttr::default();
    // SAFETY: the name ends with a zero byte, and the kernel writes at most the size that is given into the struct, which is
    // plain integers without padding.
    let done = unsafe {
        libc::syscall(
            SYS_FILE_GETATTR,
            dir,
            name.as_ptr(),
            &raw mut attr,
            size_of::<FileAttr>(),
            flags,
        )
    };
    match done {
        0 => Ok(attr.project),
        _ => Err(io::Error::last_os_error()),
    }
}
