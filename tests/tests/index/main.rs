//! What the index knows, and still knows after stops, kills, power cuts and gaps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ahead;
mod baselines;
mod damage;
mod gaps;
mod killed;
mod parent;
mod reboot;
mod restart;
mod state;
mod store;
mod unreadable;
mod upgrade;
mod usage;
