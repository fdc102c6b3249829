//! Descriptors that the kernel or systemd hands over as numbers.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes a descriptor over that was just handed to this process; none for a number that is none, or a standard stream.
/// Each number may be adopted once.
pub fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: the callers pass what the kernel has put into an event record, or systemd into `LISTEN_FDS`: open, and
    // known to no other code.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has a program that is started keep the standard streams only (`close_range(2)`): what this process was started with, or a library
/// opened without O_CLOEXEC, is not the program's.
pub fn keep_standard_only(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let close = || {
        // Marked, not closed: what tells the parent of a failure to start is among them. Linux before 5.11 does not know the flag, and
        // then every descriptor that this process opens itself has O_CLOEXEC.
        // SAFETY: numbers only.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call, and touches no memory that another thread may have locked.
    unsafe { command.pre_exec(close) };
}
