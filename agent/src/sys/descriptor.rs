//! Descriptors that the kernel or systemd hands over as numbers.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes a descriptor over that was just handed to this process; none for a number that is none, or a standard stream.
/// Each number may be adopted once.
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: the callers pass what the kernel has put into an event record, or systemd into `LISTEN_FDS`: open, and
    // known to nobody else.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
