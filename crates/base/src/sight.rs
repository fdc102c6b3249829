//! How much of a path one user may know. The owner of a file learns of it in each directory, and another user may have moved it into a
//! directory that only that one can enter: the names from there on are no business of the file's owner.
//!
//! ```text
//!   /v/bob (0700) /merger/file      alice, who owns the file, is shown  /v   and that the rest is hidden
//! ```
//! In a directory that a user may enter and not list (mode 0711), only the names of what is that user's own are shown: another's name there
//! hides the rest of the path as well.
//!
//! Each directory of a path is opened by its name in the one above and asked for owner, mode and ACL. What cannot be looked at hides what
//! lies below: doubt hides.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::accounts::membership;
use purge_sys::beneath;
use purge_sys::protection::Protection;

/// What was seen of the path before holds for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Users of whom groups are remembered while one list is made.
const USERS_MAX: usize = 10_000;

/// Whose eyes, and the path that was looked at last.
#[derive(Debug)]
pub struct Sight {
    root: PathBuf,
    uid: u32,
    /// None: the host's accounts are asked once it matters.
    groups: Option<Vec<u32>>,
    /// What was told once is shown below the user's own directories also where they do not exist any more.
    is_past: bool,
    last: Seen,
}

/// How far a directory's path can be seen.
#[derive(Debug, Default)]
struct Seen {
    path: Vec<u8>,
    at: Option<Instant>,
    /// The ends of the directories that the user may enter and whose names the user may know, the root's first.
    ends: Vec<usize>,
    /// There are others behind those.
    is_hidden: bool,
}

impl Sight {
    /// Of a user who asks, with the groups that the kernel names.
    pub fn of(root: &Path, uid: u32, groups: &[u32]) -> Self {
        Self::with(root, uid, Some(groups.to_vec()))
    }

    /// Of a user who is told, with the groups that the accounts name.
    pub fn of_account(root: &Path, uid: u32) -> Self {
        Self::with(root, uid, None)
    }

    fn with(root: &Path, uid: u32, groups: Option<Vec<u32>>) -> Self {
        Self {
            root: root.to_owned(),
            uid,
            groups,
            is_past: false,
            last: Seen::default(),
        }
    }

    /// What the user is told of does not exist any more.
    pub fn of_the_past(self) -> Self {
        Self {
            is_past: true,
            ..self
        }
    }

    /// How much of a path below the root may be shown, if that is not all of it: up to the last directory that the user may enter, and
    /// whose name the user may know. The last name is of what is the user's own.
    pub fn shown(&mut self, path: &[u8]) -> Option<usize> {
        let dir = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.shown_in(path.get(..dir).unwrap_or_default())
    }

    /// The same of what lies in the directory `dir`.
    pub fn shown_in(&mut self, dir: &[u8]) -> Option<usize> {
        let is_known = self.last.at.is_some_and(|at| at.elapsed() < FRESH);
        if !is_known || self.last.path != dir {
            self.look(dir, is_known);
        }
        let end = self.last.ends.last().copied().unwrap_or(0);
        self.last.is_hidden.then_some(end)
    }

    /// Looks at the directories of a path that are not those of the path before.
    fn look(&mut self, path: &[u8], is_known: bool) {
        let mut seen = match is_known {
            true => std::mem::take(&mut self.last),
            false => Seen::default(),
        };
        let common = common(&seen.path, path);
        seen.ends.retain(|end| *end <= common);
        seen.is_hidden = false;
        seen.path = path.to_vec();
        seen.at.get_or_insert_with(Instant::now);
        let known = seen.ends.last().copied();
        let begin = path.get(..known.unwrap_or(0)).unwrap_or_default();
        let opened = beneath::open_root(&self.root).and_then(|root| beneath::open_dir(root, begin));
        seen.is_hidden = match opened {
            Ok(open) => !self.enter(open, known, &mut seen),
            Err(_) => true,
        };
        self.last = seen;
    }

    /// Goes on from a directory; false: the user may not enter one further down, or not know its name.
    fn enter(&mut self, open: OwnedFd, known: Option<usize>, seen: &mut Seen) -> bool {
        let mut here = open;
        let Ok(mut above_is) = Protection::of(&here) else {
            return false;
        };
        if known.is_none() {
            if !self.may_enter(&above_is) {
                return false;
            }
            seen.ends.push(0);
        }
        let mut end = known.unwrap_or(0);
        let rest = seen.path.get(end..).unwrap_or_default().to_vec();
        for name in rest.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let above = here;
            here = match beneath::open_dir(&above, name) {
                Ok(next) => next,
                Err(e) if self.is_past && e.kind() == std::io::ErrorKind::NotFound => {
                    return above_is.uid == self.uid;
                }
                Err(_) => return false,
            };
            let Ok(here_is) = Protection::of(&here) else {
                return false;
            };
            let may_know = here_is.uid == self.uid || self.may_list(&above_is);
            if !may_know || !self.may_enter(&here_is) {
                return false;
            }
            above_is = here_is;
            end = end
                .saturating_add(usize::from(end > 0))
                .saturating_add(name.len());
            seen.ends.push(end);
        }
        true
    }

    fn may_list(&mut self, dir: &Protection) -> bool {
        let (uid, groups) = (self.uid, &mut self.groups);
        dir.lets_list(uid, || {
            groups.get_or_insert_with(|| membership(uid, &[]).unwrap_or_default().groups)
        })
    }

    fn may_enter(&mut self, dir: &Protection) -> bool {
        let (uid, groups) = (self.uid, &mut self.groups);
        dir.lets_enter(uid, || {
            groups.get_or_insert_with(|| membership(uid, &[]).unwrap_or_default().groups)
        })
    }
}

/// How long the whole names are with which both paths begin.
fn common(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let is_end = |path: &[u8]| path.get(same).is_none_or(|b| *b == b'/');
    match is_end(a) && is_end(b) {
        true => same,
        false => a
            .get(..same)
            .and_then(|same| same.iter().rposition(|b| *b == b'/'))
            .unwrap_or(0),
    }
}

/// Those of all who are told something at one time.
#[derive(Debug)]
pub struct Sights {
    root: PathBuf,
    of: HashMap<u32, Sight>,
}

impl Sights {
    /// Of a volume.
    pub fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            of: HashMap::new(),
        }
    }

    /// See [`Sight::shown`].
    pub fn shown(&mut self, uid: u32, path: &[u8]) -> Option<usize> {
        if self.of.len() >= USERS_MAX && !self.of.contains_key(&uid) {
            self.of.clear();
        }
        let root = &self.root;
        let sight = self.of.entry(uid).or_insert_with(|| Sight::of_account(root, uid));
        sight.shown(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn whole_names_are_common() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a/b", "a/b", 3),
            ("a/b", "a/bc", 1),
            ("a/b", "a/b/c", 3),
            ("ab", "ac", 0),
            ("a/b/c", "a/x", 1),
        ] {
            assert_eq!(common(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_path_is_shown_as_far_as_its_user_may_go() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root to give directories away");
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let give = |path: &str, uid: u32, gid: u32, mode: u32| {
            let path = tmp.path().join(path);
            fs::create_dir_all(&path).unwrap();
            chown(&path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        give("", 0, 0, 0o755);
        give("bob", 8, 8, 0o700);
        give("bob/merger", 7, 7, 0o777);
        give("team", 0, 50, 0o770);
        give("team/own", 7, 7, 0o700);
        give("alice", 7, 7, 0o700);
        // Entered by all and listed by none.
        give("way", 8, 8, 0o711);
        give("way/secret", 8, 8, 0o777);
        give("way/alices", 7, 7, 0o700);
        give("way/alices/b", 7, 7, 0o700);
        give("way/list", 8, 50, 0o750);
        give("drop", 8, 50, 0o751);
        give("drop/in", 8, 8, 0o777);
        let mut sight = Sight::of(tmp.path(), 7, &[7, 50]);
        for (path, expected) in [
            ("f", None),
            ("alice/f", None),
            ("bob/f", Some(0)),
            ("bob/merger/f", Some(0)),
            ("team/own/f", None),
            ("team/nothing/f", Some(4)),
            ("team/own/f", None),
            ("way/f", None),
            ("way/secret/f", Some(3)),
            ("way/secret/on/f", Some(3)),
            ("way/alices/b/f", None),
            ("way/secret/f", Some(3)),
            ("way/list/f", Some(3)),
            ("drop/in/f", None),
        ] {
            assert_eq!(sight.shown(path.as_bytes()), expected, "{path}");
        }
        let mut stranger = Sight::of(tmp.path(), 7, &[7]);
        assert_eq!(stranger.shown(b"team/own/f"), Some(0), "not of the group");
        assert_eq!(stranger.shown(b"drop/in/f"), Some(4), "not of the group");
        let mut past = Sight::of(tmp.path(), 7, &[7, 50]).of_the_past();
        assert_eq!(past.shown(b"alice/removed/f"), None);
        assert_eq!(past.shown(b"team/removed/f"), Some(4), "another user made it");
        give("", 8, 8, 0o700);
        let mut outside = Sight::of(tmp.path(), 7, &[7]);
        assert_eq!(outside.shown(b"f"), Some(0));
    }
}
