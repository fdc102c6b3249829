//! What sources report, in values of the agent's own: a use of a file, and a hint that names changed. Pure.
//!
//! ```text
//!   fanotify record --fanotify::events--> Event { access?, change? } --collector--> Recorder, Namespace
//!   list of the NFS server --nfsd-------> Access                     -------------> Recorder
//! ```
//! A source knows more or less than another: [`By`] may be unknown, a [`Change`] may lack the entry. What it does not know is
//! said here, and every reader takes it for the case in which more files are kept.

use std::ops::{BitOr, BitOrAssign};
use std::os::fd::OwnedFd;

use purge_model::{Inode, Seconds};
use purge_sys::handle::Handle;

/// What was done to a file. Several at once where a source merges its reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acts(u8);

impl Acts {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Data was read, or the access time alone was set.
    pub const READ: Self = Self(1);
    /// Data was written, or the size or the modification time alone was set.
    pub const WRITE: Self = Self(1 << 1);
    /// It was opened.
    pub const OPEN: Self = Self(1 << 2);
    /// It was opened to be executed.
    pub const EXEC: Self = Self(1 << 3);
    /// A descriptor that could only read was closed.
    pub const CLOSE_READER: Self = Self(1 << 4);
    /// A descriptor that could write was closed.
    pub const CLOSE_WRITER: Self = Self(1 << 5);
    /// A client has it open, or may read it from a cache of its own.
    pub const HELD: Self = Self(1 << 6);
    /// What can be repeated without changing the file: precision windows may hide it.
    pub const REPEATABLE: Self = Self(Self::READ.0 | Self::OPEN.0 | Self::EXEC.0 | Self::CLOSE_READER.0);

    /// Whether any of `others` is among them.
    #[inline]
    pub const fn any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether all of `others` are among them.
    #[inline]
    pub const fn all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether nothing but `others` is among them.
    #[inline]
    pub const fn only(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// These and the others.
    #[inline]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOr for Acts {
    type Output = Self;

    #[inline]
    fn bitor(self, others: Self) -> Self {
        self.and(others)
    }
}

impl BitOrAssign for Acts {
    #[inline]
    fn bitor_assign(&mut self, others: Self) {
        *self = self.and(others);
    }
}

/// Who did it, as far as the source knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By(i32);

impl By {
    /// The source does not know, or this process cannot see the other one.
    pub const UNKNOWN: Self = Self(0);

    /// The process with this number. Another process may have the number when the report is read.
    #[inline]
    pub const fn process(number: i32) -> Self {
        Self(number)
    }

    /// The process's number; 0 if unknown.
    #[inline]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether two reports may be of two processes. Nothing says that two unknown ones are the same.
    #[inline]
    pub const fn may_differ(self, other: Self) -> bool {
        self.0 != other.0 || self.0 == Self::UNKNOWN.0
    }
}

/// A file was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The file. A source that knows a name alone looks it up in the index first; an entry that is not there counts as used when
    /// it is taken in.
    pub inode: Inode,
    /// The latest moment at which it may have been used: of a source that knows an interval, its end. Late, never early.
    pub at: Seconds,
    /// Who.
    pub by: By,
    /// How.
    pub what: Acts,
}

/// What happened to names, or to the metadata of an inode. Several at once where a source merges its reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes(u8);

impl Changes {
    /// An entry was made in a directory.
    pub const MADE: Self = Self(1);
    /// An entry was removed from a directory.
    pub const REMOVED: Self = Self(1 << 1);
    /// An entry was moved.
    pub const MOVED: Self = Self(1 << 2);
    /// The inode itself was deleted.
    pub const DELETED: Self = Self(1 << 3);
    /// Metadata of the inode changed.
    pub const METADATA: Self = Self(1 << 4);
    /// Those that name a place.
    pub const NAMES: Self = Self(Self::MADE.0 | Self::REMOVED.0 | Self::MOVED.0);

    /// Whether any of `others` is among them.
    #[inline]
    pub const fn any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// These and the others.
    #[inline]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These, as far as they are among `others`.
    #[inline]
    pub const fn within(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}

impl BitOr for Changes {
    type Output = Self;

    #[inline]
    fn bitor(self, others: Self) -> Self {
        self.and(others)
    }
}

/// An inode, and how it is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its number, which another inode may have later.
    pub ino: Inode,
    /// Its handle, which leads to this inode alone.
    pub handle: Handle,
}

/// A file that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Its number.
    pub ino: Inode,
    /// Its handle, where the source tells it. Without one it is found by the names that the index has of it.
    pub handle: Option<Handle>,
}

impl Used {
    /// Known by its number alone.
    pub const fn by_number(ino: Inode) -> Self {
        Self { ino, handle: None }
    }
}

impl From<Node> for Used {
    #[inline]
    fn from(Node { ino, handle }: Node) -> Self {
        Self {
            ino,
            handle: Some(handle),
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The directory.
    pub dir: Node,
    /// The entry's name; empty or "." for the directory itself.
    pub name: &'a [u8],
}

/// A hint that names or metadata changed. The collector looks at what it names, and believes what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// What happened.
    pub kinds: Changes,
    /// The entry itself, where it is known.
    pub of: Option<Node>,
    /// Where it lies.
    pub place: Option<Place<'a>>,
    /// For a move: where it lay before.
    pub old: Option<Place<'a>>,
    /// For a move: where it lies now.
    pub new: Option<Place<'a>>,
}

impl Change<'_> {
    /// Where reports name no process: the agent itself, while it takes a file, moves it away and does nothing else to it.
    pub fn is_of_others(&self) -> bool {
        self.new.is_some() || self.kinds.any(Changes::METADATA | Changes::MADE)
    }
}

/// One report of a source that has a queue.
#[derive(Debug)]
pub struct Event<'a> {
    /// Reports were dropped: what they told is unknown.
    pub is_loss: bool,
    /// Who.
    pub by: By,
    /// A descriptor of exactly that process, where the source gives one and the process was alive.
    pub process: Option<OwnedFd>,
    /// Names or metadata changed.
    pub change: Option<Change<'a>>,
    /// A file was used: how, and which. None for a directory that is listed: that uses no file.
    pub access: Option<(Acts, Used)>,
}
