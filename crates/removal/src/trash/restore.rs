//! Putting back what lies in the trash: when an operator asks for it, and after a run that was killed. Never over anything
//! that is there now.
//!
//! ```text
//!   trash   f/alice/results/a.dat          VOLUME/alice/results/a.dat
//!             |     |                              |     |
//!             +-----+---- what they were like ---> way: compared, or made again
//! ```
//! The directories on the way to a place may be other directories by now, and other users may change them while this goes on. See
//! [`crate::trash::way`] for what may take a file back.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::trash::bin::split;
use crate::trash::dir::Trash;
use crate::trash::layout::{FILES, FLAT, LIKE, ORIGIN, TREE, TREES};
use crate::trash::origin::Origin;
use crate::trash::placeholder;
use crate::trash::places::{self, Whole};
use crate::trash::share::Share;
use crate::trash::stranded::Stranded;
use crate::trash::way::{Makes, Stage, Was, Way};
use purge_model::{Inode, Kind};
use purge_sys::likeness::Likeness;
use purge_sys::walk::{Listed, Visitor, list, walk};
use purge_sys::{beneath, inside, likeness, stat};

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

/// What is known of a killed run's share. Anything else in it, also another user's file that had taken a candidate's name in the
/// last moment, goes back.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is in the trash for good, in order.
    pub trashed: Vec<Inode>,
    /// Where those belong whose place in the trash does not tell.
    pub paths: FxHashMap<Inode, Vec<u8>>,
    /// What the run has noted of the directories that things were taken out of.
    pub origins: FxHashMap<Inode, Arc<Origin>>,
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

/// Another directory of the volume than the one it came from.
#[derive(Debug)]
pub struct Destination {
    /// The directory.
    pub dir: OwnedFd,
    /// Its path, relative to the volume.
    pub path: Vec<u8>,
}

/// Whether an open directory is the one that had this path, relative to the volume, when the agent looked last.
pub type Knows<'a> = &'a dyn Fn(&OwnedFd, &[u8]) -> bool;

/// Puts things back.
pub struct Restore<'a> {
    /// What.
    pub which: Which<'a>,
    /// Below which directory; none: where it came from.
    pub to: Option<&'a Destination>,
    /// Called for each thing that is back, and each that could not be.
    pub tell: &'a mut dyn FnMut(Result<Item, Refused>),
    /// Called with the directory and name of each entry that is there now.
    pub placed: &'a mut dyn FnMut(&OwnedFd, &CStr),
    /// What cannot go back goes there, if anywhere.
    pub kept: Option<&'a Stranded>,
    /// Tells of directories that the trash remembers nothing of.
    pub knows: Knows<'a>,
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
        let stage = trash.stage()?;
        let files = part(FILES)?;
        if let Some(trees) = part(TREES)? {
            self.trees(trash, &stage, &trees, files.as_ref())?;
        }
        if files.is_some() {
            let way = self.way(trash, &stage)?;
            self.files((&dir, FILES_NAME), way, Vec::new(), (Likeness::recorded, None))?;
        }
        drop(files);
        if let Some(flat) = part(FLAT)? {
            for lane in list(&flat)? {
                self.flat(trash, &stage, &beneath::open_dir(&flat, lane.to_bytes())?)?;
            }
        }
        trash.sweep(share);
        Ok(())
    }

    /// To where things go back.
    fn way<'s>(&self, trash: &Trash, stage: &'s Stage) -> io::Result<Way<'s>> {
        let root = self.to.map_or(&trash.volume, |to| &to.dir);
        let makes = match (self.to, self.kept) {
            (Some(_), _) => Makes::All,
            (None, None) => Makes::Known,
            // What was being taken goes back to where it was, or not at all.
            (None, Some(_)) => Makes::None,
        };
        Ok(Way::from(rustix::io::dup(root)?, stage, makes))
    }

    /// To the directory at `above`, which is the very one that something of `uid` was taken out of, or protects it as well.
    fn way_to<'s>(
        &self,
        (trash, stage): (&Trash, &'s Stage),
        above: &[u8],
        (files, origin): (Option<&OwnedFd>, Option<&Origin>),
        uid: u32,
    ) -> io::Result<Way<'s>> {
        if self.to.is_none()
            && let Ok(dir) = beneath::open_dir(&trash.volume, above)
            && (origin.is_some_and(|origin| origin.is_in(&dir)) || (self.knows)(&dir, above))
        {
            return Ok(Way::from(dir, stage, Makes::None));
        }
        let mut way = self.way(trash, stage)?;
        way.follow(above, (files, origin), uid)?;
        Ok(way)
    }

    /// What is known of the directories that a tree was taken out of, whose place is `dir`.
    fn origin_of(&self, dir: &OwnedFd, ino: Inode) -> Option<Arc<Origin>> {
        let noted = match self.which {
            Which::Unsettled(settled) => settled.origins.get(&ino).cloned(),
            Which::All | Which::Below(_) => None,
        };
        noted.or_else(|| {
            let note = inside::read_note(dir, LIKE).ok()?;
            Origin::of_note(&note).map(Arc::new)
        })
    }

    fn trees(
        &mut self,
        trash: &Trash,
        stage: &Stage,
        trees: &OwnedFd,
        files: Option<&OwnedFd>,
    ) -> io::Result<()> {
        for name in list(trees)? {
            let Some(dir) = places::open(trees, &name)? else {
                let found = stat::entry(trees, &name)?;
                let belongs = places::path_of_foreign(found.stat.ino);
                self.tell_of(Err(places::foreign()), (trees, &name), (&belongs, None), &found);
                continue;
            };
            let path = inside::read_note(&dir, ORIGIN).unwrap_or_default();
            // A run was killed before it had taken the directory.
            if placeholder::is_at((&dir, TREE)).is_some() {
                inside::remove_dir(&dir, TREE)?;
            }
            let whole = Whole::at(&dir)?;
            if let Ok(found) = stat::entry(&dir, TREE) {
                let is_wanted = self.which.has(&path, found.stat.ino);
                let is_in_part = found.stat.kind == Kind::Directory && self.which.has_part_of(&path);
                if is_wanted || is_in_part {
                    let (above, last) = split(&path);
                    let origin = self.origin_of(&dir, found.stat.ino);
                    let known = (files, origin.as_deref());
                    let mut way = self.way_to((trash, stage), above, known, found.stat.uid)?;
                    if !is_wanted || !self.tree(&dir, (&mut way, known.1), last, (&path, &found)) {
                        // Users move and make things there meanwhile: that is a matter of this one.
                        let whole = Some((whole, &dir));
                        let merged = self.files((&dir, TREE), way, path.clone(), (Likeness::of, whole));
                        if let Err(error) = merged {
                            let why = in_words(&error);
                            let path = path.clone();
                            (self.tell)(Err(Refused { path, why }));
                        }
                        // Full if something in it was not wanted or could not go back.
                        let _ = inside::remove_dir(&dir, TREE);
                    }
                }
            }
            if self.kept.is_some() {
                // A run that was killed may have kept the name of a directory that does not go back.
                placeholder::remove_at(&trash.volume, &path);
            }
            if !inside::is_there(&dir, TREE)? {
                let _ = inside::unlink(&dir, ORIGIN);
                let _ = inside::unlink(&dir, LIKE);
                let _ = inside::remove_dir(trees, &*name);
            }
        }
        Ok(())
    }

    /// Puts a tree back as a whole. False: a directory has its name, and takes what was in it.
    fn tree(
        &mut self,
        dir: &OwnedFd,
        (way, origin): (&mut Way<'_>, Option<&Origin>),
        name: &[u8],
        what: (&[u8], &stat::Located),
    ) -> bool {
        let name = CString::new(name).unwrap_or_default();
        let moved =
            way.place(self.placed)
                .and_then(|parent| match inside::move_to(dir, TREE, parent, &name) {
                    Ok(()) => Ok(Some(parent)),
                    // A run that was killed has kept the name for it.
                    Err(_)
                        if placeholder::is_at((parent, &name)).is_some()
                            && placeholder::give_back(dir, (parent, &name)).is_ok() =>
                    {
                        Ok(Some(parent))
                    }
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_dir(parent, &name) => Ok(None),
                    Err(e) => Err(e),
                });
        let moved = match moved {
            Ok(Some(parent)) => {
                (self.placed)(parent, &name);
                Ok(())
            }
            // What was being taken by a run that was killed goes back as it was, or not at all.
            Ok(None) if self.kept.is_none() && what.1.stat.kind == Kind::Directory => return false,
            Ok(None) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
            Err(e) => Err(e),
        };
        let of_way = way.origin().filter(|_| origin.is_none());
        self.tell_of(moved, (dir, TREE), (what.0, of_way.as_ref().or(origin)), what.1);
        true
    }

    /// What lies in a directory of the trash goes to the directory of the volume that it stands for, at `path`.
    fn files(
        &mut self,
        (parent, name): (&OwnedFd, &CStr),
        way: Way<'_>,
        path: Vec<u8>,
        (like, whole): (LikenessOf, Option<(Whole, &OwnedFd)>),
    ) -> io::Result<()> {
        let mut back = Back {
            restore: self,
            way,
            path,
            like,
            whole,
            moved_names: FxHashSet::default(),
            open: Vec::new(),
        };
        walk(parent, name, &mut back)
    }

    /// Files that a killed run was about to remove, or not yet: only its plan knows where they belong.
    fn flat(&mut self, trash: &Trash, stage: &Stage, flat: &OwnedFd) -> io::Result<()> {
        let Which::Unsettled(settled) = self.which else {
            return Ok(());
        };
        for name in list(flat)? {
            let found = stat::entry(flat, &name)?;
            let ino = found.stat.ino;
            let Some(path) = settled.paths.get(&ino) else {
                let unknown = io::Error::other("its name was lost with the run");
                let at_the_root = places::path_of_foreign(ino);
                self.tell_of(Err(unknown), (flat, &name), (&at_the_root, None), &found);
                continue;
            };
            let (above, last) = split(path);
            let last = CString::new(last).unwrap_or_default();
            let origin = settled.origins.get(&ino).map(|origin| &**origin);
            let mut way = self.way_to((trash, stage), above, (None, origin), found.stat.uid)?;
            let moved = way.place(self.placed);
            let moved = moved.and_then(|dir| inside::move_to(flat, &name, dir, &last).map(|()| dir));
            let moved = moved.map(|dir| (self.placed)(dir, &last));
            self.tell_of(moved, (flat, &name), (path, origin), &found);
        }
        Ok(())
    }

    /// Where something that belongs at `path` is put.
    fn path_of(&self, path: &[u8]) -> Vec<u8> {
        self.to.map_or(path.to_vec(), |to| join(&to.path, path))
    }

    fn tell_of(
        &mut self,
        moved: io::Result<()>,
        from: (&OwnedFd, &CStr),
        (path, origin): (&[u8], Option<&Origin>),
        found: &stat::Located,
    ) {
        let s = found.stat;
        let placed = self.path_of(path);
        (self.tell)(match moved {
            Ok(()) => Ok(Item {
                path: placed,
                ino: s.ino,
                kind: s.kind,
                bytes: if s.kind == Kind::Directory { 0 } else { s.size },
                uid: s.uid,
            }),
            Err(e) => Err(Refused {
                path: path.to_vec(),
                why: match self.kept {
                    Some(kept) => kept.take(from, s.ino, (path, origin), &e).to_string(),
                    None => in_words(&e),
                },
            }),
        });
    }
}

const FILES_NAME: &CStr = c"f";

type LikenessOf = fn(&OwnedFd) -> io::Result<Likeness>;

/// A walk through directories of the trash, file by file.
struct Back<'r, 'a, 'w> {
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

impl Back<'_, '_, '_> {
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
        if let (Some((whole, _)), Some(open)) = (&self.whole, self.open.last_mut())
            && !std::mem::replace(&mut open.is_marked, true)
        {
            whole.will_change(dir);
        }
    }

    fn refuse_changed(&mut self) {
        if let Some((_, place)) = &self.whole {
            places::note_used(place);
        }
        let why =
            "it was changed in the trash; all of the directory goes to another place with `restore --to DIR`";
        (self.restore.tell)(Err(Refused {
            path: self.path.clone(),
            why: why.into(),
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
        let path = join(&self.path, entry.name.to_bytes());
        let found = stat::entry(dir, &entry.name)?;
        if !self.restore.which.has(&path, found.stat.ino) {
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
        let place = self.way.place(self.restore.placed);
        let moved = place.and_then(|to| inside::move_to(dir, &entry.name, to, &entry.name).map(|()| to));
        if self.whole.is_some() && moved.is_ok() && found.stat.links > 1 {
            self.moved_names.insert(found.stat.ino);
        }
        let moved = moved.map(|to| (self.restore.placed)(to, &entry.name));
        let origin = match &moved {
            Err(_) => self.way.origin(),
            Ok(()) => None,
        };
        let belongs = (&*path, origin.as_ref());
        self.restore.tell_of(moved, (dir, &entry.name), belongs, &found);
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
        if is_removed && !stays {
            // It goes back once, also if files of it are left here.
            let here = beneath::open_dir(parent, name.to_bytes());
            let _ = here.and_then(|dir| likeness::note_removed(&dir, false));
        }
        self.way.up();
        let which = self.restore.which;
        if !stays && !self.open.is_empty() && (which.has(&self.path, ino) || !which.has_part_of(&self.path)) {
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
        if matches!(which, Which::Unsettled(_)) || !which.has(&self.path, ino) {
            return false;
        }
        let placed = self.way.place(self.restore.placed).map(drop);
        let is_back = placed.is_ok();
        let path = self.restore.path_of(&self.path);
        (self.restore.tell)(match placed {
            Ok(()) => Ok(Item {
                path,
                ino,
                kind: Kind::Directory,
                bytes: 0,
                uid,
            }),
            Err(e) => Err(Refused {
                path: self.path.clone(),
                why: in_words(&e),
            }),
        });
        is_back
    }
}

fn is_dir(dir: &OwnedFd, name: &CStr) -> bool {
    stat::entry(dir, name).is_ok_and(|found| found.stat.kind == Kind::Directory)
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
        Some(libc::EEXIST) => "something else has its name now; move that away and restore again".into(),
        _ => error.to_string(),
    }
}
