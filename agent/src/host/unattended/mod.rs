//! What begins without a request.
//!
//! - [`due`]  rules whose time has come
//! - `limits` looks whether quotas and watermarks ask for a plan
//! - `served` until when schedules were served

pub mod due;
mod limits;
pub(super) mod served;
