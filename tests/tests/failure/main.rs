//! Bad times of the host: full, slow, dead, starved, and everything at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ailing;
mod no_inotify;
mod pressure;
mod remounted;
mod replaced;
mod silent;
mod soak;
mod soak_full;
mod state_lost;
mod trouble;
mod two_agents;
