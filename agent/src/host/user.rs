//! An ordinary user who asks for what is theirs.
//!
//! That something is another's, and that it is not there, is answered with the same words, after the same work.

use super::{HostError, shown};

/// Who asks for what is theirs.
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// Which user.
    pub uid: u32,
    /// As they stand in records.
    pub name: &'a str,
    /// Their groups.
    pub gids: &'a [u32],
}

/// What lies in no volume is not theirs either.
pub(super) fn hidden<T>(error: HostError, path: &[u8], uid: u32) -> Result<T, HostError> {
    match error {
        HostError::NotFound(_) => Err(not_theirs(path, uid)),
        other => Err(other),
    }
}

/// Nothing of theirs is there.
pub(super) fn not_theirs(path: &[u8], uid: u32) -> HostError {
    HostError::Denied(format!(
        "uid {uid} owns nothing that is watched at {}",
        shown(path)
    ))
}
