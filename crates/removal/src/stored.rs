//! The stored form of values that records share: counts, failures, moments.
//!
//! A record is a protobuf message of its own in the index store. Its field numbers are fixed: a state directory of an older agent must
//! open, so fields are only added, and an older agent ignores what it does not know. The messages of the contract (`purge.v1`) once were
//! these records; that is why their numbers agree. A change of the contract does not change them.

use prost::Message;
use prost_types::Timestamp;

use purge_index::StoreError;
use purge_model::{Seconds, Totals};
use purge_sys::failure::Failure;

/// A record that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damaged {
    /// Its bytes are no message.
    #[error("the record is damaged: {0}")]
    Bytes(#[from] prost::DecodeError),
    /// Something that every record has is not there.
    #[error("the record is damaged: it has no {0}")]
    Lacks(&'static str),
    /// A number stands for nothing.
    #[error("the record is damaged: {0} is no {1}")]
    Unknown(i32, &'static str),
}

impl Damaged {
    /// As an error of the store. `doing` says what was read: "read a plan".
    pub(crate) fn into_error(self, doing: &'static str) -> StoreError {
        StoreError::Call {
            failure: Failure::Other,
            doing,
            why: self.to_string(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StoredTotals {
    #[prost(uint64, tag = "1")]
    files: u64,
    #[prost(uint64, tag = "2")]
    directories: u64,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(uint64, tag = "4")]
    links: u64,
    #[prost(uint64, tag = "5")]
    files_inside: u64,
}

impl From<Totals> for StoredTotals {
    fn from(t: Totals) -> Self {
        Self {
            files: t.files,
            directories: t.directories,
            bytes: t.bytes,
            links: t.links,
            files_inside: t.files_inside,
        }
    }
}

/// What is not there is nothing: a run that put nothing back has no record of it.
pub(crate) fn totals(stored: Option<StoredTotals>) -> Totals {
    stored.map_or_else(Totals::default, |t| Totals {
        files: t.files,
        directories: t.directories,
        bytes: t.bytes,
        links: t.links,
        files_inside: t.files_inside,
    })
}

/// A moment as it is stored.
pub(crate) fn timestamp(at: Seconds) -> Timestamp {
    Timestamp {
        seconds: at.unix(),
        nanos: 0,
    }
}

/// A moment as it was stored.
pub(crate) fn seconds(stored: Timestamp) -> Seconds {
    Seconds::from_unix(stored.seconds)
}

/// Words that are stored as empty where there are none.
pub(crate) fn words(stored: String) -> Option<String> {
    (!stored.is_empty()).then_some(stored)
}
