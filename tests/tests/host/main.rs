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
mod container;
mod demo;
mod doctor;
mod handbook;
mod journal;
mod packages;
mod papers;
mod privileges;
mod structure;
mod systemd;
mod systemd_mount;
mod trial;
