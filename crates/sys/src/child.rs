//! Starting the agent as the child of its parent: with the descriptors that the parent keeps, and to end with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::FdFlags;

/// The first number that is handed over (sd_listen_fds(3)).
pub const FIRST: RawFd = 3;

/// Has a program that is started get these descriptors as [`FIRST`] and the numbers that follow, and end with SIGKILL when this process does,
/// however that is. This process must have one thread only.
pub fn hand_over(command: &mut Command, fds: &[impl AsFd]) {
    let mut numbers: Vec<RawFd> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let above = FIRST.saturating_add(RawFd::try_from(numbers.len()).unwrap_or(RawFd::MAX));
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let arrange = move || {
        // SAFETY: numbers only.
        checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // It may have ended before that.
        // SAFETY: no arguments.
        if unsafe { libc::getppid() } != parent {
            return Err(io::ErrorKind::NotFound.into());
        }
        // First out of the way of each other, then to their places, where they outlive the start of the program.
        for number in &mut numbers {
            // SAFETY: numbers only.
            *number = checked(unsafe { libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, above) })?;
        }
        for (number, place) in numbers.iter().zip(FIRST..) {
            // SAFETY: numbers only. What had this number here is not used any more before the program starts.
            checked(unsafe { libc::dup2(*number, place) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls, and touches no memory that another thread may have locked: there is none.
    unsafe { command.pre_exec(arrange) };
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// Descriptor `FIRST + nth`, which the parent has handed over: to be asked for once, and not passed on to programs.
pub fn received(nth: usize) -> Option<OwnedFd> {
    let number = RawFd::try_from(nth).ok()?.checked_add(FIRST)?;
    let fd = super::descriptor::adopt(number)?;
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}
