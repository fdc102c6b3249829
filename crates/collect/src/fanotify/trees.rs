//! Marks of directories, as [`crate::tree`] asks for them, and what their events name: a handle that leads anywhere, or places alone.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::events::Ids;
use super::learnt::Leads;
use crate::event::{Node, Place};
use crate::places::{self, Places};
use crate::tree::Marking;
use purge_model::Inode;
use purge_sys::fanotify::Group;
use purge_sys::handle::Handle;

/// Of a group.
#[derive(Debug)]
pub(super) struct Trees {
    pub group: Arc<Group>,
    /// Where handles do not say which inode they are of.
    pub known: Option<Known>,
}

/// What is marked, by the ids that events have of it; and what lies at which name there.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    ids: Arc<Mutex<FxHashMap<Handle, Inode>>>,
    pub places: Arc<Places>,
}

impl Known {
    fn learn(&self, ino: Inode, at: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let id = Handle::id_of(at, name)?;
        self.ids.lock().insert(id, ino);
        Ok(())
    }
}

impl Ids for Known {
    fn leads(&self, handle: &Handle) -> Leads {
        self.ids
            .lock()
            .get(handle)
            .map_or(Leads::Nowhere, |ino| Leads::To(*ino))
    }

    fn kept(&self, _: Handle, ino: Inode) -> Handle {
        places::handle(ino)
    }

    fn at(&self, place: &Place<'_>) -> Option<Node> {
        match place.name {
            b"" | b"." => None,
            name => self.places.at(place.dir.ino, name).map(node),
        }
    }

    fn note_stranger(&self, place: &Place<'_>) {
        self.places.note_stranger(place.dir.ino, place.name);
    }
}

fn node(ino: Inode) -> Node {
    Node {
        ino,
        handle: places::handle(ino),
    }
}

impl Marking for Trees {
    fn mark_dir(&self, ino: Inode, dir: BorrowedFd<'_>) -> io::Result<()> {
        // Before the mark: an event may be read at once.
        self.known
            .as_ref()
            .map_or(Ok(()), |known| known.learn(ino, dir, c""))?;
        self.group.mark_dir(dir)
    }

    fn mark_file(&self, ino: Inode, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        self.known
            .as_ref()
            .map_or(Ok(()), |known| known.learn(ino, dir, name))?;
        self.group.mark_file(dir, name)
    }

    fn marks_max(&self) -> Option<u64> {
        self.group.marks_max()
    }

    fn limit(&self) -> &'static str {
        "fs.fanotify.max_user_marks"
    }

    fn prune(&self, is_there: &dyn Fn(Inode) -> bool) {
        if let Some(known) = &self.known {
            known.ids.lock().retain(|_, ino| is_there(*ino));
        }
    }
}
