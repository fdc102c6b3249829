//! Local users who attack a daemon that is root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod adversary;
mod by_descriptor;
mod exhaustion;
mod exposed;
mod forged_place;
mod hostile_names;
mod hostile_output;
mod secrets;
