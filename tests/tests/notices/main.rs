//! How people learn of what happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod looked_at_before;
mod notices;
mod notices_broker;
mod notices_killed;
mod notices_mail;
