//! A store in a directory: a mount of a tape library's cache, of another file server, of any disk.
//!
//! ```text
//!   PREFIX/PATH                     an object: the tree of the volume, files 0600 and directories 0700 of root
//!   PREFIX/.purge-agent/sending/    objects on their way: written, synced, then moved to their place (RENAME_NOREPLACE), the place synced
//! ```
//! Everything is done beneath an open directory, by descriptor and a single name; no link is followed and no mount is entered.
//!
//! What may never happen: an object is replaced; an object is reported as written that a power cut may take.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use purge_model::Kind;
use purge_sys::walk::{self, Listed, Visitor};
use purge_sys::{beneath, inside, objects, stat, time, vacant};
use rustix::io::Errno;

use crate::content::Content;
use crate::key::{self, Limits};
use crate::store::{Store, StoreError, Written};

/// What no file system takes a longer name than.
const NAME_MAX: usize = 255;
/// A key is no longer: it is opened in steps, so this bounds work only.
const KEY_MAX: usize = 64 << 10;
/// What was left on its way for longer than this, by a process that has ended, is removed.
const LEFT_AFTER_SECONDS: u64 = 3600;

/// A directory that holds objects.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    root: OwnedFd,
    sending: OwnedFd,
    /// Tells the objects on their way apart.
    number: AtomicU64,
}

impl Directory {
    /// Opens the store that lies in a directory.
    ///
    /// # Errors
    /// When the directory is not there or cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            let root = objects::open_store(path)?;
            let own = objects::make_dir(&root, key::OWN.as_bytes())?;
            let sending = objects::make_dir(&own, b"sending")?;
            Ok((root, sending))
        };
        let opened = open().map_err(|e: io::Error| {
            StoreError::Broken(format!(
                "the directory {} cannot be used as a store: {e}",
                path.display()
            ))
        });
        let (root, sending) = opened?;
        let store = Self {
            path: path.to_owned(),
            root,
            sending,
            number: AtomicU64::new(0),
        };
        store.tidy();
        Ok(store)
    }

    /// The device of its file system.
    ///
    /// # Errors
    /// What `statx(2)` says.
    pub fn device(&self) -> io::Result<stat::Device> {
        stat::open_file(&self.root).map(|found| found.device)
    }

    /// Removes what processes that were killed have left on its way.
    fn tidy(&self) {
        let now = time::wall_seconds();
        let is_old = |name: &CStr| {
            stat::entry(&self.sending, name).is_ok_and(|found| {
                found.stat.kind == Kind::File && found.stat.ctime.age_at(now) > LEFT_AFTER_SECONDS
            })
        };
        for name in walk::list(&self.sending).unwrap_or_default() {
            if is_old(&name) && objects::is_left_behind(&self.sending, &name).unwrap_or(false) {
                let _ = inside::unlink(&self.sending, &*name);
            }
        }
    }

    fn broken(&self, what: &str, error: &io::Error) -> StoreError {
        StoreError::Broken(format!("{what} in {}: {error}", self.path.display()))
    }

    /// The directory that holds a key's object, and its name there.
    fn place(&self, key: &str, is_made: bool) -> io::Result<(OwnedFd, CString)> {
        let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
        let name = CString::new(name)?;
        let dir = match beneath::open_dir(&self.root, above.as_bytes()) {
            Err(e) if is_made && e.kind() == io::ErrorKind::NotFound => self.make_way(above)?,
            other => other?,
        };
        Ok((dir, name))
    }

    fn make_way(&self, above: &str) -> io::Result<OwnedFd> {
        let mut dir = beneath::open_dir(&self.root, b"")?;
        for name in above.split('/') {
            dir = objects::make_dir(&dir, name.as_bytes())?;
        }
        Ok(dir)
    }

    fn new_name(&self) -> Result<CString, StoreError> {
        let number = self.number.fetch_add(1, Relaxed);
        let name = format!("{}.{}.{number}", std::process::id(), time::wall());
        CString::new(name).map_err(|e| StoreError::Broken(e.to_string()))
    }

    /// Writes what is sent to a file that has no place yet.
    fn write(&self, name: &CStr, content: &mut Content<'_>) -> Result<(File, Written), StoreError> {
        let mut file =
            objects::create(&self.sending, name).map_err(|e| self.broken("cannot make a file", &e))?;
        let hash = content.send(|step| {
            file.write_all(step)
                .map_err(|e| Sending::Store(self.broken("cannot write", &e)))
        })?;
        objects::write_down(&file).map_err(|e| self.broken("cannot write to the disk", &e))?;
        let id = file
            .metadata()
            .map_err(|e| self.broken("cannot look at a file", &e))?
            .ino();
        Ok((file, Written { hash, id }))
    }

    fn give(&self, name: &CStr, key: &str) -> Result<(), StoreError> {
        let (dir, last) = self.place(key, true).map_err(|e| self.not_placed(e))?;
        vacant::give(&self.sending, name, &dir, &last).map_err(|e| self.not_placed(e))?;
        objects::write_down(&dir).map_err(|e| self.broken("cannot write a directory to the disk", &e))
    }

    fn not_placed(&self, error: io::Error) -> StoreError {
        match Errno::from_io_error(&error) {
            Some(Errno::EXIST) => StoreError::Exists,
            Some(
                Errno::NOTDIR
                | Errno::NAMETOOLONG
                | Errno::ISDIR
                | Errno::LOOP
                | Errno::XDEV
                | Errno::INVAL
                | Errno::ILSEQ,
            ) => StoreError::NoPlace(error),
            _ => self.broken("cannot make an object", &error),
        }
    }
}

/// What keeps content from being written: the file, or the store.
enum Sending {
    Source(io::Error),
    Store(StoreError),
}

impl From<io::Error> for Sending {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl From<Sending> for StoreError {
    fn from(error: Sending) -> Self {
        match error {
            Sending::Source(error) => Self::Source(error),
            Sending::Store(error) => error,
        }
    }
}

impl Store for Directory {
    fn limits(&self) -> Limits {
        Limits {
            key: KEY_MAX,
            name: NAME_MAX,
        }
    }

    fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let found = self
            .place(key, false)
            .and_then(|(dir, name)| stat::entry(&dir, &name));
        match found {
            Ok(found) if found.stat.kind == Kind::File => Ok(Some(found.stat.size)),
            Ok(_) => Err(StoreError::NoPlace(Errno::ISDIR.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.not_placed(e)),
        }
    }

    fn put(&self, key: &str, content: &mut Content<'_>) -> Result<Written, StoreError> {
        let name = self.new_name()?;
        let placed = self.write(&name, content).and_then(|(file, written)| {
            self.give(&name, key)?;
            drop(file);
            Ok(written)
        });
        if placed.is_err() {
            let _ = inside::unlink(&self.sending, &*name);
        }
        placed
    }

    fn get(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let opened = self
            .place(key, false)
            .and_then(|(dir, name)| objects::open(&dir, &name));
        let file = opened.map_err(|e| self.broken(&format!("cannot open {key:?}"), &e))?;
        objects::forget_cached(&file);
        Ok(Box::new(file))
    }

    fn discard(&self, key: &str, written: &Written) -> Result<(), StoreError> {
        let found = self.place(key, false).and_then(|(dir, name)| {
            let is_it = stat::entry(&dir, &name)?.stat.ino == written.id;
            if is_it {
                inside::unlink(&dir, &*name)
            } else {
                Ok(())
            }
        });
        found.map_err(|e| self.broken("cannot remove an object", &e))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        let (dir, name) = match self.place(directory, false) {
            Ok(place) => place,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.broken("cannot list", &e)),
        };
        let mut listing = Listing {
            above: Vec::new(),
            before: directory
                .rsplit_once('/')
                .map_or(String::new(), |(above, _)| format!("{above}/")),
            found: Vec::new(),
        };
        match walk::walk(&dir, &name, &mut listing) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(self.broken("cannot list", &e)),
            Ok(()) => Ok(listing.found),
        }
    }
}

/// The files below a directory.
struct Listing {
    before: String,
    above: Vec<String>,
    found: Vec<String>,
}

impl Visitor for Listing {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, name: &CStr, _: &OwnedFd) -> io::Result<bool> {
        // What is no text is none of the agent's.
        let Ok(name) = name.to_str() else { return Ok(false) };
        self.above.push(name.to_owned());
        Ok(true)
    }

    fn meet(&mut self, _: &OwnedFd, entry: &Listed) -> io::Result<()> {
        if let (Kind::File, Ok(name)) = (entry.kind, entry.name.to_str()) {
            self.found
                .push(format!("{}{}/{name}", self.before, self.above.join("/")));
        }
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        self.above.pop();
        Ok(())
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
