//! Plans: what rules, quotas and watermarks ask for becomes a list of candidates.
//!
//! - `plans`     plans that rules ask for
//! - `triggered` plans that quotas and watermarks ask for
//! - `survey`    what only the file system knows: links, empty directories
//! - `sharing`   what deleting a file would free
//! - `drawn`     some of the files that a plan takes, to be looked for afterwards
//! - `window`    what quotas and watermarks may take within a day
//! - `patterns`  exclude patterns that match nothing

mod drawn;
mod patterns;
pub(super) mod plans;
pub(super) mod sharing;
pub(super) mod survey;
pub(super) mod triggered;
pub(super) mod window;

pub(super) use self::patterns::Looked;
