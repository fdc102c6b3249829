//! What each part of the running agent stands on.
//!
//! - [`clock`]    the agent's own time, which no step of the wall clock moves
//! - [`accounts`] user and group names -> ids
//! - [`secret`]   where secrets are, and who could read them
//! - [`sight`]    how much of a path one user may know
//! - [`descriptors`] who may have how many descriptors open
//! - [`handover`] event queues that outlive the process, in systemd's keeping or the parent's
//! - [`probe`]    whether a place on disk takes changes, looked at again and again
//! - [`pulse`]    a loop that shows that it goes round
//! - [`id`]       names for plans, runs and notices

pub mod accounts;
pub mod clock;
pub mod descriptors;
pub mod handover;
pub mod id;
pub mod probe;
pub mod pulse;
pub mod secret;
pub mod sight;
