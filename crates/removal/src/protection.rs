//! What keeps a file that a process comes to use in the moment of its removal.

use std::path::Path;

use parking_lot::Mutex;

use purge_sys::{beneath, lease, stat};

/// Where no leases are given, what is taken stays in the trash for this long at least.
const UNGUARDED_GRACE_SECONDS: u64 = 24 * 3600;

/// What keeps a file that a process comes to use in the moment of its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A process that opens it waits, and is found.
    Leases,
    /// The file system gives no leases. Users who come by a mount of the agent's wait there, and are found; for others the trash keeps it for a while.
    Requests,
    /// The file system gives no leases: the trash keeps it for a while.
    Grace,
}

impl Guard {
    /// In the contract's words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Requests => "requests",
            Self::Grace => "grace",
        }
    }

    /// The guard of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Leases, Self::Requests, Self::Grace]
            .into_iter()
            .find(|guard| guard.name() == name)
    }

    /// Seconds that what is taken stays in the trash at least.
    pub fn least_grace(self) -> u64 {
        match self {
            Self::Leases => 0,
            Self::Requests | Self::Grace => UNGUARDED_GRACE_SECONDS,
        }
    }
}

/// The guard that a volume's file system had when it was asked last.
#[derive(Debug, Default)]
pub struct LastGuard(Mutex<Option<Guard>>);

impl LastGuard {
    /// The guard as it was found last: asking makes a file, which those who only want to know should not.
    pub fn last(&self, root: &Path) -> Guard {
        if !lease::are_enabled() {
            return Guard::Grace;
        }
        let last = *self.0.lock();
        last.unwrap_or_else(|| self.ask(root))
    }

    /// The guard of the file system mounted at `root` now.
    pub fn ask(&self, root: &Path) -> Guard {
        // That says nothing of the file system.
        if !lease::are_enabled() {
            return Guard::Grace;
        }
        // A lease of this kernel keeps no client of a file server from the file, and NFS answers EAGAIN where it has no delegation.
        let is_served = stat::mount(root).is_ok_and(|mount| mount.may_be_shared());
        let now = match beneath::open_mount(root).and_then(lease::are_given) {
            _ if is_served => Guard::Grace,
            Ok(false) => Guard::Grace,
            Ok(true) => Guard::Leases,
            // Each file is asked by itself, and stays if it cannot be leased.
            Err(error) => {
                tracing::debug!(root = %root.display(), %error, "leases cannot be tried");
                Guard::Leases
            }
        };
        *self.0.lock() = Some(now);
        now
    }
}
