//! Where files lie after a run took them, how they come back, and when they are freed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod figures;
mod freeing;
mod remembered;
mod restore_race;
mod stranded;
mod trash;
mod used_in_trash;
mod where_is_it;
