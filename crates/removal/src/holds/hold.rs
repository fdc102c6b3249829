//! One hold: the value. Pure.

use purge_model::path::VolumePath;
use purge_model::{Inode, Seconds};

/// A path that stays, regardless of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    /// Its name.
    pub id: String,
    /// What it holds, as a path of the host.
    pub path: Vec<u8>,
    /// Why.
    pub reason: String,
    /// When it was made.
    pub created: Seconds,
    /// Until when it holds; none: until it is removed.
    pub expires: Option<Seconds>,
    /// Who made it, as it stands in records.
    pub by: String,
}

/// A hold, and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hold: Hold,
    /// What lay at its place when it was made.
    pub(super) ino: Inode,
    /// The volume's name.
    pub(super) volume: String,
    /// The place below the volume's root. Older records have only the path of `hold`: see [`super::Holds::open`].
    pub(super) below: Option<VolumePath>,
    /// An ordinary user's: it holds only what is theirs.
    pub(super) own: Option<u32>,
}

impl Entry {
    pub(super) fn in_force(&self, now: Seconds) -> bool {
        self.hold.expires.is_none_or(|at| at > now)
    }
}
