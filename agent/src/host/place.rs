//! Where a path from a client leads: the one way from a request to something of a volume.
//!
//! The volume is found by the path's words ([`purge_model::path`]). What lies there is then opened beneath the volume's root, and the kernel
//! itself refuses links, `..` and other mounts on the way. So no client learns anything of what lies outside of the volumes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::roster::Member;
use super::{Ground, HostError, shown};
use crate::volume::Volume;
use purge_model::Kind;
use purge_model::path::{self, VolumePath};
use purge_removal::trash::{self, Trash};
use purge_sys::absence::Absence;
use purge_sys::beneath;
use purge_sys::mark;
use purge_sys::protection::Protection;
use purge_sys::stat::{self, Located};

/// A place below a volume.
#[derive(Debug, Clone)]
pub struct Place {
    /// The volume.
    pub volume: Arc<Volume>,
    /// The path beneath it.
    pub below: VolumePath,
}

impl Ground {
    /// The place that a client's path names, by the path's words alone. `field` is the request's.
    ///
    /// # Errors
    /// [`HostError::Invalid`] for what is no clean absolute path, [`HostError::NotFound`] when it lies in no volume.
    pub fn locate(&self, field: &'static str, path: &[u8]) -> Result<Place, HostError> {
        let clean = path::clean(path).map_err(|why| HostError::Invalid { field, why })?;
        for member in self.members() {
            let root = member.config().path.as_os_str().as_bytes();
            if let Some(below) = path::below(root, &clean) {
                if path::is_within(trash::NAME.to_bytes(), &below) {
                    let why = format!(
                        "{} lies in the agent's own trash; see `purgectl restore`",
                        shown(path)
                    );
                    return Err(HostError::NotFound(why));
                }
                return match member {
                    Member::Watched(volume) => Ok(Place { volume, below }),
                    Member::Absent(absent) => Err(HostError::NotFound(format!(
                        "volume {}, which holds {}, is not watched now: {}",
                        absent.config.name,
                        shown(path),
                        absent.words
                    ))),
                };
            }
        }
        Err(HostError::NotFound(format!(
            "no volume holds {}; `purgectl status` names the volumes",
            shown(path)
        )))
    }
}

/// What a path means, everywhere: the entry that has these names from the volume's root on. No symbolic link is followed, and a link at the
/// end is meant itself. Where a link cannot be meant, the refusal says where it leads within the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// A link at the end is meant itself.
    Anything,
    /// What is asked for makes no sense of a link: it would not reach what the link leads to.
    NoLink,
}

impl Place {
    /// Its absolute path.
    pub fn path(&self) -> Vec<u8> {
        self.below
            .absolute(self.volume.config.path.as_os_str().as_bytes())
    }

    /// What lies there.
    ///
    /// # Errors
    /// When nothing does, or a link or another mount is on the way.
    pub fn look(&self, at_end: AtEnd) -> Result<Located, HostError> {
        let open = || {
            let root = self.volume.watched.open_root()?;
            stat::open_file(beneath::open_entry(&root, &self.below)?)
        };
        match open() {
            Ok(found) if found.stat.kind == Kind::Symlink => self.refuse_links(at_end).map(|()| found),
            Ok(found) if found.stat.kind == Kind::Directory => Ok(self.look_away()?.unwrap_or(found)),
            Ok(found) => Ok(found),
            Err(e) => {
                self.refuse_links(at_end)?;
                let not_found = || HostError::NotFound(format!("{}: {}", shown(&self.path()), why_not(&e)));
                self.look_away()?.ok_or_else(not_found)
            }
        }
    }

    /// What lies there in a directory that a run has taken away to compare it: an empty placeholder has that one's name meanwhile, and is
    /// never what is meant. None: no placeholder is on the way.
    ///
    /// # Errors
    /// When the directory is on its way back, or what is asked for does not lie in it.
    fn look_away(&self) -> Result<Option<Located>, HostError> {
        let Some(end) = self.placeholder() else {
            return Ok(None);
        };
        let (above, rest) = self.below.split_at_checked(end).unwrap_or((&self.below, b""));
        let trash = Trash::open(&self.volume.watched);
        let away = trash.and_then(|trash| trash.map_or(Ok(None), |trash| trash.away(above)));
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        match away {
            Ok(Some(dir)) => {
                let found = beneath::open_entry(&dir, rest).and_then(stat::open_file);
                let why = |e| HostError::NotFound(format!("{}: {}", shown(&self.path()), why_not(&e)));
                found.map(Some).map_err(why)
            }
            Ok(None) | Err(_) => Err(self.stands_in(above)),
        }
    }

    /// The placeholder `at` this path is on the way.
    fn stands_in(&self, at: &[u8]) -> HostError {
        let root = self.volume.config.path.as_os_str().as_bytes();
        let at = shown(&path::absolute(root, at));
        HostError::Refused(match self.is_left_over() {
            true => format!(
                "{at} is an empty directory of the agent. It kept a name during a run, and a user renamed it. No run needs it any more: \
                 remove it with rmdir"
            ),
            false => format!("a run is looking at {at}; ask again in a moment"),
        })
    }

    /// Whether no run can need a placeholder that has been found: none has anything in the trash that is not decided on.
    fn is_left_over(&self) -> bool {
        let trash = Trash::open(&self.volume.watched);
        let is_open = trash.and_then(|trash| trash.map_or(Ok(false), |trash| trash.is_open()));
        is_open.is_ok_and(|is_open| !is_open)
    }

    /// Where the names end that lead to a placeholder, which is this place or lies above it.
    fn placeholder(&self) -> Option<usize> {
        let root = self.volume.watched.open_root().ok()?;
        let slashes = self.below.iter().enumerate().filter(|(_, b)| **b == b'/');
        let ends = slashes.map(|(at, _)| at).chain([self.below.len()]);
        for end in ends.filter(|end| *end > 0) {
            let open = beneath::open_dir(&root, self.below.get(..end)?).ok()?;
            if mark::is_placeholder(&open) {
                return Some(end);
            }
        }
        None
    }

    /// Refuses a place that a symbolic link stands before, whether anything lies at it or not.
    ///
    /// # Errors
    /// Names the link, and where it leads if that is within the volume.
    pub fn refuse_links(&self, at_end: AtEnd) -> Result<(), HostError> {
        let Ok(mut above) = self.volume.watched.open_root() else {
            return Ok(());
        };
        let is_before = match beneath::open_entry(&above, &self.below) {
            Ok(found) => at_end == AtEnd::NoLink && is_link(&found),
            Err(e) => Errno::from_io_error(&e) == Some(Errno::LOOP),
        };
        // Names are looked at one by one only where that will tell something.
        if !is_before {
            return Ok(());
        }
        let mut end = 0usize;
        for name in self.below.names() {
            let begin = end;
            end = begin
                .saturating_add(name.len())
                .saturating_add(usize::from(begin > 0));
            let Ok(found) = beneath::open_entry(&above, name) else {
                return Ok(());
            };
            let is_last = end >= self.below.len();
            if is_link(&found) && (at_end == AtEnd::NoLink || !is_last) {
                let of = |end: usize| self.below.get(..end).unwrap_or_default();
                return Err(self.link_stands_before((of(begin), of(end)), found));
            }
            above = found;
        }
        Ok(())
    }

    /// `link` is a link that lies in the directory `above`.
    fn link_stands_before(&self, (above, link): (&[u8], &[u8]), open: OwnedFd) -> HostError {
        let root = self.volume.config.path.as_os_str().as_bytes();
        let words = beneath::words_of_link(&open).unwrap_or_default();
        let rest = self.below.get(link.len()..).unwrap_or_default();
        let cure = match path::led_to(root, above, &words) {
            Some(to) => {
                let to = [to.absolute(root).as_slice(), rest].concat();
                format!("it leads to {}: give that path", shown(&to))
            }
            None => "it leads out of the volume".into(),
        };
        let link = path::absolute(root, link);
        let why = format!(
            "{} is a symbolic link, and links are not followed; {cure}",
            shown(&link)
        );
        // Nothing lies at a path through a link; a link at its end does, and is not what was asked for.
        match rest.is_empty() {
            true => HostError::Invalid { field: "path", why },
            false => HostError::NotFound(why),
        }
    }

    /// What lies there, for a user who may know of nothing but what is theirs; false if nothing does, or it lies in a directory that they
    /// cannot enter. Whether something lies there or not, the same calls are made in the same number: where a name is missing, the volume's
    /// root stands for what it would lead to.
    ///
    /// # Errors
    /// When the volume itself cannot be opened, and when a run has taken away a directory on the way that they can see.
    pub fn look_evenly(&self, user: (u32, &[u32])) -> Result<(Located, bool), HostError> {
        let (found, is_there, is_away) = self
            .walk_evenly(user)
            .map_err(|e| HostError::Refused(format!("volume {}: {e}", self.volume.config.name)))?;
        if is_away {
            let end = self.placeholder().unwrap_or(self.below.len());
            return Err(self.stands_in(self.below.get(..end).unwrap_or(&self.below)));
        }
        Ok((found, is_there))
    }

    /// What lies there, whether it is there for this user, and whether a placeholder that the user can see is on the way.
    fn walk_evenly(&self, (uid, gids): (u32, &[u32])) -> io::Result<(Located, bool, bool)> {
        let root = self.volume.watched.open_root()?;
        let mut at = beneath::open_entry(&root, b"")?;
        let (mut is_there, mut is_away) = (true, false);
        let look_at = |dir: &OwnedFd| {
            let Ok(dir) = beneath::open_dir(dir, b"") else {
                return (false, false);
            };
            let known = Protection::of(&dir);
            let lets_enter = known.is_ok_and(|known| known.lets_enter(uid, || gids));
            (lets_enter, mark::is_placeholder(&dir))
        };
        for name in self.below.names() {
            let stand_in = beneath::open_entry(&root, b"")?;
            let (lets_enter, is_placeholder) = look_at(&at);
            is_away |= is_there && is_placeholder;
            is_there &= lets_enter;
            // Below what they cannot see no name is looked up: how long that takes is up to the user who asks, and would tell what is there.
            let (from, name): (&OwnedFd, &[u8]) = if is_there { (&at, name) } else { (&root, b"") };
            at = match beneath::open_entry(from, name) {
                Ok(next) => next,
                Err(_) => {
                    is_there = false;
                    stand_in
                }
            };
        }
        is_away |= look_at(&at).1 && is_there;
        Ok((stat::open_file(&at)?, is_there, is_away))
    }
}

fn is_link(open: impl AsFd) -> bool {
    stat::open_file(open).is_ok_and(|found| found.stat.kind == Kind::Symlink)
}

/// Why nothing can be opened at a place, and what to do.
fn why_not(error: &io::Error) -> String {
    match Absence::of(error) {
        Some(Absence::Missing | Absence::Replaced) => "nothing lies there".into(),
        Some(Absence::Covered) => {
            "another file system is mounted there or on the way; it is not part of the volume".into()
        }
        Some(Absence::Stale) | None => error.to_string(),
    }
}
