//! A thread that does something for a user: what it makes belongs to that user and has the mode that the user's mask leaves.
//!
//! The thread stays root's: the file system that a user came by has decided already whether the user may (default_permissions).

use std::cell::Cell;
use std::io;

use rustix::fs::Mode;
use rustix::thread::Gid;
use rustix::thread::{CapabilitySet, UnshareFlags};

thread_local! {
    /// Whether this thread has a mask of its own.
    static APART: Cell<bool> = const { Cell::new(false) };
    /// Whether what this thread writes to keeps the bits that let a program run as its owner or group. It began as the process did: so.
    static KEEPS: Cell<bool> = const { Cell::new(true) };
}

/// For whom something is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose<'a> {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups, as far as they matter.
    pub groups: &'a [u32],
    /// What the user's mask takes from modes.
    pub umask: u32,
    /// The mode of what is made may have bits that let a program run as its owner or group.
    pub sets_bits: bool,
}

/// While this lives, the thread makes files for a user.
#[derive(Debug)]
pub struct Acting {
    is_other: bool,
    is_user: bool,
    has_groups: bool,
}

impl Acting {
    /// From now on, until this is dropped.
    ///
    /// # Errors
    /// When the thread may not (CAP_SETUID, CAP_SETGID): then nothing has changed.
    pub fn for_user(whose: Whose<'_>) -> io::Result<Self> {
        apart()?;
        if whose.sets_bits {
            keep_bits(true);
        }
        let mut acting = Self {
            is_other: false,
            is_user: whose.uid != 0,
            has_groups: false,
        };
        if !whose.groups.is_empty() {
            let groups: Vec<Gid> = whose.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            rustix::thread::set_thread_groups(&groups)?;
            acting.has_groups = true;
        }
        if (whose.uid, whose.gid) != (0, 0) {
            acting.is_other = true;
            set_group(whose.gid);
            set_user(whose.uid);
            // That took the right to pass over modes, which were looked at before the request came.
            let mut now = rustix::thread::capabilities(None)?;
            now.effective |= now.permitted & CapabilitySet::DAC_OVERRIDE;
            rustix::thread::set_capabilities(None, now)?;
        }
        rustix::process::umask(Mode::from_raw_mode(whose.umask & 0o777));
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        rustix::process::umask(Mode::empty());
        if self.is_other {
            set_user(0);
            set_group(0);
        }
        if self.is_user {
            // That has given back each right that files have to do with.
            KEEPS.set(true);
        }
        if self.has_groups {
            let _ = rustix::thread::set_thread_groups(&[]);
        }
    }
}

/// Gives the thread a mask of its own, and none at first.
fn apart() -> io::Result<()> {
    if APART.get() {
        return Ok(());
    }
    // SAFETY: only the working directory, the root and the mask are no longer shared with other threads; descriptors still are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    rustix::process::umask(Mode::empty());
    APART.set(true);
    Ok(())
}

// Of this thread alone, and without what the C library does for all threads.
fn set_user(uid: u32) {
    // SAFETY: setfsuid(2) takes a number and touches no memory.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
}

fn set_group(gid: u32) {
    // SAFETY: setfsgid(2) takes a number and touches no memory.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
}

/// Does something as who may not keep the bits that let a program run as its owner or group: writing takes them away.
pub fn without_keeping_bits<T>(work: impl FnOnce() -> T) -> T {
    keep_bits(false);
    work()
}

/// Does something as who may keep and set them.
pub fn keeping_bits<T>(work: impl FnOnce() -> T) -> T {
    keep_bits(true);
    work()
}

/// The same if that matters to it.
pub fn keeping_bits_if<T>(matters: bool, work: impl FnOnce() -> T) -> T {
    if matters {
        keep_bits(true);
    }
    work()
}

/// The right stays as it is until it is asked for once more: most that a thread does has nothing to do with it, and two system calls are saved.
fn keep_bits(may: bool) {
    if KEEPS.get() == may {
        return;
    }
    if let Ok(mut now) = rustix::thread::capabilities(None) {
        now.effective.set(
            CapabilitySet::FSETID,
            may && now.permitted.contains(CapabilitySet::FSETID),
        );
        if rustix::thread::set_capabilities(None, now).is_ok() {
            KEEPS.set(may);
        }
    }
}

/// Takes a right from this process for good: quotas count for what it does for users.
///
/// # Errors
/// What `capset(2)` says.
pub fn heed_quotas() -> io::Result<()> {
    let mut now = rustix::thread::capabilities(None)?;
    let right = CapabilitySet::SYS_RESOURCE;
    now.effective -= right;
    now.permitted -= right;
    now.inheritable -= right;
    Ok(rustix::thread::set_capabilities(None, now)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn what_is_made_for_a_user_is_the_users() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let whose = Whose {
            uid: 12_345,
            gid: 23_456,
            groups: &[],
            umask: 0o027,
            sets_bits: false,
        };
        // A thread of its own: others of this process go on with their mask.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let acting = Acting::for_user(whose).unwrap();
                std::fs::write(dir.path().join("theirs"), "x").unwrap();
                drop(acting);
                std::fs::write(dir.path().join("ours"), "x").unwrap();
            });
        });
        let theirs = std::fs::metadata(dir.path().join("theirs")).unwrap();
        assert_eq!((theirs.uid(), theirs.gid()), (12_345, 23_456));
        assert_eq!(theirs.mode() & 0o777, 0o640);
        let ours = std::fs::metadata(dir.path().join("ours")).unwrap();
        assert_eq!((ours.uid(), ours.gid(), ours.mode() & 0o777), (0, 0, 0o666));
    }
}
