//! Frees what lies in the trash and whose grace has ended.
//!
//! A process that had a directory of it open when it was moved can still use what is in it, and can move other things into it; a file can
//! be opened again by a descriptor that a process has, or by a handle. So everything is looked at first: what was used or changed after the
//! move, or is open, is kept. Of a directory that went as a whole all is kept then.
//!
//! ```text
//!   look      of a directory that went as a whole: at all of it, before any of it goes
//!   lease     some files: a process that opens one of them from now on waits
//!   read      every use before the leases is known
//!   remove    what was not used, and whose lease is still whole
//! ```

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use purge_proto::shown;
use roaring::RoaringTreemap;
use rustc_hash::FxHashSet;

use crate::trash::bin::split;
use crate::trash::doubt::{Doubt, Verdict};
use crate::trash::layout::{FILES, LIKE, ORIGIN, TREE};
use crate::trash::origin::{self, Origin};
use crate::trash::places::{self, Whole};
use crate::trash::stranded::Stranded;
use purge_collect::trashed::Trashed;
use purge_model::{Inode, Kind, Seconds, Stat};
use purge_sys::lease::{self, Asked, Lease};
use purge_sys::walk::{Listed, Removal, Visitor, walk};
use purge_sys::{beneath, inside, stat};

/// As many are removed after one look at the uses that wait. Openers of one of them wait meanwhile, and each has two descriptors.
const TOGETHER_MAX: usize = 128;

/// What freeing goes by.
pub struct Freer<'f> {
    /// Where goes what was used.
    pub kept: Stranded,
    /// What is known of uses in the trash.
    pub trashed: &'f Trashed,
    /// Inodes that are in use by mounts.
    pub busy: Arc<FxHashSet<Inode>>,
    /// What is not known.
    pub doubt: Doubt,
    /// Reads the uses that wait. False: not all of them could be read now.
    pub read_uses: &'f dyn Fn() -> bool,
    /// The agent is about to end.
    pub is_stopping: &'f dyn Fn() -> bool,
}

/// What is left of what was to be freed.
#[derive(Debug, Default)]
pub struct Rest {
    /// What cannot be removed, and why.
    pub stuck: Removal,
    /// How many wait, because they may have been used while no agent was watching.
    pub waiting: u64,
}

impl Rest {
    pub(crate) fn add(&mut self, other: Self, above: &[u8]) {
        self.stuck.add(other.stuck.below(above));
        self.waiting = self.waiting.saturating_add(other.waiting);
    }
}

/// Why freeing has not come to its end.
#[derive(Debug)]
pub enum Ended {
    /// A call failed.
    Failed(io::Error),
    /// Uses wait to be read: it goes on later.
    Late,
    /// The agent is about to end: the next one goes on.
    Stopping,
    /// Something was used.
    Used(io::Error),
    /// Something may have been used.
    Waits,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Frees the files below the directory `part` of a share, each by itself. What was used is kept, and what is busy stays.
///
/// # Errors
/// When the walk cannot go on.
pub fn free_files(by: &Freer<'_>, share: &OwnedFd, part: &CStr) -> Result<Rest, Ended> {
    let mut freeing = Freeing::of(by, None);
    let walked = walk(share, part, &mut freeing).and_then(|()| freeing.carry_out());
    by.trashed.leave(&freeing.over);
    walked.map(|()| freeing.rest)
}

/// Frees what lies in the directory `name` of `trees`, or keeps it. What is busy stays. The answer says what could not be removed.
///
/// # Errors
/// When it cannot be opened or looked at.
pub fn free_tree(by: &Freer<'_>, trees: &OwnedFd, name: &CStr) -> Result<Rest, Ended> {
    let Some(place) = places::open(trees, name)? else {
        return keep_foreign(by, trees, name);
    };
    let mut rest = Rest::default();
    if let Ok(top) = stat::entry(&place, TREE) {
        let mut asked = RoaringTreemap::new();
        let freed = match top.stat.kind {
            Kind::Directory => free_directory(by, &place, &mut asked),
            _ if by.busy.contains(&top.stat.ino) => {
                return Err(io::Error::from(rustix::io::Errno::BUSY).into());
            }
            // Only what is kept without end is no directory.
            _ => Err(Ended::Used(places::foreign())),
        };
        match freed {
            Ok(left) => rest = left,
            Err(Ended::Waits) => rest.waiting = 1,
            Err(Ended::Failed(error) | Ended::Used(error)) => {
                let path = inside::read_note(&place, ORIGIN).unwrap_or_default();
                let origin = origin_of_tree(&place, trees, &path);
                let belongs = (&*path, origin.as_ref());
                // Where it cannot be kept apart it lies here, and the next look must know.
                places::note_used(&place);
                let said = by.kept.take((&place, TREE), top.stat.ino, belongs, &error);
                match stat::entry(&place, TREE) {
                    Ok(found) => rest
                        .stuck
                        .leave_behind(TREE.to_bytes(), why_it_stays(found.protected, error)),
                    Err(_) => {
                        // It is kept without end.
                        by.trashed.leave(&asked);
                        tell_kept(&path, &said);
                    }
                }
            }
            Err(later) => return Err(later),
        }
    }
    if inside::is_there(&place, TREE)? {
        return Ok(rest);
    }
    let _ = inside::unlink(&place, ORIGIN);
    let _ = inside::unlink(&place, LIKE);
    if let Err(error) = inside::remove_dir(trees, name) {
        rest.stuck.leave_behind(name.to_bytes(), error);
    }
    Ok(rest)
}

/// Keeps what lies where only places lie: a user has made it, and what it says is not believed.
fn keep_foreign(by: &Freer<'_>, trees: &OwnedFd, name: &CStr) -> Result<Rest, Ended> {
    let found = stat::entry(trees, name)?;
    let ino = found.stat.ino;
    let (path, error) = (places::path_of_foreign(ino), places::foreign());
    let said = by.kept.take((trees, name), ino, (&path, None), &error);
    let mut rest = Rest::default();
    match inside::is_there(trees, name)? {
        true => rest
            .stuck
            .leave_behind(name.to_bytes(), why_it_stays(found.protected, error)),
        false => tell_kept(&path, &said),
    }
    Ok(rest)
}

/// Looks at all of a directory that went as a whole, then frees it. `asked`: what was looked at.
fn free_directory(by: &Freer<'_>, place: &OwnedFd, asked: &mut RoaringTreemap) -> Result<Rest, Ended> {
    let whole = Whole::at(place)?;
    let mut looking = Looking {
        by,
        whole: &whole,
        is_top: true,
        asked,
    };
    let looked = match places::is_noted_used(place) {
        true => used_if(true),
        false => walk(place, TREE, &mut looking),
    };
    looked.and_then(|()| {
        let mut freeing = Freeing::of(by, Some(&whole));
        let walked = walk(place, TREE, &mut freeing).and_then(|()| freeing.carry_out());
        by.trashed.leave(&freeing.over);
        walked.map(|()| freeing.rest)
    })
}

fn check(whole: &Whole, s: &Stat) -> Result<(), Ended> {
    used_if(whole.is_changed(s))
}

fn check_directory(whole: &Whole, dir: &OwnedFd) -> Result<(), Ended> {
    used_if(whole.is_changed_directory(dir)?)
}

fn used_if(is_changed: bool) -> Result<(), Ended> {
    match is_changed {
        true => Err(Ended::Used(io::Error::other(
            "something in it was changed after it went to the trash",
        ))),
        false => Ok(()),
    }
}

impl Freer<'_> {
    /// Looks at a file, and takes a lease on it if there are leases. An error of the file system is doubt: a file under a user's own lease
    /// cannot be opened without waiting.
    fn look(&self, dir: &OwnedFd, entry: &Listed, moved: Option<Seconds>) -> Result<Option<Lease>, Ended> {
        let used = |why: &str| Err(Ended::Used(io::Error::other(why)));
        if entry.kind != Kind::File {
            return Ok(None);
        }
        if self.trashed.was_used(entry.ino) {
            return used("a process used it after it went to the trash");
        }
        if self.doubt.from.is_some() {
            let found = stat::entry(dir, &entry.name)?.stat;
            match self.doubt.verdict((dir, &entry.name), &found, moved) {
                Verdict::Used => {
                    return used("a process used it after it went to the trash, while no agent was watching");
                }
                Verdict::Unknown => return Err(Ended::Waits),
                Verdict::Unused => {}
            }
        }
        match beneath::open_file(dir, &entry.name).and_then(lease::ask)? {
            Asked::Open | Asked::Locked => self.is_open(entry.ino),
            Asked::Granted(lease) => Ok(Some(lease)),
            Asked::Unsupported(_) => Ok(None),
        }
    }

    /// A process that has a file open uses it. It may have closed it at the next look, which then must know.
    fn is_open<T>(&self, ino: Inode) -> Result<T, Ended> {
        let _ = self.trashed.note(ino);
        Err(Ended::Used(io::Error::other("a process has it open")))
    }

    fn go_on(&self) -> Result<(), Ended> {
        match (self.is_stopping)() {
            true => Err(Ended::Stopping),
            false => Ok(()),
        }
    }
}

/// Ends at the first thing that was used after a moment.
struct Looking<'f> {
    by: &'f Freer<'f>,
    whole: &'f Whole,
    is_top: bool,
    asked: &'f mut RoaringTreemap,
}

impl Visitor for Looking<'_> {
    type Stop = Ended;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, dir: &OwnedFd) -> Result<bool, Ended> {
        self.by.go_on()?;
        // The move itself has changed the first one.
        if !std::mem::take(&mut self.is_top) {
            check_directory(self.whole, dir)?;
        }
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> Result<(), Ended> {
        self.by.go_on()?;
        self.asked.insert(entry.ino);
        check(self.whole, &stat::entry(dir, &entry.name)?.stat)?;
        self.by.look(dir, entry, Some(self.whole.moved())).map(drop)
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> Result<(), Ended> {
        Ok(())
    }
}

/// Removes what it meets, some at a time.
struct Freeing<'f> {
    by: &'f Freer<'f>,
    /// What it is about goes as a whole.
    whole: Option<&'f Whole>,
    rest: Rest,
    /// What will be removed, in this order.
    next: Vec<Next>,
    /// What the first directory is called.
    first: Vec<u8>,
    /// Where the directory that is visited was in the volume, with a slash at its end, and the lengths of those above it.
    path: Vec<u8>,
    levels: Vec<usize>,
    /// The directory that is visited, once something in it will be removed.
    here: Option<Place>,
    /// Is free, or kept without end.
    over: RoaringTreemap,
    /// Some of the names of these were removed, which has changed them.
    fewer_names: RoaringTreemap,
    /// Those of which a name is next.
    pending: RoaringTreemap,
}

/// A directory, and its path.
type Place = (Arc<OwnedFd>, Arc<[u8]>);

/// Something that will be removed.
struct Next {
    place: Place,
    name: CString,
    what: What,
}

enum What {
    File(Inode, Option<Lease>),
    Directory,
}

impl<'f> Freeing<'f> {
    fn of(by: &'f Freer<'f>, whole: Option<&'f Whole>) -> Self {
        Self {
            by,
            whole,
            rest: Rest::default(),
            next: Vec::with_capacity(TOGETHER_MAX),
            first: Vec::new(),
            path: Vec::new(),
            levels: Vec::new(),
            here: None,
            over: RoaringTreemap::new(),
            fewer_names: RoaringTreemap::new(),
            pending: RoaringTreemap::new(),
        }
    }

    /// Something in a directory cannot be removed.
    fn is_stuck(&mut self, path: &[u8], name: &CStr, error: io::Error) {
        // What is already away needs no removal.
        if error.kind() != io::ErrorKind::NotFound {
            let path = [&self.first, b"/".as_slice(), path, name.to_bytes()].concat();
            self.rest.stuck.leave_behind(&path, error);
        }
    }

    fn check_idle(&self, ino: Inode) -> io::Result<()> {
        match self.by.busy.contains(&ino) {
            true => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "a process has it mounted, or something is mounted on it: it is freed when that has ended",
            )),
            false => Ok(()),
        }
    }

    /// A file that was used is kept; of a directory that went as a whole all is.
    fn was_used(
        &mut self,
        (dir, path): (&OwnedFd, &[u8]),
        name: &CStr,
        ino: Inode,
        why: Ended,
    ) -> Result<(), Ended> {
        let error = match why {
            Ended::Waits if self.whole.is_none() => {
                self.rest.waiting = self.rest.waiting.saturating_add(1);
                return Ok(());
            }
            Ended::Failed(error) | Ended::Used(error) if self.whole.is_none() => error,
            other => return Err(other),
        };
        let whole_path = [path, name.to_bytes()].concat();
        let origin = Origin::recorded(dir, origin::depth(path));
        let belongs = (&*whole_path, Some(&origin));
        let said = self.by.kept.take((dir, name), ino, belongs, &error);
        match stat::entry(dir, name) {
            Ok(found) => self.is_stuck(path, name, why_it_stays(found.protected, error)),
            Err(_) => {
                self.over.insert(ino);
                tell_kept(&whole_path, &said);
            }
        }
        Ok(())
    }

    fn will_remove(&mut self, place: Place, name: &CStr, what: What) -> Result<(), Ended> {
        if let What::File(ino, _) = what {
            self.pending.insert(ino);
        }
        let name = name.to_owned();
        self.next.push(Next { place, name, what });
        match self.next.len() < TOGETHER_MAX {
            true => Ok(()),
            false => self.carry_out(),
        }
    }

    /// Removes what is next.
    fn carry_out(&mut self) -> Result<(), Ended> {
        // Also where there are no leases: a use since the look is then known by its event alone.
        let is_file = |next: &Next| matches!(next.what, What::File(..));
        if self.next.iter().any(is_file) && !(self.by.read_uses)() {
            return Err(Ended::Late);
        }
        self.pending.clear();
        let mut marked = None;
        for Next { place, name, what } in std::mem::take(&mut self.next) {
            let (dir, path) = (&*place.0, &*place.1);
            let removed = match &what {
                What::File(ino, lease) => {
                    let last = self.last_look(dir, &name, *ino, lease.as_ref());
                    let links = match last {
                        Ok(links) => links,
                        Err(why) => {
                            self.was_used((dir, path), &name, *ino, why)?;
                            continue;
                        }
                    };
                    self.mark(dir, &mut marked)?;
                    inside::unlink(dir, &*name).inspect(|()| {
                        let set = if links > 1 {
                            &mut self.fewer_names
                        } else {
                            &mut self.over
                        };
                        set.insert(*ino);
                    })
                }
                What::Directory => {
                    self.mark(dir, &mut marked)?;
                    match inside::remove_dir(dir, &*name) {
                        // What is in it has been named, or waits.
                        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                        other => other,
                    }
                }
            };
            if let Err(error) = removed {
                self.is_stuck(path, &name, error);
            }
        }
        Ok(())
    }

    /// A directory that was looked at is changed by what goes from it, and that is no use of it.
    fn mark(&self, dir: &OwnedFd, marked: &mut Option<Inode>) -> io::Result<()> {
        if let Some(whole) = self.whole {
            let ino = rustix::fs::fstat(dir)?.st_ino;
            if marked.replace(ino) != Some(ino) {
                whole.will_change(dir);
            }
        }
        Ok(())
    }

    /// Whether a file was used since it was looked at. How many names it has.
    fn last_look(&self, dir: &OwnedFd, name: &CStr, ino: Inode, lease: Option<&Lease>) -> Result<u32, Ended> {
        let used = |why: &str| Err(Ended::Used(io::Error::other(why)));
        let found = match lease {
            Some(lease) => stat::open_file(lease.file()),
            None => stat::entry(dir, name),
        };
        let s = found?.stat;
        if s.ino != ino {
            return used("another file has its name");
        }
        if let Some(whole) = self.whole.filter(|_| !self.fewer_names.contains(ino)) {
            check(whole, &s)?;
        }
        if self.by.trashed.was_used(ino) {
            return used("a process used it after it went to the trash");
        }
        if lease.is_some_and(|lease| !lease.is_still_granted()) {
            return self.by.is_open(ino);
        }
        Ok(s.links)
    }

    fn here(&mut self, dir: &OwnedFd) -> io::Result<Place> {
        if self.here.is_none() {
            let path: Arc<[u8]> = self.path.as_slice().into();
            self.here = Some((Arc::new(rustix::io::dup(dir)?), path));
        }
        self.here.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Visitor for Freeing<'_> {
    type Stop = Ended;

    fn enter(&mut self, _: &OwnedFd, name: &CStr, dir: &OwnedFd) -> Result<bool, Ended> {
        self.by.go_on()?;
        let found = stat::open_file(dir)?.stat;
        if let Err(error) = self.check_idle(found.ino) {
            let above = self.path.clone();
            self.is_stuck(&above, name, error);
            return Ok(false);
        }
        match (self.levels.is_empty(), self.whole) {
            // The first one is no directory of the volume, or was moved here.
            (true, _) => self.first = name.to_bytes().to_vec(),
            (false, whole) => {
                whole.map_or(Ok(()), |whole| check_directory(whole, dir))?;
                self.path.extend_from_slice(name.to_bytes());
                self.path.push(b'/');
            }
        }
        self.levels.push(self.path.len());
        self.here = None;
        Ok(true)
    }

    fn meet(&mut self, dir: &OwnedFd, entry: &Listed) -> Result<(), Ended> {
        self.by.go_on()?;
        let place = self.here(dir)?;
        if let Err(error) = self.check_idle(entry.ino) {
            self.is_stuck(&place.1, &entry.name, error);
            return Ok(());
        }
        // To open it under another name would break the lease on it.
        if self.pending.contains(entry.ino) {
            self.carry_out()?;
        }
        // Under another name it was looked at, and that one was removed.
        let looked = match self.fewer_names.contains(entry.ino) {
            true => Ok(None),
            false => {
                let moved = self.whole.map(Whole::moved);
                self.by.look(dir, entry, moved)
            }
        };
        match looked {
            Ok(lease) => self.will_remove(place, &entry.name, What::File(entry.ino, lease)),
            Err(why) => self.was_used((dir, &place.1), &entry.name, entry.ino, why),
        }
    }

    fn leave(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Ended> {
        self.levels.pop();
        self.path.truncate(self.levels.last().copied().unwrap_or(0));
        self.here = None;
        let parent = Arc::new(rustix::io::dup(parent).map_err(io::Error::from)?);
        let above: Arc<[u8]> = self.path.as_slice().into();
        self.will_remove((parent, above), name, What::Directory)
    }

    fn refused(&mut self, _: &OwnedFd, name: &CStr, error: io::Error) -> Result<(), Ended> {
        let above = self.path.clone();
        self.is_stuck(&above, name, error);
        Ok(())
    }
}

/// What the directories were like that a tree of a share came from: its place says so, or the share remembers them.
fn origin_of_tree(place: &OwnedFd, trees: &OwnedFd, path: &[u8]) -> Option<Origin> {
    let note = inside::read_note(place, LIKE).ok();
    if let Some(origin) = note.and_then(|note| Origin::of_note(&note)) {
        return Some(origin);
    }
    let above = split(path).0;
    let share = beneath::open_parent(trees).ok()?;
    let files = beneath::open_anchor(&share, FILES.as_bytes()).ok()?;
    let dir = beneath::open_anchor(&files, above).ok()?;
    Some(Origin::recorded(&dir, origin::depth(above)))
}

/// Why something could neither be freed nor kept apart: not even root moves what is immutable.
fn why_it_stays(is_protected: bool, error: io::Error) -> io::Error {
    match is_protected {
        true => rustix::io::Errno::PERM.into(),
        false => error,
    }
}

fn tell_kept(path: &[u8], said: &io::Error) {
    let path = shown::cut(path, shown::LOGGED_MAX);
    let path = String::from_utf8_lossy(&path).into_owned();
    tracing::error!(path, error = %said, "not freed: it was used in the trash");
}
