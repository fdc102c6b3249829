//! Plans: what rules, quotas and watermarks ask for becomes a list of candidates.
//!
//! - `plans`     plans that rules ask for
//! - `triggered` plans that quotas and watermarks ask for
//! - `survey`    what only the file system knows: links, empty directories
//! - `sharing`   what deleting a file would free
//! - `withheld`  owners whose deleted files processes keep
//! - `window`    what quotas and watermarks may take within a day
//! - [`freed`]     what triggered runs free, and when they stop; `promised`: what was promised
//! - `patterns`  exclude patterns that match nothing

pub mod freed;
mod patterns;
pub(super) mod plans;
mod promised;
pub(super) mod sharing;
pub(super) mod survey;
pub(super) mod triggered;
pub(super) mod window;
pub(super) mod withheld;

pub(super) use self::patterns::Looked;
