//! What rules, quotas and watermarks select, and what a plan says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod accounts;
mod announce;
mod forecast;
mod freed;
mod holds;
mod limits;
mod many_rules;
mod narrowed;
mod one_user;
mod overlapping;
mod patterns;
mod projects;
mod rules;
mod schedule;
mod shared_blocks;
mod standing;
mod why_kept;
