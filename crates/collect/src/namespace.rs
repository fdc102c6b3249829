//! Names: what lies at every place that an event named.
//!
//! The kernel merges equal events that wait in its queue: create, delete, create of one name may arrive as one
//! event with both bits, and of renames to and fro the order is lost. So an event is taken as a hint only: the
//! place it names is looked at *now*, and the index is made to agree with what is there. That is right however events were
//! merged, because every later change puts a later event into the queue. And so it need not be done at once: what an event named waits
//! ([`super::pending`]) while the queue is read. Who uses an entry that the index does not know yet loses nothing by that: it counts as
//! used when it is taken in, and that is later.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustc_hash::{FxHashMap, FxHashSet};

use super::entries::{forget_what_lay_there, is_absent, take_entry};
use super::event::{Change, Changes, Node, Place, Used};
use super::pending::{Pending, Spot};
use super::tree::{Mark, Tree};
use super::unnamed::Doubts;
use super::{Watched, places, reach, whereabouts};
use purge_base::clock;
use purge_index::{DirId, Index, StoreError};
use purge_model::{Inode, Kind};
use purge_sys::handle::Handle;
use purge_sys::stat::{self, Located};
use purge_sys::{beneath, mountpoints};

pub use super::entries::take_entry_locked;

/// Inodes whose attributes are still to be read again, at most: some 10 MB.
const DIRTY_MAX: usize = 1 << 17;

/// A file with at most this number of names is looked for at each of them at once.
const LOOKED_AT_ONCE: usize = 8;

/// The inode of such a change has its attributes read again.
const LOST_OR_CHANGED: Changes = Changes::METADATA
    .and(Changes::DELETED)
    .and(Changes::REMOVED)
    .and(Changes::MOVED);

/// Brings the index up to what namespace events told.
#[derive(Debug, Default)]
pub struct Namespace {
    /// The directory looked into last: events come in runs.
    last_dir: Option<(Handle, OwnedFd)>,
    /// Places to look at.
    pending: Pending,
    /// Inodes whose attributes must be read again, and how to find them. By handle: a removed file's must not take the place of that of the
    /// file that has its inode number now.
    dirty: FxHashMap<Handle, Inode>,
    /// The same of files that have no handle.
    written: FxHashSet<Inode>,
    /// Files whose names must be looked at. None where reports say which file a name is of.
    doubts: Option<Doubts>,
}

/// What lies at a place.
enum Look {
    /// Nothing.
    Absent,
    /// The directory is not where the index has it, and is found in no other way.
    Astray,
    /// This.
    Entry(Located),
}

impl Namespace {
    /// For a source whose reports say which file a name is of, or do not.
    pub fn of_reports(tell_whose_names: bool) -> Self {
        Self {
            doubts: (!tell_whose_names).then(Doubts::default),
            ..Self::default()
        }
    }

    /// Files whose names must be looked at. None where reports say which file a name is of.
    pub fn doubts(&mut self) -> Option<&mut Doubts> {
        self.doubts.as_mut()
    }

    /// Whether files wait for a look at their names.
    pub fn has_doubts(&self) -> bool {
        self.doubts.as_ref().is_some_and(|doubts| !doubts.is_empty())
    }

    /// Whether attributes wait to be read again.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.written.is_empty()
    }

    /// The attributes of this inode must be read again at the next settlement. False if that must be done for so large a number
    /// that a scan is as good.
    pub fn mark_dirty(&mut self, Node { ino, handle }: Node) -> bool {
        if self.dirty.len() >= DIRTY_MAX && !self.dirty.contains_key(&handle) {
            return false;
        }
        self.dirty.insert(handle, ino);
        true
    }

    /// The same of a file that was written to, be there a handle or not.
    pub fn mark_written(&mut self, used: Used) -> bool {
        if let Some(handle) = used.handle {
            return self.mark_dirty(Node {
                ino: used.ino,
                handle,
            });
        }
        if self.written.len() >= DIRTY_MAX && !self.written.contains(&used.ino) {
            return false;
        }
        self.written.insert(used.ino);
        true
    }

    /// Those without a handle that were marked since the last call.
    pub fn take_written(&mut self) -> impl Iterator<Item = Inode> + use<> {
        std::mem::take(&mut self.written).into_iter()
    }

    /// The inodes that were marked since the last call.
    pub fn take_dirty(&mut self) -> impl Iterator<Item = Node> + use<> {
        self.last_dir = None;
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|(handle, ino)| Node { ino, handle })
    }

    /// Takes one hint: what it names is looked at later, with [`Namespace::work`]. False if so much waits already that a scan must
    /// look instead.
    pub fn note(&mut self, change: &Change<'_>) -> bool {
        let mut noted = true;
        let is_itself = |place: &Place<'_>| matches!(place.name, b"" | b".");
        let names = change.kinds.within(Changes::NAMES);
        if names.any(Changes::NAMES) {
            // Where a moved entry lies now comes first: a directory is then known to have moved, not to be deleted.
            for place in [change.new, change.place, change.old].into_iter().flatten() {
                // A directory's own events name the directory itself.
                if !is_itself(&place) {
                    let target = change.of.map(|node| node.ino);
                    let is_destination = change.new == Some(place);
                    noted &= self.pending.note(place, target, names, is_destination);
                }
            }
        }
        // The kernel merges events, so what they told last need not be what happened last: a file that lost or changed
        // a name is looked at once more when all is quiet.
        if change.kinds.any(LOST_OR_CHANGED) {
            let own = change.place.filter(is_itself).map(|place| place.dir);
            if let Some(node) = change.of.or(own) {
                noted &= self.mark_dirty(node);
            }
        }
        if let Some(doubts) = &mut self.doubts {
            noted &= doubts.hear(change);
        }
        noted
    }

    /// What is still to be looked at.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Nothing is to be looked at any more: a scan will look.
    pub fn give_up(&mut self) {
        self.pending.clear();
        self.last_dir = None;
        if let Some(doubts) = &mut self.doubts {
            doubts.clear();
        }
    }

    /// Looks at places until none is left or it `is_time` for something else. `root` comes from [`Watched::open_mount`].
    ///
    /// # Errors
    /// When the index cannot be read. The first is told; the places after it are looked at all the same.
    pub fn work(
        &mut self,
        watched: &Watched,
        root: &OwnedFd,
        is_time: impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        while let Some(spot) = self.pending.take() {
            result = result.and(self.look_again(watched, root, &spot));
            if is_time() {
                break;
            }
        }
        // It keeps the file system from being unmounted.
        if self.pending.is_empty() {
            self.last_dir = None;
        }
        result
    }

    fn look_again(&mut self, watched: &Watched, root: &OwnedFd, spot: &Spot) -> Result<(), StoreError> {
        let Spot {
            target,
            changes,
            is_destination,
            ..
        } = *spot;
        let place = Place {
            dir: spot.dir,
            name: &spot.name,
        };
        let Some(dir) = watched.index.read().dirs().of_inode(place.dir.ino) else {
            return Ok(());
        };
        self.mark_dirty(place.dir);
        match self.look(watched, root, place) {
            Ok(Look::Entry(found)) => {
                if let Some(target) = target.filter(|t| *t != found.stat.ino) {
                    watched.index.write().remove_name(target, dir, place.name)?;
                }
                // Everything in a directory that was made just now is told by events that come after this one. Not so if it was moved
                // since: what came before that found no directory.
                let made = changes.any(Changes::MADE)
                    && !changes.any(Changes::MOVED)
                    && target == Some(found.stat.ino);
                if let Some(tree) = &watched.tree {
                    self.watch_what_came(watched, tree, (dir, spot), &found);
                }
                // The kernel may tell of a name before it is removed.
                if let Some(doubts) = &mut self.doubts
                    && changes.any(Changes::REMOVED | Changes::MOVED)
                {
                    doubts.note(found.stat.ino);
                }
                // What lies in a new directory is told only from its mark on.
                let taken = as_it_is_known(watched, spot, found);
                take_entry(watched, dir, place.name, &taken, !made || watched.tree.is_some())?;
                // What was used by a name that no look had found yet is used now.
                if found.stat.kind == Kind::File
                    && changes.any(Changes::MADE | Changes::MOVED)
                    && watched
                        .tree
                        .as_ref()
                        .is_some_and(|tree| tree.has_names_alone() || self.doubts.is_some())
                {
                    watched.recorder().unseen_until(clock::now(), &[found.stat.ino]);
                }
                Ok(())
            }
            Ok(Look::Absent) => {
                let Some(target) = target else { return Ok(()) };
                let mut index = watched.index.write();
                forget_what_lay_there(watched, &mut index, (dir, place.name), target)?;
                let here = index.dirs().of_inode(target).and_then(|id| index.dirs().get(id));
                match here {
                    // It has moved on already: followed step by step, the next event finds it where this one left it.
                    Some(_) if is_destination => index.move_dir(target, dir, place.name).map(drop),
                    // Within the volume or out of it: it is asked itself where it lies, when all is quiet.
                    Some(_) if changes.any(Changes::MOVED) => Ok(()),
                    Some(d) if d.parent == dir && *d.name == *place.name => {
                        index.remove_tree(target).map(drop)
                    }
                    Some(_) => Ok(()),
                    None => index.remove_name(target, dir, place.name),
                }
            }
            Ok(Look::Astray) => {
                // It was moved, or is deleted. Where it lies is told by an event of its own, and what happened in it is not told again: it is
                // listed then.
                let mut unlisted = watched.unlisted.lock();
                if unlisted.last() != Some(&dir) {
                    unlisted.push(dir);
                }
                Ok(())
            }
            Err(error) => {
                // The entry stays as the index knows it, and the directory stays: not seen is not deleted.
                tracing::warn!(%error, name = %String::from_utf8_lossy(place.name), "cannot look at a changed entry");
                watched.index.write().doubt_dir(dir);
                Ok(())
            }
        }
    }

    /// Where each directory is watched by itself: one that was made may have the inode number of one that was watched, and a file with a further
    /// name may be used by that.
    fn watch_what_came(&self, watched: &Watched, tree: &Tree, (dir, spot): (DirId, &Spot), found: &Located) {
        let is_trash = watched.is_trash(dir, &spot.name);
        let ino = found.stat.ino;
        match found.stat.kind {
            Kind::Directory if spot.changes.any(Changes::MADE | Changes::MOVED) => {
                let Some((_, dir)) = &self.last_dir else { return };
                // Beside a mount it is not the volume's.
                if found.mount_root || found.device != watched.device || watched.is_own(ino) || is_trash {
                    return;
                }
                match beneath::open_anchor(dir, &spot.name) {
                    Ok(opened) if is_it(&opened, ino) => drop(tree.watch_what_came(ino, opened.as_fd())),
                    // It moved on: what it is by then is told by a later event.
                    _ => tree.forget(ino),
                }
            }
            Kind::File if found.stat.links > 1 => {
                let Some((_, dir)) = &self.last_dir else { return };
                let Ok(name) = CString::new(&*spot.name) else {
                    return;
                };
                if tree.watch_file(ino, dir.as_fd(), &name) == Mark::Fresh {
                    // By which names it was used until now is not known.
                    watched.recorder().unseen_until(clock::now(), &[ino]);
                }
            }
            _ => {}
        }
    }

    fn look(&mut self, watched: &Watched, root: &OwnedFd, place: Place<'_>) -> io::Result<Look> {
        let name = CString::new(place.name).map_err(|_| io::ErrorKind::InvalidFilename)?;
        if self
            .last_dir
            .as_ref()
            .is_none_or(|(handle, _)| *handle != place.dir.handle)
        {
            self.last_dir = match reach::open(watched, root, place.dir) {
                Ok(fd) => Some((place.dir.handle, fd)),
                Err(e) if is_absent(&e) && places::is_place(&place.dir.handle) => return Ok(Look::Astray),
                // The directory is no longer there, and with it the entry.
                Err(e) if is_absent(&e) => return Ok(Look::Absent),
                Err(e) => return Err(e),
            };
        }
        let Some((_, dir)) = &self.last_dir else {
            return Ok(Look::Absent);
        };
        mountpoints::ask();
        match watched.projects.entry(dir, &name) {
            Ok(found) => Ok(Look::Entry(found)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Look::Absent),
            Err(e) => Err(e),
        }
    }
}

/// Where the file system keeps no births, the change time stands for one. A rename moves that, and a directory that was renamed, and nothing else,
/// is the one that is known: what lies in it keeps its clocks.
fn as_it_is_known(watched: &Watched, spot: &Spot, mut found: Located) -> Located {
    let is_renamed = spot.changes == Changes::MOVED && spot.target == Some(found.stat.ino);
    if is_renamed
        && found.stat.kind == Kind::Directory
        && !found.keeps_birth
        && let Some((known, _)) = watched.index.read().get(found.stat.ino)
    {
        found.stat.birth = known.birth;
    }
    found
}

fn is_it(opened: &OwnedFd, ino: Inode) -> bool {
    stat::open_file(opened).is_ok_and(|found| found.stat.ino == ino)
}

/// Reads an inode's attributes again, through the handle that an event carried, and makes sure of where it lies. False
/// if it cannot be told yet what became of it: directories have moved and their events are still to come. The names of a file are looked at
/// only where reports `tell_whose_names`; elsewhere that is done later ([`super::unnamed`]).
///
/// # Errors
/// When the index cannot be read.
pub fn refresh(
    watched: &Watched,
    root: &OwnedFd,
    Node { ino, handle }: Node,
    tell_whose_names: bool,
) -> Result<bool, StoreError> {
    // Before they are read: what a running scan has read earlier must not take their place.
    if watched.index.read().is_scanning() {
        let mut index = watched.index.write();
        index.note_changed(ino);
        if !tell_whose_names {
            index.note_renamed(ino);
        }
    }
    if watched.index.read().last_use(ino).is_none() {
        return Ok(true);
    }
    let looked = reach::open(watched, root, Node { ino, handle })
        .and_then(|fd| Ok((watched.projects.open_file(&fd)?, fd)));
    match looked {
        Ok((found, fd)) if found.stat.ino == ino && found.stat.links > 0 => {
            take_over(&mut watched.index.write(), &found)?;
            if found.stat.kind == Kind::Directory {
                return whereabouts::follow_directory(watched, &fd, ino);
            }
            if !tell_whose_names {
                return Ok(true);
            }
            // A rename over a name does not tell which file lost it.
            let names = watched.index.read().names(ino)?.len();
            match names {
                0 | 1 if found.stat.links <= 1 => Ok(true),
                ..=LOOKED_AT_ONCE => whereabouts::drop_stale_names(watched, ino),
                // In their turn.
                _ => {
                    watched.doubtful_links.lock().insert(ino);
                    Ok(true)
                }
            }
        }
        // The handle's file is deleted. Its inode may be another file's by now: only what lies at its places tells.
        Ok(_) => whereabouts::drop_absent(watched, ino),
        Err(e) if is_absent(&e) => whereabouts::drop_absent(watched, ino),
        // Not seen is not deleted.
        Err(error) => {
            tracing::warn!(%error, ino, "cannot read a changed file's attributes");
            Ok(true)
        }
    }
}

/// Reads a file's attributes again where one of the names lies that the index has of it. What lies at none of them a scan finds.
///
/// # Errors
/// When the index cannot be read.
pub fn refresh_by_name(watched: &Watched, ino: Inode) -> Result<(), StoreError> {
    // Before they are read, as in `refresh`.
    if watched.index.read().is_scanning() {
        watched.index.write().note_changed(ino);
    }
    if watched.index.read().last_use(ino).is_none() {
        return Ok(());
    }
    let Some(file) = whereabouts::open_by_name(watched, ino)? else {
        return Ok(());
    };
    match watched.projects.open_file(&file) {
        Ok(found) if found.stat.ino == ino => take_over(&mut watched.index.write(), &found),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(%error, ino, "cannot read a changed file's attributes");
            Ok(())
        }
    }
}

/// What lies ahead of now counts as now, once: a change time as well, which no user sets. A file that was made after the one that the index
/// knows by this inode is not taken for it: the clock of the old one says nothing of it, and it is met at its own place.
pub(super) fn take_over(index: &mut Index, found: &Located) -> Result<(), StoreError> {
    let (stat, now) = (&found.stat, clock::judged());
    let known = index.get(stat.ino);
    if found.keeps_birth && known.is_some_and(|(known, _)| known.birth != stat.birth) {
        return Ok(());
    }
    let is_ahead = index.is_newly_ahead(stat, now);
    index.refresh(stat)?;
    if is_ahead {
        index.record_use(stat.ino, now);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_removed_file_does_not_hide_the_file_that_has_its_inode_number_now() {
        let of = |generation| Node {
            ino: 7,
            handle: Handle::new(1, &[7, 0, 0, 0, generation, 0, 0, 0]).unwrap(),
        };
        let mut namespace = Namespace::default();
        assert!(namespace.mark_dirty(of(2)));
        // A look at the removed file comes later, as when a settlement has to look once more.
        assert!(namespace.mark_dirty(of(1)));
        let dirty: Vec<Node> = namespace.take_dirty().collect();
        assert!(dirty.contains(&of(1)) && dirty.contains(&of(2)));
    }
}
