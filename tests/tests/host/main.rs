//! The programs on their host: command line, configuration, packages, systemd, documents.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attention;
mod cli;
mod config;
mod demo;
mod doctor;
mod handbook;
mod journal;
mod packages;
mod papers;
mod structure;
mod systemd;
mod trial;
