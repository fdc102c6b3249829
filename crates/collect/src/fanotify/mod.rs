//! Events of `fanotify(7)`: one mark on the file system, or one on each directory. The kernel's masks, records and file handles end here.
//!
//! - [`decode`]  event records -> [`decode::Record`] (pure)
//! - [`layout`]  file handle -> inode, for each file system's layout (pure)
//! - [`learnt`]  the same for other layouts: the file is opened by its handle
//! - `events`    a record -> [`Event`](crate::event::Event)
//! - `hiding`    ignore marks of files beside marks of directories
//! - `queue`     the kernel's queue, as the collector's thread reads it
//! - `trees`     marks of directories, where the file system cannot be marked as a whole
//! - `watching`  the source: armed, taken over, running

pub mod decode;
mod events;
mod hiding;
pub mod layout;
pub mod learnt;
mod queue;
mod trees;
mod watching;

pub(crate) use self::events::acts;
pub use self::watching::{Armed, Wish};
