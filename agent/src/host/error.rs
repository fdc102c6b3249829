//! Why something that was asked cannot be done, and foreign words in such an answer.

use purge_index::StoreError;
use purge_removal::holds::HoldError;
use purge_removal::plans::PlanError;
use purge_removal::runs::RunError;

/// What was asked cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A name or value in the request is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// The request's field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing of this name.
    #[error("{0}")]
    NotFound(String),
    /// A safety limit, a stale plan, or a volume in doubt.
    #[error("{0}")]
    Refused(String),
    /// The caller may not do that.
    #[error("{0}")]
    Denied(String),
    /// More than the caller may have.
    #[error("{0}")]
    TooMuch(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PlanError> for HostError {
    fn from(e: PlanError) -> Self {
        match e {
            PlanError::Unknown(_) => Self::NotFound(e.to_string()),
            PlanError::Full(_) => Self::TooMuch(e.to_string()),
            PlanError::Busy(_) => Self::Refused(e.to_string()),
            PlanError::Store(e) => Self::Store(e),
        }
    }
}

impl From<RunError> for HostError {
    fn from(e: RunError) -> Self {
        match e {
            RunError::Unknown(_) => Self::NotFound(e.to_string()),
            RunError::Busy { .. } => Self::Refused(e.to_string()),
            RunError::Store(e) => Self::Store(e),
        }
    }
}

impl From<HoldError> for HostError {
    fn from(e: HoldError) -> Self {
        match e {
            HoldError::Unknown(_) => Self::NotFound(e.to_string()),
            HoldError::NotTheirs { .. } => Self::Denied(e.to_string()),
            HoldError::Full(_) => Self::TooMuch(e.to_string()),
            HoldError::Store(e) => Self::Store(e),
        }
    }
}

/// A path for a message.
pub fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// As much of a client's words, or of a path, as an error or a line of the log has room for: errors travel in the headers of an answer.
pub fn shown(words: &[u8]) -> String {
    lossy(&purge_proto::shown::cut(words, purge_proto::shown::LOGGED_MAX))
}
