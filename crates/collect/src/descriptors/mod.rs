//! Events of `fanotify(7)` that carry a descriptor of the file: for kernels and file systems without file ids.
//!
//! - [`record`]  what stands in the buffer for each event: which file it is of (pure)
//! - `queue`     the kernel's queue, as the collector's thread reads it
//! - `watching`  the source: armed, taken over, running
//!
//! The kernel opens the file of each event that is read. So a read may wait for a file server; it fails where the file cannot be opened, and a
//! lease on the file breaks. No event tells of names: scans find them.
//!
//! What may never happen: an event that was taken from the queue, and is neither recorded nor told as a loss.

mod queue;
pub mod record;
mod watching;

pub use self::watching::Armed;
