//! A walk through directories of the trash, whose files go back one by one.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use rustc_hash::FxHashSet;

use super::{Item, Lay, Refused, Restore, Which, in_words, join, put};
use crate::trash::bin::split;
use crate::trash::contents::Amount;
use crate::trash::places::{self, Whole};
use crate::trash::way::{Was, Way};
use purge_model::{Inode, Kind};
use purge_sys::likeness::Likeness;
use purge_sys::walk::{Listed, Visitor};
use purge_sys::{beneath, inside, likeness, stat};

pub(super) type LikenessOf = fn(&OwnedFd) -> io::Result<Likeness>;

/// A walk through directories of the trash, file by file.
pub(super) struct Back<'r, 'a, 'w> {
    restore: &'r mut Restore<'a>,
    way: Way<'w>,
    /// Where the directory that is being visited belongs, relative to the volume.
    path: Vec<u8>,
    /// What a directory was like.
    like: LikenessOf,
    /// Of a tree, and its place: what was made or changed after the move is none of the run's. A process that has a directory of the tree
    /// open could make more than a restore ever comes to the end of.
    whole: Option<(Whole, &'r OwnedFd)>,
    /// Of these a name was put back, which has changed them.
    moved_names: FxHashSet<Inode>,
    /// The directories that are being visited: the length of the path above, and which.
    open: Vec<Open>,
}

/// A directory that is being visited.
struct Open {
    /// The length of the path above.
    above: usize,
    ino: Inode,
    owner: u32,
    /// It stands for one that was empty and was removed.
    is_removed: bool,
    /// It says that the agent changes it.
    is_marked: bool,
}

impl<'r, 'a, 'w> Back<'r, 'a, 'w> {
    /// From a directory of the trash to the one at the end of the way, which is at `path`.
    pub(super) fn new(
        restore: &'r mut Restore<'a>,
        way: Way<'w>,
        path: Vec<u8>,
        (like, whole): (LikenessOf, Option<(Whole, &'r OwnedFd)>),
    ) -> Self {
        Self {
            restore,
            way,
            path,
            like,
            whole,
            moved_names: FxHashSet::default(),
            open: Vec::new(),
        }
    }

    /// Whether it may be told of: an ordinary user hears only of what is theirs.
    fn is_theirs(&self, uid: u32) -> bool {
        self.restore.whom.is_none_or(|whom| whom.uid == uid)
    }

    fn is_changed(&self, found: &stat::Located) -> bool {
        let is_changed = |(whole, _): &(Whole, _)| whole.is_changed(&found.stat);
        self.whole.as_ref().is_some_and(is_changed) && !self.moved_names.contains(&found.stat.ino)
    }

    fn is_changed_directory(&self, dir: &OwnedFd) -> io::Result<bool> {
        let is_changed = |(whole, _): &(Whole, _)| whole.is_changed_directory(dir);
        self.whole.as_ref().map_or(Ok(false), is_changed)
    }

    /// What goes from a directory changes it, and that is no use of it. The moment of the move stays as it is: what was made or changed since
    /// is still known by it when the grace ends.
    fn will_change(&mut self, dir: &OwnedFd) {
        if self.restore.is_dry {
            return;
        }
        if let (Some((whole, _)), Some(open)) = (&self.whole, self.open.last_mut())
            && !std::mem::replace(&mut open.is_marked, true)
        {
            whole.will_change(dir);
        }
    }

    fn refuse_changed(&mut self) {
        if let Some((_, place)) = &self.whole
            && !self.restore.is_dry
        {
            places::note_used(place);
        }
        let why =
            "it was changed in the trash; all of the directory goes to another place with `restore --to DIR`";
        (self.restore.tell)(Err(Refused {
            path: self.path.clone(),
            why: why.into(),
            is_name_taken: false,
        }));
    }
}

impl Visitor for Back<'_, '_, '_> {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, name: &CStr, dir: &OwnedFd) -> io::Result<bool> {
        let above = self.path.len();
        // The first one is the share itself, which has no name, or a tree, whose name is known.
        let name = match self.open.is_empty() {
            true => CString::new(split(&self.path).1).unwrap_or_default(),
            false => {
                self.path = join(&self.path, name.to_bytes());
                name.to_owned()
            }
        };
        let found = stat::open_file(dir)?;
        let ino = found.stat.ino;
        // The share itself is root's alone.
        let is_share = self.open.is_empty() && self.whole.is_none();
        if !is_share && self.restore.whom.is_some_and(|whom| !whom.may_enter(dir)) {
            self.path.truncate(above);
            return Ok(false);
        }
        // The first one was moved here.
        if !self.open.is_empty() && self.is_changed_directory(dir)? {
            self.refuse_changed();
            self.path.truncate(above);
            return Ok(false);
        }
        if !self.restore.which.has(&self.path, ino) && !self.restore.which.has_part_of(&self.path) {
            self.path.truncate(above);
            return Ok(false);
        }
        if !name.is_empty() {
            match (self.like)(dir) {
                Ok(like) => self.way.down(name, Was::Like(Box::new(like))),
                Err(error) => self.way.down_refused(name, &error),
            }
        }
        self.open.push(Open {
            above,
            ino,
            owner: found.stat.uid,
            is_removed: likeness::is_noted_removed(dir),
            is_marked: false,
        });
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> io::Result<()> {
        self.restore.go_on()?;
        let path = join(&self.path, entry.name.to_bytes());
        if !self.restore.which.may_have(&path) {
            return Ok(());
        }
        let found = stat::entry(dir, &entry.name)?;
        if !self.is_theirs(found.stat.uid) || !self.restore.which.has(&path, found.stat.ino) {
            return Ok(());
        }
        if self.is_changed(&found) {
            let above = self.path.len();
            self.path = path;
            self.refuse_changed();
            self.path.truncate(above);
            return Ok(());
        }
        self.will_change(dir);
        let is_dry = self.restore.is_dry;
        let place = self.way.reach(self.restore.placed);
        let moved = place.and_then(|to| put((dir, &entry.name), to, &entry.name, is_dry).map(|()| to));
        if self.whole.is_some() && moved.is_ok() && found.stat.links > 1 {
            self.moved_names.insert(found.stat.ino);
        }
        let moved = moved.map(|to| {
            if let Some(to) = to.filter(|_| !is_dry) {
                (self.restore.placed)(to, &entry.name);
            }
        });
        let origin = match &moved {
            Err(_) => self.way.origin(),
            Ok(()) => None,
        };
        let belongs = (&*path, origin.as_ref());
        let lay = match self.whole {
            Some(_) => Lay::InTree,
            None => Lay::Itself(Default::default()),
        };
        self.restore
            .tell_of_amount(moved, (dir, &entry.name), belongs, (&found, lay));
        Ok(())
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        let Some(Open {
            above,
            ino,
            owner,
            is_removed,
            ..
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let stays = is_removed && !self.put_back_removed(ino, owner);
        if is_removed && !stays && !self.restore.is_dry {
            // It goes back once, also if files of it are left here.
            let here = beneath::open_dir(parent, name.to_bytes());
            let _ = here.and_then(|dir| likeness::note_removed(&dir, false));
        }
        self.way.up();
        let which = self.restore.which;
        // What it was like is not needed any more.
        let is_over = self.whole.is_none() && self.restore.has_no_trees;
        if !stays
            && !self.restore.is_dry
            && !self.open.is_empty()
            && (is_over || which.has(&self.path, ino) || !which.has_part_of(&self.path))
        {
            self.will_change(parent);
            // Full if something in it was not wanted or could not go back.
            let _ = inside::remove_dir(parent, name);
        }
        self.path.truncate(above);
        Ok(())
    }
}

impl Back<'_, '_, '_> {
    /// Makes the directory that was removed again. False: it stays in the trash.
    fn put_back_removed(&mut self, ino: Inode, uid: u32) -> bool {
        let which = self.restore.which;
        // What a run has removed before it was killed was empty.
        if matches!(which, Which::Unsettled(_)) || !which.has(&self.path, ino) || !self.is_theirs(uid) {
            return false;
        }
        let placed = self.way.reach(self.restore.placed).map(drop);
        let is_back = placed.is_ok();
        let path = self.restore.path_of(&self.path);
        (self.restore.tell)(match placed {
            Ok(()) => Ok(Item {
                path,
                ino,
                kind: Kind::Directory,
                bytes: 0,
                files_inside: 0,
                of_owner: Amount::default(),
                is_part: false,
                uid,
            }),
            Err(e) => Err(Refused {
                path: self.path.clone(),
                why: in_words(&e),
                is_name_taken: false,
            }),
        });
        is_back
    }
}
