//! Answers that change nothing.
//!
//! - [`forecast`]  what will expire, and which limits will be reached; `growth`: how much there was before
//! - [`mine`]      what will expire soon, by owner
//! - [`questions`] what can be asked of one path

pub mod forecast;
pub(super) mod growth;
pub mod mine;
pub mod questions;
