//! What may go wrong with the store.

use std::path::PathBuf;

use crate::codec::VERSION;
use purge_format::Damaged;
use purge_sys::failure::Failure;
use purge_sys::private::shown;

/// What may go wrong with the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be opened.
    #[error("cannot open the index at {}: {why}", shown(path).display())]
    Open {
        /// Where it lies.
        path: PathBuf,
        /// What the store says.
        why: String,
        /// It makes no sense any more: opening it again will not help.
        damaged: bool,
        /// What that says of its file system.
        failure: Failure,
    },
    /// What lies in the store makes no sense.
    #[error("the index store is damaged, it cannot {doing}: {why}")]
    Corrupt {
        /// What was being done.
        doing: &'static str,
        /// What the store says.
        why: String,
    },
    /// The store was closed after an error and could not be opened again yet.
    #[error("the index store is closed and cannot {doing}")]
    Closed {
        /// What was to be done.
        doing: &'static str,
    },
    /// A call failed.
    #[error("the index store cannot {doing}: {why}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the store says.
        why: String,
        /// What that says of its file system.
        failure: Failure,
    },
    /// A call does not end.
    #[error("the index store does not answer and cannot {doing}")]
    Silent {
        /// What was to be done.
        doing: &'static str,
    },
    /// The store panicked; it must not be used any more.
    #[error("the index store panicked while it was to {doing}")]
    Panicked {
        /// What was being done.
        doing: &'static str,
    },
    /// A row was written by another version.
    #[error("the index has format version {found}, this agent writes {VERSION}")]
    Version {
        /// The row's first byte.
        found: u8,
    },
    /// A row makes no sense.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl StoreError {
    /// Whether the store's content is in doubt: then it must be set aside and rebuilt. A full or read-only disk is no
    /// such reason.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Open { damaged, .. } => *damaged,
            Self::Corrupt { .. } | Self::Panicked { .. } | Self::Version { .. } | Self::Damaged(_) => true,
            Self::Call { .. } | Self::Closed { .. } | Self::Silent { .. } => false,
        }
    }

    /// What it says of the file system on which the store lies.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Open { failure, .. } | Self::Call { failure, .. } => *failure,
            Self::Silent { .. } => Failure::Silent,
            _ => Failure::Other,
        }
    }
}
