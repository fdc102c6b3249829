//! The kernel's words (`linux/fuse.h`, version 7.31 and later). Pure.
//!
//! - [`request`]  bytes -> [`Request`]
//! - [`answer`]   what is answered -> bytes
//! - [`opening`]  the first exchange: what both sides can

pub mod answer;
pub mod opening;
pub mod request;

pub use self::answer::Answer;
pub use self::request::{Head, Op, Request};
