//! Names: looking up, making, removing, renaming.
//!
//! The kernel has looked at what it knew to have a name, up to a second ago. Behind the mount another file may have it by now. So names are taken
//! away as the user who asks: in a directory with the sticky bit the file system behind looks whose file it is.

use std::ffi::CStr;
use std::io;

use super::{Server, for_user};
use crate::ground::Met;
use crate::protocol::answer::Entry;
use crate::protocol::{Answer, Op, Request};
use purge_sys::{backing, beneath};
use rustix::io::Errno;

impl Server {
    /// Looks at what has a name, without telling the kernel of it.
    pub(super) fn look(&self, dir: u64, name: &CStr) -> io::Result<Met> {
        if self.ground.hides(dir, name) {
            return Err(Errno::NOENT.into());
        }
        let at = self.reach_dir(dir)?;
        self.ground.meet(backing::entry(&at, name)?)
    }

    /// Looks at what has a name, and tells the kernel of it.
    pub(super) fn look_and_enter(&self, dir: u64, name: &CStr) -> io::Result<Entry> {
        /// What goes in the moment of the look is looked for again.
        const TRIES: usize = 4;
        let mut tries = 0;
        loop {
            let began = self.nodes.lock().now();
            match self.entry(self.look(dir, name)?, began) {
                Err(_) if tries < TRIES => tries += 1,
                entry => return entry,
            }
        }
    }

    pub(super) fn lookup(&self, dir: u64, name: &CStr) -> io::Result<Answer> {
        let met = match name.to_bytes() {
            // Asked by a file server, of what it was given by handle.
            b"." => self.ground.meet(backing::entry(self.reach(dir)?, c".")?)?,
            b".." if dir != crate::nodes::TOP => self.ground.meet(beneath::open_parent(self.reach(dir)?)?)?,
            b".." => return Err(Errno::NOENT.into()),
            _ => return Ok(Answer::entry(&self.look_and_enter(dir, name)?)),
        };
        // What went does not come back by this.
        Ok(Answer::entry(&self.entry(met, 0)?))
    }

    /// Makes what has no content.
    pub(super) fn make(&self, request: &Request<'_>, again: bool) -> io::Result<Answer> {
        let (head, groups) = (request.head, request.groups.as_slice());
        let dir = self.reach_dir(head.node)?;
        if let Op::MakeLink { name, .. }
        | Op::MakeNode { name, .. }
        | Op::MakeDir { name, .. }
        | Op::AddName { name, .. } = request.op
            && self.ground.hides(head.node, name)
        {
            return Err(Errno::ACCESS.into());
        }
        let (made, name) = match request.op {
            Op::MakeLink { name, target } => {
                let _acting = for_user(head, groups, 0, 0)?;
                (backing::make_link(target, &dir, name), name)
            }
            Op::MakeNode {
                name,
                mode,
                device,
                umask,
            } => {
                let _acting = for_user(head, groups, umask, mode)?;
                (backing::make_node(&dir, name, mode, device), name)
            }
            Op::MakeDir { name, mode, umask } => {
                let _acting = for_user(head, groups, umask, mode)?;
                (backing::make_dir(&dir, name, mode), name)
            }
            Op::AddName { of, name } => {
                self.touch(of);
                (backing::add_name(self.reach(of)?, &dir, name), name)
            }
            _ => return Err(Errno::NOSYS.into()),
        };
        match made {
            // An earlier process has made it, and was killed before it could say so.
            Err(error) if again && error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        Ok(Answer::entry(&self.look_and_enter(head.node, name)?))
    }

    /// Takes names away, or gives others.
    pub(super) fn take_away(&self, request: &Request<'_>, again: bool) -> io::Result<Answer> {
        let head = request.head;
        let dir = self.reach_dir(head.node)?;
        let to = match request.op {
            Op::Rename { to, as_name, .. } if self.ground.hides(to, as_name) => {
                return Err(Errno::ACCESS.into());
            }
            Op::Rename { to, .. } => Some(self.reach_dir(to)?),
            _ => None,
        };
        self.touch_names(request);
        let acting = for_user(head, &[], 0, 0)?;
        let done = match (request.op, to) {
            (Op::Unlink { name } | Op::RemoveDir { name } | Op::Rename { name, .. }, _)
                if self.ground.hides(head.node, name) =>
            {
                Err(Errno::NOENT.into())
            }
            (Op::Unlink { name }, _) => purge_sys::inside::unlink(&dir, name),
            (Op::RemoveDir { name }, _) => purge_sys::inside::remove_dir(&dir, name),
            (
                Op::Rename {
                    name, as_name, flags, ..
                },
                Some(to),
            ) => backing::rename(&dir, name, to, as_name, flags),
            _ => Err(Errno::NOSYS.into()),
        };
        drop(acting);
        match done {
            // An earlier process has done it.
            Err(error) if again && error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
        Ok(Answer::done())
    }
    /// What loses a name by this, or gets another, is not taken by the agent now.
    fn touch_names(&self, request: &Request<'_>) {
        if !self.nodes.lock().is_taking() {
            return;
        }
        let dir = request.head.node;
        let names = match request.op {
            Op::Unlink { name } => [Some((dir, name)), None],
            Op::Rename {
                name, to, as_name, ..
            } => [Some((dir, name)), Some((to, as_name))],
            _ => [None, None],
        };
        for (dir, name) in names.into_iter().flatten() {
            if let Ok(met) = self.look(dir, name) {
                self.touch(met.number);
            }
        }
    }
}
