//! The one thing the tests need that has no safe wrapper: a mapping whose descriptor is closed before it is read.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Maps the first page of a file for reading, closes the descriptor, and reads a byte through the mapping.
pub(crate) fn read_through_mapping(file: File) -> io::Result<u8> {
    const BYTES: usize = 4096;
    // SAFETY: the kernel chooses the address; no Rust object is aliased.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    drop(file);
    // SAFETY: the page is mapped readable, and the callers map files that are not empty.
    let byte = unsafe { at.cast::<u8>().read_volatile() };
    // SAFETY: exactly what was mapped above, and no reference into it is left.
    unsafe { libc::munmap(at, BYTES) };
    Ok(byte)
}
