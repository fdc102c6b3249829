//! One entry, as it was just looked at, taken into the index.

use std::io;

use super::Watched;
use purge_base::clock;
use purge_index::{DirId, Found, Index, StoreError};
use purge_model::{Kind, LastUse, Source};
use purge_sys::absence::Absence;
use purge_sys::stat::Located;

/// Makes the index agree with an entry that was just looked at. A directory that is new to the index is listed soon if
/// it `may_hold_more` than events will tell.
///
/// # Errors
/// When the index cannot be read.
pub fn take_entry(
    watched: &Watched,
    dir: DirId,
    name: &[u8],
    found: &Located,
    may_hold_more: bool,
) -> Result<(), StoreError> {
    take_entry_locked(
        watched,
        &mut watched.index.write(),
        dir,
        name,
        found,
        may_hold_more,
    )
}

/// As [`take_entry`], for a thread beside the collector's: it must look at the place and take what it finds under one lock.
/// What happens to the place after the look then reaches the index after this.
///
/// # Errors
/// When the index cannot be read.
pub fn take_entry_locked(
    watched: &Watched,
    index: &mut Index,
    dir: DirId,
    name: &[u8],
    found: &Located,
    may_hold_more: bool,
) -> Result<(), StoreError> {
    if found.mount_root || found.device != watched.device {
        index.note_mount(dir);
        return Ok(());
    }
    if watched.is_own(found.stat.ino) {
        return Ok(());
    }
    let known_as = index.dirs().of_inode(found.stat.ino);
    // To make or move an entry is to use it.
    let first_use = LastUse {
        at: clock::now(),
        source: Source::Observed,
    };
    let now = clock::judged();
    let is_ahead = index.is_newly_ahead(&found.stat, now);
    index.upsert(Found {
        stat: found.stat,
        parent: dir,
        name,
        first_use,
    })?;
    if is_ahead {
        index.record_use(found.stat.ino, now);
    }
    // Also one that has the inode number of another, which is no more: what was looked at in it was taken for the other's.
    if found.stat.kind == Kind::Directory
        && may_hold_more
        && let Some(id) = index
            .dirs()
            .of_inode(found.stat.ino)
            .filter(|id| known_as != Some(*id))
    {
        watched.unlisted.lock().push(id);
    }
    Ok(())
}

/// Whether an error says that what a handle or a name stood for is not there any more.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(Absence::of(error), Some(Absence::Missing | Absence::Stale))
}
