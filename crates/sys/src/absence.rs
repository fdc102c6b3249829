//! What an error says of the thing that a name or a handle stood for: one set of classes for all who look it up. Pure.
//!
//! What to make of a class differs: a scan forgets an entry, a run leaves a candidate alone, a client gets an error. Errors that say nothing of
//! the thing itself (no permission, a disk that fails) have no class.

use std::io;

use rustix::io::Errno;

/// Why something is not where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Nothing has this name (ENOENT).
    Missing,
    /// The handle leads to nothing any more (ESTALE).
    Stale,
    /// It, or something on the way to it, is not a directory, or is a symbolic link (ENOTDIR, ELOOP).
    Replaced,
    /// Another file system is mounted on it, or on the way to it (EXDEV).
    Covered,
}

impl Absence {
    /// None: the error says nothing of that.
    pub fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(errno) => Self::of_errno(errno),
            // What the agent itself found has no number.
            None => (error.kind() == io::ErrorKind::NotFound).then_some(Self::Missing),
        }
    }

    /// The same of an error number.
    pub fn of_errno(errno: Errno) -> Option<Self> {
        match errno {
            Errno::NOENT => Some(Self::Missing),
            Errno::STALE => Some(Self::Stale),
            Errno::NOTDIR | Errno::LOOP => Some(Self::Replaced),
            Errno::XDEV => Some(Self::Covered),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_and_one_of_the_agent_have_the_same_class() {
        let of = |errno: Errno| Absence::of(&errno.into());
        assert_eq!(of(Errno::NOENT), Some(Absence::Missing));
        assert_eq!(
            Absence::of(&io::ErrorKind::NotFound.into()),
            Some(Absence::Missing)
        );
        assert_eq!(of(Errno::STALE), Some(Absence::Stale));
        assert_eq!([of(Errno::NOTDIR), of(Errno::LOOP)], [Some(Absence::Replaced); 2]);
        assert_eq!(of(Errno::XDEV), Some(Absence::Covered));
        assert_eq!([of(Errno::ACCESS), of(Errno::IO)], [None; 2]);
    }
}
