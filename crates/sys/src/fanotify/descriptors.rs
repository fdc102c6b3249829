//! Groups whose events carry a descriptor of the file: for kernels and file systems that give no file ids.
//!
//! The kernel opens the file for each event that is read, with the reader's credentials. So reading may wait for a file server, or for a lease
//! to end; it may fail, and then nothing says which file was used. An event that waits keeps its mount busy.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use fanotify::low_level as fan;
use rustix::io::Errno;

use super::probe::{Found, Marks, is_there};
use super::{ACCESS_EVENTS, FAN_MARK_EVICTABLE, Feature, Features, Group, IGNORABLE, left_by_another, mask};
use crate::beneath;

/// The error of the opening stands in place of the descriptor ([`Feature::FdError`]).
const FAN_REPORT_FD_ERROR: u32 = 0x2000;

/// What every such group asks for.
const DESCRIPTORS: u32 = fan::FAN_CLASS_NOTIF
    | fan::FAN_CLOEXEC
    | fan::FAN_NONBLOCK
    | fan::FAN_UNLIMITED_QUEUE
    | fan::FAN_UNLIMITED_MARKS;

/// `struct fanotify_event_metadata`, which is all that such an event has.
pub const EVENT_BYTES: usize = 24;

/// What is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The file system, through whichever mount it is used.
    FileSystem,
    /// The mount on which the volume's root lies, and that of the first process at the same path.
    Mount,
}

/// For a group that is told of events with descriptors, the queue is counted as of old.
fn found(features: Features) -> Found {
    Found {
        features,
        ..Found::nothing(Marks::FileSystem)
    }
}

/// What there is for such groups on the file system that holds `path`: the features that they need are among those that are found or missing,
/// all others are taken for there.
///
/// # Errors
/// When no group can be had, or nothing can be marked: EPERM without CAP_SYS_ADMIN.
pub fn probe_descriptors(path: &Path) -> io::Result<Features> {
    let allowed = Features::allowed().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    if !allowed.has(Feature::Descriptors) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let group = Group::with(DESCRIPTORS, found(Features::ALL))?;
    let errors = Group::with(DESCRIPTORS | FAN_REPORT_FD_ERROR, found(Features::ALL));
    let marked = group.change_mark_of(path, fan::FAN_MARK_ADD, ACCESS_EVENTS);
    let whole = is_there(marked)?;
    if !whole {
        mark_mount(&group, path)?;
    }
    let root = beneath::open_root(path)?;
    let evictable = FAN_MARK_EVICTABLE | fan::FAN_MARK_IGNORED_MASK;
    let evictable = group.leave_out(IGNORABLE, evictable, root.as_fd());
    let found = Features::ALL
        .without(Feature::Ids)
        .if_there(Feature::FdError, is_there(errors.map(drop))?)
        .if_there(Feature::FilesystemMarks, whole)
        .if_there(Feature::Evictable, is_there(evictable)?);
    // What such a group does not use is not missed.
    let used = [Feature::FdError, Feature::FilesystemMarks, Feature::Evictable];
    let withheld = used.into_iter().filter(|feature| !allowed.has(*feature));
    Ok(withheld.fold(found, Features::without))
}

/// A group whose events carry descriptors. Names and changes of metadata are not told.
#[derive(Debug)]
pub struct OpenGroup {
    group: Group,
    scope: Scope,
}

impl OpenGroup {
    /// One that is marked on what [`probe_descriptors`] has found for `path`.
    ///
    /// # Errors
    /// What `fanotify_init(2)` and `fanotify_mark(2)` say.
    pub fn on(path: &Path, features: Features) -> io::Result<Self> {
        let mut flags = DESCRIPTORS;
        if features.has(Feature::FdError) {
            flags |= FAN_REPORT_FD_ERROR;
        }
        // As for other groups: for tests of what follows an overflow.
        if std::env::var_os("PURGE_AGENT_LIMITED_QUEUE").is_some() {
            flags &= !fan::FAN_UNLIMITED_QUEUE;
        }
        let group = Self::of(Group::with(flags, found(features))?);
        group.mark_again(path)?;
        Ok(group)
    }

    fn of(group: Group) -> Self {
        let scope = Self::scope_of(group.features());
        Self { group, scope }
    }

    /// What is marked where these features were found.
    pub fn scope_of(features: Features) -> Scope {
        match features.has(Feature::FilesystemMarks) {
            true => Scope::FileSystem,
            false => Scope::Mount,
        }
    }

    /// One that an earlier process made, with the same features, and left in keeping; none if it does not watch `path`.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn left(fd: OwnedFd, path: &Path, features: Features) -> io::Result<Option<Self>> {
        if !left_by_another(&fd) {
            return Ok(None);
        }
        let group = Self::of(Group {
            fd,
            found: found(features),
        });
        let before = group.marks()?;
        if before == 0 {
            return Ok(None);
        }
        // Marking the same once more changes nothing; another file system, or another mount, is one more.
        group.mark_again(path)?;
        Ok((group.marks()? == before).then_some(group))
    }

    /// Marks `path` once more: nothing changes where the marks are whole.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn mark_again(&self, path: &Path) -> io::Result<()> {
        match self.scope {
            Scope::FileSystem => self
                .group
                .change_mark_of(path, fan::FAN_MARK_ADD, ACCESS_EVENTS)?,
            Scope::Mount => mark_mount(&self.group, path)?,
        }
        self.mark_root(path)
    }

    /// That the root is opened is told, by which the agent knows that events come at all. Other directories are not told of: a scan would make
    /// the kernel open each of them once more.
    fn mark_root(&self, path: &Path) -> io::Result<()> {
        let how = fan::FAN_MARK_ADD | self.group.evictable();
        let events = mask::OPEN | mask::ONDIR;
        fan::fanotify_mark(self.group.fd.as_raw_fd(), how, events, fan::AT_FDCWD, path)
    }

    /// What there is of what a kernel may lack.
    pub fn features(&self) -> Features {
        self.group.features()
    }

    /// Whether it still marks anything: the kernel takes a mark away when its file system is unmounted.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn is_marked(&self) -> io::Result<bool> {
        Ok(self.marks()? > 0)
    }

    fn marks(&self) -> io::Result<usize> {
        match self.scope {
            Scope::FileSystem => self.group.watched_filesystems(),
            Scope::Mount => self.group.watched("fanotify mnt_id:"),
        }
    }

    /// As [`Group::ignore`].
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn ignore(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        self.group.ignore(inode)
    }

    /// As [`Group::ignore_mount`]. A mount of the agent's own is not marked where mounts are.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn ignore_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        match self.scope {
            Scope::FileSystem => self.group.ignore_mount(mount),
            Scope::Mount => Ok(()),
        }
    }

    /// Takes all ignore marks of inodes away, and tells of the root at `path` as before.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn flush_ignored(&self, path: &Path) -> io::Result<()> {
        self.group.flush_ignored()?;
        self.mark_root(path)
    }

    /// How many events are queued. Without end if the kernel does not say.
    pub fn queued(&self) -> u64 {
        self.group.queued()
    }

    /// Reads events into `buffer` and returns how many bytes of it are events; 0 when the queue is empty. May wait for a file server. After an
    /// error an event is lost: the kernel had taken it from the queue. Where [`Feature::FdError`] is missing the kernel tells of it only
    /// if the event was the first that `buffer` has room for.
    ///
    /// # Errors
    /// What `read(2)` says, except EAGAIN.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match rustix::io::read(&self.group.fd, buffer) {
            Ok(n) => Ok(n),
            Err(Errno::AGAIN) => Ok(0),
            // No read waits for events here, so one that is interrupted has waited for a file.
            Err(error) => Err(error),
        }
    }
}

/// Whether a file that cannot be opened was deleted before its event was read: there is nothing left that the use could keep.
pub fn is_deleted(error: Errno) -> bool {
    /// The kernel's own: the server says that the file is another one by now (EOPENSTALE).
    const OPENED_STALE: i32 = 518;
    matches!(error, Errno::NOENT | Errno::STALE) || error.raw_os_error() == OPENED_STALE
}

/// Whether an error says something of one file alone, and the next event may be read well.
pub fn is_of_one_file(error: Errno) -> bool {
    !matches!(
        error,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::BADF | Errno::FAULT | Errno::INVAL
    )
}

/// Marks the mount on which `path` lies; and where the first process has another mount there, that one, which other processes use rather than
/// that of an agent in a mount namespace of its own.
fn mark_mount(group: &Group, path: &Path) -> io::Result<()> {
    let mark = |path: &Path| {
        let how = fan::FAN_MARK_ADD | fan::FAN_MARK_MOUNT;
        fan::fanotify_mark(group.fd.as_raw_fd(), how, ACCESS_EVENTS, fan::AT_FDCWD, path)
    };
    mark(path)?;
    let theirs = Path::new("/proc/1/root").join(path.strip_prefix("/").unwrap_or(path));
    let here = crate::stat::path(path)?;
    let is_same =
        |there: crate::stat::Located| (there.device, there.stat.ino) == (here.device, here.stat.ino);
    match crate::stat::path(&theirs).is_ok_and(is_same) {
        true => mark(&theirs),
        false => Ok(()),
    }
}

impl AsFd for OpenGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}
