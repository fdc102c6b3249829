//! What the kernel gives on a volume, found out with groups that are closed at once.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use fanotify::low_level as fan;

use super::features::{Feature, Features};
use super::{COMMON, FAN_MARK_EVICTABLE, FAN_REPORT_PIDFD, FAN_REPORT_TARGET_FID, Group, IGNORABLE, mask};
use crate::beneath;

/// What the marks of a group stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// One for the whole file system.
    FileSystem,
    /// One for each directory.
    Directories,
}

impl Marks {
    fn feature(self) -> Feature {
        match self {
            Self::FileSystem => Feature::FilesystemMarks,
            Self::Directories => Feature::DirectoryMarks,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What there is.
    pub features: Features,
    /// What was tried.
    pub marks: Marks,
    /// This process may not have as many events and marks as it likes: the limits of this host hold (`/proc/sys/fs/fanotify`), and events
    /// do not name their process.
    pub is_limited: bool,
    /// What FIONREAD counts for an event.
    pub(super) counted: Counted,
}

/// What FIONREAD counts for each event that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Its metadata alone, not what it carries.
    Metadata,
    /// All that it carries.
    Whole,
}

/// `struct fanotify_event_metadata`.
const METADATA_BYTES: u64 = 24;
/// No event with the id of a file takes less: its metadata, and a record with a handle of four bytes.
const WHOLE_BYTES_MIN: u64 = 48;

impl Counted {
    /// By what FIONREAD says of a short queue. Whole events of a length that metadata would have as well are taken for metadata: then
    /// too many are counted.
    fn of_queue(bytes: u64) -> Self {
        match bytes.is_multiple_of(METADATA_BYTES) {
            true => Self::Metadata,
            false => Self::Whole,
        }
    }

    /// How many events these bytes are, or more: code that waits until as many were read must not wait for too few.
    pub fn events(self, bytes: u64) -> u64 {
        match self {
            Self::Metadata => bytes.div_ceil(METADATA_BYTES),
            Self::Whole => bytes.div_ceil(WHOLE_BYTES_MIN),
        }
    }
}

impl Found {
    /// The same without a feature.
    #[must_use]
    pub fn without(self, feature: Feature) -> Self {
        Self {
            features: self.features.without(feature),
            ..self
        }
    }

    /// What is known before anything is tried.
    pub(super) fn nothing(marks: Marks) -> Self {
        Self {
            features: Features::ALL,
            marks,
            is_limited: false,
            counted: Counted::Metadata,
        }
    }

    fn group(self, flags: u32) -> io::Result<Group> {
        Group::with(COMMON | flags, self)
    }

    /// A group that is told when the file system that holds `path`, or that directory, is opened.
    fn listener(self, path: &Path) -> io::Result<Group> {
        let group = self.group(0)?;
        let events = mask::OPEN | mask::ONDIR;
        match self.marks {
            Marks::FileSystem => group.change_mark(path, fan::FAN_MARK_ADD, events)?,
            Marks::Directories => mark_inode(&group, path, events)?,
        }
        Ok(group)
    }
}

fn mark_inode(group: &Group, path: &Path, events: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let how = fan::FAN_MARK_ADD | fan::FAN_MARK_ONLYDIR | fan::FAN_MARK_DONT_FOLLOW;
    fan::fanotify_mark(group.as_fd().as_raw_fd(), how, events, fan::AT_FDCWD, path)
}

/// Tries each feature on the file system that holds `path`, as far as [`Features::allowed`] says.
///
/// # Errors
/// When no group can be had, or the file system, or the directory, cannot be marked at all: EPERM without CAP_SYS_ADMIN, ENODEV or
/// EOPNOTSUPP where the file system has no file ids.
pub fn probe(path: &Path, marks: Marks) -> io::Result<Found> {
    let allowed = Features::allowed().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    if !allowed.has(marks.feature()) || !allowed.has(Feature::Ids) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut found = Found::nothing(marks);
    // One mark for a file system needs the same privilege as having no limit.
    found.is_limited = marks == Marks::Directories
        && matches!(found.group(0), Err(e) if e.raw_os_error() == Some(libc::EPERM));
    let group = found.listener(path)?;
    let renames = match marks {
        Marks::FileSystem => group.change_mark(path, fan::FAN_MARK_ADD, mask::RENAME | mask::ONDIR),
        Marks::Directories => mark_inode(&group, path, mask::RENAME | mask::ONDIR),
    };
    // A mark that keeps its inode, and one that does not, exclude each other.
    let group = found.group(0)?;
    let root = beneath::open_root(path)?;
    let evictable = group.leave_out(
        IGNORABLE,
        FAN_MARK_EVICTABLE | fan::FAN_MARK_IGNORED_MASK,
        root.as_fd(),
    );
    // Two kinds of marks of one inode exclude each other.
    group.flush_ignored()?;
    let ignores = group.leave_out(mask::DELETE, super::FAN_MARK_IGNORE, root.as_fd());
    let with = |flag| found.group(flag).map(drop);
    // Descriptors of processes are for those alone who may have everything.
    let pidfd = match found.is_limited {
        true => false,
        false => is_there(with(FAN_REPORT_PIDFD))?,
    };
    let features = Features::ALL
        .if_there(Feature::TargetFid, is_there(with(FAN_REPORT_TARGET_FID))?)
        .if_there(Feature::Pidfd, pidfd)
        .if_there(Feature::Rename, is_there(renames)?)
        .if_there(Feature::Evictable, is_there(evictable)?)
        .if_there(Feature::MarkIgnore, is_there(ignores)?)
        .if_there(Feature::FilesystemMarks, marks == Marks::FileSystem);
    let counted = found.counted(path)?;
    Ok(Found {
        features: features.within(allowed),
        counted,
        ..found
    })
}

/// Whether the kernel took what was tried. What it does not know, it refuses as invalid; a subvolume of btrfs has marks of inodes refused.
pub(super) fn is_there(tried: io::Result<()>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EINVAL | libc::EXDEV | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

impl Found {
    /// Opens the volume's root, of which a group is told, and asks how much waits.
    fn counted(self, path: &Path) -> io::Result<Counted> {
        let group = self.listener(path)?;
        drop(beneath::open_mount(path)?);
        Ok(group.queued_bytes().map_or(Counted::Metadata, Counted::of_queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_events_wait_than_are_counted() {
        // Of one event to four: metadata alone, or all of events as ext4, xfs and btrfs have them, with names or without.
        for count in 1..=4u64 {
            let by_metadata = Counted::of_queue(count * 24);
            assert_eq!(by_metadata.events(count * 24), count);
            for length in [52, 56, 60, 64, 68, 76, 88, 96, 120, 600] {
                let events = Counted::of_queue(count * length).events(count * length);
                assert!(
                    events >= count,
                    "{count} events of {length} bytes are taken for {events}"
                );
            }
        }
        assert_eq!(Counted::Whole.events(88), 2);
        assert_eq!(Counted::Metadata.events(0), 0);
    }
}
