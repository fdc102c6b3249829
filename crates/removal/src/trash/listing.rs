//! Lists what lies in the trash, bit by bit: one entry for each thing that a run took by itself or as a whole.
//!
//! The order is the same each time: share after share as they are given; of each share the directories that went as a whole, by their paths, and
//! then directory after directory, of each what lies right in it by its name, before the directories in it.
//!
//! What is held between two steps are paths and the names of one directory; everything is opened again by its path below the trash, which is
//! root's alone.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use crate::trash::contents::{Amount, files_in};
use crate::trash::dir::Trash;
use crate::trash::layout::{FILES, ORIGIN, TREE, TREES};
use crate::trash::places::{self, Whole};
use crate::trash::share::Share;
use purge_model::{Kind, Seconds, path};
use purge_sys::stat::{self, Located};
use purge_sys::walk::list;
use purge_sys::{beneath, inside, likeness};

/// Names that are looked at in one step.
const NAMES_AT_ONCE: usize = 64;
/// Of more directories in one share that went as a whole, the paths are not held: they are listed as they come.
const TREES_SORTED_MAX: usize = 50_000;

/// Something that lies in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lying {
    /// Where it came from, relative to the volume.
    pub path: Vec<u8>,
    /// A file or link, or a directory that went as a whole or was empty.
    pub kind: Kind,
    /// Its size, or that of all files in it.
    pub bytes: u64,
    /// Files in it.
    pub files_inside: u64,
    /// Its owner.
    pub uid: u32,
    /// When it was moved there.
    pub taken: Seconds,
    /// In which share.
    pub share: Share,
}

/// A list that is being made.
#[derive(Debug)]
pub struct Listing {
    dir: OwnedFd,
    shares: VecDeque<Share>,
    /// Only what came from there, or from below.
    below: Vec<u8>,
    /// Only what belongs to this user.
    only: Option<u32>,
    now: Option<Now>,
}

#[derive(Debug)]
struct Now {
    share: Share,
    /// Directories that went as a whole, whose paths are not known yet.
    unsorted: Vec<CString>,
    /// Those that are still to be listed, with their paths; the next one is the last.
    trees: Vec<(Vec<u8>, CString)>,
    /// Directories of files that are still to be listed, relative to the volume.
    dirs: Vec<Vec<u8>>,
    /// The names of the present one; the next one is the last.
    names: (Vec<u8>, Vec<CString>),
    /// Directories that were met in it.
    inside: Vec<Vec<u8>>,
}

impl Now {
    /// A directory is listed before those in it, and these by their names.
    fn go_into_the_present(&mut self) {
        self.dirs.extend(self.inside.drain(..).rev());
    }

    fn is_over(&self) -> bool {
        self.unsorted.is_empty()
            && self.trees.is_empty()
            && self.dirs.is_empty()
            && self.names.1.is_empty()
            && self.inside.is_empty()
    }
}

impl Listing {
    /// Of these shares, in this order.
    ///
    /// # Errors
    /// When the trash cannot be opened again.
    pub fn new(trash: &Trash, shares: Vec<Share>, below: Vec<u8>, only: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            dir: beneath::open_dir(&trash.dir, b"")?,
            shares: shares.into(),
            below,
            only,
            now: None,
        })
    }

    /// Some more of it; none: that was all. There may be nothing in a step.
    ///
    /// # Errors
    /// When a share cannot be listed.
    pub fn step(&mut self) -> io::Result<Option<Vec<Lying>>> {
        let Some(mut now) = self.now.take() else {
            let Some(share) = self.shares.pop_front() else {
                return Ok(None);
            };
            self.now = match self.begin(share) {
                // It was freed or restored since.
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                now => Some(now?),
            };
            return Ok(Some(Vec::new()));
        };
        let found = match self.go_on(&mut now) {
            // It was freed or restored since, or lies in another share.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                now.names.1.clear();
                Vec::new()
            }
            found => found?,
        };
        self.now = (!now.is_over()).then_some(now);
        Ok(Some(found))
    }

    fn begin(&self, share: Share) -> io::Result<Now> {
        let dir = self.share(&share)?;
        let unsorted = match beneath::open_dir(&dir, TREES.as_bytes()) {
            Ok(trees) => list(&trees)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        // What is asked for may be a directory or one thing in it.
        let (above, last) = crate::trash::bin::split(&self.below);
        let is_dir = beneath::open_dir(&dir, &of_files(&self.below)).is_ok();
        let mut now = Now {
            share,
            unsorted,
            trees: Vec::new(),
            dirs: Vec::new(),
            names: (Vec::new(), Vec::new()),
            inside: Vec::new(),
        };
        match is_dir || last.is_empty() {
            true => now.dirs.push(self.below.clone()),
            false => now.names = (above.to_vec(), CString::new(last).into_iter().collect()),
        }
        Ok(now)
    }

    fn share(&self, share: &Share) -> io::Result<OwnedFd> {
        beneath::open_anchor(&self.dir, share.name().as_bytes())
    }

    fn go_on(&self, now: &mut Now) -> io::Result<Vec<Lying>> {
        let dir = self.share(&now.share)?;
        let mut found = Vec::new();
        if !now.unsorted.is_empty() {
            let trees = beneath::open_dir(&dir, TREES.as_bytes())?;
            look_at_trees(&trees, now);
            return Ok(found);
        }
        if let Some((_, name)) = now.trees.pop() {
            let trees = beneath::open_dir(&dir, TREES.as_bytes())?;
            found.extend(self.tree(&trees, &name, &now.share)?);
            return Ok(found);
        }
        if now.names.1.is_empty() {
            now.go_into_the_present();
        }
        if now.names.1.is_empty()
            && let Some(path) = now.dirs.pop()
        {
            let open = match beneath::open_dir(&dir, &of_files(&path)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
                open => open?,
            };
            let is = stat::open_file(&open)?;
            if likeness::is_noted_removed(&open) {
                found.extend(self.entry(path.clone(), &is, (Amount::default(), is.stat.ctime), &now.share));
            }
            let mut names = list(&open)?;
            names.sort_unstable_by(|a, b| b.cmp(a));
            now.names = (path, names);
            return Ok(found);
        }
        let (path, names) = &mut now.names;
        // Taken first: a step that fails is not made again.
        let some = names.split_off(names.len().saturating_sub(NAMES_AT_ONCE));
        let open = beneath::open_dir(&dir, &of_files(path))?;
        for name in some.into_iter().rev() {
            let Ok(is) = stat::entry(&open, &name) else {
                continue;
            };
            let below = super::restore::join(path, name.to_bytes());
            match is.stat.kind {
                Kind::Directory => now.inside.push(below),
                _ => {
                    let amount = Amount {
                        files: 0,
                        bytes: is.stat.size,
                    };
                    found.extend(self.entry(below, &is, (amount, is.stat.ctime), &now.share));
                }
            }
        }
        Ok(found)
    }

    /// A directory that went as a whole, or what of it is asked for.
    fn tree(&self, trees: &OwnedFd, name: &CString, share: &Share) -> io::Result<Option<Lying>> {
        let Ok(Some(place)) = places::open(trees, name) else {
            return Ok(None);
        };
        let from = inside::read_note(&place, ORIGIN).unwrap_or_default();
        let taken = Whole::at(&place)?.moved();
        let (dir, name, path) = match (path::rest(&self.below, &from), path::rest(&from, &self.below)) {
            (Some(_), _) => (place, TREE.to_owned(), from),
            (None, Some(rest)) => {
                let (above, last) = crate::trash::bin::split(rest);
                let tree =
                    beneath::open_dir(&place, TREE.to_bytes()).and_then(|t| beneath::open_dir(t, above));
                let Ok(tree) = tree else { return Ok(None) };
                (tree, CString::new(last).unwrap_or_default(), self.below.clone())
            }
            (None, None) => return Ok(None),
        };
        let Ok(is) = stat::entry(&dir, &name) else {
            return Ok(None);
        };
        if self.only.is_some_and(|uid| uid != is.stat.uid) {
            return Ok(None);
        }
        let amount = match is.stat.kind {
            Kind::Directory => self.files_in(&dir, &name, is.stat.uid)?,
            _ => Amount {
                files: 0,
                bytes: is.stat.size,
            },
        };
        Ok(self.entry(path, &is, (amount, taken), share))
    }

    /// An ordinary user is told of no files of others, also not inside of a directory.
    fn files_in(&self, dir: &OwnedFd, name: &CString, owner: u32) -> io::Result<Amount> {
        let (all, theirs) = files_in((dir, name), owner, &|| false)?;
        Ok(if self.only.is_some() { theirs } else { all })
    }

    fn entry(
        &self,
        path: Vec<u8>,
        is: &Located,
        (amount, taken): (Amount, Seconds),
        share: &Share,
    ) -> Option<Lying> {
        let is_theirs = self.only.is_none_or(|uid| uid == is.stat.uid);
        is_theirs.then(|| Lying {
            path,
            kind: is.stat.kind,
            bytes: amount.bytes,
            files_inside: amount.files,
            uid: is.stat.uid,
            taken,
            share: share.clone(),
        })
    }
}

/// Finds where some directories came from that went as a whole. When that is known of all, they are in the order of their paths.
fn look_at_trees(trees: &OwnedFd, now: &mut Now) {
    let is_many = now.unsorted.len().saturating_add(now.trees.len()) > TREES_SORTED_MAX;
    let some = now
        .unsorted
        .split_off(now.unsorted.len().saturating_sub(NAMES_AT_ONCE));
    let path_of = |name: &CString| {
        let place = places::open(trees, name).ok().flatten().filter(|_| !is_many);
        place
            .and_then(|place| inside::read_note(&place, ORIGIN).ok())
            .unwrap_or_default()
    };
    now.trees
        .extend(some.into_iter().map(|name| (path_of(&name), name)));
    if now.unsorted.is_empty() {
        now.trees.sort_unstable_by(|a, b| b.cmp(a));
    }
}

fn of_files(path: &[u8]) -> Vec<u8> {
    super::restore::join(FILES.as_bytes(), path)
}
