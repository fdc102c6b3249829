//! One candidate of an evaluation (values).

use super::portion::Portion;
use purge_index::DirId;
use purge_model::{Inode, LastUse, Seconds};

/// Why a symbolic link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It leads to nothing.
    Dangling,
    /// What it leads to goes by the same rule.
    WithTarget,
    /// It is old, whether its target exists or not.
    Expired,
}

impl Why {
    /// For a person.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Dangling => "a symbolic link that leads to nothing, and was not changed within the ttl",
            Self::WithTarget => {
                "a symbolic link whose target goes by the same rule, and was not changed within the ttl"
            }
            Self::Expired => "a symbolic link that was neither changed nor followed within the ttl",
        }
    }
}

/// What an entry is that may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An expired file.
    File,
    /// A directory in which everything has expired.
    Tree,
    /// A directory that is empty, or becomes empty when the candidates before it are deleted.
    EmptyDirectory,
    /// A symbolic link.
    Link(Why),
}

impl Shape {
    /// Whether it goes after the others, in an order of its own: it may depend on them.
    pub fn is_last(self) -> bool {
        matches!(self, Self::EmptyDirectory | Self::Link(_))
    }
}

/// One entry that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub ino: Inode,
    /// The directory that holds it (the first, if it has several names).
    pub parent: DirId,
    /// As what.
    pub shape: Shape,
    /// Its last use as the rule sees it.
    pub last: LastUse,
    /// When it was made.
    pub birth: Seconds,
    /// Apparent bytes that go with it.
    pub bytes: u64,
    /// Of the files that go with it: of each the smaller of its size and its space on the disk.
    pub takes: u64,
    /// Regular files that go with it.
    pub files: u32,
    /// Position of the rule in the evaluated rules.
    pub rule: u16,
}

impl Pick {
    /// What goes with it.
    pub fn portion(&self) -> Portion {
        Portion {
            files: self.files.into(),
            bytes: self.bytes,
            takes: self.takes,
        }
    }
}
