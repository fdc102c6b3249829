//! The inode of a handle on file systems of which it is not known how they write handles: the file is opened by it and asked, once. It is opened
//! with O_PATH, which is no use.
//!
//! What may never happen: a use that is dropped because the file could not be asked. That counts as a loss, and so as a use of every file.

use std::io;
use std::path::PathBuf;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::layout::Layout;
use purge_model::Inode;
use purge_sys::absence::Absence;
use purge_sys::handle::Handle;
use purge_sys::stat::Device;
use purge_sys::{beneath, stat};

/// Handles that are kept, at most: some MB. Beyond that all are asked again.
const KNOWN_MAX: usize = 1 << 16;

/// How the inodes of a volume's handles are found out.
#[derive(Debug)]
pub enum Inodes {
    /// They are read.
    Read(Layout),
    /// Their files are asked.
    Learnt(Learnt),
}

/// What a handle leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// The file that has this inode.
    To(Inode),
    /// A file that is deleted, or of another subvolume.
    Nowhere,
    /// It cannot be told now.
    Unknown,
}

/// Inodes that were asked for.
#[derive(Debug)]
pub struct Learnt {
    root: PathBuf,
    /// The root, as it was when the volume was opened: another file system may lie at its path.
    is: (Device, Inode),
    known: Mutex<FxHashMap<Handle, Inode>>,
}

impl Inodes {
    /// Where a handle leads.
    #[inline]
    pub fn of(&self, handle: &Handle) -> Leads {
        match self {
            Self::Read(layout) => layout.inode(handle).map_or(Leads::Nowhere, Leads::To),
            Self::Learnt(learnt) => learnt.of(handle),
        }
    }
}

impl Learnt {
    /// Below the root of a volume.
    ///
    /// # Errors
    /// When it, or a file by its handle, cannot be opened: then no file could be asked.
    pub fn probe(root: PathBuf, handle: &Handle) -> io::Result<Self> {
        let found = stat::open_file(beneath::open_mount(&root)?)?;
        let learnt = Self {
            root,
            is: (found.device, found.stat.ino),
            known: Mutex::default(),
        };
        match learnt.ask(handle)? == Some(found.stat.ino) {
            true => Ok(learnt),
            false => Err(io::Error::other("the file handle of its root leads elsewhere")),
        }
    }

    fn of(&self, handle: &Handle) -> Leads {
        if let Some(ino) = self.known.lock().get(handle) {
            return Leads::To(*ino);
        }
        match self.ask(handle) {
            Ok(Some(ino)) => {
                let mut known = self.known.lock();
                if known.len() >= KNOWN_MAX {
                    known.clear();
                }
                known.insert(*handle, ino);
                Leads::To(ino)
            }
            Ok(None) => Leads::Nowhere,
            Err(error) => {
                tracing::debug!(%error, "a file cannot be asked for its inode");
                Leads::Unknown
            }
        }
    }

    /// None: the file is deleted.
    fn ask(&self, handle: &Handle) -> io::Result<Option<Inode>> {
        // Opened each time: an open one would keep the file system from being unmounted.
        let root = beneath::open_mount(&self.root)?;
        let found = stat::open_file(&root)?;
        if (found.device, found.stat.ino) != self.is {
            return Err(io::Error::other("another file system lies there"));
        }
        match handle.open_path(&root) {
            Ok(file) => Ok(Some(stat::open_file(file)?.stat.ino)),
            Err(e) if Absence::of(&e) == Some(Absence::Stale) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_asked_and_a_deleted_one_leads_nowhere() {
        let tmp = tempfile::tempdir().unwrap();
        let handle = |name: &str| Handle::of_path(&tmp.path().join(name));
        // Some file systems have no handles, and only root may open them.
        let Ok(Ok(learnt)) = handle("").map(|root| Learnt::probe(tmp.path().to_owned(), &root)) else {
            return;
        };
        for name in ["a", "b"] {
            fs::write(tmp.path().join(name), "x").unwrap();
        }
        let (a, b) = (handle("a").unwrap(), handle("b").unwrap());
        let ino = fs::metadata(tmp.path().join("a")).unwrap().ino();
        assert_eq!(learnt.of(&a), Leads::To(ino));
        for name in ["a", "b"] {
            fs::remove_file(tmp.path().join(name)).unwrap();
        }
        // What was asked before is known of a deleted file as well.
        assert_eq!((learnt.of(&a), learnt.of(&b)), (Leads::To(ino), Leads::Nowhere));
    }

    #[test]
    fn what_cannot_be_asked_is_unknown_and_not_nowhere() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("volume");
        fs::create_dir(&dir).unwrap();
        let Ok(Ok(learnt)) = Handle::of_path(&dir).map(|root| Learnt::probe(dir.clone(), &root)) else {
            return;
        };
        fs::write(dir.join("a"), "x").unwrap();
        let a = Handle::of_path(&dir.join("a")).unwrap();
        fs::rename(&dir, tmp.path().join("away")).unwrap();
        assert_eq!(learnt.of(&a), Leads::Unknown);
        fs::create_dir(&dir).unwrap();
        assert_eq!(learnt.of(&a), Leads::Unknown);
    }
}
