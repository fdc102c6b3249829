//! Keeps the name of a directory that is away to be compared: an empty directory of root's, which only root can enter, has it meanwhile.
//!
//! ```text
//!   VOLUME/team/NAME    <--exchange-->    TRASH/.../d/INODE/t          an empty directory, with a mark that only root can give
//! ```
//! Without it another user, who may make names there, takes the name, and the directory cannot go back. It is known by its mark, so an
//! agent that was killed leaves nothing that the next one does not find by the path that lies beside the directory. The owner of the
//! directory above can still move or remove it, and harms his own directory only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use crate::trash::bin::split;
use crate::trash::layout::TREE;
use purge_model::{Inode, Kind};
use purge_sys::{beneath, inside, mark, stat, vacant};

/// Takes a directory to its place in the trash, and leaves a placeholder at its name where the file system can do that. Whether there is one.
///
/// # Errors
/// What the move says.
pub fn take(from: (&OwnedFd, &CStr), place: &OwnedFd) -> io::Result<bool> {
    if make(place).is_ok() {
        if inside::exchange(from.0, from.1, place, TREE).is_ok() {
            return Ok(true);
        }
        inside::remove_dir(place, TREE)?;
    }
    vacant::take(from.0, from.1, place, TREE).map(|()| false)
}

/// Puts a directory back from its place, over its placeholder if that still has the name.
///
/// Nothing is moved into the place, which is a directory of the agent's: a user may have put something else at the name. The kernel puts a
/// directory over an empty directory only, and a user who could put another empty directory there could also have removed that one.
///
/// # Errors
/// EEXIST when something else has it, and what the move says.
pub fn give_back(place: &OwnedFd, to: (&OwnedFd, &CStr)) -> io::Result<()> {
    // Only the agent changes the place. A file would be put over any other file.
    let is_directory = stat::entry(place, TREE)?.stat.kind == Kind::Directory;
    if is_directory && is_at(to).is_some() && inside::move_over(place, TREE, to.0, to.1).is_ok() {
        return Ok(());
    }
    remove(to);
    vacant::give(place, TREE, to.0, to.1)
}

/// Removes a placeholder where it lies, if one is there. Returns which it was.
///
/// It is not moved to a directory of the agent's first: a user may exchange it for another in any moment, and what is moved may not be able to
/// go back. The kernel removes an empty directory only, and a user who could put another empty directory there could also have removed
/// that one.
pub fn remove(at: (&OwnedFd, &CStr)) -> Option<Inode> {
    let (found, ino) = open(at)?;
    inside::remove_dir(at.0, at.1).ok()?;
    // Otherwise it was exchanged for another.
    let is_removed = rustix::fs::fstat(&found).is_ok_and(|is| is.st_nlink == 0);
    is_removed.then_some(ino)
}

/// The same of a path below the open root of a volume.
pub fn remove_at(volume: &OwnedFd, path: &[u8]) {
    let (above, name) = split(path);
    let name = CString::new(name).unwrap_or_default();
    if !name.is_empty()
        && let Ok(above) = beneath::open_anchor(volume, above)
    {
        remove((&above, &name));
    }
}

/// The placeholder that has a name; none: something else has it, or nothing.
pub fn is_at(at: (&OwnedFd, &CStr)) -> Option<Inode> {
    open(at).map(|(_, ino)| ino)
}

fn open((dir, name): (&OwnedFd, &CStr)) -> Option<(OwnedFd, Inode)> {
    let found = beneath::open_dir(dir, name.to_bytes()).ok()?;
    let is = rustix::fs::fstat(&found).ok()?;
    let is_own = is.st_uid == rustix::process::geteuid().as_raw();
    (is_own && mark::is_placeholder(&found)).then_some((found, is.st_ino))
}

fn make(place: &OwnedFd) -> io::Result<()> {
    inside::make_closed_dir(place, TREE)?;
    let marked = beneath::open_dir(place, TREE.to_bytes()).and_then(|made| mark::set_placeholder(&made));
    marked.inspect_err(|_| drop(inside::remove_dir(place, TREE)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    const NAME: &CStr = c"job";

    struct Ground {
        tmp: tempfile::TempDir,
        above: OwnedFd,
        place: OwnedFd,
    }

    impl Ground {
        /// None: extended attributes are not kept there, or this is not root.
        fn new() -> Option<Self> {
            let tmp = tempfile::tempdir().unwrap();
            for dir in ["above/job", "trash/7"] {
                fs::create_dir_all(tmp.path().join(dir)).unwrap();
            }
            fs::write(tmp.path().join("above/job/f"), "x").unwrap();
            let root = beneath::open_root(tmp.path()).unwrap();
            let open = |path: &[u8]| beneath::open_anchor(&root, path).unwrap();
            let (above, place) = (open(b"above"), open(b"trash/7"));
            take((&above, NAME), &place)
                .unwrap()
                .then_some(Self { tmp, above, place })
        }

        fn has(&self, path: &str) -> bool {
            self.tmp.path().join(path).exists()
        }
    }

    #[test]
    fn a_name_stays_taken_until_the_directory_is_back() {
        let Some(ground) = Ground::new() else { return };
        assert!(ground.has("above/job") && !ground.has("above/job/f") && ground.has("trash/7/t/f"));
        give_back(&ground.place, (&ground.above, NAME)).unwrap();
        assert!(ground.has("above/job/f") && !ground.has("trash/7/t"));
    }

    #[test]
    fn a_placeholder_that_was_removed_is_not_missed() {
        let Some(ground) = Ground::new() else { return };
        fs::remove_dir(ground.tmp.path().join("above/job")).unwrap();
        give_back(&ground.place, (&ground.above, NAME)).unwrap();
        assert!(ground.has("above/job/f") && !ground.has("trash/7/t"));
    }

    #[test]
    fn what_another_has_put_in_its_place_stays() {
        let Some(ground) = Ground::new() else { return };
        fs::remove_dir(ground.tmp.path().join("above/job")).unwrap();
        fs::create_dir(ground.tmp.path().join("above/job")).unwrap();
        assert!(give_back(&ground.place, (&ground.above, NAME)).is_err());
        assert_eq!(remove((&ground.above, NAME)), None);
        assert!(ground.has("above/job") && ground.has("trash/7/t/f"));
    }

    /// What a user exchanges a placeholder for never comes into a directory of the agent's.
    #[test]
    fn neither_a_directory_nor_a_file_in_its_place_is_moved_or_replaced() {
        let Some(ground) = Ground::new() else { return };
        let at = ground.tmp.path().join("above/job");
        fs::remove_dir(&at).unwrap();
        fs::create_dir_all(at.join("t")).unwrap();
        let entries = || fs::read_dir(ground.tmp.path().join("trash/7")).unwrap().count();
        assert!(give_back(&ground.place, (&ground.above, NAME)).is_err());
        assert_eq!((remove((&ground.above, NAME)), entries()), (None, 1));
        fs::remove_dir_all(&at).unwrap();
        fs::write(&at, "another user's").unwrap();
        assert!(give_back(&ground.place, (&ground.above, NAME)).is_err());
        assert_eq!((remove((&ground.above, NAME)), entries()), (None, 1));
        assert_eq!(fs::read(&at).unwrap(), b"another user's");
    }

    /// A file may have been exchanged for the directory in the moment in which it was taken.
    #[test]
    fn a_file_goes_back_to_the_name_as_well() {
        let Some(ground) = Ground::new() else { return };
        let tree = ground.tmp.path().join("trash/7/t");
        fs::remove_dir_all(&tree).unwrap();
        fs::write(&tree, "x").unwrap();
        give_back(&ground.place, (&ground.above, NAME)).unwrap();
        assert!(ground.tmp.path().join("above/job").is_file() && !tree.exists());
    }

    #[test]
    fn a_placeholder_goes_when_all_is_decided() {
        let Some(ground) = Ground::new() else { return };
        assert!(remove((&ground.above, NAME)).is_some());
        assert!(!ground.has("above/job") && ground.has("trash/7/t/f"));
        assert_eq!(remove((&ground.above, NAME)), None);
    }
}
