//! fanotify groups and marks (`fanotify_init(2)`, `fanotify_mark(2)`, `fanotify(7)`).
//!
//! One group watches a file system, accesses and names alike: every hook of the kernel walks all groups that have marked
//! the file system, for any event they ask for, so a second one for the names alone makes each open, read and close dearer that
//! an ignore mark hides. Reading gives raw bytes; `collect::fanotify` decodes them.

mod descriptors;
mod directories;
mod features;
mod probe;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use fanotify::low_level as fan;

pub use self::descriptors::{EVENT_BYTES, OpenGroup, Scope, is_deleted, is_of_one_file, probe_descriptors};
pub use self::directories::least;
pub use self::features::{Feature, Features, SWITCH, UnknownFeature};
pub use self::probe::{Found, Marks, probe};
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
    /// An entry was moved; carries both directories and names, where the kernel knows it.
    pub const RENAME: u64 = 0x1000_0000;
    /// An entry was moved away from a directory.
    pub const MOVED_FROM: u64 = fan::FAN_MOVED_FROM;
    /// An entry was moved into a directory.
    pub const MOVED_TO: u64 = fan::FAN_MOVED_TO;
    /// The file itself was moved.
    pub const MOVE_SELF: u64 = fan::FAN_MOVE_SELF;
    /// The mark of a directory holds for what lies in it as well.
    pub const ON_CHILD: u64 = 0x0800_0000;
    /// The event's subject is a directory.
    pub const ONDIR: u64 = fan::FAN_ONDIR;
    /// The kernel dropped events.
    pub const OVERFLOW: u64 = fan::FAN_Q_OVERFLOW;
}

/// Adds the id of the entry itself to directory events ([`Feature::TargetFid`]).
const FAN_REPORT_TARGET_FID: u32 = 0x1000;
/// Adds a descriptor of the process to every event ([`Feature::Pidfd`]).
const FAN_REPORT_PIDFD: u32 = 0x80;
/// The mark does not keep its inode in memory ([`Feature::Evictable`]).
const FAN_MARK_EVICTABLE: u32 = 0x200;
/// The mark says for itself whether it holds for directories and for what lies in them ([`Feature::MarkIgnore`]).
const FAN_MARK_IGNORE: u32 = 0x400;
/// What an ignore mark hides: everything that can be repeated without changing the file.
pub const IGNORABLE: u64 = mask::ACCESS | mask::OPEN | mask::OPEN_EXEC | mask::CLOSE_NOWRITE;

/// No limit of this host's holds: needs CAP_SYS_ADMIN.
const UNLIMITED: u32 = fan::FAN_UNLIMITED_QUEUE | fan::FAN_UNLIMITED_MARKS;

/// What every group asks for. The queue is unlimited because a dropped event is a use that remains unknown; the
/// kernel charges it to the agent's memory cgroup.
const COMMON: u32 = fan::FAN_CLASS_NOTIF
    | fan::FAN_CLOEXEC
    | fan::FAN_NONBLOCK
    | UNLIMITED
    | fan::FAN_REPORT_FID
    | fan::FAN_REPORT_DIR_FID
    | fan::FAN_REPORT_NAME;

/// Everything that may be a use of a file.
pub const ACCESS_EVENTS: u64 =
    mask::ACCESS | mask::MODIFY | mask::OPEN | mask::OPEN_EXEC | mask::CLOSE_WRITE | mask::CLOSE_NOWRITE;

/// How a move is told where [`Features::tells_whose_names`] says no: at both places, and by the file itself.
pub const MOVE_EVENTS: u64 = mask::MOVED_FROM | mask::MOVED_TO | mask::MOVE_SELF;

/// Everything that changes names, or metadata that a rule may look at, on any kernel.
pub const NAMESPACE_EVENTS: u64 =
    mask::CREATE | mask::DELETE | mask::DELETE_SELF | mask::ATTRIB | mask::RENAME | MOVE_EVENTS;

/// Those of [`NAMESPACE_EVENTS`] that a group with these features asks for.
const fn namespace_events(features: Features) -> u64 {
    let moves = if features.tells_whose_names() {
        mask::RENAME
    } else {
        MOVE_EVENTS
    };
    mask::CREATE | mask::DELETE | mask::DELETE_SELF | mask::ATTRIB | moves
}

/// How events name the process that caused them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// By its number alone, which another process may have by the time the event is read.
    Pid,
    /// By a descriptor as well, which stands for exactly that process. Costs a descriptor an event.
    Process,
}

/// Whether a descriptor that was left in keeping is a group's.
fn left_by_another(fd: &OwnedFd) -> bool {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|to| to.as_os_str() == "anon_inode:[fanotify]")
}

/// One fanotify group: a queue of events.
#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
    found: Found,
}

impl Group {
    /// A group that watches what [`probe`] has tried and `found` at `path`: the whole file system that holds it, or, for now, the directory
    /// alone. More directories are marked with [`Group::mark_dir`].
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; ENODEV or EOPNOTSUPP where the file system has no file ids (FUSE, NFS
    /// clients, overlayfs).
    pub fn on(path: &Path, who: Who, found: Found) -> io::Result<Self> {
        let mut flags = COMMON;
        if who == Who::Process {
            flags |= FAN_REPORT_PIDFD;
        }
        if found.features.tells_whose_names() {
            flags |= FAN_REPORT_TARGET_FID;
        }
        // For tests of what follows an overflow: the host's own limit (`fs.fanotify.max_queued_events`) holds then.
        if std::env::var_os("PURGE_AGENT_LIMITED_QUEUE").is_some() {
            flags &= !fan::FAN_UNLIMITED_QUEUE;
        }
        let group = Self::with(flags, found)?;
        group.mark(path)?;
        Ok(group)
    }

    /// A group that marks nothing yet.
    fn with(flags: u32, found: Found) -> io::Result<Self> {
        let flags = if found.is_limited {
            flags & !UNLIMITED
        } else {
            flags
        };
        let raw = fan::fanotify_init(
            flags,
            (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC).cast_unsigned(),
        )?;
        // SAFETY: fanotify_init has just returned this descriptor and no other code knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { fd, found })
    }

    /// A group that an earlier process made, with the same features, and left in systemd's keeping; none if it does not watch the file
    /// system that holds `path`: since it was unmounted, nothing has been seen.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn left(fd: OwnedFd, path: &Path, found: Found) -> io::Result<Option<Self>> {
        if !left_by_another(&fd) {
            return Ok(None);
        }
        let group = Self { fd, found };
        let marked = match found.marks {
            Marks::FileSystem => group.watched_filesystems()? == 1,
            // Unmounting takes the marks of all directories.
            Marks::Directories => group.has_marked_dirs()?,
        };
        if !marked {
            return Ok(None);
        }
        // Marking the same file system again changes nothing; another one would be a second.
        group.mark(path)?;
        let is_same = found.marks == Marks::Directories || group.watched_filesystems()? == 1;
        Ok(is_same.then_some(group))
    }

    /// Marks the file system that holds `path`, or the directory, once more: nothing changes where the mark is whole.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn mark_again(&self, path: &Path) -> io::Result<()> {
        self.mark(path)
    }

    fn mark(&self, path: &Path) -> io::Result<()> {
        match self.found.marks {
            Marks::FileSystem => self.mark_filesystem(path),
            Marks::Directories => self.mark_dir(beneath::open_root(path)?.as_fd()),
        }
    }

    /// What was found when it was tried.
    pub fn found(&self) -> Found {
        self.found
    }

    /// What its marks stand for.
    pub fn marks(&self) -> Marks {
        self.found.marks
    }

    /// What there is of what a kernel may lack.
    pub fn features(&self) -> Features {
        self.found.features
    }

    /// From now on [`NAMESPACE_EVENTS`] are not queued, until [`Group::mark_again`].
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn leave_names_out(&self, path: &Path) -> io::Result<()> {
        if self.found.marks == Marks::Directories {
            // Each mark would have to be changed.
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.change_mark(path, fan::FAN_MARK_REMOVE, namespace_events(self.features()))
    }

    /// Whether its file system is still marked.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn is_marked(&self) -> io::Result<bool> {
        match self.found.marks {
            Marks::FileSystem => Ok(self.watched_filesystems()? > 0),
            Marks::Directories => self.has_marked_dirs(),
        }
    }

    /// How many file systems are marked: the kernel takes a mark away when its file system is unmounted.
    fn watched_filesystems(&self) -> io::Result<usize> {
        self.watched("fanotify sdev:")
    }

    /// How many marks are listed in lines that begin so (proc_pid_fdinfo(5)).
    fn watched(&self, kind: &str) -> io::Result<usize> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        Ok(info.lines().filter(|line| line.starts_with(kind)).count())
    }

    /// A subvolume of btrfs is refused (EXDEV), though the mark is the whole file system's: its top is taken then, which a handle leads to also
    /// where it is not mounted. Events of other subvolumes are told as well, and their handles say so.
    ///
    /// Names of directories count as those of files; that directories are opened and read as well is told with it, because a mark asks for
    /// both or for neither.
    fn mark_filesystem(&self, path: &Path) -> io::Result<()> {
        let events = ACCESS_EVENTS | namespace_events(self.features()) | mask::ONDIR;
        self.change_mark(path, fan::FAN_MARK_ADD, events)
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
        fan::fanotify_mark(self.fd.as_raw_fd(), how, events, fan::AT_FDCWD, path)
    }

    /// From now on the [`IGNORABLE`] events of this inode are not queued, until [`Group::flush_ignored`], or, where
    /// [`Feature::Evictable`] is there, until the kernel drops the inode from memory. Elsewhere the mark keeps the inode there. `inode` may be
    /// an O_PATH descriptor.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn ignore(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        self.leave_out(IGNORABLE, fan::FAN_MARK_IGNORED_MASK | self.evictable(), inode)
    }

    /// From now on names that come into this directory or leave it are not queued, as long as it is open and until
    /// [`Group::flush_ignored`]. `dir` may be an O_PATH descriptor.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn ignore_names_in(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let moves = match self.features().tells_whose_names() {
            true => mask::RENAME,
            false => mask::MOVED_FROM | mask::MOVED_TO,
        };
        let kind = match self.features().has(Feature::MarkIgnore) {
            true => FAN_MARK_IGNORE,
            false => fan::FAN_MARK_IGNORED_MASK,
        };
        self.leave_out(moves | mask::DELETE, kind | self.evictable(), dir)
    }

    fn evictable(&self) -> u32 {
        match self.features().has(Feature::Evictable) {
            true => FAN_MARK_EVICTABLE,
            false => 0,
        }
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
        fan::fanotify_mark(self.fd.as_raw_fd(), how, events, fan::AT_FDCWD, Path::new(&path))
    }

    /// Takes all ignore marks of inodes away: when this returns, every event of every file is queued again.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn flush_ignored(&self) -> io::Result<()> {
        fan::fanotify_mark(
            self.fd.as_raw_fd(),
            fan::FAN_MARK_FLUSH,
            0,
            fan::AT_FDCWD,
            Path::new("/"),
        )
    }

    /// How many events are queued, or more: kernels count the metadata of each event, or all of it (FIONREAD). Without end if the kernel
    /// does not say: code that waits for them must not take that for none.
    pub fn queued(&self) -> u64 {
        self.queued_bytes()
            .map_or(u64::MAX, |bytes| self.found.counted.events(bytes))
    }

    fn queued_bytes(&self) -> Option<u64> {
        rustix::io::ioctl_fionread(&self.fd).ok()
    }

    /// Reads what is queued into `buffer` and returns how many bytes of it are events; 0 when the queue is empty.
    ///
    /// # Errors
    /// What `read(2)` says, except EAGAIN and EINTR.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
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
        self.fd.as_fd()
    }
}
