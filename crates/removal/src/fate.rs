//! What became of a candidate.

use std::io;

/// Why a candidate is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// A process used it since the plan was made.
    Accessed,
    /// It is not what it was when the plan was made.
    Changed,
    /// A hold keeps it.
    Held,
    /// It is not there any more.
    Gone,
    /// It has a name outside the volume, or one that the index does not know.
    Hardlinked,
    /// A process has it open, or came to open it while it was being taken.
    Open,
    /// A process has a lock on it, or on a directory above it.
    Locked,
    /// Another process holds a write lease on it.
    Leased,
    /// It is too deep, or its path too long.
    Deep,
    /// The trash has no place for it: a quota, or a limit of directories, is used up.
    Quota,
    /// Something is mounted on it, or it is mounted elsewhere, in any mount namespace.
    Mounted,
    /// Its names lie in more directories than the agent may have open together, or than it can look at in time.
    ManyNames,
    /// Not even root can remove it: it is immutable, append-only, encrypted, or has a name that is refused.
    Protected,
}

impl Skip {
    /// All there are.
    pub const ALL: [Self; 13] = [
        Self::Accessed,
        Self::Changed,
        Self::Held,
        Self::Gone,
        Self::Hardlinked,
        Self::Open,
        Self::Locked,
        Self::Leased,
        Self::Deep,
        Self::Quota,
        Self::Mounted,
        Self::Protected,
        Self::ManyNames,
    ];

    /// As the contract names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accessed => "accessed",
            Self::Changed => "changed",
            Self::Held => "held",
            Self::Gone => "gone",
            Self::Hardlinked => "hardlinked",
            Self::Open => "open",
            Self::Locked => "locked",
            Self::Leased => "leased",
            Self::Deep => "deep",
            Self::Quota => "quota",
            Self::Mounted => "mounted",
            Self::Protected => "protected",
            Self::ManyNames => "many_names",
        }
    }
}

/// What became of a candidate.
#[derive(Debug)]
pub enum Fate {
    /// Removed.
    Deleted,
    /// In the trash until its grace ends.
    Trashed,
    /// Left alone.
    Skipped(Skip),
    /// Something is wrong with the system, or it could not be put back.
    Failed(io::Error),
}

/// What became of a candidate, without why it failed: what is counted and written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Removed.
    Deleted,
    /// In the trash.
    Trashed,
    /// Left alone, and why.
    Skipped(Skip),
    /// Something is wrong with the system, or it could not be put back.
    Failed,
}

impl Code {
    /// The code of a fate.
    pub fn of(fate: &Fate) -> Self {
        match fate {
            Fate::Deleted => Self::Deleted,
            Fate::Trashed => Self::Trashed,
            Fate::Skipped(why) => Self::Skipped(*why),
            Fate::Failed(_) => Self::Failed,
        }
    }
}
