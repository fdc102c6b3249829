//! What a run deletes, and what it leaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod apply;
mod archive;
mod archive_killed;
mod archive_race;
mod deep;
mod descriptors;
mod emptied;
mod fair;
mod full;
mod guard;
mod kept_dirs;
mod killed_apply;
mod late;
mod links;
mod locks;
mod mounted;
mod once;
mod once_far;
mod race;
mod recovery;
mod several;
mod unleased;
mod zfs;
