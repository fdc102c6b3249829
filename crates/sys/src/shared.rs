//! A buffer that outlives the process: pages of memory that another process keeps (`memfd_create(2)`), or of a file, mapped (`mmap(2)`,
//! MAP_SHARED). What the kernel has written into it is there when the process is killed.
//!
//! Memory is better: a page of a file whose file system is frozen cannot be written, and the thread that tries keeps the address space of the
//! whole process locked meanwhile.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
    memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A number of bytes of memory, shared with a file or of this process alone.
#[derive(Debug)]
pub struct SharedBuffer {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, as a `Vec`'s memory does.
unsafe impl Send for SharedBuffer {}

impl SharedBuffer {
    /// Maps the first `len` bytes of the file at `path`, which only root may open; what they held is kept. Room on the disk is
    /// taken before anything is mapped, because a page without any would be a SIGBUS.
    ///
    /// # Errors
    /// What `open(2)`, `fallocate(2)` or `mmap(2)` says.
    pub fn of_file(path: &Path, len: usize) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path)?;
        let bytes = u64::try_from(len).unwrap_or(u64::MAX);
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        // The file lies in the state directory, which only root can write, and no process there shortens it.
        Self::map(file, len)
    }

    /// Maps memory that [`memory`] has made, be it in an earlier process; what it held is kept.
    ///
    /// # Errors
    /// EINVAL for a descriptor of anything else, and what `mmap(2)` says.
    pub fn of_memory(memory: impl AsFd, len: usize) -> io::Result<Self> {
        let bytes = i64::try_from(len).unwrap_or(i64::MAX);
        // A page behind the end would be a SIGBUS.
        if !fcntl_get_seals(&memory)?.contains(SealFlags::SHRINK) || fstat(&memory)?.st_size < bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::map(memory, len)
    }

    fn map(file: impl AsFd, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. The callers say why the file is
        // never shorter.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        Self::from_raw(start?, len)
    }

    /// Memory of this process alone: where a file cannot be had.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn private(len: usize) -> io::Result<Self> {
        // SAFETY: as above.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Self::from_raw(start?, len)
    }

    fn from_raw(start: *mut c_void, len: usize) -> io::Result<Self> {
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long, readable and writable until it is dropped, and borrowed as this value is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// `len` bytes of memory, zeros, that live as long as some process has the descriptor open, and never become fewer.
///
/// # Errors
/// What `memfd_create(2)` or `ftruncate(2)` says.
pub fn memory(name: &str, len: usize) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, u64::try_from(len).unwrap_or(u64::MAX))?;
    fcntl_add_seals(&memory, SealFlags::SHRINK)?;
    Ok(memory)
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        // SAFETY: mapped by this value and used by no other code.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_is_there_when_it_is_mapped_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer");
        let mut buffer = SharedBuffer::of_file(&path, 8192).unwrap();
        assert!(buffer.bytes().iter().all(|b| *b == 0));
        buffer.bytes()[5000] = 7;
        drop(buffer);
        assert_eq!(SharedBuffer::of_file(&path, 8192).unwrap().bytes()[5000], 7);
        assert_eq!(SharedBuffer::private(10).unwrap().bytes().len(), 10);
    }

    #[test]
    fn memory_holds_what_was_written_and_nothing_else_is_taken_for_it() {
        let kept = memory("buffer", 8192).unwrap();
        let mut buffer = SharedBuffer::of_memory(&kept, 8192).unwrap();
        assert!(buffer.bytes().iter().all(|b| *b == 0));
        buffer.bytes()[5000] = 7;
        drop(buffer);
        assert_eq!(SharedBuffer::of_memory(&kept, 8192).unwrap().bytes()[5000], 7);
        assert!(SharedBuffer::of_memory(&kept, 8193).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(SharedBuffer::of_memory(&file, 1).is_err());
    }
}
