//! Write leases (`fcntl(2)`, F_SETLEASE) and advisory locks (`flock(2)`).
//!
//! The kernel grants a write lease only while no one else has the file open, mapped or running, and from then on a process that
//! opens it waits until the lease has ended. A lease ends when its descriptor is closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Once;

use super::fanotify::{Feature, Features};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};

/// What became of the wish for a lease.
#[derive(Debug)]
pub enum Asked {
    /// No one else has the file open, and a process that opens it waits.
    Granted(Lease),
    /// A process has it open, or mapped.
    Open,
    /// A process has a lock on it.
    Locked,
    /// This file system, or this kernel (`fs.leases-enable`), gives no leases.
    Unsupported(OwnedFd),
}

/// A file under a write lease. Hold it for milliseconds: others wait.
#[derive(Debug)]
pub struct Lease(OwnedFd);

impl Lease {
    /// Whether no opener has come since: an opener who waits changes what F_GETLEASE says at once.
    pub fn is_whole(&self) -> bool {
        // SAFETY: F_GETLEASE takes no argument and touches no memory; the descriptor is open.
        let now = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) };
        now == libc::F_WRLCK
    }

    /// Whether no process has begun to open the file either. An opener counts before he comes to the lease, and may wait on the way there:
    /// for his processor, or for the answer of a virus scanner (`FAN_OPEN_PERM`, fanotify(7)).
    /// A lease that is asked for again is refused then.
    pub fn is_still_granted(&self) -> bool {
        self.set() && self.is_whole()
    }

    fn set(&self) -> bool {
        // SAFETY: F_SETLEASE takes an integer and touches no memory; the descriptor is open.
        let set = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        set == 0
    }

    /// The file.
    pub fn file(&self) -> &OwnedFd {
        &self.0
    }

    /// Ends the lease and leaves the file open: those who wait for it go on.
    ///
    /// # Errors
    /// What `fcntl(2)` says. The file is closed then, which ends the lease as well.
    pub fn end(self) -> io::Result<OwnedFd> {
        // SAFETY: F_SETLEASE takes an integer and touches no memory; the descriptor is open.
        let ended = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        match ended {
            0 => Ok(self.0),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Asks for a write lease on an open file.
///
/// # Errors
/// What `fcntl(2)` says; EACCES without CAP_LEASE on another user's file.
pub fn ask(file: OwnedFd) -> io::Result<Asked> {
    if !are_allowed() {
        return Ok(Asked::Unsupported(file));
    }
    ignore_breaks();
    let lease = Lease(file);
    if lease.set() {
        return Ok(Asked::Granted(lease));
    }
    let error = io::Error::last_os_error();
    let Lease(file) = lease;
    match error.raw_os_error() {
        Some(libc::EAGAIN) if is_locked(&file)? => Ok(Asked::Locked),
        Some(libc::EAGAIN) => Ok(Asked::Open),
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOTTY) => Ok(Asked::Unsupported(file)),
        _ => Err(error),
    }
}

/// Whether they are not taken for missing.
fn are_allowed() -> bool {
    Features::allowed().map_or(true, |allowed| allowed.has(Feature::Leases))
}

/// Whether the kernel gives leases at all now: an administrator may change `fs.leases-enable`.
pub fn are_enabled() -> bool {
    are_allowed()
        && std::fs::read_to_string("/proc/sys/fs/leases-enable").map_or(true, |now| now.trim() != "0")
}

/// Whether the file system that holds an open directory gives leases: a file without a name is made there and goes at once.
///
/// # Errors
/// When no file can be made, or what `fcntl(2)` says.
pub fn are_given(dir: impl AsFd) -> io::Result<bool> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, c".", flags, Mode::RUSR)?;
    Ok(!matches!(ask(file)?, Asked::Unsupported(_)))
}

/// Whether another process holds a `flock(2)` on an open file or directory.
///
/// # Errors
/// What `flock(2)` says.
pub fn is_locked(file: impl AsFd) -> io::Result<bool> {
    /// The lock that is tried is a lock to others who try: this process must not take its own for another's.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            rustix::fs::flock(&file, FlockOperation::Unlock)?;
            Ok(false)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        // Not every file system has locks; then no process holds one.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The kernel tells a lease's owner by SIGIO that a process waits, and SIGIO ends a process that does not expect it.
fn ignore_breaks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SIG_IGN is a valid disposition and no handler of ours is replaced: nothing else here uses SIGIO.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::fs::File;

    fn open(path: &std::path::Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    #[test]
    fn a_lease_is_refused_while_the_file_is_open_and_broken_by_an_opener() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let other = File::open(&path).unwrap();
        assert!(matches!(ask(open(&path)).unwrap(), Asked::Open));
        rustix::fs::flock(&other, FlockOperation::LockShared).unwrap();
        assert!(matches!(ask(open(&path)).unwrap(), Asked::Locked));
        drop(other);
        let Asked::Granted(lease) = ask(open(&path)).unwrap() else {
            panic!("no process has it open")
        };
        assert!(lease.is_whole() && lease.is_still_granted());
        let opener = std::thread::spawn({
            let path = path.clone();
            move || File::open(path).unwrap()
        });
        while lease.is_whole() {
            std::thread::yield_now();
        }
        assert!(!lease.is_still_granted());
        drop(lease);
        opener.join().unwrap();
    }

    #[test]
    fn a_lease_that_is_ended_holds_up_no_opener_and_leaves_the_file_open() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let Asked::Granted(lease) = ask(open(&path)).unwrap() else {
            panic!("no process has it open")
        };
        let file = File::from(lease.end().unwrap());
        // Without blocking: it would be refused while the lease is there.
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        assert!(rustix::fs::open(&path, flags, Mode::empty()).is_ok());
        assert_eq!(file.metadata().unwrap().len(), 1);
    }
}
