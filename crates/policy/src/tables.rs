//! Tables over the directories of a volume, each made in one pass.

use super::circumstances::Circumstances;
use purge_index::{DirId, Index};

/// Names at the root of a file system that belong to it, not to users.
const LOST_AND_FOUND: &[u8] = b"lost+found";
const QUOTA_FILES: [&[u8]; 4] = [b"aquota.user", b"aquota.group", b"quota.user", b"quota.group"];

/// Tables over directories that every part of the evaluation needs.
pub(super) struct Tables {
    /// Below a hold.
    pub held: Vec<bool>,
    /// Below something that is never a candidate: `lost+found`.
    pub protected: Vec<bool>,
    /// Connected to the root: the others' paths are not known.
    pub connected: Vec<bool>,
    /// Too deep to have a path.
    pub deep: Vec<bool>,
    /// Outside of what is asked for.
    pub outside: Vec<bool>,
}

impl Tables {
    pub fn new(index: &Index, at: &Circumstances) -> Self {
        let dirs = index.dirs();
        let root_held = dirs.get(DirId::ROOT).is_some_and(|d| at.held.contains(&d.ino));
        let held = dirs.inherit(root_held, |_, d, above| above || at.held.contains(&d.ino));
        let protected = dirs.inherit(false, |_, d, above| {
            above || (d.parent == DirId::ROOT && *d.name == *LOST_AND_FOUND)
        });
        let connected = dirs.inherit(true, |_, _, above| above);
        Self {
            held,
            protected,
            connected,
            deep: dirs.too_deep(),
            outside: match at.only.below {
                None => Vec::new(),
                Some(below) => {
                    let begins = |id: DirId, above: bool| above && id != below;
                    dirs.inherit(begins(DirId::ROOT, true), |id, _, above| begins(id, above))
                }
            },
        }
    }

    pub fn is(table: &[bool], dir: DirId) -> bool {
        table.get(dir.index()).copied().unwrap_or(false)
    }
}

/// Whether the file system itself keeps this file: no rule makes it a candidate.
pub(super) fn is_quota_file(parent: DirId, name: &[u8]) -> bool {
    parent == DirId::ROOT && QUOTA_FILES.contains(&name)
}

/// For each directory the one at this depth that it is or lies in.
pub(super) fn unit_table(index: &Index, depth: u32) -> Vec<DirId> {
    let of = |id, _: &_, (level, unit): (u32, DirId)| {
        let level = level.saturating_add(1);
        (level, if level <= depth { id } else { unit })
    };
    let all = index.dirs().inherit((0, DirId::ROOT), of);
    all.into_iter().map(|(_, unit)| unit).collect()
}
