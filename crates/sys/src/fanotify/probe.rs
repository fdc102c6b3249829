//! What the kernel gives on a volume, found out with groups that are closed at once.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use fanotify::low_level as fan;

use super::features::{Feature, Features};
use super::{COMMON, FAN_MARK_EVICTABLE, FAN_REPORT_PIDFD, FAN_REPORT_TARGET_FID, Group, IGNORABLE, mask};
use crate::beneath;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What there is.
    pub features: Features,
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

/// Tries each feature on the file system that holds `path`, as far as [`Features::allowed`] says.
///
/// # Errors
/// When no group can be had, or the file system cannot be marked at all: EPERM without CAP_SYS_ADMIN, ENODEV or EOPNOTSUPP where the file
/// system has no file ids.
pub fn probe(path: &Path) -> io::Result<Found> {
    let allowed = Features::allowed().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let group = Group::with(COMMON, Features::ALL, Counted::Metadata)?;
    group.change_mark(path, fan::FAN_MARK_ADD, mask::OPEN | mask::ONDIR)?;
    let renames = group.change_mark(path, fan::FAN_MARK_ADD, mask::RENAME | mask::ONDIR);
    let root = beneath::open_root(path)?;
    let evictable = group.leave_out(
        IGNORABLE,
        FAN_MARK_EVICTABLE | fan::FAN_MARK_IGNORED_MASK,
        root.as_fd(),
    );
    // Two kinds of marks of one inode exclude each other.
    group.flush_ignored()?;
    let ignores = group.leave_out(mask::DELETE, super::FAN_MARK_IGNORE, root.as_fd());
    let with = |flag| Group::with(COMMON | flag, Features::ALL, Counted::Metadata).map(drop);
    let features = Features::ALL
        .if_there(Feature::TargetFid, is_there(with(FAN_REPORT_TARGET_FID))?)
        .if_there(Feature::Pidfd, is_there(with(FAN_REPORT_PIDFD))?)
        .if_there(Feature::Rename, is_there(renames)?)
        .if_there(Feature::Evictable, is_there(evictable)?)
        .if_there(Feature::MarkIgnore, is_there(ignores)?);
    Ok(Found {
        features: features.within(allowed),
        counted: counted(path)?,
    })
}

/// Whether the kernel took what was tried. What it does not know, it refuses as invalid; a subvolume of btrfs has marks of inodes refused.
fn is_there(tried: io::Result<()>) -> io::Result<bool> {
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

/// Opens the volume's root, of which a group is told, and asks how much waits.
fn counted(path: &Path) -> io::Result<Counted> {
    let group = Group::with(COMMON, Features::ALL, Counted::Metadata)?;
    group.change_mark(path, fan::FAN_MARK_ADD, mask::OPEN | mask::ONDIR)?;
    drop(beneath::open_mount(path)?);
    Ok(group.queued_bytes().map_or(Counted::Metadata, Counted::of_queue))
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
