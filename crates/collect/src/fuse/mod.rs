//! The source of volumes that users come to through a mount of the agent's (`purge-agent mount`).
//!
//! ```text
//!   user --open--> mount (a process of its own) --1. tells--> told/N (in the page cache) --> told --> recorder
//!                    └--2. opens the file behind, answers          fanotify, inotify: what happens behind --> as ever
//! ```
//! - [`told`]     what the mount tells: a log that both processes survive
//! - [`asking`]   what the agent asks the mount while it takes files
//! - `watching`   the source: what watches the file system behind, and the log beside it
//!
//! What may never happen: an open that was answered and is not in the log. Beside the log, what lies behind is watched as without a mount: so a
//! process that goes around the mount is seen as well, and names are known.

pub mod asking;
pub mod told;
mod watching;

pub(crate) use self::watching::{Armed, profile_over};
