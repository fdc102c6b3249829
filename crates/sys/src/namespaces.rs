//! The mount namespaces of the host (`NS_MNT_GET_NEXT` and its like, Linux 6.12, ioctl_nsfs(2)): without a look at every process. And who
//! made one (`NS_GET_USERNS`, `NS_GET_OWNER_UID`, Linux 4.11).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `_IOR(0xb7, 10, struct mnt_ns_info)` of linux/nsfs.h; `_IOR` is the same on the architectures that the agent is built for.
const NS_MNT_GET_INFO: libc::c_ulong = 0x8010_b70a;
/// `_IOR(0xb7, 11, struct mnt_ns_info)`.
const NS_MNT_GET_NEXT: libc::c_ulong = 0x8010_b70b;
/// `_IOR(0xb7, 12, struct mnt_ns_info)`.
const NS_MNT_GET_PREV: libc::c_ulong = 0x8010_b70c;

/// `_IO(0xb7, 1)`.
const NS_GET_USERNS: libc::c_ulong = 0xb701;
/// `_IO(0xb7, 4)`.
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// `struct mnt_ns_info` of linux/nsfs.h, version 0.
#[repr(C)]
struct Info {
    size: u32,
    mounts: u32,
    id: u64,
}

impl Info {
    fn empty() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            mounts: 0,
            id: 0,
        }
    }
}

/// A mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// What no other namespace ever has since the host started. A newer one has a higher number.
    pub id: u64,
    /// Its inode number, as `/proc/PID/ns/mnt` names it. The kernel gives it to another namespace later.
    pub number: u64,
    /// How many mounts it holds.
    pub mounts: u32,
}

/// The mount namespaces of the host, in no order.
///
/// # Errors
/// ENOTTY before Linux 6.12; EPERM without CAP_SYS_ADMIN in the first user namespace; E2BIG when there are more than `at_most`.
pub fn all(at_most: usize) -> io::Result<Vec<Namespace>> {
    let own = OwnedFd::from(File::open("/proc/self/ns/mnt")?);
    let mut info = Info::empty();
    // SAFETY: the kernel reads and writes one `struct mnt_ns_info` at the address, which is that of one: plain numbers, of the size that it
    // states. The descriptor is open.
    let done = unsafe { libc::ioctl(own.as_raw_fd(), NS_MNT_GET_INFO as _, &raw mut info) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = vec![namespace(&own, &info)?];
    for direction in [NS_MNT_GET_NEXT, NS_MNT_GET_PREV] {
        let mut at = own.try_clone()?;
        while let Some((next, info)) = beside(&at, direction)? {
            if found.len() >= at_most {
                return Err(rustix::io::Errno::TOOBIG.into());
            }
            found.push(namespace(&next, &info)?);
            at = next;
        }
    }
    Ok(found)
}

/// The namespace before or after one; none at the end.
fn beside(at: &OwnedFd, direction: libc::c_ulong) -> io::Result<Option<(OwnedFd, Info)>> {
    let mut info = Info::empty();
    // SAFETY: as above.
    let done = unsafe { libc::ioctl(at.as_raw_fd(), direction as _, &raw mut info) };
    if done < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: the kernel has made this descriptor for this call, with close-on-exec, and no other owner knows of it.
    Ok(Some((unsafe { OwnedFd::from_raw_fd(done) }, info)))
}

fn namespace(open: &OwnedFd, info: &Info) -> io::Result<Namespace> {
    Ok(Namespace {
        id: info.id,
        number: rustix::fs::fstat(open)?.st_ino,
        mounts: info.mounts,
    })
}

/// The user who made the user namespace that a process's mount namespace belongs to: all mounts in it are that user's. None: it belongs to the
/// agent's own user namespace, where only root mounts.
///
/// # Errors
/// EACCES without CAP_SYS_PTRACE; EPERM where the agent itself is in a user namespace below; ENOENT when the process has ended.
pub fn maker(process: u32) -> io::Result<Option<u32>> {
    let space = File::open(format!("/proc/{process}/ns/mnt"))?;
    // SAFETY: this call takes no argument and touches no memory; the descriptor is open.
    let users = unsafe { libc::ioctl(space.as_raw_fd(), NS_GET_USERNS as _) };
    if users < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has made this descriptor for this call, with close-on-exec, and no other owner knows of it.
    let users = unsafe { OwnedFd::from_raw_fd(users) };
    let own = rustix::fs::stat("/proc/self/ns/user")?;
    if rustix::fs::fstat(&users)?.st_ino == own.st_ino {
        return Ok(None);
    }
    let mut uid: libc::uid_t = 0;
    // SAFETY: the kernel writes one uid at the address, which is that of one. The descriptor is open.
    let done = unsafe { libc::ioctl(users.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    match done {
        0 => Ok(Some(uid)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_own_namespace_is_made_by_no_other_user() {
        assert_eq!(maker(std::process::id()).unwrap(), None);
    }

    #[test]
    fn the_own_namespace_is_among_all_and_the_number_of_them_is_bounded() {
        let all_of = match all(1 << 16) {
            Ok(all) => all,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EPERM)) => {
                println!("skipped: {e}");
                return;
            }
            Err(e) => panic!("{e}"),
        };
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let names = |n: &Namespace| format!("mnt:[{}]", n.number) == own.to_str().unwrap();
        assert_eq!(all_of.iter().filter(|n| names(n)).count(), 1, "{all_of:?}");
        let ids: std::collections::BTreeSet<_> = all_of.iter().map(|n| n.id).collect();
        assert_eq!(ids.len(), all_of.len());
        if all_of.len() > 1 {
            assert_eq!(all(1).unwrap_err().raw_os_error(), Some(libc::E2BIG));
        }
    }
}
