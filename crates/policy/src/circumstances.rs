//! What besides index and rules decides what may be deleted (values).

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::announced::Announced;
use purge_index::DirId;
use purge_model::{Inode, Seconds};

/// What besides index and rules decides.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The present moment.
    pub now: Seconds,
    /// End of the last unobserved stretch that was too long to overlook: counts as a use of every file.
    pub gap_end: Option<Seconds>,
    /// Later unobserved stretches that the operator forgives, from and to: a file may have been used in them.
    pub forgiven: Vec<(Seconds, Seconds)>,
    /// Inodes on which a hold lies; a held directory holds everything below.
    pub held: FxHashSet<Inode>,
    /// What announcing rules have named.
    pub announced: Announced,
    /// Inodes that are in use by mounts: a run keeps them.
    pub mounted: Arc<FxHashSet<Inode>>,
    /// What the file system said of what no index knows.
    pub survey: Survey,
    /// Owners whose files stay this time, as if a limit kept them.
    pub left_out: FxHashSet<u32>,
    /// The part of the volume that is asked for; the rest stays as well, as if a limit kept it.
    pub only: Only,
}

/// A part of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// What lies below this directory; none: all of it.
    pub below: Option<DirId>,
    /// What one of these owners has; none: what any has.
    pub owners: Option<FxHashSet<u32>>,
}

impl Only {
    /// Whether what this owner has is part of it.
    pub fn has_owner(&self, uid: u32) -> bool {
        self.owners.as_ref().is_none_or(|owners| owners.contains(&uid))
    }
}

/// What only the live file system can tell: where links lead, and who may write to a directory.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Where symbolic links lead. One that is not here stays.
    pub leads: FxHashMap<Inode, Lead>,
    /// Directories whose users could not make them again.
    pub spared: FxHashSet<Inode>,
}

/// What the file system says of a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// Where it leads.
    pub target: Leads,
    /// When the links on the way from it to its target were changed last, by their change times.
    pub changed: Seconds,
    /// By their modification times.
    pub modified: Seconds,
    /// Its access time: the kernel moves it when the link is followed.
    pub followed: Seconds,
}

/// Where a symbolic link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// To nothing.
    Nowhere,
    /// To this inode of the volume.
    To(Inode),
    /// Out of the volume, or it cannot be told.
    Unknown,
}
