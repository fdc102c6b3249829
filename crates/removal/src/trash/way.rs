//! The way from the volume's root to a place where something goes back.
//!
//! Every directory on it is opened by its single name in the one above it, without following a link and without entering a mount, and is
//! then worked with by its descriptor alone: what users rename meanwhile makes no difference. One that is there must be the very directory, or
//! protect what is put into it as the one did that the trash or the run remembers: the same owner, not more open. Where nothing is remembered
//! it must be closed to all but its owner. One that is missing is made in a directory that only
//! root can enter, gets owner, mode, ACLs and attributes there, and is moved to its place when it is complete.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use crate::trash::origin::{self, Level as Known, Origin};
use crate::trash::whom::Whom;
use purge_model::Inode;
use purge_sys::likeness::Likeness;
use purge_sys::protection::Protection;
use purge_sys::{beneath, inside, mark, stat, vacant};

/// Directories of the volume that are open at a time; those above them are opened again when they are needed.
const OPEN_MAX: usize = 24;
/// At most this many bytes of attributes are kept of all directories on the way; users can give them many. Beyond that only ACLs are kept,
/// and beyond twice as many nothing is put back there.
const ATTRIBUTES_MAX: usize = 4 << 20;
/// How often a directory is made that another process makes at the same moment, and takes away again.
const TRIES: usize = 8;

/// Where directories are made that no process can reach yet.
#[derive(Debug)]
pub struct Stage {
    dir: OwnedFd,
}

impl Stage {
    /// In this directory, which is root's alone.
    pub fn of(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// Makes a directory like another at `name` in `parent`, and returns it open; none if something has that name.
    fn make(&self, like: &Likeness, parent: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
        /// There is one at a time: restores are one after another.
        const MADE: &CStr = c"dir";
        let (made, _) = inside::make_own_dir(&self.dir, MADE.to_bytes())?;
        let made = beneath::open_dir(&made, b"")?;
        let moved = like
            .give(&made)
            .and_then(|()| vacant::give(&self.dir, MADE, parent, name));
        match moved {
            Ok(()) => Ok(Some(made)),
            Err(e) => {
                let _ = inside::remove_dir(&self.dir, MADE);
                match e.kind() {
                    io::ErrorKind::AlreadyExists => Ok(None),
                    _ => Err(e),
                }
            }
        }
    }
}

/// What is known of a directory on the way.
#[derive(Debug)]
pub enum Was {
    /// The trash remembers it.
    Like(Box<Likeness>),
    /// It was noted before a thing was taken out of it.
    Known(Known),
    /// It is not known: a file of this user lay in it, or, but for the last one, further down.
    Of {
        /// The owner of the file.
        uid: u32,
        /// The file goes into it.
        is_last: bool,
    },
}

impl Was {
    const NOTHING: Self = Self::Of {
        uid: 0,
        is_last: true,
    };
}

/// The directories from the volume's root to the one that is wanted.
#[derive(Debug)]
pub struct Way<'s> {
    root: OwnedFd,
    stage: &'s Stage,
    makes: Makes,
    levels: Vec<Level>,
    attribute_bytes: usize,
    /// An ordinary user for whom it goes back.
    whom: Option<Whom<'s>>,
    /// Nothing is made: it is found out what would be.
    is_dry: bool,
}

/// Which missing directories are made again, besides those that the trash remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// None.
    None,
    /// Those that were noted.
    Known,
    /// All: what nothing is known of is root's alone.
    All,
}

#[derive(Debug)]
struct Level {
    name: CString,
    was: Was,
    place: Option<Place>,
}

/// Where a directory of the way is.
#[derive(Debug)]
enum Place {
    /// Open; made again, or there already.
    Open { dir: OwnedFd, made: bool },
    /// It is missing, and would be made.
    Missing,
    /// It was open, and too many below it are.
    Closed { id: (stat::Device, Inode), made: bool },
    /// It must not be used.
    Refused(String),
}

impl<'s> Way<'s> {
    /// Begins at an open directory.
    pub fn from(root: OwnedFd, stage: &'s Stage, makes: Makes) -> Self {
        Self {
            root,
            stage,
            makes,
            levels: Vec::new(),
            attribute_bytes: 0,
            whom: None,
            is_dry: false,
        }
    }

    /// The same for an ordinary user, if one asks, and without making anything, if it is only looked at.
    pub fn asked(self, whom: Option<Whom<'s>>, is_dry: bool) -> Self {
        Self { whom, is_dry, ..self }
    }

    /// One directory further down.
    pub fn down(&mut self, name: CString, was: Was) {
        let (mut was, mut place) = (was, None);
        if let Was::Like(like) = &mut was {
            if self.attribute_bytes > ATTRIBUTES_MAX {
                like.forget_attributes();
            }
            self.attribute_bytes = self.attribute_bytes.saturating_add(like.attribute_bytes());
            if self.attribute_bytes > 2 * ATTRIBUTES_MAX {
                self.attribute_bytes = self.attribute_bytes.saturating_sub(like.attribute_bytes());
                was = Was::NOTHING;
                place = Some(Place::Refused(
                    "the directories above it have more attributes than can be remembered; move some away, and restore to another directory (restore --to DIR)".into(),
                ));
            }
        }
        self.levels.push(Level { name, was, place });
        self.close_far(self.levels.len());
    }

    /// One directory further down, of which it cannot be known what it was like: nothing goes back below it.
    pub fn down_refused(&mut self, name: CString, error: &io::Error) {
        let why = format!(
            "what its directory was like cannot be read: {error}; restore to another directory (restore --to DIR)"
        );
        let place = Some(Place::Refused(why));
        let was = Was::NOTHING;
        self.levels.push(Level { name, was, place });
        self.close_far(self.levels.len());
    }

    /// Closes what is too far above the first `depth` levels.
    fn close_far(&mut self, depth: usize) {
        let far = depth.checked_sub(OPEN_MAX).and_then(|n| self.levels.get_mut(n));
        if let Some(Level { place, .. }) = far
            && let Some(Place::Open { dir, made }) = place
        {
            let id = id(dir).ok();
            *place = id.map(|id| Place::Closed { id, made: *made });
        }
    }

    /// Back to the directory above. One that was made again gets its times: nothing is put into it any more.
    pub fn up(&mut self) {
        let Some(Level { was, place, .. }) = self.levels.pop() else {
            return;
        };
        if let Was::Like(like) = &was {
            self.attribute_bytes = self.attribute_bytes.saturating_sub(like.attribute_bytes());
        }
        let Some(Place::Open { dir, made }) = place else {
            return;
        };
        if let (Was::Like(like), true) = (was, made)
            && let Err(error) = like.give_times(&dir)
        {
            tracing::debug!(%error, "a directory that was made again has new times");
        }
        let above = self.levels.last_mut().map(|level| &mut level.place);
        if let Some(place) = above
            && let Some(Place::Closed { id: known, made }) = place
        {
            let dir = beneath::open_listable_parent(&dir).ok();
            let same = dir.filter(|dir| id(dir).is_ok_and(|id| id == *known));
            *place = same.map(|dir| Place::Open { dir, made: *made });
        }
    }

    /// All the way down to `path`, whose directories are remembered below `files` or in the `origin`; of those that are not it is known that a
    /// file of `uid` lay there.
    ///
    /// # Errors
    /// When what is remembered cannot be read.
    pub fn follow(
        &mut self,
        path: &[u8],
        (files, origin): (Option<&OwnedFd>, Option<&Origin>),
        uid: u32,
    ) -> io::Result<()> {
        let mut model = files.map(rustix::io::dup).transpose()?;
        let depth = origin::depth(path);
        let mut nth = 0usize;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            model = match model.map(|above| beneath::open_dir(&above, name)).transpose() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                other => other?,
            };
            let name = CString::new(name).unwrap_or_default();
            match model.as_ref().map(Likeness::recorded) {
                Some(Ok(like)) => self.down(name, Was::Like(Box::new(like))),
                Some(Err(error)) => self.down_refused(name, &error),
                None => {
                    let known = origin.and_then(|origin| origin.level(nth, depth));
                    let is_last = nth.saturating_add(1) == depth;
                    let unknown = Was::Of { uid, is_last };
                    self.down(name, known.cloned().map_or(unknown, Was::Known));
                }
            }
            nth = nth.saturating_add(1);
        }
        Ok(())
    }

    /// What is known of its directories; none if that is not all.
    pub fn origin(&self) -> Option<Origin> {
        let level = |level: &Level| match &level.was {
            Was::Like(like) => Some(Known::like(like)),
            Was::Known(known) => Some(known.clone()),
            Was::Of { .. } => None,
        };
        Origin::known(self.levels.iter().rev().map(level).collect())
    }

    /// The directory at the end of the way, open; what is missing on the way is made again. `placed` is told of that. None: nothing may be made,
    /// and it would be.
    ///
    /// # Errors
    /// Why nothing may be put there.
    pub fn reach(&mut self, placed: &mut dyn FnMut(&OwnedFd, &CStr)) -> io::Result<Option<&OwnedFd>> {
        let whom = self.whom;
        let is_missing = |level: &Level| matches!(level.place, Some(Place::Missing));
        self.go(placed);
        if self.levels.last().is_some_and(is_missing) {
            return Ok(None);
        }
        let dir = self.opened(self.levels.len()).map_err(io::Error::other)?;
        match whom.is_some_and(|whom| !whom.may_change(dir)) {
            true => Err(io::Error::other(NOT_YOURS)),
            false => Ok(Some(dir)),
        }
    }

    /// The same where missing directories are made.
    ///
    /// # Errors
    /// Why nothing may be put there.
    pub fn place(&mut self, placed: &mut dyn FnMut(&OwnedFd, &CStr)) -> io::Result<&OwnedFd> {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        self.reach(placed)?.ok_or_else(missing)
    }

    /// Opens all levels, as far as that is possible.
    fn go(&mut self, placed: &mut dyn FnMut(&OwnedFd, &CStr)) {
        let is_known = |level: &Level| {
            matches!(
                level.place,
                Some(Place::Open { .. } | Place::Refused(_) | Place::Missing)
            )
        };
        let how = How {
            stage: self.stage,
            makes: self.makes,
            whom: self.whom,
            is_dry: self.is_dry,
        };
        let known = self.levels.iter().rposition(is_known);
        for n in known.map_or(0, |known| known.saturating_add(1))..self.levels.len() {
            let Some(level) = self.levels.get(n) else { break };
            let above = n.checked_sub(1).and_then(|above| self.levels.get(above));
            let place = match (above.map(|above| &above.place), self.opened(n)) {
                (Some(Some(Place::Missing)), _) => level.would_be_made(how),
                (_, Ok(above)) => level.open(above, how, placed),
                (_, Err(why)) => Ok(Place::Refused(why)),
            };
            let place = place.unwrap_or_else(|error| Place::Refused(self.explain(n, &error)));
            if let Some(level) = self.levels.get_mut(n) {
                level.place = Some(place);
            }
            self.close_far(n);
        }
    }

    /// The directory at the end of the first `n` levels, which was opened; or why it was not.
    fn opened(&self, n: usize) -> Result<&OwnedFd, String> {
        let Some(last) = n.checked_sub(1) else {
            return Ok(&self.root);
        };
        match self.levels.get(last).map(|level| &level.place) {
            Some(Some(Place::Open { dir, .. })) => Ok(dir),
            Some(Some(Place::Refused(why))) => Err(why.clone()),
            _ => Err("a directory on the way was closed".into()),
        }
    }

    /// Why the directory at the end of the first `n + 1` levels must not be used.
    fn explain(&self, n: usize, error: &io::Error) -> String {
        /// Longer paths are cut: the path of the file is told as well.
        const SHOWN_MAX: usize = 1000;
        let mut path = Vec::new();
        for level in self.levels.iter().take(n.saturating_add(1)) {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(level.name.to_bytes());
            if path.len() > SHOWN_MAX {
                path.truncate(SHOWN_MAX);
                path.extend_from_slice(b"...");
                break;
            }
        }
        let why = match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => "it is not a directory any more".into(),
            Some(libc::EXDEV) => {
                "something is mounted there, and nothing is put into what is mounted (unmount it first), or it is of another project".into()
            }
            Some(libc::ENOENT) => "it does not exist any more".into(),
            _ => error.to_string(),
        };
        format!(
            "the directory {:?} cannot take it back: {why}; restore to another directory (restore --to DIR)",
            String::from_utf8_lossy(&path)
        )
    }
}

/// Why a user gets nothing back into a directory.
const NOT_YOURS: &str =
    "you may not make entries there; ask an administrator, or restore to a directory of your own";

/// How directories are opened and made.
#[derive(Clone, Copy)]
struct How<'s> {
    stage: &'s Stage,
    makes: Makes,
    whom: Option<Whom<'s>>,
    is_dry: bool,
}

impl Level {
    /// It would be made, below one that would be.
    fn would_be_made(&self, how: How<'_>) -> io::Result<Place> {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        self.like_for(how, 0).map(|_| Place::Missing).ok_or_else(missing)
    }

    /// What it is made like, for whom.
    fn like_for(&self, how: How<'_>, gid: u32) -> Option<Cow<'_, Likeness>> {
        let like = self.like(how.makes)?;
        match how.whom {
            Some(whom) if like.protection().uid != whom.uid => {
                (how.makes == Makes::All).then(|| Cow::Owned(whom.own(gid)))
            }
            _ => Some(like),
        }
    }

    fn open(
        &self,
        parent: &OwnedFd,
        how: How<'_>,
        placed: &mut dyn FnMut(&OwnedFd, &CStr),
    ) -> io::Result<Place> {
        for _ in 0..TRIES {
            match beneath::open_dir(parent, self.name.to_bytes()) {
                // A run moves the directory back over it in a moment, and only while it is empty.
                Ok(dir) if mark::is_placeholder(&dir) => {
                    return Err(io::Error::other(
                        "a run is looking at it; restore again in a moment",
                    ));
                }
                Ok(dir) => {
                    self.check(&dir)?;
                    if how.whom.is_some_and(|whom| !whom.may_enter(&dir)) {
                        return Err(io::Error::other(NOT_YOURS));
                    }
                    return Ok(Place::Open { dir, made: false });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            let missing = || io::Error::from_raw_os_error(libc::ENOENT);
            let like = self
                .like_for(how, rustix::fs::fstat(parent)?.st_gid)
                .ok_or_else(missing)?;
            if how.whom.is_some_and(|whom| !whom.may_change(parent)) {
                return Err(io::Error::other(NOT_YOURS));
            }
            if how.is_dry {
                return Ok(Place::Missing);
            }
            if let Some(dir) = how.stage.make(&like, parent, &self.name)? {
                placed(parent, &self.name);
                return Ok(Place::Open { dir, made: true });
            }
        }
        Err(io::Error::other("a process makes and removes it all the time"))
    }

    /// What it is made like, if it is missing and may be made.
    fn like(&self, makes: Makes) -> Option<Cow<'_, Likeness>> {
        match &self.was {
            Was::Like(like) => Some(Cow::Borrowed(like)),
            Was::Known(known) if makes != Makes::None => {
                let known = known.protection()?;
                Some(Cow::Owned(Likeness::protected_as(known)))
            }
            Was::Of { .. } if makes == Makes::All => {
                Some(Cow::Owned(Likeness::protected_as(&Protection::ROOTS)))
            }
            Was::Known(_) | Was::Of { .. } => None,
        }
    }

    fn check(&self, dir: &OwnedFd) -> io::Result<()> {
        let now = Protection::of(dir)?;
        let why = match &self.was {
            Was::Like(before) => now.is_less_safe_than(&before.protection()),
            Was::Known(known) if known.is(&stat::open_file(dir)?.stat) => None,
            Was::Known(known) => match known.protection() {
                Some(before) => now.is_less_safe_than(before),
                None => now.is_open_to_others(),
            },
            Was::Of { uid, is_last } => {
                let reachable = || now.is_open_to_others().filter(|_| *is_last);
                now.is_unsafe_for(*uid).or_else(reachable)
            }
        };
        why.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }
}

fn id(dir: &OwnedFd) -> io::Result<(stat::Device, Inode)> {
    let found = stat::open_file(dir)?;
    Ok((found.device, found.stat.ino))
}
