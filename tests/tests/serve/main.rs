//! What clients may ask, and what an answer may cost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod clients;
mod cut_off;
mod grpc;
mod kept_for_clients;
mod languages;
mod meaning;
mod metrics;
mod mine;
mod paths_from_clients;
mod questions;
mod roles;
mod taken;
mod tls;
