//! Events of `inotify(7)`: a watch on each directory, for hosts where fanotify cannot be had (old container profiles) and file systems that
//! give no ids. What is done is told by name; by which process is not, and each use is an event of its own: no precision windows.
//!
//! - [`decode`]  bytes -> [`decode::Record`] (pure)
//! - `events`    records -> [`Event`](crate::event::Event)
//! - `watching`  the source: armed, then running
//!
//! The crate `notify` is not used for this: see the decision "a watch of our own" in `docs/decisions`.

pub mod decode;
mod events;
mod watching;

pub(crate) use self::watching::Armed;
