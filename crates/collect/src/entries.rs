//! One entry, as it was just looked at, taken into the index.

use std::io;

use super::Watched;
use purge_base::clock;
use purge_index::{DirId, Found, Index, StoreError};
use purge_model::{Inode, Kind, LastUse, Source};
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
    if found.stat.kind == Kind::Directory
        && watched.is_trash(dir, name)
        && index.dirs().of_inode(found.stat.ino).is_none()
    {
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
    let was_unseen = watched.tree.as_ref().is_some_and(|tree| {
        let from = index
            .parent_of(found.stat.ino)
            .and_then(|from| index.dirs().get(from));
        from.is_some_and(|from| !tree.is_watched(from.ino))
    });
    forget_what_lost_its_name(watched, index, (dir, name), found.stat.ino)?;
    index.upsert(Found {
        stat: found.stat,
        parent: dir,
        name,
        first_use,
    })?;
    if is_ahead {
        index.record_use(found.stat.ino, now);
    }
    // It comes from a directory of which nothing is told.
    if was_unseen {
        index.record_use(found.stat.ino, clock::now());
    }
    // Also one that has the inode number of another, which is no more: what was looked at in it was taken for the other's.
    if found.stat.kind == Kind::Directory
        && may_hold_more
        && let Some(id) = index
            .dirs()
            .of_inode(found.stat.ino)
            .filter(|id| known_as != Some(*id) || is_unlisted(watched, found.stat.ino))
    {
        watched.unlisted.lock().push(id);
    }
    Ok(())
}

/// Whether it is watched for a moment only, or not at all: nothing told of what lies in it.
fn is_unlisted(watched: &Watched, ino: Inode) -> bool {
    let tree = watched.tree.as_ref();
    tree.is_some_and(|tree| tree.is_unlisted(ino))
}

/// Where each directory is watched by itself, no report tells which file lost its name to a rename.
fn forget_what_lost_its_name(
    watched: &Watched,
    index: &mut Index,
    (dir, name): (DirId, &[u8]),
    ino: Inode,
) -> Result<(), StoreError> {
    let (Some(tree), Some(at)) = (&watched.tree, index.dirs().get(dir).map(|dir| dir.ino)) else {
        return Ok(());
    };
    let Some(was) = tree.places().learn(at, name, ino) else {
        return Ok(());
    };
    let seat = index.dirs().of_inode(was).and_then(|id| index.dirs().get(id));
    match seat.map(|seat| seat.parent == dir && *seat.name == *name) {
        None => index.remove_name(was, dir, name),
        Some(true) => index.remove_tree(was).map(drop),
        // It has moved on already.
        Some(false) => Ok(()),
    }
}

/// Nothing lies at a name where `target` was told to have been last. A file that this one was renamed over has lost the name as well, and where
/// each directory is watched by itself no report says so.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn forget_what_lay_there(
    watched: &Watched,
    index: &mut Index,
    (dir, name): (DirId, &[u8]),
    target: Inode,
) -> Result<(), StoreError> {
    let at = index.dirs().get(dir).map(|dir| dir.ino);
    let lay = watched
        .tree
        .as_ref()
        .zip(at)
        .and_then(|(tree, at)| tree.places().at(at, name));
    match lay {
        // A directory may have moved on, and is asked itself where it lies.
        Some(lay) if lay != target && index.dirs().of_inode(lay).is_none() => {
            index.remove_name(lay, dir, name)
        }
        _ => Ok(()),
    }
}

/// Whether an error says that what a handle or a name stood for is not there any more.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(Absence::of(error), Some(Absence::Missing | Absence::Stale))
}
