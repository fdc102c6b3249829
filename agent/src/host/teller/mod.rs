//! What people are told.
//!
//! - [`announce`] publishes what announcing rules will take; `lists`: as files for people
//! - [`lookout`]  looks at what the agent knows, and sends notices of it

pub mod announce;
mod lists;
pub mod lookout;
