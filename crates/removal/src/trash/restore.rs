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

mod back;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use self::back::{Back, LikenessOf};
use crate::trash::bin::split;
use crate::trash::contents::{Amount, files_in};
use crate::trash::dir::Trash;
use crate::trash::layout::{FILES, FLAT, LIKE, ORIGIN, TREE, TREES};
use crate::trash::origin::Origin;
use crate::trash::placeholder;
use crate::trash::places::{self, Whole};
use crate::trash::share::Share;
use crate::trash::stranded::Stranded;
use crate::trash::way::{Makes, Stage, Way};
use crate::trash::whom::Whom;
use purge_model::path_set::PathSet;
use purge_model::{Inode, Kind};
use purge_sys::likeness::Likeness;
use purge_sys::walk::{list, walk};
use purge_sys::{beneath, inside, stat, vacant};

/// What is to go back.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Everything.
    All,
    /// What lies at or below one of these paths, relative to the volume.
    Below(&'a PathSet),
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
            Self::Below(paths) => paths.covers(path),
            Self::Unsettled(settled) => settled.trashed.binary_search(&ino).is_err(),
        }
    }

    /// Whether something at `path` may be meant. What lies there has not been looked at.
    fn may_have(self, path: &[u8]) -> bool {
        match self {
            Self::All | Self::Unsettled(_) => true,
            Self::Below(paths) => paths.covers(path),
        }
    }

    /// Whether something below `path`, but not all of it, may be meant.
    fn has_part_of(self, path: &[u8]) -> bool {
        match self {
            Self::All | Self::Unsettled(_) => false,
            Self::Below(paths) => paths.reaches_into(path),
        }
    }
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
    /// Size of a file, or of all files in a directory that came back as a whole.
    pub bytes: u64,
    /// Files in a directory that came back as a whole.
    pub files_inside: u64,
    /// What of these belongs to its owner.
    pub of_owner: Amount,
    /// It lay in a directory that the run took as a whole, and came back by itself.
    pub is_part: bool,
    /// Owner.
    pub uid: u32,
}

impl Item {
    /// As its owner may see it: without what others had in it.
    pub fn without_others(&self) -> Self {
        match self.kind {
            Kind::Directory => Self {
                bytes: self.of_owner.bytes,
                files_inside: self.of_owner.files,
                ..self.clone()
            },
            _ => self.clone(),
        }
    }
}

/// Something that could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it belongs, relative to the volume.
    pub path: Vec<u8>,
    /// Why it stays in the trash.
    pub why: String,
    /// Something else has its name.
    pub is_name_taken: bool,
}

impl Refused {
    /// A whole share.
    pub fn of_share(why: String) -> Self {
        Self {
            path: Vec::new(),
            why,
            is_name_taken: false,
        }
    }
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
    /// An ordinary user who asks: nothing of others goes back, and nothing is told of it.
    pub whom: Option<Whom<'a>>,
    /// Nothing is changed: what would go back is told.
    pub is_dry: bool,
    /// Whether it is to end before it is done: the client that asked has left.
    pub is_stopping: &'a dyn Fn() -> bool,
    /// No directory that was taken as a whole is left in the share: found out while it runs.
    pub has_no_trees: bool,
    /// How many directories that a run took as a whole are back in parts, with nothing left of them in the trash.
    pub emptied: u64,
}

impl<'a> Restore<'a> {
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
        let stage = &match self.is_dry {
            true => Stage::of(beneath::open_dir(&trash.dir, b"")?),
            false => trash.stage()?,
        };
        let files = part(FILES)?;
        if let Some(trees) = part(TREES)? {
            self.trees(trash, stage, &trees, files.as_ref())?;
        }
        let trees = part(TREES)?.map_or(Ok(Vec::new()), |trees| list(&trees))?;
        self.has_no_trees = trees.is_empty();
        if files.is_some() {
            let way = self.way(trash, stage)?;
            self.files((&dir, FILES_NAME), way, Vec::new(), (Likeness::recorded, None))?;
        }
        drop(files);
        if let Some(flat) = part(FLAT)? {
            for lane in list(&flat)? {
                self.flat(trash, stage, &beneath::open_dir(&flat, lane.to_bytes())?)?;
            }
        }
        if !self.is_dry {
            trash.sweep(share);
        }
        Ok(())
    }

    /// An error once it is to end.
    fn go_on(&self) -> io::Result<()> {
        match (self.is_stopping)() {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }

    /// To where things go back.
    fn way<'s>(&self, trash: &Trash, stage: &'s Stage) -> io::Result<Way<'s>>
    where
        'a: 's,
    {
        let root = self.to.map_or(&trash.volume, |to| &to.dir);
        let makes = match (self.to, self.kept) {
            (Some(_), _) => Makes::All,
            (None, None) => Makes::Known,
            // What was being taken goes back to where it was, or not at all.
            (None, Some(_)) => Makes::None,
        };
        let way = Way::from(rustix::io::dup(root)?, stage, makes);
        Ok(way.asked(self.whom, self.is_dry))
    }

    /// To the directory at `above`, which is the very one that something of `uid` was taken out of, or protects it as well.
    fn way_to<'s>(
        &self,
        (trash, stage): (&Trash, &'s Stage),
        above: &[u8],
        (files, origin): (Option<&OwnedFd>, Option<&Origin>),
        uid: u32,
    ) -> io::Result<Way<'s>>
    where
        'a: 's,
    {
        if self.to.is_none()
            && self.whom.is_none()
            && let Ok(dir) = beneath::open_dir(&trash.volume, above)
            && (origin.is_some_and(|origin| origin.is_in(&dir)) || (self.knows)(&dir, above))
        {
            return Ok(Way::from(dir, stage, Makes::None).asked(None, self.is_dry));
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
            self.go_on()?;
            let Some(dir) = places::open(trees, &name)? else {
                if self.whom.is_some() || self.is_dry {
                    continue;
                }
                let found = stat::entry(trees, &name)?;
                let belongs = places::path_of_foreign(found.stat.ino);
                self.tell_of(Err(places::foreign()), (trees, &name), (&belongs, None), &found);
                continue;
            };
            let path = inside::read_note(&dir, ORIGIN).unwrap_or_default();
            // A run was killed before it had taken the directory.
            if !self.is_dry && placeholder::is_at((&dir, TREE)).is_some() {
                inside::remove_dir(&dir, TREE)?;
            }
            let whole = Whole::at(&dir)?;
            if let Ok(found) = stat::entry(&dir, TREE) {
                let is_theirs = self.whom.is_none_or(|whom| whom.uid == found.stat.uid);
                let is_wanted = is_theirs && self.which.has(&path, found.stat.ino);
                let is_in_part =
                    is_theirs && found.stat.kind == Kind::Directory && self.which.has_part_of(&path);
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
                            (self.tell)(Err(Refused {
                                path: path.clone(),
                                why,
                                is_name_taken: false,
                            }));
                        }
                        // Full if something in it was not wanted or could not go back.
                        if !self.is_dry && inside::remove_dir(&dir, TREE).is_ok() {
                            self.emptied = self.emptied.saturating_add(1);
                        }
                    }
                }
            }
            if self.kept.is_some() {
                // A run that was killed may have kept the name of a directory that does not go back.
                placeholder::remove_at(&trash.volume, &path);
            }
            if !self.is_dry && !inside::is_there(&dir, TREE)? {
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
        // Before it is back among what users change.
        let inside = match what.1.stat.kind {
            Kind::Directory => files_in((dir, TREE), what.1.stat.uid, self.is_stopping).unwrap_or_default(),
            _ => Default::default(),
        };
        let is_dry = self.is_dry;
        let moved = way
            .reach(self.placed)
            .and_then(|parent| match put((dir, TREE), parent, &name, is_dry) {
                Ok(()) => Ok(Some(parent)),
                // A run that was killed has kept the name for it.
                Err(_) if parent.is_some_and(|parent| is_given_back(dir, (parent, &name), is_dry)) => {
                    Ok(Some(parent))
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_dir(parent, &name) => Ok(None),
                Err(e) => Err(e),
            });
        let moved = match moved {
            Ok(Some(parent)) => {
                if let Some(parent) = parent.filter(|_| !is_dry) {
                    (self.placed)(parent, &name);
                }
                Ok(())
            }
            // What was being taken by a run that was killed goes back as it was, or not at all.
            Ok(None) if self.kept.is_none() && what.1.stat.kind == Kind::Directory => return false,
            Ok(None) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
            Err(e) => Err(e),
        };
        let of_way = way.origin().filter(|_| origin.is_none());
        let origin = of_way.as_ref().or(origin);
        self.tell_of_amount(
            moved,
            (dir, TREE),
            (what.0, origin),
            (what.1, Lay::Itself(inside)),
        );
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
        let mut back = Back::new(self, way, path, (like, whole));
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
            let moved = moved.and_then(|dir| vacant::give(flat, &name, dir, &last).map(|()| dir));
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
        belongs: (&[u8], Option<&Origin>),
        found: &stat::Located,
    ) {
        self.tell_of_amount(moved, from, belongs, (found, Lay::Itself(Default::default())));
    }

    fn tell_of_amount(
        &mut self,
        moved: io::Result<()>,
        from: (&OwnedFd, &CStr),
        (path, origin): (&[u8], Option<&Origin>),
        (found, lay): (&stat::Located, Lay),
    ) {
        let s = found.stat;
        let placed = self.path_of(path);
        let (inside, is_part) = match lay {
            Lay::Itself(inside) => (inside, false),
            Lay::InTree => (<(Amount, Amount)>::default(), true),
        };
        (self.tell)(match moved {
            Ok(()) => Ok(Item {
                path: placed,
                ino: s.ino,
                kind: s.kind,
                bytes: if s.kind == Kind::Directory {
                    inside.0.bytes
                } else {
                    s.size
                },
                files_inside: inside.0.files,
                of_owner: inside.1,
                is_part,
                uid: s.uid,
            }),
            Err(e) => Err(Refused {
                path: path.to_vec(),
                is_name_taken: e.kind() == io::ErrorKind::AlreadyExists,
                why: match self.kept {
                    Some(kept) => kept.take(from, s.ino, (path, origin), &e).to_string(),
                    None => in_words(&e),
                },
            }),
        });
    }
}

const FILES_NAME: &CStr = c"f";

/// How something lay in the trash.
#[derive(Debug, Clone, Copy)]
enum Lay {
    /// By itself, with as much in it, and as much of its owner.
    Itself((Amount, Amount)),
    /// In a directory that the run took as a whole.
    InTree,
}

/// Moves something to its place. If nothing may be changed: whether it could be. The directory is missing where it would be made.
fn put(
    (from, name): (&OwnedFd, &CStr),
    to: Option<&OwnedFd>,
    as_name: &CStr,
    is_dry: bool,
) -> io::Result<()> {
    match to {
        Some(to) if !is_dry => vacant::give(from, name, to, as_name),
        Some(to) if inside::is_there(to, as_name)? => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        _ => Ok(()),
    }
}

/// Whether a placeholder has the name, and has given it back, or would.
fn is_given_back(dir: &OwnedFd, place: (&OwnedFd, &CStr), is_dry: bool) -> bool {
    placeholder::is_at(place).is_some() && (is_dry || placeholder::give_back(dir, place).is_ok())
}

fn is_dir(dir: Option<&OwnedFd>, name: &CStr) -> bool {
    let found = dir.and_then(|dir| stat::entry(dir, name).ok());
    found.is_some_and(|found| found.stat.kind == Kind::Directory)
}

pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() && !name.is_empty() {
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
