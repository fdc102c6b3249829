//! Which uses the agent records, of which files, and under which names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod accesses;
mod battery;
mod deaf;
mod directories;
mod names;
mod namespace;
mod nfs;
mod nfsd;
mod odd_files;
mod opened;
mod precision;
mod scans;
mod storm;
mod subvolumes;
mod takeover;
mod through;
mod through_killed;
mod through_programs;
mod through_race;
mod touched;
mod volumes;
mod window_ends;
