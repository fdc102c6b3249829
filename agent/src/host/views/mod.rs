//! Answers that change nothing.
//!
//! - [`attention`] what needs an operator, and what happens next
//! - [`forecast`]  what will expire, and which limits will be reached; `growth`: how much there was before
//! - [`standing`]  what subjects of quotas use; [`calendar`]: what runs when
//! - [`mine`]      what will expire soon, by owner
//! - [`questions`] what can be asked of one path; `own`: the same by users, of what is theirs

pub mod attention;
pub mod calendar;
pub mod forecast;
mod growth;
pub mod mine;
pub(super) mod own;
pub mod questions;
pub mod standing;
