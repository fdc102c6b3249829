//! From kernel events to the index.
//!
//! ```text
//!   kernel queue --read--> fanotify::decode --> Event
//!      access group:      Event --> doubt (what was it?) --> Index::record_use
//!      namespace group:   Event --> namespace (what is there now?) --> Index::upsert, remove_name, refresh
//! ```
//! - [`fanotify`]  decoding records and file handles (pure)
//! - [`doubt`]     which events are uses: metadata changes look alike (pure)
//! - [`namespace`] looks again at every place an event named
//! - [`collector`] the thread that reads, and what it answers to
//!
//! What may never happen: an access that was read from the queue and is in no index, or is there with a time
//! before it happened. Times are taken when events are read: late, never early.

pub mod collector;
pub mod doubt;
pub mod fanotify;
pub mod namespace;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::index::{DirId, Index};
use crate::model::Inode;
use crate::sys::stat::Device;

/// One watched volume: what the collector, the scan and everyone who asks share.
#[derive(Debug)]
pub struct Watched {
    /// The volume's root.
    pub path: PathBuf,
    /// Its device: entries on others lie behind mount points.
    pub device: Device,
    /// Directories that are not the users' (the agent's own state): neither indexed nor entered.
    pub own: Vec<Inode>,
    /// What is known of its files.
    pub index: RwLock<Index>,
    /// Directories that came in from outside the volume and must be listed.
    pub unlisted: Mutex<Vec<DirId>>,
    /// What happened so far.
    pub counters: Counters,
}

/// Counted since the agent started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events read.
    pub events: AtomicU64,
    /// Events the kernel dropped, at least.
    pub lost: AtomicU64,
    /// Records that could not be decoded.
    pub undecodable: AtomicU64,
    /// Recordings that were taken back as metadata changes.
    pub taken_back: AtomicU64,
}
