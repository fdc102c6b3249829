//! What went wrong, and the exit code that says so.

use tonic::{Code, Status};

/// Exit codes.
pub mod exit {
    /// Done; with `plan --detailed-exitcode`: nothing to purge.
    pub const DONE: u8 = 0;
    /// An error.
    pub const ERROR: u8 = 1;
    /// A usage error; with `plan --detailed-exitcode` that is 1.
    pub const USAGE: u8 = 2;
    /// With `plan --detailed-exitcode`: something to purge.
    pub const SOMETHING: u8 = 2;
    /// Refused by a safety limit, or a stale plan; a plan that apply would refuse.
    pub const REFUSED: u8 = 3;
    /// The agent cannot be reached.
    pub const UNREACHABLE: u8 = 4;
    /// Some candidates failed.
    pub const PARTIAL: u8 = 5;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The agent cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The agent says no.
    #[error("{}", .0.message())]
    Agent(#[from] Status),
    /// No process reads the output any more.
    #[error("the output was closed")]
    Pipe,
    /// The output cannot be written.
    #[error("cannot print: {0}")]
    Output(std::io::Error),
    /// Interrupted by the user.
    #[error("{0}")]
    Interrupted(String),
    /// The run ended badly.
    #[error("{0}")]
    Run(String),
}

impl From<std::io::Error> for CtlError {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Pipe,
            _ => Self::Output(e),
        }
    }
}

impl CtlError {
    /// The same where the agent says which role a call needs: a person knows the command, not the call.
    #[must_use]
    pub fn of_command(self, command: &str) -> Self {
        match self {
            Self::Agent(status) if status.code() == Code::PermissionDenied => {
                let words = status.message().split_once(" needs the role ");
                let is_call = |call: &str| call.bytes().all(|b| b.is_ascii_alphanumeric());
                match words.filter(|(call, _)| is_call(call)) {
                    Some((_, rest)) => Self::Agent(Status::permission_denied(format!(
                        "`purgectl {command}` needs the role {rest}"
                    ))),
                    None => Self::Agent(status),
                }
            }
            other => other,
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Unreachable(_) => exit::UNREACHABLE,
            Self::Agent(status) => match status.code() {
                Code::FailedPrecondition => exit::REFUSED,
                Code::Unavailable => exit::UNREACHABLE,
                _ => exit::ERROR,
            },
            Self::Pipe => exit::DONE,
            Self::Output(_) | Self::Run(_) => exit::ERROR,
            Self::Interrupted(_) => exit::INTERRUPTED,
        }
    }
}
