//! What runs promised to free, and what became of it: sums that `STATE_DIR/freed` keeps.

use prost::Message;
use purge_proto::units::{format_count, format_size};

use purge_policy::freed::{Amount, Verdict, judge};

/// What was promised, and what became of it.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Sum {
    #[prost(uint64, tag = "1")]
    pub promised_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub promised_files: u64,
    #[prost(uint64, tag = "3")]
    pub freed_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub freed_files: u64,
    /// Apparent bytes that were deleted.
    #[prost(uint64, tag = "5")]
    pub deleted_bytes: u64,
    #[prost(uint64, tag = "6")]
    pub deleted_files: u64,
    #[prost(bool, tag = "7")]
    pub wants_bytes: bool,
    #[prost(bool, tag = "8")]
    pub wants_files: bool,
}

impl Sum {
    pub fn promised(self) -> Amount {
        Amount {
            bytes: self.promised_bytes,
            files: self.promised_files,
        }
    }

    pub fn freed(self) -> Amount {
        Amount {
            bytes: self.freed_bytes,
            files: self.freed_files,
        }
    }

    pub fn plus(self, o: Self) -> Self {
        let (promised, freed) = (self.promised().plus(o.promised()), self.freed().plus(o.freed()));
        Self {
            promised_bytes: promised.bytes,
            promised_files: promised.files,
            freed_bytes: freed.bytes,
            freed_files: freed.files,
            deleted_bytes: self.deleted_bytes.saturating_add(o.deleted_bytes),
            deleted_files: self.deleted_files.saturating_add(o.deleted_files),
            wants_bytes: self.wants_bytes || o.wants_bytes,
            wants_files: self.wants_files || o.wants_files,
        }
    }

    pub fn verdict(self) -> Verdict {
        judge(
            self.promised(),
            self.freed(),
            (self.wants_bytes, self.wants_files),
        )
    }

    /// Without what is not expected to come free.
    pub fn without(self, bytes: u64, files: u64) -> Self {
        Self {
            promised_bytes: self.promised_bytes.saturating_sub(bytes),
            promised_files: self.promised_files.saturating_sub(files),
            ..self
        }
    }

    /// What was deleted and came free, for a person.
    pub fn in_words(self) -> String {
        let deleted = format_size(self.deleted_bytes.max(self.promised_bytes));
        match self.wants_bytes {
            true => format!("deleted {deleted}, {} came free", format_size(self.freed_bytes)),
            false => format!(
                "deleted {} files, {} inodes came free",
                format_count(self.promised_files),
                format_count(self.freed_files)
            ),
        }
    }
}
