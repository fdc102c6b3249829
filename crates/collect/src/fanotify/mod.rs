//! Events of `fanotify(7)`: one mark on the file system. The kernel's masks, records and file handles end here.
//!
//! - [`decode`]  event records -> [`decode::Record`] (pure)
//! - [`layout`]  file handle -> inode, for each file system's layout (pure)
//! - `events`    a record -> [`Event`](crate::event::Event) (pure)
//! - `queue`     the kernel's queue, as the collector's thread reads it
//! - `watching`  the source: armed, taken over, running

pub mod decode;
mod events;
pub mod layout;
mod queue;
mod watching;

pub use self::watching::{Armed, Wish};
