//! The values that every part of the agent speaks of: times, kinds, identities. No input, no output, no clock.
//!
//! - [`blind`] what a collector cannot see
//! - [`path`] paths that come from clients, by their words alone
//! - [`path_set`] many of them, asked for each entry of a walk
//! - [`totals`] how many entries of each kind, and their size

pub mod blind;
pub mod path;
pub mod path_set;
pub mod totals;

pub use totals::Totals;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Inode number within one volume. Identity of a file is its inode together with its birth time.
pub type Inode = u64;

/// A moment, in whole seconds since 1970-01-01 UTC.
///
/// Holds 1970 to 2106. Earlier moments become 1970 and later ones 2106, so that arithmetic cannot overflow:
/// a file from before 1970 is treated as a little younger than it is, one from after 2106 never expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The earliest moment there is.
    pub const MIN: Self = Self(0);
    /// The latest moment there is.
    pub const MAX: Self = Self(u32::MAX);

    /// The moment `secs` after 1970 (negative: before), clamped.
    pub fn from_unix(secs: i64) -> Self {
        Self(u32::try_from(secs.max(0)).unwrap_or(u32::MAX))
    }

    /// The moment of `time`, clamped.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        Self(u32::try_from(since).unwrap_or(u32::MAX))
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        i64::from(self.0)
    }

    /// How long before `now` this was, in seconds; 0 when it lies ahead.
    pub fn age_at(self, now: Self) -> u64 {
        u64::from(now.0.saturating_sub(self.0))
    }

    /// This moment moved by `secs` into the past, at most to 1970.
    pub fn minus(self, secs: u64) -> Self {
        Self(self.0.saturating_sub(u32::try_from(secs).unwrap_or(u32::MAX)))
    }

    /// This moment moved by `secs` into the future, at most to 2106.
    pub fn plus(self, secs: u64) -> Self {
        Self(self.0.saturating_add(u32::try_from(secs).unwrap_or(u32::MAX)))
    }
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file: the only kind that a file rule takes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link. Its use cannot be seen, so it is never a candidate by itself.
    Symlink,
    /// A socket, fifo or device: never a candidate, and keeps its directory from being one.
    Special,
}

/// Who says so of a time of last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// The start of observation: nothing is known of the time before.
    Baseline = 0,
    /// The agent saw the access.
    Observed = 1,
    /// The file system's access time, believed where the mount keeps it.
    Atime = 2,
    /// The modification time.
    Mtime = 3,
    /// The change time.
    Ctime = 4,
    /// The birth time.
    Birth = 5,
    /// The end of a stretch that was not observed.
    Gap = 6,
}

impl Source {
    /// The source with this number, as it is stored.
    pub fn from_u8(n: u8) -> Option<Self> {
        [
            Self::Baseline,
            Self::Observed,
            Self::Atime,
            Self::Mtime,
            Self::Ctime,
            Self::Birth,
            Self::Gap,
        ]
        .into_iter()
        .find(|s| *s as u8 == n)
    }
}

/// A time of last use and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastUse {
    /// When.
    pub at: Seconds,
    /// Who says so.
    pub source: Source,
}

/// The clocks among whose latest a rule finds a file's last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// What the agent observed (or believed when it first saw the file).
    pub access: bool,
    /// mtime.
    pub modify: bool,
    /// ctime.
    pub change: bool,
    /// Birth time.
    pub birth: bool,
}

impl Clocks {
    /// All four: the default.
    pub const ALL: Self = Self {
        access: true,
        modify: true,
        change: true,
        birth: true,
    };
}

impl Stat {
    /// Whether a time lies ahead of `now`: users can set them, and a clock may have been wrong.
    pub fn is_ahead(&self, now: Seconds) -> bool {
        [self.atime, self.mtime, self.ctime, self.birth]
            .into_iter()
            .any(|at| at > now)
    }
}

/// What the file system says of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: Inode,
    /// What it is.
    pub kind: Kind,
    /// Apparent size in bytes.
    pub size: u64,
    /// Bytes of disk it takes, as `du` counts.
    pub allocated: u64,
    /// Project id (`quota(5)`); 0 where the file system keeps none.
    pub project: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Number of names.
    pub links: u32,
    /// atime.
    pub atime: Seconds,
    /// mtime.
    pub mtime: Seconds,
    /// ctime.
    pub ctime: Seconds,
    /// The rest of ctime: a change within the same second must not go unseen.
    pub ctime_nanos: u32,
    /// Birth time; ctime where the file system keeps none.
    pub birth: Seconds,
}
