//! Directories: read as they are asked for, so that a large one takes no memory.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::{OpenDir, Server};
use crate::protocol::Answer;
use crate::protocol::request::Part;
use purge_sys::backing;

impl Server {
    pub(super) fn open_dir(&self, node: u64) -> io::Result<Answer> {
        let dir = self.open_dir_now(node)?;
        let handle = self.number();
        self.dirs.lock().insert(handle, Arc::new(dir));
        Ok(Answer::with_room(16).and_open(handle, None))
    }

    fn open_dir_now(&self, node: u64) -> io::Result<OpenDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
        let dir = self.ground.open(self.leads(node)?.as_ref(), flags)?;
        Ok(OpenDir(Mutex::new(dir)))
    }

    /// One that an earlier process had open is opened once more.
    fn dir(&self, handle: u64, node: u64) -> io::Result<Arc<OpenDir>> {
        if let Some(dir) = self.dirs.lock().get(&handle) {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(self.open_dir_now(node)?);
        Ok(Arc::clone(self.dirs.lock().entry(handle).or_insert(dir)))
    }

    pub(super) fn list(&self, node: u64, part: Part) -> io::Result<Answer> {
        let dir = self.dir(part.handle, node)?;
        let most = usize::try_from(part.size).unwrap_or(0);
        let mut answer = Answer::with_room(most);
        let dir = dir.0.lock();
        backing::list(dir.as_fd(), part.at, |listed| {
            Ok(self.ground.hides(node, listed.name) || answer.add_listed(&listed, most))
        })?;
        Ok(answer)
    }

    pub(super) fn list_with_attributes(&self, node: u64, part: Part) -> io::Result<Answer> {
        let dir = self.dir(part.handle, node)?;
        let most = usize::try_from(part.size).unwrap_or(0);
        let mut answer = Answer::with_room(most);
        let dir = dir.0.lock();
        backing::list(dir.as_fd(), part.at, |listed| {
            if self.ground.hides(node, listed.name) {
                return Ok(true);
            }
            if !answer.has_room_with(listed.name, most) {
                return Ok(false);
            }
            let is_itself = matches!(listed.name.to_bytes(), b"." | b"..");
            // What cannot be looked at is listed all the same.
            let entry = match is_itself {
                true => None,
                false => self.look_and_enter(node, listed.name).ok(),
            };
            answer.add_listed_with(&listed, entry.as_ref());
            Ok(true)
        })?;
        Ok(answer)
    }

    pub(super) fn sync_dir(&self, node: u64, handle: u64, data: bool) -> io::Result<Answer> {
        let dir = self.dir(handle, node)?;
        let dir = dir.0.lock();
        backing::sync(dir.as_fd(), data)?;
        Ok(Answer::done())
    }
}
