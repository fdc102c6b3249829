//! What an error of the kernel means for a candidate. Pure.
//!
//! An error that a user's own files can cause leaves the candidate alone, with a reason. Any other error is a fault of the system: the
//! candidate has failed, and too many of these end the run (`max_errors`). So no user can end the purge of other users' files.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::fate::{Fate, Skip};
use purge_sys::absence::Absence;

/// Whether the file system has room. ENOSPC means a user's limit then: a quota of some file systems, or a directory that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There are free blocks and inodes.
    Left,
    /// There may be none.
    Unknown,
}

/// Why an error leaves a candidate alone; none: it is a fault of the system.
///
/// | reason | error | what a user does for it |
/// |---|---|---|
/// | `gone` | ENOENT ESTALE | removes or renames it |
/// | `changed` | ELOOP EXDEV ENOTDIR EISDIR EEXIST ENOTEMPTY ENXIO | puts something else in its place, or in the place of a directory above |
/// | `leased` | EAGAIN | holds a write lease on it (`fcntl(2)`, F_SETLEASE): to open it would mean to wait |
/// | `open` | ETXTBSY | runs it |
/// | `mounted` | EBUSY | mounts something on it |
/// | `deep` | ENAMETOOLONG | makes a path longer than the kernel takes |
/// | `quota` | EDQUOT EMLINK EUSERS, ENOSPC with room left | uses up a limit, so that the trash has no place for it |
/// | `protected` | EPERM EACCES | makes it immutable or append-only, or has a security module protect it |
/// | | EOVERFLOW | has an owner that this mount does not know |
/// | | ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED ENOPKG | encrypts it |
/// | | EINVAL EILSEQ E2BIG | gives it a name, or attributes, that the trash's directory cannot have |
pub fn reason(errno: Errno, room: Room) -> Option<Skip> {
    match Absence::of_errno(errno) {
        Some(Absence::Missing | Absence::Stale) => return Some(Skip::Gone),
        Some(Absence::Replaced | Absence::Covered) => return Some(Skip::Changed),
        None => {}
    }
    Some(match errno {
        Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY | Errno::NXIO => Skip::Changed,
        Errno::AGAIN => Skip::Leased,
        Errno::TXTBSY => Skip::Open,
        Errno::BUSY => Skip::Mounted,
        Errno::NAMETOOLONG => Skip::Deep,
        Errno::DQUOT | Errno::MLINK | Errno::USERS => Skip::Quota,
        Errno::NOSPC if room == Room::Left => Skip::Quota,
        Errno::PERM
        | Errno::ACCESS
        | Errno::OVERFLOW
        | Errno::NOKEY
        | Errno::KEYEXPIRED
        | Errno::KEYREVOKED
        | Errno::KEYREJECTED
        | Errno::NOPKG
        | Errno::INVAL
        | Errno::ILSEQ
        | Errno::TOOBIG => Skip::Protected,
        _ => return None,
    })
}

/// The fate of a candidate that met an error while it was still, or is again, at its place.
pub fn fate(error: io::Error) -> Fate {
    fate_with(error, || Room::Unknown)
}

/// The same where the trash may have had no place for it. Whether there is room is asked only where that matters.
pub fn fate_with(error: io::Error, room: impl FnOnce() -> Room) -> Fate {
    let reason = errno_of(&error).and_then(|errno| match errno {
        Errno::NOSPC => reason(errno, room()),
        errno => reason(errno, Room::Unknown),
    });
    match reason {
        Some(reason) => Fate::Skipped(reason),
        None => Fate::Failed(error),
    }
}

/// The errno of an error, also where the agent itself found what the kernel would have said.
fn errno_of(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error).or_else(|| match (error.get_ref(), error.kind()) {
        (None, io::ErrorKind::NotFound) => Some(Errno::NOENT),
        (None, io::ErrorKind::AlreadyExists) => Some(Errno::EXIST),
        (None, io::ErrorKind::InvalidFilename) => Some(Errno::NAMETOOLONG),
        _ => None,
    })
}

/// A fate in which an error has its meaning.
pub fn settled(of: Fate) -> Fate {
    match of {
        Fate::Failed(error) => fate(error),
        other => other,
    }
}

/// A failure that a user has caused. The run names it, and it says nothing about the system.
#[derive(Debug)]
struct Caused(String);

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Caused {}

/// A failure that is told as `why`. It is a fault of the system if one of its causes is, and else a user has caused it.
pub fn failure(why: String, causes: &[&io::Error]) -> io::Error {
    match causes.iter().any(|cause| is_fault(cause)) {
        true => io::Error::other(why),
        false => io::Error::other(Caused(why)),
    }
}

/// Whether an error tells of a fault of the system, and counts for `max_errors`.
pub fn is_fault(error: &io::Error) -> bool {
    match errno_of(error) {
        Some(errno) => reason(errno, Room::Unknown).is_none(),
        None => !error.get_ref().is_some_and(|inner| inner.is::<Caused>()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    /// Errors that no user's files cause: of the disk and its driver, of memory and descriptors, of the agent's own calls, of networks.
    const FAULTS: &[i32] = &[
        libc::ESRCH,
        libc::EINTR,
        libc::EIO,
        libc::ENOEXEC,
        libc::EBADF,
        libc::ECHILD,
        libc::ENOMEM,
        libc::EFAULT,
        libc::ENOTBLK,
        libc::ENODEV,
        libc::ENFILE,
        libc::EMFILE,
        libc::ENOTTY,
        libc::EFBIG,
        libc::ENOSPC,
        libc::ESPIPE,
        libc::EROFS,
        libc::EPIPE,
        libc::EDOM,
        libc::ERANGE,
        libc::EDEADLK,
        libc::ENOLCK,
        libc::ENOSYS,
        libc::ENOMSG,
        libc::EIDRM,
        libc::ECHRNG,
        libc::EL2NSYNC,
        libc::EL3HLT,
        libc::EL3RST,
        libc::ELNRNG,
        libc::EUNATCH,
        libc::ENOCSI,
        libc::EL2HLT,
        libc::EBADE,
        libc::EBADR,
        libc::EXFULL,
        libc::ENOANO,
        libc::EBADRQC,
        libc::EBADSLT,
        libc::EBFONT,
        libc::ENOSTR,
        libc::ENODATA,
        libc::ETIME,
        libc::ENOSR,
        libc::ENONET,
        libc::EREMOTE,
        libc::ENOLINK,
        libc::EADV,
        libc::ESRMNT,
        libc::ECOMM,
        libc::EPROTO,
        libc::EMULTIHOP,
        libc::EDOTDOT,
        libc::EBADMSG,
        libc::ENOTUNIQ,
        libc::EBADFD,
        libc::EREMCHG,
        libc::ELIBACC,
        libc::ELIBBAD,
        libc::ELIBSCN,
        libc::ELIBMAX,
        libc::ELIBEXEC,
        libc::ERESTART,
        libc::ESTRPIPE,
        libc::ENOTSOCK,
        libc::EDESTADDRREQ,
        libc::EMSGSIZE,
        libc::EPROTOTYPE,
        libc::ENOPROTOOPT,
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
        libc::EOPNOTSUPP,
        libc::EPFNOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::EADDRINUSE,
        libc::EADDRNOTAVAIL,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ENETRESET,
        libc::ECONNABORTED,
        libc::ECONNRESET,
        libc::ENOBUFS,
        libc::EISCONN,
        libc::ENOTCONN,
        libc::ESHUTDOWN,
        libc::ETOOMANYREFS,
        libc::ETIMEDOUT,
        libc::ECONNREFUSED,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EALREADY,
        libc::EINPROGRESS,
        libc::EUCLEAN,
        libc::ENOTNAM,
        libc::ENAVAIL,
        libc::EISNAM,
        libc::EREMOTEIO,
        libc::ENOMEDIUM,
        libc::EMEDIUMTYPE,
        libc::ECANCELED,
        libc::EOWNERDEAD,
        libc::ENOTRECOVERABLE,
        libc::ERFKILL,
        libc::EHWPOISON,
    ];

    /// What a user can cause, and what is said of it.
    const REASONS: &[(i32, Skip)] = &[
        (libc::ENOENT, Skip::Gone),
        (libc::ESTALE, Skip::Gone),
        (libc::ELOOP, Skip::Changed),
        (libc::EXDEV, Skip::Changed),
        (libc::ENOTDIR, Skip::Changed),
        (libc::EISDIR, Skip::Changed),
        (libc::EEXIST, Skip::Changed),
        (libc::ENOTEMPTY, Skip::Changed),
        (libc::ENXIO, Skip::Changed),
        (libc::EAGAIN, Skip::Leased),
        (libc::ETXTBSY, Skip::Open),
        (libc::EBUSY, Skip::Mounted),
        (libc::ENAMETOOLONG, Skip::Deep),
        (libc::EDQUOT, Skip::Quota),
        (libc::EMLINK, Skip::Quota),
        (libc::EUSERS, Skip::Quota),
        (libc::EPERM, Skip::Protected),
        (libc::EACCES, Skip::Protected),
        (libc::EOVERFLOW, Skip::Protected),
        (libc::ENOKEY, Skip::Protected),
        (libc::EKEYEXPIRED, Skip::Protected),
        (libc::EKEYREVOKED, Skip::Protected),
        (libc::EKEYREJECTED, Skip::Protected),
        (libc::ENOPKG, Skip::Protected),
        (libc::EINVAL, Skip::Protected),
        (libc::EILSEQ, Skip::Protected),
        (libc::E2BIG, Skip::Protected),
    ];

    /// Linux has 1 to 133, but for two numbers that were never given.
    const ERRNO_LAST: i32 = 133;
    const NEVER_GIVEN: [i32; 2] = [41, 58];

    fn of(errno: i32) -> Fate {
        fate(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn every_error_is_a_users_matter_or_a_fault_of_the_system() {
        for errno in 1..=ERRNO_LAST {
            let expected = REASONS.iter().find(|(of, _)| *of == errno).map(|(_, skip)| *skip);
            let listed = u32::from(expected.is_some()) + u32::from(FAULTS.contains(&errno));
            assert_eq!(listed, u32::from(!NEVER_GIVEN.contains(&errno)), "errno {errno}");
            match (of(errno), expected) {
                (Fate::Skipped(found), Some(expected)) => assert_eq!(found, expected, "errno {errno}"),
                (Fate::Failed(e), None) => assert!(is_fault(&e), "errno {errno}"),
                (other, expected) => panic!("errno {errno}: {other:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_full_disk_is_a_fault_and_a_users_limit_is_none() {
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(matches!(fate(full()), Fate::Failed(_)));
        assert!(matches!(fate_with(full(), || Room::Unknown), Fate::Failed(_)));
        let limited = fate_with(full(), || Room::Left);
        assert!(matches!(limited, Fate::Skipped(Skip::Quota)));
        let broken = io::Error::from_raw_os_error(libc::EIO);
        assert!(matches!(fate_with(broken, || Room::Left), Fate::Failed(_)));
    }

    #[test]
    fn a_failure_is_a_fault_if_one_of_its_causes_is() {
        let errno = io::Error::from_raw_os_error;
        let (theirs, ours) = (errno(libc::EEXIST), errno(libc::EIO));
        let of_user = failure("told".into(), &[&theirs]);
        assert_eq!(
            (of_user.to_string().as_str(), is_fault(&of_user)),
            ("told", false)
        );
        assert!(is_fault(&failure("told".into(), &[&theirs, &ours])));
        assert!(is_fault(&io::Error::other("the index")));
        let ours = |kind: io::ErrorKind| fate(kind.into());
        assert!(matches!(
            ours(io::ErrorKind::InvalidFilename),
            Fate::Skipped(Skip::Deep)
        ));
        assert!(matches!(ours(io::ErrorKind::UnexpectedEof), Fate::Failed(_)));
        // What is told in words is no error of the kernel: the candidate may not be at its place.
        assert!(matches!(settled(Fate::Failed(of_user)), Fate::Failed(_)));
    }
}
