//! Which parts of fanotify there are. Distributions take parts of newer kernels over, so a version number says little: each part is tried
//! (`probe`), and what was found is one value that the collector, `status` and `doctor` read.

use std::ffi::OsStr;
use std::fmt::Write;
use std::sync::OnceLock;

/// Names features, with commas, that are taken for missing: so each way of collecting can be tested on any kernel.
pub const SWITCH: &str = "PURGE_AGENT_WITHOUT";

/// A part of fanotify, or of a file system, that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Events of names carry the id of the entry itself (`FAN_REPORT_TARGET_FID`).
    TargetFid,
    /// One event tells both places of a rename (`FAN_RENAME`).
    Rename,
    /// Events carry a descriptor of their process (`FAN_REPORT_PIDFD`).
    Pidfd,
    /// The kernel may drop an ignore mark with its inode (`FAN_MARK_EVICTABLE`).
    Evictable,
    /// Ignore marks that say what they hold for (`FAN_MARK_IGNORE`).
    MarkIgnore,
    /// It is known how the file system writes its file handles.
    Handles,
    /// A file handle leads to its file (`open_by_handle_at(2)`).
    OpenHandles,
    /// One mark stands for a whole file system (`FAN_MARK_FILESYSTEM`).
    FilesystemMarks,
    /// Directories can be marked one by one, with file ids.
    DirectoryMarks,
    /// `inotify(7)`.
    Inotify,
    /// A name moves to a free place in one call (`RENAME_NOREPLACE`). Asked for where something is moved, and not before.
    NoReplace,
    /// Events carry file ids and names (`FAN_REPORT_FID`, `FAN_REPORT_DIR_FID`, `FAN_REPORT_NAME`).
    Ids,
    /// Events carry a descriptor of the file, where they carry no file ids.
    Descriptors,
    /// An event whose file cannot be opened says why (`FAN_REPORT_FD_ERROR`).
    FdError,
    /// The kernel reads and writes files behind a mount of the agent's by itself (`FUSE_PASSTHROUGH`, `fuse(4)`).
    FusePassthrough,
    /// It asks again what a mount of the agent's was asked and did not answer (`FUSE_HAS_RESEND`).
    FuseResend,
    /// Leases of files (`fcntl(2)`, F_SETLEASE).
    Leases,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::TargetFid,
        Self::Rename,
        Self::Pidfd,
        Self::Evictable,
        Self::MarkIgnore,
        Self::Handles,
        Self::OpenHandles,
        Self::FilesystemMarks,
        Self::DirectoryMarks,
        Self::Inotify,
        Self::NoReplace,
        Self::Ids,
        Self::Descriptors,
        Self::FdError,
        Self::FusePassthrough,
        Self::FuseResend,
        Self::Leases,
    ];

    /// The word for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TargetFid => "target_fid",
            Self::Rename => "rename",
            Self::Pidfd => "pidfd",
            Self::Evictable => "evictable",
            Self::MarkIgnore => "mark_ignore",
            Self::Handles => "handles",
            Self::OpenHandles => "open_handles",
            Self::FilesystemMarks => "filesystem_marks",
            Self::DirectoryMarks => "directory_marks",
            Self::Inotify => "inotify",
            Self::NoReplace => "noreplace",
            Self::Ids => "ids",
            Self::Descriptors => "descriptors",
            Self::FdError => "fd_error",
            Self::FusePassthrough => "fuse_passthrough",
            Self::FuseResend => "fuse_resend",
            Self::Leases => "leases",
        }
    }

    /// What its absence means, in words for people.
    pub const fn absence(self) -> &'static str {
        match self {
            Self::TargetFid | Self::Rename => {
                "the agent finds out by a look which file a changed name is of: a file that left the volume leaves the index a moment later"
            }
            Self::Pidfd => {
                "ignore_accessors ignores only a process that the agent knew before: the first reads of each process, and all reads of a \
                 short one, count as use"
            }
            Self::Evictable => {
                "precision windows hide the uses of fewer files, and keep each of them in the kernel's memory (about 1.4 KB)"
            }
            Self::MarkIgnore => {
                "the agent reads events of its own work in the trash, which costs processor time during runs"
            }
            Self::Handles => {
                "the agent opens each file that an event is of to learn which it is, which costs processor time; a deleted file may stay in the \
                 index until the next scan"
            }
            Self::OpenHandles => {
                "a file system is not watched as a whole; where each directory is, names say which file an event is of, and a restart is a gap"
            }
            Self::FilesystemMarks => {
                "each directory is marked by itself: uses by file handle and by links outside of the volume are not seen, and a directory that \
                 cannot be marked is in no plan"
            }
            Self::DirectoryMarks => {
                "where the file system cannot be marked as a whole, inotify or scans watch it"
            }
            Self::Inotify => "where fanotify cannot watch, only scans do",
            Self::NoReplace => "the agent moves names into the trash and out of it in two steps",
            Self::Ids => {
                "the kernel opens each file again whose use it tells of, repeated uses are hidden for a window, and only scans find new and \
                 changed names"
            }
            Self::Descriptors => "where events carry no file ids, inotify or scans watch",
            Self::FdError => "the agent reads one event at a time, which costs it processor time",
            Self::FusePassthrough => {
                "with collector = \"fuse\", reading and writing goes through the mount's process, which is slower"
            }
            Self::Leases => "what is taken stays in the trash for a day at least",
            Self::FuseResend => {
                "with collector = \"fuse\", who waits for an answer of the mount's process when it is killed waits until the mount ends"
            }
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The features that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// None is missing.
    pub const ALL: Self = Self((1 << Feature::ALL.len()) - 1);

    /// Whether a feature is there.
    #[inline]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// These without one of them.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !feature.bit())
    }

    /// These, as far as they are among `others`.
    #[must_use]
    pub const fn within(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// These, without `feature` unless it `is_there`.
    #[must_use]
    pub(super) const fn if_there(self, feature: Feature, is_there: bool) -> Self {
        match is_there {
            true => self,
            false => self.without(feature),
        }
    }

    /// Whether events of names say which file they are of, and a rename is one event. One without the other is of no use to the agent: then
    /// it asks for neither.
    #[inline]
    pub const fn tells_whose_names(self) -> bool {
        self.has(Feature::TargetFid) && self.has(Feature::Rename)
    }

    /// Those that are missing.
    pub fn missing(self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .into_iter()
            .filter(move |feature| !self.has(*feature))
    }

    /// What [`SWITCH`] leaves.
    ///
    /// # Errors
    /// When it names a feature that does not exist.
    pub fn allowed() -> Result<Self, UnknownFeature> {
        static ALLOWED: OnceLock<Result<Features, UnknownFeature>> = OnceLock::new();
        let read = || std::env::var_os(SWITCH).map_or(Ok(Self::ALL), |names| Self::all_but(&names));
        ALLOWED.get_or_init(read).clone()
    }

    /// All but those that are named, with commas.
    fn all_but(names: &OsStr) -> Result<Self, UnknownFeature> {
        let names = names.to_string_lossy();
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.into_iter().try_fold(Self::ALL, |left, name| {
            let known = Feature::ALL.into_iter().find(|feature| feature.name() == name);
            let known = known.ok_or_else(|| UnknownFeature(name.to_owned()));
            known.map(|feature| left.without(feature))
        })
    }
}

/// A name that is no feature's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{SWITCH} names {0:?}, which is no feature; the features are {known}", known = all_names())]
pub struct UnknownFeature(String);

fn all_names() -> String {
    let mut names = String::new();
    for feature in Feature::ALL {
        let comma = if names.is_empty() { "" } else { ", " };
        let _ = write!(names, "{comma}{}", feature.name());
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all_but(names: &str) -> Result<Features, UnknownFeature> {
        Features::all_but(OsStr::new(names))
    }

    #[test]
    fn what_is_named_is_missing_and_nothing_else() {
        assert_eq!(all_but("").unwrap(), Features::ALL);
        assert_eq!(Features::ALL.missing().count(), 0);
        let left = all_but("rename, pidfd,,").unwrap();
        let missing: Vec<Feature> = left.missing().collect();
        assert_eq!(missing, [Feature::Rename, Feature::Pidfd]);
        assert!(left.has(Feature::TargetFid) && !left.tells_whose_names());
        assert!(Features::ALL.tells_whose_names());
        for feature in Feature::ALL {
            let left = all_but(feature.name()).unwrap();
            assert_eq!(left.missing().collect::<Vec<_>>(), [feature]);
        }
    }

    #[test]
    fn a_name_that_is_unknown_is_an_error_that_lists_the_known_ones() {
        let error = all_but("pidfd,Rename").unwrap_err().to_string();
        assert!(error.contains("\"Rename\""), "{error}");
        assert!(
            error.contains("target_fid, rename, pidfd, evictable, mark_ignore, handles, open_handles"),
            "{error}"
        );
    }
}
