//! Which source a volume gets: the one place that names them all.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Watched;
use super::error::CollectError;
pub use super::fanotify::Wish;
use super::nfsd::NfsServer;
use super::scans::Scans;
use super::source::{Armed, Kind, Profile};
use super::takeover::Former;
use super::{descriptors, exports, fanotify, fuse, inotify};
use purge_base::handover::Handover;
use purge_sys::fanotify::Marks;
use purge_sys::stat::{Device, Mount};

/// What a volume is to be watched by where nothing is known of it yet.
pub const FIRST_CHOICE: Kind = Kind::Fanotify;

/// What they need, for people whose volume cannot be watched. No version: distributions take parts of newer kernels over.
pub const NEEDS: &str = "fanotify needs root (CAP_SYS_ADMIN), a kernel that reports names and file handles of whole file systems (Linux 5.9 or \
                         later, or one that has it from there), and ext4, xfs, btrfs or tmpfs";

/// What an operator allows a volume to be watched by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The best that can be had: these in the order of [`Way::ALL`].
    Any,
    /// fanotify, with one mark or with many.
    Fanotify,
    /// inotify.
    Inotify,
    /// A mount of the agent's; what lies behind it is watched by the best that can be had but scans.
    Fuse,
    /// Scans alone.
    Scans,
}

/// A way to watch, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// fanotify, one mark for the file system.
    FileSystem,
    /// fanotify, one mark for each directory.
    Directories,
    /// fanotify, where events carry no file ids: the kernel opens each file that was used.
    Descriptors,
    /// inotify, a watch on each directory.
    Inotify,
    /// Scans alone.
    Scans,
}

impl Way {
    /// The order in which they are tried.
    pub const ALL: [Self; 5] = [
        Self::FileSystem,
        Self::Directories,
        Self::Descriptors,
        Self::Inotify,
        Self::Scans,
    ];

    /// What it is called.
    pub const fn words(self) -> &'static str {
        match self {
            Self::FileSystem => "fanotify (filesystem)",
            Self::Directories => "fanotify (directories)",
            Self::Descriptors => "fanotify (descriptors)",
            Self::Inotify => "inotify",
            Self::Scans => "scan",
        }
    }

    const fn is_among(self, choice: Choice) -> bool {
        match choice {
            Choice::Any => true,
            Choice::Fanotify => matches!(self, Self::FileSystem | Self::Directories | Self::Descriptors),
            Choice::Inotify => matches!(self, Self::Inotify),
            // What goes around the mount must be seen as well.
            Choice::Fuse => !matches!(self, Self::Scans),
            Choice::Scans => matches!(self, Self::Scans),
        }
    }

    /// It watches one directory after another, and so sees nothing of what comes by a file handle.
    const fn is_by_directory(self) -> bool {
        matches!(self, Self::Directories | Self::Inotify)
    }
}

/// Why a way was left out: it was tried, and refused.
#[derive(Debug)]
pub struct Refusal {
    /// Which.
    pub way: Way,
    /// What it said.
    pub why: CollectError,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.way.words(), self.why)
    }
}

/// Where a volume lies.
#[derive(Debug, Clone, Copy)]
pub struct On<'a> {
    /// Its root.
    pub root: &'a Path,
    /// The mount.
    pub mount: &'a Mount,
    /// The file system.
    pub device: Device,
}

/// Tries the ways that `choice` allows, the best first: the first that works, and what those before it said.
///
/// # Errors
/// What each said, where none works.
fn first_of<T>(
    choice: Choice,
    on: On<'_>,
    mut each: impl FnMut(Way) -> Result<T, CollectError>,
) -> Result<(T, Vec<Refusal>), CollectError> {
    let mut refusals = Vec::new();
    for way in Way::ALL.into_iter().filter(|way| way.is_among(choice)) {
        let tried = match way.is_by_directory() {
            true => exported(on.root).and_then(|()| each(way)),
            false => each(way),
        };
        match tried {
            Ok(done) => return Ok((done, refusals)),
            Err(why) => refusals.push(Refusal { way, why }),
        }
    }
    Err(CollectError::NoWay(
        refusals.iter().map(ToString::to_string).collect(),
    ))
}

/// Watches a volume: takes over what an earlier process left, or begins. `volume` names the queue where it is kept, and must be another name
/// for another file system; files that must outlive this process lie in `beside`. The ways that were refused before are in the answer.
///
/// # Errors
/// What each source says of why it cannot watch there.
pub fn arm(
    (choice, wish, on): (Choice, Wish, On<'_>),
    volume: &str,
    beside: &Path,
    handover: &mut Handover,
) -> Result<(Box<dyn Armed>, Vec<Refusal>), CollectError> {
    let (armed, refusals) = first_of(choice, on, |way| {
        let mut with = |marks| -> Result<Box<dyn Armed>, CollectError> {
            let wish = (wish.clone(), marks);
            let armed = fanotify::Armed::arm_or_take_over(wish, volume, beside, handover)?;
            Ok(Box::new(armed))
        };
        match way {
            Way::FileSystem => with(Marks::FileSystem),
            Way::Directories => with(Marks::Directories),
            Way::Descriptors => {
                let armed = descriptors::Armed::arm_or_take_over(wish.clone(), volume, beside, handover)?;
                Ok(Box::new(armed))
            }
            Way::Inotify => {
                let armed = inotify::Armed::arm_beside(wish.clone(), volume, beside, handover)?;
                Ok(Box::new(armed))
            }
            Way::Scans => Ok(Box::new(scans(&wish, on)?)),
        }
    })?;
    let armed = Former::of(&wish, volume, beside, handover).before(armed);
    match choice {
        Choice::Fuse => Ok((Box::new(fuse::Armed::over(armed, beside)?), refusals)),
        _ => Ok((armed, refusals)),
    }
}

/// Whether a volume could be watched, and how. Nothing is left of the attempt.
///
/// # Errors
/// As for [`arm`].
pub fn try_out(choice: Choice, wish: &Wish, on: On<'_>) -> Result<(Profile, Vec<Refusal>), CollectError> {
    use super::source::Armed as _;
    let (profile, refusals) = first_of(choice, on, |way| {
        let with = |marks| Ok(fanotify::Armed::arm(wish.clone(), marks)?.profile());
        match way {
            Way::FileSystem => with(Marks::FileSystem),
            Way::Directories => with(Marks::Directories),
            Way::Descriptors => Ok(descriptors::Armed::arm(wish.clone())?.profile()),
            Way::Inotify => Ok(inotify::Armed::arm(wish.clone())?.profile()),
            Way::Scans => Ok(scans(wish, on)?.profile()),
        }
    })?;
    match choice {
        Choice::Fuse => Ok((fuse::profile_over(profile), refusals)),
        _ => Ok((profile, refusals)),
    }
}

fn scans(wish: &Wish, on: On<'_>) -> Result<Scans, CollectError> {
    match wish.ignored.is_empty() {
        true => Ok(Scans::of(on.root, on.mount)),
        false => Err(CollectError::kernel("leave accessors out")(io::Error::other(
            "ignore_accessors has no effect with scans, which do not know which process uses a file",
        ))),
    }
}

/// What a file server opens by handle, no directory's mark tells of.
///
/// # Errors
/// When the volume, or what lies above or below it, is exported.
fn exported(root: &Path) -> Result<(), CollectError> {
    match exports::of(root) {
        None => Ok(()),
        Some(path) => Err(CollectError::Exported(path)),
    }
}

/// The source that is asked beside the one that watches.
pub fn beside(watched: &Arc<Watched>) -> NfsServer {
    NfsServer::new(Arc::clone(watched))
}
