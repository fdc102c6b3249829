//! Putting back what lies in the trash: when somebody asks for it, and after a run that was killed. Never over anything
//! that is there now.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustc_hash::FxHashMap;
use rustix::fs::{AtFlags, Mode, RenameFlags};

use super::bin::split;
use super::kept::Kept;
use super::trash::{FILES, FLAT, ORIGIN, Share, TREE, TREES, Trash, is_there, list, make_alike};
use crate::collect::Watched;
use crate::collect::namespace::take_entry_locked;
use crate::index::StoreError;
use crate::model::{Inode, Kind};
use crate::sys::{beneath, stat};

/// What somebody's file is called whose name was lost with the run that had it in hand; its inode follows.
const FOUND: &str = "purge-agent-found.";

/// What is to go back.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Everything.
    All,
    /// What lies at or below one of these paths, relative to the volume.
    Below(&'a [Vec<u8>]),
    /// What a killed run had not come to an end with.
    Unsettled(&'a Settled),
}

/// What is known of a killed run's share. Whatever else lies in it, also somebody's file that had taken a candidate's name in the
/// last moment, goes back.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is in the trash for good, in order.
    pub trashed: Vec<Inode>,
    /// Where those belong whose place in the trash does not tell.
    pub paths: FxHashMap<Inode, Vec<u8>>,
}

impl Which<'_> {
    fn has(self, path: &[u8], ino: Inode) -> bool {
        match self {
            Self::All => true,
            Self::Below(paths) => paths.iter().any(|p| is_below(path, p)),
            Self::Unsettled(settled) => settled.trashed.binary_search(&ino).is_err(),
        }
    }

    /// Whether something below `path`, but not all of it, may be meant.
    fn has_part_of(self, path: &[u8]) -> bool {
        match self {
            Self::All | Self::Unsettled(_) => false,
            Self::Below(paths) => paths.iter().any(|p| is_below(p, path)),
        }
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    let rest = path.strip_prefix(dir);
    dir.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
}

/// Something that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path, relative to the volume.
    pub path: Vec<u8>,
    /// Which.
    pub ino: Inode,
    /// A file, or a directory that was taken as a whole.
    pub kind: Kind,
    /// Size of a file.
    pub bytes: u64,
    /// Owner.
    pub uid: u32,
}

/// Something that could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it belongs, relative to the volume.
    pub path: Vec<u8>,
    /// Why it stays in the trash.
    pub why: String,
}

/// Puts things back.
pub struct Restore<'a> {
    /// What.
    pub which: Which<'a>,
    /// Called for each thing that is back, and each that could not be.
    pub tell: &'a mut dyn FnMut(Result<Item, Refused>),
    /// Called with the directory and name of each entry that is there now.
    pub placed: &'a mut dyn FnMut(&OwnedFd, &CStr),
    /// What cannot go back goes there, if anywhere.
    pub kept: Option<&'a Kept>,
}

impl Restore<'_> {
    /// Puts back what of a share is wanted. The share goes if nothing is left in it.
    ///
    /// # Errors
    /// When the share cannot be opened or listed; what happens to single entries is told.
    pub fn run(&mut self, trash: &Trash, share: &Share) -> io::Result<()> {
        let dir = beneath::open_anchor(&trash.dir, share.name().as_bytes())?;
        // A run that was killed at its beginning has not come to make all parts.
        let part = |name: &str| match beneath::open_dir(&dir, name.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        let files = part(FILES)?;
        if let Some(trees) = part(TREES)? {
            self.trees(trash, &trees, files.as_ref())?;
        }
        if let Some(files) = &files {
            self.files(trash, files, &[])?;
        }
        if let Some(flat) = part(FLAT)? {
            for lane in list(&flat)? {
                self.flat(trash, &beneath::open_dir(&flat, lane.to_bytes())?)?;
            }
        }
        drop(files);
        trash.sweep(share);
        Ok(())
    }

    fn trees(&mut self, trash: &Trash, trees: &OwnedFd, files: Option<&OwnedFd>) -> io::Result<()> {
        for name in list(trees)? {
            let dir = beneath::open_anchor(trees, name.to_bytes())?;
            let origin = rustix::fs::readlinkat(&dir, ORIGIN, Vec::new());
            let path = origin.map(|at| at.into_bytes()).unwrap_or_default();
            let there = stat::entry(&dir, TREE);
            if let Ok(found) = &there {
                let ino = found.stat.ino;
                if self.which.has(&path, ino) {
                    self.tree(trash, &dir, files, &path, found);
                } else if found.stat.kind == Kind::Directory && self.which.has_part_of(&path) {
                    self.files(trash, &beneath::open_dir(&dir, TREE.to_bytes())?, &path)?;
                }
            }
            if !is_there(&dir, TREE) {
                let _ = rustix::fs::unlinkat(&dir, ORIGIN, AtFlags::empty());
                let _ = rustix::fs::unlinkat(trees, &name, AtFlags::REMOVEDIR);
            }
        }
        Ok(())
    }

    fn tree(
        &mut self,
        trash: &Trash,
        dir: &OwnedFd,
        files: Option<&OwnedFd>,
        path: &[u8],
        found: &stat::Located,
    ) {
        let (above, name) = split(path);
        // The directories above it are remembered beside the files.
        let model = files.and_then(|files| beneath::open_anchor(files, above).ok());
        let parent = match &model {
            Some(model) => self.parent(trash, above, model),
            None => beneath::open_anchor(&trash.volume, above),
        };
        let name = std::ffi::CString::new(name).unwrap_or_default();
        let moved = parent.and_then(|parent| self.rename(dir, TREE, &parent, &name));
        self.tell_of(moved, (dir, TREE), path, found);
    }

    /// What lies in a directory of the trash goes to the directory of the volume that it stands for.
    fn files(&mut self, trash: &Trash, here: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let mut parent: Option<io::Result<OwnedFd>> = None;
        for name in list(here)? {
            let below = join(path, name.to_bytes());
            let found = stat::entry(here, &name)?;
            if found.stat.kind == Kind::Directory {
                self.files(trash, &beneath::open_dir(here, name.to_bytes())?, &below)?;
                if self.which.has(&below, found.stat.ino) || !self.which.has_part_of(&below) {
                    // Full if something in it was not wanted or could not go back.
                    let _ = rustix::fs::unlinkat(here, &name, AtFlags::REMOVEDIR);
                }
                continue;
            }
            if !self.which.has(&below, found.stat.ino) {
                continue;
            }
            if parent.is_none() {
                parent = Some(self.parent(trash, path, here));
            }
            let moved = match &parent {
                Some(Ok(parent)) => self.rename(here, &name, parent, &name),
                Some(Err(e)) => Err(io::Error::new(e.kind(), in_words(e))),
                None => Ok(()),
            };
            self.tell_of(moved, (here, &name), &below, &found);
        }
        Ok(())
    }

    /// Files that a killed run was about to remove, or not yet: only its plan knows where they belong.
    fn flat(&mut self, trash: &Trash, flat: &OwnedFd) -> io::Result<()> {
        let Which::Unsettled(settled) = self.which else {
            return Ok(());
        };
        for name in list(flat)? {
            let found = stat::entry(flat, &name)?;
            let ino = found.stat.ino;
            let Some(path) = settled.paths.get(&ino) else {
                let unknown = io::Error::other("nobody knows what its name was");
                let at_the_root = format!("{FOUND}{ino}");
                self.tell_of(Err(unknown), (flat, &name), at_the_root.as_bytes(), &found);
                continue;
            };
            let (above, last) = split(path);
            let last = std::ffi::CString::new(last).unwrap_or_default();
            let parent = beneath::open_anchor(&trash.volume, above);
            let moved = parent.and_then(|parent| self.rename(flat, &name, &parent, &last));
            self.tell_of(moved, (flat, &name), path, &found);
        }
        Ok(())
    }

    /// The directory of the volume at `path`; where it is gone it is made again, like the one of the trash.
    fn parent(&mut self, trash: &Trash, path: &[u8], here: &OwnedFd) -> io::Result<OwnedFd> {
        match beneath::open_anchor(&trash.volume, path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.is_empty() => {}
            other => return other,
        }
        let (above, name) = split(path);
        let parent = self.parent(trash, above, &beneath::open_parent(here)?)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => {
                make_alike(&parent, name, &rustix::fs::fstat(here)?)?;
                (self.placed)(&parent, &std::ffi::CString::new(name).unwrap_or_default());
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        beneath::open_anchor(&parent, name)
    }

    fn rename(&mut self, from: &OwnedFd, name: &CStr, to: &OwnedFd, as_name: &CStr) -> io::Result<()> {
        rustix::fs::renameat_with(from, name, to, as_name, RenameFlags::NOREPLACE)?;
        (self.placed)(to, as_name);
        Ok(())
    }

    fn tell_of(
        &mut self,
        moved: io::Result<()>,
        from: (&OwnedFd, &CStr),
        path: &[u8],
        found: &stat::Located,
    ) {
        let s = found.stat;
        (self.tell)(match moved {
            Ok(()) => Ok(Item {
                path: path.to_vec(),
                ino: s.ino,
                kind: s.kind,
                bytes: if s.kind == Kind::Directory { 0 } else { s.size },
                uid: s.uid,
            }),
            Err(e) => Err(Refused {
                path: path.to_vec(),
                why: match self.kept {
                    Some(kept) => kept.take(from, s.ino, path, &e).to_string(),
                    None => in_words(&e),
                },
            }),
        });
    }
}

/// Tells the index of an entry that the agent itself has put where it lies: it was used just now.
///
/// # Errors
/// When the index cannot be read.
pub fn take_in(watched: &Watched, dir: &OwnedFd, name: &CStr) -> Result<(), StoreError> {
    let Ok(parent) = stat::open_file(dir) else {
        return Ok(());
    };
    let mut index = watched.index.write();
    // A directory that the index does not know will be listed, and this entry with it.
    let Some(id) = index.dirs().of_inode(parent.stat.ino) else {
        return Ok(());
    };
    match watched.projects.entry(dir, name) {
        Ok(found) => take_entry_locked(watched, &mut index, id, name.to_bytes(), &found, true),
        Err(_) => Ok(()),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn in_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EEXIST) => "something else has its name by now; move that away and restore again".into(),
        Some(libc::ELOOP | libc::ENOTDIR | libc::EXDEV) => {
            "what lies on its way is no directory of the volume any more".into()
        }
        _ => error.to_string(),
    }
}
