//! Where uses come from: from what the kernel reports to the index.
//!
//! ```text
//!   source (fanotify: queue, decode) --> Event { access?, change? }
//!      access:   --> recorder --> Index, Journal;  doubt (was it one?) --> recorder
//!      change:   --> pending --> namespace (what is there now?) --> Index::upsert, remove_name, refresh
//! ```
//! - [`source`]    what a source is to a volume: what it can, what it cannot see
//! - [`arming`]    which source a volume gets
//! - [`event`]     what sources report: uses, and hints that names changed (pure)
//! - [`exports`]   whether an NFS server exports a volume
//! - [`recorder`]  the one door through which a use enters index and journal
//! - [`fanotify`]  the source of volumes: marks, queue, records, file handles
//! - [`descriptors`] the same where there are no file ids: the kernel opens each file that was used
//! - [`fuse`]      the source of volumes that users come to through a mount of the agent's
//! - [`inotify`]   the source where fanotify cannot be had
//! - [`blindness`] what both do not see that watch directories
//! - [`nfsd`]      the second source: what clients of the kernel's NFS server hold
//! - [`scans`]    the source of volumes that nothing reports uses of
//! - [`collector`] the thread that reads a queue, and what it answers to
//! - [`error`]     why uses cannot be collected, and what is unknown because of it
//! - [`doubt`]     which events are uses: metadata changes look alike (pure)
//! - [`changes`]   who changed the metadata of a file (pure)
//! - [`accessors`] whose reads do not count
//! - [`precision`] files that are used again and again cost nothing for the rest of a window
//! - [`pending`] what events named and was not looked at yet (pure)
//! - [`namespace`] looks again at every place an event named
//! - [`unnamed`]  files in doubt, where events of names do not say which file they are of (pure)
//! - [`places`]   which file lies at a name, where reports name places alone
//! - [`reach`]    how what a report named is opened
//! - [`locks`]    whose lock on a directory keeps what is below it
//! - `flocks`     what processes of a user have open with a lock
//! - [`open_files`] what processes have open
//! - [`listeners`] who decides on the opens of others
//! - [`mounted`] what is mounted in any namespace, of which no event tells
//! - [`entries`]   one entry, taken into the index
//! - [`whereabouts`] where an inode lies now, independent of what the events said
//! - [`projects`] project ids, where they are used
//! - [`progress`] until when everything was read
//! - [`trashed`] what is used in the trash
//! - [`altered`] what others rename or change while a run takes files
//! - `takeover`  the queue of an earlier process that watched in another way
//! - [`tree`]    directories that are watched one by one
//! - [`touched`] who keeps files alive without using them
//!
//! What may never happen: an access that was read from the queue and is in no index, or is there with a time
//! before it happened. Times are taken when events are read: late, never early.

pub mod accessors;
pub mod altered;
pub mod arming;
pub mod atimes;
pub mod blindness;
pub mod changes;
pub mod collector;
pub mod descriptors;
pub mod doubt;
pub mod entries;
pub mod error;
pub mod event;
pub mod exports;
pub mod fanotify;
mod flocks;
pub mod fuse;
pub mod inotify;
pub mod listeners;
pub mod locks;
pub mod mounted;
pub mod namespace;
pub mod nfsd;
pub mod open_files;
pub mod pending;
pub mod places;
pub mod precision;
pub mod progress;
pub mod projects;
pub mod reach;
pub mod recorder;
pub mod scans;
pub mod source;
mod takeover;
pub mod touched;
pub mod trashed;
pub mod tree;
pub mod unnamed;
pub mod whereabouts;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashSet;

use self::projects::Projects;
use purge_base::pulse::Pulse;
use purge_index::journal::Journal;
use purge_index::{DirId, Index};
use purge_model::Inode;
use purge_sys::beneath;
use purge_sys::leads::Links;
use purge_sys::stat::{self, Device};

/// The name of the trash at a volume's root.
pub const TRASH: &str = ".purge-agent-trash";

/// One watched volume: what the collector, the scan and everyone who asks share.
#[derive(Debug)]
pub struct Watched {
    /// The volume's root.
    pub path: PathBuf,
    /// Its device: entries on others lie behind mount points.
    pub device: Device,
    /// Directories that are not the users' (the agent's own state): neither indexed nor entered.
    pub own: Vec<Inode>,
    /// The trash, while there is one: neither indexed nor entered. 0: none.
    pub trash: AtomicU64,
    /// What lies in the trash and is used there.
    pub trashed: trashed::Trashed,
    /// What others rename or change while a run takes files.
    pub altered: altered::Altered,
    /// How reads of its files are known.
    pub reads: source::Reads,
    /// What watches it opens each file that was used: a lease of our own on the file would break by that.
    pub opens_what_is_used: bool,
    /// What watches it tells the agent's own uses from those of others. Elsewhere an open of what a run takes may be either.
    pub knows_own: bool,
    /// A process of the agent's uses its files for many users: what events call one process may be several.
    pub is_used_for_others: bool,
    /// The mount by which users come, where there is one.
    pub asker: fuse::asking::Asker,
    /// Which directories are watched, where each is watched by itself. None: the file system is watched as a whole, or by scans.
    pub tree: Option<Arc<tree::Tree>>,
    /// What is known of its files.
    pub index: RwLock<Index>,
    /// Whether it uses project ids.
    pub projects: Projects,
    /// Whose files are kept alive without being used.
    pub touched: touched::Owners,
    /// Held by a thread that counts usage again.
    pub counting: Mutex<()>,
    /// Uses that were read from the kernel's queue, for the case that this process is killed.
    pub journal: Journal,
    /// Locks on directories that were met.
    pub locks: locks::Locks,
    /// What is in use by mounts.
    pub mounted: mounted::Mounted,
    /// Directories that came in from outside the volume and must be listed.
    pub unlisted: Mutex<Vec<DirId>>,
    /// Files with several names, of which the index may have one too many.
    pub doubtful_links: Mutex<FxHashSet<Inode>>,
    /// What happened so far.
    pub counters: Counters,
}

impl Watched {
    /// Whether a directory is the agent's and not the users'.
    pub fn is_own(&self, ino: Inode) -> bool {
        self.own.contains(&ino) || self.trash.load(std::sync::atomic::Ordering::SeqCst) == ino
    }

    /// Whether a name is that of the trash: between its making and the moment in which the agent knows its inode only this tells it. What a user
    /// has put in its place is set aside by another name, and known by that.
    pub fn is_trash(&self, dir: DirId, name: &[u8]) -> bool {
        dir == DirId::ROOT && name == TRASH.as_bytes()
    }

    /// Opens the volume's root as an anchor for paths. Hold it briefly: it keeps the file system mounted.
    ///
    /// # Errors
    /// What `open(2)` says, and when another file system lies there: nothing must be looked for in that.
    pub fn open_root(&self) -> io::Result<OwnedFd> {
        self.checked(beneath::open_root(&self.path)?)
    }

    /// Opens the volume's root as the mount that file handles belong to. Hold it briefly.
    ///
    /// # Errors
    /// As for [`Watched::open_root`].
    pub fn open_mount(&self) -> io::Result<OwnedFd> {
        self.checked(beneath::open_mount(&self.path)?)
    }

    /// Its symbolic links, to be looked at. Hold it briefly.
    ///
    /// # Errors
    /// As for [`Watched::open_root`].
    pub fn links(&self) -> io::Result<Links> {
        let mut own = self.own.clone();
        own.push(self.trash.load(std::sync::atomic::Ordering::SeqCst));
        Ok(Links::of(self.open_root()?, self.device, &self.path, own))
    }

    fn checked(&self, root: OwnedFd) -> io::Result<OwnedFd> {
        // A server that is silent is not asked.
        match stat::which(&root)?.device == self.device {
            true => Ok(root),
            false => Err(io::Error::new(
                io::ErrorKind::StaleNetworkFileHandle,
                "another file system lies there: is the volume mounted?",
            )),
        }
    }
}

/// Counted since the agent started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events read.
    pub events: AtomicU64,
    /// Events that the agent itself made. They are in no other figure.
    pub own: AtomicU64,
    /// Events the kernel dropped, at least.
    pub lost: AtomicU64,
    /// Records that could not be decoded.
    pub undecodable: AtomicU64,
    /// Accesses that moved no clock: the recorded use was as late already.
    pub folded: AtomicU64,
    /// Accesses by processes whose reads do not count.
    pub ignored: AtomicU64,
    /// Recordings that were taken back as metadata changes.
    pub taken_back: AtomicU64,
    /// Until when everything that was queued is in the index and in the journal. 0: not yet known.
    pub seen_until: AtomicU32,
    /// Rounds of the collector.
    pub pulse: Pulse,
}
