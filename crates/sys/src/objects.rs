//! Files that the agent alone writes, in a directory that holds them for good: made without a name in the way, written down to the disk, and
//! never opened by a path.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Advice, FlockOperation, Mode, OFlags};

use super::{beneath, inside, lease};

/// Opens the directory of a store, for listing and for syncing.
///
/// # Errors
/// What `open(2)` says; ELOOP if it is a symbolic link.
pub fn open_store(path: &Path) -> io::Result<OwnedFd> {
    beneath::open_mount(path)
}

/// A new file (0600) that no other process takes for left behind while it is open.
///
/// # Errors
/// EEXIST, and what `openat(2)` and `flock(2)` say.
pub fn create(dir: impl AsFd, name: &CStr) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Not every file system has locks.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(file.into()),
        Err(e) => Err(e.into()),
    }
}

/// Whether the process that made such a file has ended.
///
/// # Errors
/// What `openat2(2)` and `flock(2)` say.
pub fn is_left_behind(dir: impl AsFd, name: &CStr) -> io::Result<bool> {
    Ok(!lease::is_locked(beneath::open_file(dir, name)?)?)
}

/// Opens a regular file of a store.
///
/// # Errors
/// As for [`beneath::open_file`].
pub fn open(dir: impl AsFd, name: &CStr) -> io::Result<File> {
    beneath::open_file(dir, name).map(File::from)
}

/// Makes the directory `name`, which lasts when this returns, and opens it for listing.
///
/// # Errors
/// What `mkdirat(2)`, `openat2(2)` and `fsync(2)` say.
pub fn make_dir(dir: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let (made, is_new) = inside::make_listable_dir(dir, name)?;
    if is_new {
        write_down(dir)?;
    }
    Ok(made)
}

/// What was written to it, or the names that a directory has, lasts when this returns (`fsync(2)`).
///
/// # Errors
/// What `fsync(2)` says.
pub fn write_down(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(file)?)
}

/// Has the kernel read a file from where it lies, and not from what it remembers of it (POSIX_FADV_DONTNEED).
pub fn forget_cached(file: impl AsFd) {
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}
