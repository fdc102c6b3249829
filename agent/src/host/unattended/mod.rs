//! What begins without a request.
//!
//! - [`due`]  rules whose time has come
//! - `served` until when schedules were served

pub mod due;
pub(super) mod served;
