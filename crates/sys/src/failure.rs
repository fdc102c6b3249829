//! What an error of a file system means to an operator. Pure.

use std::io;

use rustix::io::Errno;

/// What is wrong with a place on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It is not there: removed, moved, or not mounted (ENOENT).
    Missing,
    /// Something else lies at its path.
    Replaced,
    /// It takes no changes (EROFS).
    ReadOnly,
    /// The disk or the file system fails (EIO), or the kernel has shut the file system down.
    Broken,
    /// No block or no inode is left (ENOSPC, EDQUOT).
    Full,
    /// It does not answer.
    Silent,
    /// Another error: the words say which.
    Other,
}

/// Something that is wrong with a place on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// What kind of failure.
    pub failure: Failure,
    /// What was found, with the place.
    pub words: String,
}

impl Failure {
    /// What an error says of the place where it came up.
    pub fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => Self::Missing,
            Some(Errno::ROFS) => Self::ReadOnly,
            // What ext4, btrfs and xfs say of damage that they find (EUCLEAN) is no other case.
            Some(Errno::IO | Errno::UCLEAN | Errno::NODEV | Errno::NXIO) => Self::Broken,
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            Some(_) => Self::Other,
            None => Self::of_kind(error),
        }
    }

    /// The store passes on the kind and the words of an error, without its number.
    fn of_kind(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::TimedOut => Self::Silent,
            _ => {
                let words = error.to_string();
                let is_broken = |errno: Errno| words.contains(&format!("code: {},", errno.raw_os_error()));
                match is_broken(Errno::IO) || is_broken(Errno::UCLEAN) {
                    true => Self::Broken,
                    false => Self::Other,
                }
            }
        }
    }

    /// What mends it where the agent keeps its state.
    pub fn cure_of_state(self) -> &'static str {
        match self {
            Self::Missing => {
                "put the state directory back: mount its file system or move it back, and the agent goes on. If it is lost, restart the \
                 agent: it makes a new index, and holds must be added again"
            }
            Self::Replaced => {
                "put the agent's own state directory back in its place (mount, mv), and the agent goes on. To use the one that lies there \
                 now, restart the agent"
            }
            Self::ReadOnly => {
                "find out why its file system is read-only (dmesg), repair it (fsck), and mount it read-write: mount -o remount,rw"
            }
            Self::Broken => {
                "look for errors of the disk (dmesg); unmount the file system, repair it (fsck, xfs_repair), mount it again, then restart the \
                 agent"
            }
            Self::Full => "free space for the state directory (df, df -i); then the agent goes on",
            Self::Silent => {
                "find out what its file system waits for (dmesg); if it is frozen: fsfreeze --unfreeze MOUNTPOINT"
            }
            Self::Other => "see what it says, and dmesg; then the agent goes on",
        }
    }

    /// What mends it where a volume lies.
    pub fn cure_of_volume(self) -> &'static str {
        match self {
            Self::Missing | Self::Replaced => "mount it, or correct its path",
            Self::ReadOnly => {
                "find out why (dmesg); after an error unmount it, repair it (fsck) and mount it again; otherwise: mount -o remount,rw. \
                 The agent goes on by itself"
            }
            Self::Broken => {
                "look for errors of the disk (dmesg); unmount it, repair it (fsck, xfs_repair) and mount it again. The agent goes on by itself"
            }
            Self::Full => {
                "free some space or inodes by hand (df, df -i) and apply another plan; on btrfs a removal needs space as well: look at btrfs \
                 filesystem usage, delete a snapshot, empty a large file (truncate -s 0), or add a device for a while"
            }
            Self::Silent => {
                "find out what it waits for (dmesg); if it is frozen: fsfreeze --unfreeze MOUNTPOINT"
            }
            Self::Other => "see what it says, and dmesg",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_a_cure_of_its_own() {
        let of = |errno: Errno| Failure::of(&errno.into());
        let all = [
            (Errno::NOENT, Failure::Missing),
            (Errno::ROFS, Failure::ReadOnly),
            (Errno::IO, Failure::Broken),
            (Errno::NOSPC, Failure::Full),
            (Errno::DQUOT, Failure::Full),
            (Errno::ACCESS, Failure::Other),
        ];
        for (errno, failure) in all {
            assert_eq!(of(errno), failure);
            // As the store passes it on.
            let kind = io::Error::from(errno).kind();
            let passed_on = io::Error::new(kind, format!("{:?}", io::Error::from(errno)));
            assert_eq!(Failure::of(&passed_on), failure, "{passed_on}");
        }
        let failures = [
            Failure::Missing,
            Failure::Replaced,
            Failure::ReadOnly,
            Failure::Broken,
            Failure::Full,
            Failure::Silent,
        ];
        let cures: std::collections::BTreeSet<_> = failures.iter().map(|f| f.cure_of_state()).collect();
        assert_eq!(cures.len(), failures.len());
    }
}
