//! Directories: read as they are asked for, so that a large one takes no memory here.
//!
//! The kernel keeps what it was told. It may use that for the next who opens the directory only as long as it may believe the names, and only if the
//! directory has not changed since.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::OFlags;

use super::Server;
use crate::protocol::Answer;
use crate::protocol::answer::BELIEVED;
use crate::protocol::request::Part;
use purge_sys::backing;

/// An open directory. Who lists it moves its place.
#[derive(Debug)]
pub(super) struct OpenDir {
    file: Mutex<OwnedFd>,
    changed: Changed,
}

/// When a directory changed: seconds and nanoseconds.
type Changed = (i64, u32);

/// Which directories the kernel was told of lately.
#[derive(Debug, Default)]
pub(super) struct Listings(FxHashMap<u64, (Instant, Changed)>);

impl Listings {
    /// Of more it does not matter whether they are told once more.
    const MANY: usize = 4096;

    /// The kernel is told from the beginning of what a directory has had since it changed.
    fn begin(&mut self, node: u64, changed: Changed) {
        if self.0.len() >= Self::MANY {
            self.0.clear();
        }
        self.0.insert(node, (Instant::now(), changed));
    }

    /// Whether what it was told may still be believed.
    fn is_believed(&self, node: u64, changed: Changed) -> bool {
        self.0
            .get(&node)
            .is_some_and(|(told, then)| told.elapsed() < BELIEVED && *then == changed)
    }
}

impl Server {
    pub(super) fn open_dir(&self, node: u64) -> io::Result<Answer> {
        let dir = self.open_dir_now(node)?;
        let is_believed = self.listings.lock().is_believed(node, dir.changed);
        let handle = self.number();
        self.dirs.lock().insert(handle, Arc::new(dir));
        Ok(Answer::with_room(16).and_open_dir(handle, is_believed))
    }

    fn open_dir_now(&self, node: u64) -> io::Result<OpenDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
        let dir = self.ground.open(self.leads(node)?.as_ref(), flags)?;
        let found = backing::attributes(&dir)?;
        Ok(OpenDir {
            file: Mutex::new(dir),
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        })
    }

    /// An open directory, to be listed from here.
    fn dir_from(&self, node: u64, part: Part) -> io::Result<Arc<OpenDir>> {
        let dir = self.dir(part.handle, node)?;
        if part.at == 0 {
            self.listings.lock().begin(node, dir.changed);
        }
        Ok(dir)
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
        let dir = self.dir_from(node, part)?;
        let most = usize::try_from(part.size).unwrap_or(0);
        let mut answer = Answer::with_room(most);
        let dir = dir.file.lock();
        backing::list(dir.as_fd(), part.at, |listed| {
            Ok(self.ground.hides(node, listed.name) || answer.add_listed(&listed, most))
        })?;
        Ok(answer)
    }

    pub(super) fn list_with_attributes(&self, node: u64, part: Part) -> io::Result<Answer> {
        let dir = self.dir_from(node, part)?;
        let most = usize::try_from(part.size).unwrap_or(0);
        let mut answer = Answer::with_room(most);
        let dir = dir.file.lock();
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
        let dir = dir.file.lock();
        backing::sync(dir.as_fd(), data)?;
        Ok(Answer::done())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_believed_while_the_directory_is_as_it_was() {
        let mut listings = Listings::default();
        assert!(!listings.is_believed(7, (1, 2)));
        listings.begin(7, (1, 2));
        assert!(listings.is_believed(7, (1, 2)) && !listings.is_believed(8, (1, 2)));
        assert!(!listings.is_believed(7, (1, 3)), "it has changed");
        std::thread::sleep(BELIEVED);
        assert!(!listings.is_believed(7, (1, 2)), "it was told too long ago");
        for node in 0..2 * Listings::MANY as u64 {
            listings.begin(node, (1, 2));
        }
        assert!(listings.0.len() <= Listings::MANY);
    }
}
