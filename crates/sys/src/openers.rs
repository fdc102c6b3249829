//! Whether a lease is refused while a process waits to open the file, at a listener that decides on opens (`FAN_OPEN_PERM`, a virus scanner).
//!
//! The last look of a removal asks for the lease once more ([`super::lease::Lease::is_still_granted`]). A kernel that counts an opener only
//! after the listener has answered grants it then, though a process is about to have the file. It is tried once, on a file in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use fanotify::low_level as fan;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

use super::lease::{self, Asked};

/// The opener is a thread of this process, which has nothing else to do.
const WAITS: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Whether such an opener is seen.
///
/// # Errors
/// When it cannot be tried: EPERM without CAP_SYS_ADMIN, EINVAL where the kernel has no such listeners.
pub fn are_seen() -> io::Result<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let seen = try_out()?;
    Ok(*KNOWN.get_or_init(|| seen))
}

fn try_out() -> io::Result<bool> {
    let unnamed = rustix::fs::memfd_create("purge-agent", MemfdFlags::CLOEXEC)?;
    // Read alone: the kernel does not count the descriptor that it gave for a file in memory.
    let file = OwnedFd::from(File::open(link(&unnamed))?);
    drop(unnamed);
    let path = link(&file);
    let listener = listener(Path::new(&path))?;
    let Asked::Granted(lease) = lease::ask(file)? else {
        return Err(io::Error::other("no lease is given on a file in memory"));
    };
    let opener = std::thread::Builder::new().spawn(move || File::open(path).map(drop))?;
    let mut waits = [PollFd::new(&listener, PollFlags::IN)];
    let has_come = rustix::event::poll(&mut waits, Some(&WAITS));
    let is_seen = !lease.is_still_granted();
    // The lease first: the opener would wait for it. Then it is let through, as its listener ends.
    drop(lease);
    drop(listener);
    // Whether it came to have the file is of no interest.
    let _ = opener.join();
    match has_come? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(is_seen),
    }
}

fn link(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// A listener that decides on opens of one file, and never answers.
fn listener(path: &Path) -> io::Result<OwnedFd> {
    let flags = fan::FAN_CLASS_CONTENT | fan::FAN_CLOEXEC | fan::FAN_NONBLOCK;
    let raw = fan::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned())?;
    // SAFETY: fanotify_init has just returned this descriptor and no other code knows of it.
    let group = unsafe { OwnedFd::from_raw_fd(raw) };
    let (how, events) = (fan::FAN_MARK_ADD, fan::FAN_OPEN_PERM);
    fan::fanotify_mark(group.as_raw_fd(), how, events, fan::AT_FDCWD, path)?;
    Ok(group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_can_be_tried() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Linux 6.1 and later see them; 5.10 does not.
        println!("openers that wait are seen: {}", try_out().unwrap());
        assert_eq!(are_seen().unwrap(), try_out().unwrap());
    }
}
