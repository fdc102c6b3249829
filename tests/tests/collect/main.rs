//! Which uses the agent records, of which files, and under which names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod accesses;
mod deaf;
mod names;
mod namespace;
mod nfs;
mod nfsd;
mod odd_files;
mod precision;
mod scans;
mod storm;
mod subvolumes;
mod touched;
mod volumes;
