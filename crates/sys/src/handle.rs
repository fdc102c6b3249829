//! File handles (`name_to_handle_at(2)`, `open_by_handle_at(2)`): a name for a file that survives renames.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest handle the kernel gives (`MAX_HANDLE_SZ` in `linux/exportfs.h`).
pub const HANDLE_BYTES_MAX: usize = 128;

/// Longest handle kept inline; ext4 uses 8 bytes, xfs and tmpfs 12, btrfs 20, overlayfs and NFS clients 32.
const INLINE_BYTES: usize = 32;
/// The handle need not lead anywhere: it only tells inodes apart (`AT_HANDLE_FID`, Linux 6.5).
const AT_HANDLE_FID: i32 = 0x200;

/// A file handle, as events and the two system calls carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    kind: i32,
    len: u8,
    bytes: [u8; INLINE_BYTES],
}

impl Handle {
    /// The handle of this type and content; none when it is longer than any known file system's.
    pub fn new(kind: i32, content: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE_BYTES];
        bytes.get_mut(..content.len())?.copy_from_slice(content);
        Some(Self {
            kind,
            len: u8::try_from(content.len()).ok()?,
            bytes,
        })
    }

    /// The top of a btrfs file system: the root directory (inode 256) of its first tree (5), of whichever generation.
    pub fn of_btrfs_top() -> Self {
        /// `FILEID_BTRFS_WITHOUT_PARENT`.
        const WITHOUT_PARENT: i32 = 0x4d;
        let mut bytes = [0; INLINE_BYTES];
        let (ino, tree) = (256u64.to_ne_bytes(), 5u64.to_ne_bytes());
        for (to, from) in bytes.iter_mut().zip(ino.into_iter().chain(tree)) {
            *to = from;
        }
        Self {
            kind: WITHOUT_PARENT,
            len: 20,
            bytes,
        }
    }

    /// One of the agent's own: no file system gives handles of this kind.
    pub fn of_number(kind: i32, number: u64) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        for (to, from) in bytes.iter_mut().zip(number.to_ne_bytes()) {
            *to = from;
        }
        Self { kind, len: 8, bytes }
    }

    /// The file system's own number for how the content is laid out.
    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// The content.
    pub fn content(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The handle of the file at `path`, not following a symlink at its end.
    ///
    /// # Errors
    /// EOPNOTSUPP where the file system has no handles, and what a path lookup may say.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Self::at(libc::AT_FDCWD, &path)
    }

    /// The handle of the entry `name` of a directory, not following a symlink.
    ///
    /// # Errors
    /// As for [`Handle::of_path`].
    pub fn of_entry(dir: impl AsFd, name: &CStr) -> io::Result<Self> {
        Self::at(dir.as_fd().as_raw_fd(), name)
    }

    /// The handle of what is behind a descriptor, also of one that was opened with O_PATH.
    ///
    /// # Errors
    /// As for [`Handle::of_path`].
    pub fn of_open(fd: impl AsFd) -> io::Result<Self> {
        Self::with(fd.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH)
    }

    /// What events call the entry `name` of a directory, or the directory itself where that is empty. It need not lead anywhere.
    ///
    /// # Errors
    /// As for [`Handle::of_path`].
    pub fn id_of(dir: impl AsFd, name: &CStr) -> io::Result<Self> {
        let at = dir.as_fd().as_raw_fd();
        match Self::with(at, name, libc::AT_EMPTY_PATH | AT_HANDLE_FID) {
            // An older kernel.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Self::with(at, name, libc::AT_EMPTY_PATH),
            other => other,
        }
    }

    fn at(dir: RawFd, path: &CStr) -> io::Result<Self> {
        Self::with(dir, path, 0)
    }

    fn with(dir: RawFd, path: &CStr, flags: i32) -> io::Result<Self> {
        let mut raw = RawHandle {
            len: 0,
            kind: 0,
            bytes: [0; HANDLE_BYTES_MAX],
        };
        raw.len = HANDLE_BYTES_MAX as u32;
        let mut mount_id = 0;
        // SAFETY: `path` ends with NUL, `raw` is a struct file_handle with room for `raw.len` bytes, and both
        // outlive the call.
        let rc = unsafe {
            libc::name_to_handle_at(
                dir,
                path.as_ptr(),
                (&raw mut raw).cast(),
                &raw mut mount_id,
                flags,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        raw.bytes
            .get(..raw.len as usize)
            .and_then(|content| Self::new(raw.kind, content))
            .ok_or_else(|| io::Error::other("the file system's handles are longer than 32 bytes"))
    }

    /// Opens the file with O_PATH: good for statx, cannot be read from, counts as no use of it.
    ///
    /// `mount` is any descriptor on the file system. Needs CAP_DAC_READ_SEARCH.
    ///
    /// # Errors
    /// ESTALE when the file is deleted.
    pub fn open_path(&self, mount: impl AsFd) -> io::Result<OwnedFd> {
        self.open(mount, libc::O_PATH)
    }

    /// Opens the directory for listing, without moving its access time, at any place where it lies: what is above it need not be walked.
    ///
    /// # Errors
    /// ESTALE when it is deleted, ENOTDIR if it is none.
    pub fn open_dir(&self, mount: impl AsFd) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match self.open(&mount, flags | libc::O_NOATIME) {
            // Only the owner and CAP_FOWNER may ask for it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => self.open(mount, flags),
            other => other,
        }
    }

    /// Opens the file as a user asked for it. EWOULDBLOCK: a process has a lease on it, and has been told.
    ///
    /// # Errors
    /// ESTALE when it is deleted, and what `open(2)` says.
    pub fn open_as(&self, mount: impl AsFd, flags: rustix::fs::OFlags) -> io::Result<OwnedFd> {
        let flags = i32::from_ne_bytes(flags.bits().to_ne_bytes());
        let never = libc::O_CREAT | libc::O_EXCL;
        self.open(mount, (flags & !never) | libc::O_NOFOLLOW | libc::O_NONBLOCK)
    }

    fn open(&self, mount: impl AsFd, flags: i32) -> io::Result<OwnedFd> {
        let mut raw = RawHandle {
            len: u32::from(self.len),
            kind: self.kind,
            bytes: [0; HANDLE_BYTES_MAX],
        };
        for (to, from) in raw.bytes.iter_mut().zip(self.content()) {
            *to = *from;
        }
        let flags = flags | libc::O_CLOEXEC;
        // SAFETY: `raw` is a struct file_handle with `raw.len` bytes of content and outlives the call.
        let fd = unsafe { libc::open_by_handle_at(mount.as_fd().as_raw_fd(), (&raw mut raw).cast(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor and no other code knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}:", self.kind)?;
        self.content().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// `struct file_handle` with the longest content.
#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; HANDLE_BYTES_MAX],
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_handle_longer_than_any_known_one_is_refused() {
        assert!(Handle::new(1, &[0; INLINE_BYTES]).is_some());
        assert!(Handle::new(1, &[0; INLINE_BYTES + 1]).is_none());
    }

    #[test]
    fn content_is_kept() {
        let h = Handle::new(0x81, &[1, 2, 3]).unwrap();
        assert_eq!((h.kind(), h.content()), (0x81, &[1, 2, 3][..]));
    }
}
