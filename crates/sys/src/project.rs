//! Project ids of ext4 and xfs (`file_getattr(2)`, Linux 6.17; before it `FS_IOC_FSGETXATTR`, ioctl_xfs_fsgetxattr(2)).
//!
//! The older way needs an open file, so it is taken only where a caller asks for ids: see `collect::projects`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags};

/// The same number on every architecture that Rust builds for.
const SYS_FILE_GETATTR: libc::c_long = 468;
/// `_IOR('X', 31, struct fsxattr)` of linux/fs.h; `_IOR` is the same on the architectures that the agent is built for.
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;

/// `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in a directory gets its project id (`FS_XFLAG_PROJINHERIT` of linux/fs.h).
const PROJINHERIT: u32 = 0x200;

/// A read leaves the access time as it is (`FS_XFLAG_NOATIME` of linux/fs.h).
const NOATIME: u32 = 0x40;

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

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FsxAttr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// How ids are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By name.
    ByName,
    /// By opening.
    ByOpening,
}

impl Way {
    /// The project id of the entry `name` of the directory `dir`, not followed if it is a symlink. 0: none.
    ///
    /// # Errors
    /// EOPNOTSUPP or ENOTTY where the file system keeps none; EWOULDBLOCK by opening what is under a lease.
    pub fn of_entry(self, dir: impl AsFd, name: &CStr) -> io::Result<u32> {
        match self {
            Self::ByName => ask(dir.as_fd().as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW),
            Self::ByOpening => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                ask_open(&reopen(rustix::fs::openat(dir, name, flags, Mode::empty())?)?)
            }
        }
    }

    /// The project id of what is behind a descriptor, also of one that was opened with O_PATH.
    ///
    /// # Errors
    /// As for [`Way::of_entry`].
    pub fn of_open(self, fd: impl AsFd) -> io::Result<u32> {
        match self {
            // With AT_EMPTY_PATH the call refuses O_PATH descriptors (EBADF).
            Self::ByName => ask(libc::AT_FDCWD, &CString::new(link(&fd))?, 0),
            Self::ByOpening => ask_open(&reopen(fd)?),
        }
    }
}

/// Whether this kernel tells project ids by name.
pub fn is_told_by_name() -> bool {
    let asked = Way::ByName.of_entry(rustix::fs::CWD, c"/");
    asked.err().and_then(|e| e.raw_os_error()) != Some(libc::ENOSYS)
}

fn link(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens a file or directory that is held by an O_PATH descriptor: what it is was looked at, so no device is opened and no fifo
/// waits for a process. O_NONBLOCK does not wait for the end of a lease.
pub(super) fn reopen(fd: impl AsFd) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(link(&fd), flags, Mode::empty())?)
}

/// The project of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Project {
    /// Its id; 0: none.
    pub id: u32,
    /// What is made in the directory gets the id.
    pub is_inherited: bool,
}

/// The project of an open directory; none where the file system keeps none.
///
/// # Errors
/// What `FS_IOC_FSGETXATTR` says.
pub fn of_dir(dir: impl AsFd) -> io::Result<Option<Project>> {
    match attr_of(dir.as_fd().as_raw_fd()) {
        Ok(attr) => Ok(Some(Project {
            id: attr.project,
            is_inherited: attr.xflags & PROJINHERIT != 0,
        })),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Gives an open directory a project.
///
/// # Errors
/// What `FS_IOC_FSSETXATTR` says.
pub fn set_of_dir(dir: impl AsFd, project: Project) -> io::Result<()> {
    let fd = dir.as_fd().as_raw_fd();
    let mut attr = attr_of(fd)?;
    attr.project = project.id;
    attr.xflags &= !PROJINHERIT;
    if project.is_inherited {
        attr.xflags |= PROJINHERIT;
    }
    // SAFETY: the kernel reads one `struct fsxattr` from the address, which is that of one.
    match unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR as _, &raw const attr) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn ask_open(fd: &OwnedFd) -> io::Result<u32> {
    attr_of(fd.as_raw_fd()).map(|attr| attr.project)
}

fn attr_of(fd: RawFd) -> io::Result<FsxAttr> {
    let mut attr = FsxAttr::default();
    // SAFETY: the kernel writes one `struct fsxattr` to the address, which is that of one: plain integers without padding.
    let done = unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR as _, &raw mut attr) };
    match done {
        0 => Ok(attr),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a read moves the access time of the file `name` of the directory `dir`: `chattr +A` keeps it.
///
/// # Errors
/// As for [`Way::of_entry`].
pub fn moves_atime(dir: impl AsFd, name: &CStr) -> io::Result<bool> {
    let by_name = ask_all(dir.as_fd().as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW);
    let xflags = match by_name {
        // A sandbox that does not know the call says EPERM: systemd's filter, containers.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = reopen(rustix::fs::openat(dir, name, flags, Mode::empty())?)?;
            attr_of(fd.as_raw_fd()).map(|attr| attr.xflags)
        }
        // The flags of linux/fs.h have 32 bits so far.
        asked => asked.and_then(|attr| u32::try_from(attr.xflags).map_err(io::Error::other)),
    };
    let xflags = match xflags {
        // The file system has no such flag.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => 0,
        asked => asked?,
    };
    Ok(xflags & NOATIME == 0)
}

fn ask(dir: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<u32> {
    ask_all(dir, name, flags).map(|attr| attr.project)
}

fn ask_all(dir: RawFd, name: &CStr, flags: libc::c_int) -> io::Result<FileAttr> {
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
        0 => Ok(attr),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_struct_is_as_long_as_the_number_of_the_call_says() {
        assert_eq!(size_of::<FsxAttr>(), 0x1c);
        assert_eq!(size_of::<FileAttr>(), 24);
    }

    #[test]
    fn only_files_and_directories_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for name in [c"link", c"fifo"] {
            let asked = Way::ByOpening.of_entry(&at, name);
            assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
        // Opened, and asked: where the file system keeps no ids it says so.
        std::fs::write(dir.path().join("file"), "").unwrap();
        if let Err(e) = Way::ByOpening.of_entry(&at, c"file") {
            assert!(
                matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)),
                "{e}"
            );
        }
    }
}
