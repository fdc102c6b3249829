//! The contract between `purge-agent` and everyone who speaks to it.
//!
//! [`v1`] holds the messages, client and server generated from `purge/v1/purge.proto`;
//! [`units`] parses and prints the durations and sizes that people write (`28d`, `10GB`);
//! [`shown`] is how text that others chose is shown.

pub mod shown;
pub mod units;

/// Messages, client and server of package `purge.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("purge.v1");
}

/// The encoded `FileDescriptorSet` of [`v1`], for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// In the refusal of a plan: apply refuses it because its rule or quota only tells, and not for a safety limit.
pub const ONLY_TELLS: &str = "has action \"notify\"";

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/purge-agent/agent.sock";
