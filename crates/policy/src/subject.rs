//! One entry that a person asks about (a value).

use purge_index::Attributes;
use purge_model::path::VolumePath;
use purge_model::{Inode, LastUse};

/// One entry of the index, with everything a verdict needs.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Which.
    pub ino: Inode,
    /// What it is.
    pub attributes: Attributes,
    /// Its access clock.
    pub access: LastUse,
    /// Where it lies.
    pub path: VolumePath,
}
