//! fanotify groups and marks (`fanotify_init(2)`, `fanotify_mark(2)`, `fanotify(7)`).
//!
//! Two groups watch a file system. The **access** group reports bare file ids, which is the cheapest form for the
//! process that is being watched. The **namespace** group reports directory ids, names and the ids of the entries,
//! which only few operations need. Reading gives raw bytes; `collect::fanotify` decodes them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use fanotify::low_level as fan;

/// Event bits, as `fanotify(7)` names them.
pub mod mask {
    use fanotify::low_level as fan;

    /// Data was read, or the access time alone was set (`fsnotify_change` in the kernel).
    pub const ACCESS: u64 = fan::FAN_ACCESS;
    /// Data was written, or the size or the modification time alone was set.
    pub const MODIFY: u64 = fan::FAN_MODIFY;
    /// Metadata changed.
    pub const ATTRIB: u64 = fan::FAN_ATTRIB;
    /// A descriptor that could write was closed.
    pub const CLOSE_WRITE: u64 = fan::FAN_CLOSE_WRITE;
    /// A descriptor that could only read was closed.
    pub const CLOSE_NOWRITE: u64 = fan::FAN_CLOSE_NOWRITE;
    /// The file was opened.
    pub const OPEN: u64 = fan::FAN_OPEN;
    /// The file was opened to be executed.
    pub const OPEN_EXEC: u64 = fan::FAN_OPEN_EXEC;
    /// An entry was made in a directory.
    pub const CREATE: u64 = fan::FAN_CREATE;
    /// An entry was removed from a directory.
    pub const DELETE: u64 = fan::FAN_DELETE;
    /// The file itself is gone.
    pub const DELETE_SELF: u64 = fan::FAN_DELETE_SELF;
    /// An entry was moved; carries both directories and names (Linux 5.17).
    pub const RENAME: u64 = 0x1000_0000;
    /// The event's subject is a directory.
    pub const ONDIR: u64 = fan::FAN_ONDIR;
    /// The kernel dropped events.
    pub const OVERFLOW: u64 = fan::FAN_Q_OVERFLOW;
}

/// Adds the id of the entry itself to directory events (Linux 5.17).
const FAN_REPORT_TARGET_FID: u32 = 0x1000;

/// What every group asks for. The queue is unlimited because a dropped event is a use that nobody knows of; the
/// kernel charges it to the agent's memory cgroup.
const COMMON: u32 = fan::FAN_CLASS_NOTIF
    | fan::FAN_CLOEXEC
    | fan::FAN_NONBLOCK
    | fan::FAN_UNLIMITED_QUEUE
    | fan::FAN_UNLIMITED_MARKS
    | fan::FAN_REPORT_FID;

/// Everything that may be a use of a file.
const ACCESS_EVENTS: u64 =
    mask::ACCESS | mask::MODIFY | mask::OPEN | mask::OPEN_EXEC | mask::CLOSE_WRITE | mask::CLOSE_NOWRITE;

/// Everything that changes names, or metadata that a rule may look at.
const NAMESPACE_EVENTS: u64 =
    mask::CREATE | mask::DELETE | mask::DELETE_SELF | mask::RENAME | mask::ATTRIB | mask::ONDIR;

/// One fanotify group: a queue of events.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// The group for accesses, marked on the whole file system that holds `path`.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; ENODEV or EOPNOTSUPP where the file system has no file ids (FUSE, NFS
    /// clients, overlayfs); EINVAL on kernels older than 5.17.
    pub fn accesses(path: &Path) -> io::Result<Self> {
        Self::on_filesystem(COMMON, ACCESS_EVENTS, path)
    }

    /// The group for the namespace, marked on the whole file system that holds `path`.
    ///
    /// # Errors
    /// As for [`Group::accesses`].
    pub fn namespace(path: &Path) -> io::Result<Self> {
        let names = fan::FAN_REPORT_DIR_FID | fan::FAN_REPORT_NAME | FAN_REPORT_TARGET_FID;
        Self::on_filesystem(COMMON | names, NAMESPACE_EVENTS, path)
    }

    fn on_filesystem(flags: u32, events: u64, path: &Path) -> io::Result<Self> {
        let raw = fan::fanotify_init(
            flags,
            (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC).cast_unsigned(),
        )?;
        // SAFETY: fanotify_init has just returned this descriptor and nobody else knows of it.
        let group = Self(unsafe { OwnedFd::from_raw_fd(raw) });
        let how = fan::FAN_MARK_ADD | fan::FAN_MARK_FILESYSTEM;
        fan::fanotify_mark(group.0.as_raw_fd(), how, events, fan::AT_FDCWD, path)?;
        Ok(group)
    }

    /// Reads what is queued into `buffer` and returns how many bytes of it are events; 0 when the queue is empty.
    ///
    /// # Errors
    /// What `read(2)` says, except EAGAIN and EINTR.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Ok(n) => return Ok(n),
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
