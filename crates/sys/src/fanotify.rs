//! fanotify groups and marks (`fanotify_init(2)`, `fanotify_mark(2)`, `fanotify(7)`).
//!
//! One group watches a file system, accesses and names alike: every hook of the kernel walks all groups that have marked
//! the file system, for any event they ask for, so a second one for the names alone makes each open, read and close dearer that
//! an ignore mark hides. Reading gives raw bytes; `collect::fanotify` decodes them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use fanotify::low_level as fan;

use super::beneath;
use super::handle::Handle;

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
    /// The file itself is deleted.
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
/// Adds a descriptor of the process to every event (Linux 5.15).
const FAN_REPORT_PIDFD: u32 = 0x80;
/// The mark does not keep its inode in memory (Linux 5.19).
const FAN_MARK_EVICTABLE: u32 = 0x200;
/// The mark says for itself whether it holds for directories and for what lies in them (Linux 6.0).
const FAN_MARK_IGNORE: u32 = 0x400;
/// What an ignore mark hides: everything that can be repeated without changing the file.
pub const IGNORABLE: u64 = mask::ACCESS | mask::OPEN | mask::OPEN_EXEC | mask::CLOSE_NOWRITE;

/// What every group asks for. The queue is unlimited because a dropped event is a use that remains unknown; the
/// kernel charges it to the agent's memory cgroup.
const COMMON: u32 = fan::FAN_CLASS_NOTIF
    | fan::FAN_CLOEXEC
    | fan::FAN_NONBLOCK
    | fan::FAN_UNLIMITED_QUEUE
    | fan::FAN_UNLIMITED_MARKS
    | fan::FAN_REPORT_FID
    | fan::FAN_REPORT_DIR_FID
    | fan::FAN_REPORT_NAME
    | FAN_REPORT_TARGET_FID;

/// Everything that may be a use of a file.
pub const ACCESS_EVENTS: u64 =
    mask::ACCESS | mask::MODIFY | mask::OPEN | mask::OPEN_EXEC | mask::CLOSE_WRITE | mask::CLOSE_NOWRITE;

/// Everything that changes names, or metadata that a rule may look at.
pub const NAMESPACE_EVENTS: u64 =
    mask::CREATE | mask::DELETE | mask::DELETE_SELF | mask::RENAME | mask::ATTRIB;

/// What is asked for. Names of directories count as those of files; that directories are opened and read as well is told
/// with it, because a mark asks for both or for neither.
const EVENTS: u64 = ACCESS_EVENTS | NAMESPACE_EVENTS | mask::ONDIR;

/// How events name the process that caused them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// By its number alone, which another process may have by the time the event is read.
    Pid,
    /// By a descriptor as well, which stands for exactly that process. Costs a descriptor an event.
    Process,
}

/// One fanotify group: a queue of events.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// A group that is marked on the whole file system that holds `path`.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; ENODEV or EOPNOTSUPP where the file system has no file ids (FUSE, NFS
    /// clients, overlayfs); EINVAL on kernels older than 5.17.
    pub fn on_filesystem(path: &Path, who: Who) -> io::Result<Self> {
        let flags = match who {
            Who::Pid => COMMON,
            Who::Process => COMMON | FAN_REPORT_PIDFD,
        };
        // For tests of what follows an overflow: the host's own limit (`fs.fanotify.max_queued_events`) holds then.
        let flags = match std::env::var_os("PURGE_AGENT_LIMITED_QUEUE") {
            Some(_) => flags & !fan::FAN_UNLIMITED_QUEUE,
            None => flags,
        };
        let raw = fan::fanotify_init(
            flags,
            (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC).cast_unsigned(),
        )?;
        // SAFETY: fanotify_init has just returned this descriptor and no other code knows of it.
        let group = Self(unsafe { OwnedFd::from_raw_fd(raw) });
        group.mark_filesystem(path)?;
        Ok(group)
    }

    /// A group that an earlier process made and left in systemd's keeping; none if it does not watch the file system that
    /// holds `path`: since it was unmounted, nothing has been seen.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn left(fd: OwnedFd, path: &Path) -> io::Result<Option<Self>> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if !std::fs::read_link(link).is_ok_and(|to| to.as_os_str() == "anon_inode:[fanotify]") {
            return Ok(None);
        }
        let group = Self(fd);
        if group.watched_filesystems()? != 1 {
            return Ok(None);
        }
        // Marking the same file system again changes nothing; another one would be a second.
        group.mark_filesystem(path)?;
        Ok((group.watched_filesystems()? == 1).then_some(group))
    }

    /// Marks the file system that holds `path` once more: nothing changes where the mark is whole.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn mark_again(&self, path: &Path) -> io::Result<()> {
        self.mark_filesystem(path)
    }

    /// From now on [`NAMESPACE_EVENTS`] are not queued, until [`Group::mark_again`].
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn leave_names_out(&self, path: &Path) -> io::Result<()> {
        self.change_mark(path, fan::FAN_MARK_REMOVE, NAMESPACE_EVENTS)
    }

    /// Whether its file system is still marked.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn is_marked(&self) -> io::Result<bool> {
        Ok(self.watched_filesystems()? > 0)
    }

    /// How many file systems are marked: the kernel takes a mark away when its file system is unmounted.
    fn watched_filesystems(&self) -> io::Result<usize> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        Ok(info.lines().filter(|l| l.starts_with("fanotify sdev:")).count())
    }

    /// A subvolume of btrfs is refused (EXDEV), though the mark is the whole file system's: its top is taken then, which a handle leads to also
    /// where it is not mounted. Events of other subvolumes are told as well, and their handles say so.
    fn mark_filesystem(&self, path: &Path) -> io::Result<()> {
        self.change_mark(path, fan::FAN_MARK_ADD, EVENTS)
    }

    fn change_mark(&self, path: &Path, how: u32, events: u64) -> io::Result<()> {
        match self.change_mark_of(path, how, events) {
            Err(e) if e.raw_os_error() == Some(libc::EXDEV) => {
                let top = Handle::of_btrfs_top().open_dir(beneath::open_mount(path)?)?;
                let path = format!("/proc/self/fd/{}", top.as_raw_fd());
                self.change_mark_of(Path::new(&path), how, events)
            }
            other => other,
        }
    }

    fn change_mark_of(&self, path: &Path, how: u32, events: u64) -> io::Result<()> {
        let how = how | fan::FAN_MARK_FILESYSTEM;
        fan::fanotify_mark(self.0.as_raw_fd(), how, events, fan::AT_FDCWD, path)
    }

    /// From now on the [`IGNORABLE`] events of this inode are not queued, until [`Group::flush_ignored`] or until the
    /// kernel drops the inode from memory. `inode` may be an O_PATH descriptor.
    ///
    /// # Errors
    /// EINVAL on kernels older than 5.19.
    pub fn ignore(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        self.leave_out(IGNORABLE, FAN_MARK_EVICTABLE | fan::FAN_MARK_IGNORED_MASK, inode)
    }

    /// From now on names that come into this directory or leave it are not queued, as long as it is open and until
    /// [`Group::flush_ignored`]. `dir` may be an O_PATH descriptor.
    ///
    /// # Errors
    /// EINVAL on kernels older than 6.0.
    pub fn ignore_names_in(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let names = mask::RENAME | mask::DELETE;
        self.leave_out(names, FAN_MARK_EVICTABLE | FAN_MARK_IGNORE, dir)
    }

    /// From now on the [`IGNORABLE`] events of what is done through this mount are not queued, for as long as it lasts. `mount` may
    /// be an O_PATH descriptor.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn ignore_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        self.leave_out(IGNORABLE, fan::FAN_MARK_MOUNT | fan::FAN_MARK_IGNORED_MASK, mount)
    }

    fn leave_out(&self, events: u64, mark: u32, of: BorrowedFd<'_>) -> io::Result<()> {
        let how = fan::FAN_MARK_ADD | fan::FAN_MARK_IGNORED_SURV_MODIFY | mark;
        // fanotify_mark(2) refuses O_PATH descriptors, but follows this link to what they stand for.
        let path = format!("/proc/self/fd/{}", of.as_raw_fd());
        fan::fanotify_mark(self.0.as_raw_fd(), how, events, fan::AT_FDCWD, Path::new(&path))
    }

    /// Takes all ignore marks of inodes away: when this returns, every event of every file is queued again.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn flush_ignored(&self) -> io::Result<()> {
        fan::fanotify_mark(
            self.0.as_raw_fd(),
            fan::FAN_MARK_FLUSH,
            0,
            fan::AT_FDCWD,
            Path::new("/"),
        )
    }

    /// How many events are queued: the kernel counts 24 bytes for each, no matter what it carries. Without end if it does not say:
    /// code that waits for them must not take that for none.
    pub fn queued(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.0).map_or(u64::MAX, |bytes| bytes / 24)
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
