//! Why uses cannot be collected, and what is unknown because of it.

use std::io;
use std::path::PathBuf;

use purge_index::StoreError;
use purge_model::Seconds;

/// Why a collector cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The kernel does not give what is needed.
    #[error("cannot {doing}: {source}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The index cannot take the events.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel dropped events, so accesses may be unknown.
    #[error("the kernel's event queue overflowed")]
    Overflow,
    /// More events waited than may lie in the kernel's memory: they were let go.
    #[error("{0} events waited, more than the memory of this host allows, and were dropped")]
    Backlog(u64),
    /// More names changed than can be followed. No use is lost by that, but where files lie.
    #[error("more names changed than can be followed; a scan looks where everything is")]
    Names {
        /// Since when.
        since: Seconds,
    },
    /// A file that was used cannot be opened, by which it would be known which one it is.
    #[error("a file was used and cannot be opened, so it is not known which one it is: {0}")]
    Unopened(io::Error),
    /// A process was killed while it read events, and what they told is lost with it.
    #[error("an earlier process was killed while it read events, and what they told is not known")]
    HalfRead,
    /// An earlier process watched in another way, and what it was told cannot be read.
    #[error("what an earlier process was told, which watched in another way, cannot be read: {0}")]
    Former(String),
    /// No way to watch is left.
    #[error("it cannot be watched: {}", .0.join("; "))]
    NoWay(Vec<String>),
    /// What NFS clients do there would not be seen.
    #[error("{} is exported by an NFS server, whose opens by file handle no mark of a directory tells of", .0.display())]
    Exported(PathBuf),
    /// What the source writes cannot be read.
    #[error("{0}")]
    Decode(String),
}

impl CollectError {
    /// For `map_err`: what the kernel said to something.
    pub fn kernel(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Kernel { doing, source }
    }

    /// What is unknown because of it.
    pub fn leaves_unknown(&self) -> Unknown {
        match self {
            Self::Overflow
            | Self::Backlog(_)
            | Self::Decode(_)
            | Self::Unopened(_)
            | Self::HalfRead
            | Self::Former(_) => Unknown::Uses,
            Self::Names { since } => Unknown::Names(*since),
            Self::Kernel { .. } | Self::Store(_) | Self::NoWay(_) | Self::Exported(_) => {
                Unknown::WhileItLasts
            }
        }
    }
}

/// What an error leaves unknown. Each is a gap of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Uses until now: every file counts as used now.
    Uses,
    /// Where files lie, since this moment. Every use was recorded.
    Names(Seconds),
    /// Everything for as long as the error comes again; the collector goes on trying.
    WhileItLasts,
}
