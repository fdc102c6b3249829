//! Who is at the other end of a unix socket.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// A process is in no more groups than this (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// Enough for nearly every user.
const GROUPS_FIRST: usize = 64;

/// The supplementary groups of the process that connected, as they were then (`unix(7)`, SO_PEERGROUPS, Linux 4.13).
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_FIRST];
    loop {
        let bytes = groups.len().saturating_mul(size_of::<libc::gid_t>());
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: `groups` has `length` bytes; the kernel writes no more than that, and says in `length` how many.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // It does not fit: `length` says what would.
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= GROUPS_MAX {
            return Err(error);
        }
        groups.resize(count.clamp(groups.len() + 1, GROUPS_MAX), 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_groups_of_the_other_end_are_our_own_here() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut ours: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .into_iter()
            .map(|g| g.as_raw())
            .collect();
        let mut theirs = super::groups(&one).unwrap();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(theirs, ours);
    }
}
