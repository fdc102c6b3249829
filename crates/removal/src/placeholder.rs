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

use super::trash::TREE;
use purge_model::Inode;
use purge_sys::{beneath, inside, mark};

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
    inside::move_to(from.0, from.1, place, TREE).map(|()| false)
}

/// Puts a directory back from its place, over its placeholder if that still has the name.
///
/// # Errors
/// EEXIST when something else has it, and what the move says.
pub fn give_back(place: &OwnedFd, to: (&OwnedFd, &CStr)) -> io::Result<()> {
    if is_at(to).is_some() && inside::exchange(place, TREE, to.0, to.1).is_ok() {
        if is_at((place, TREE)).is_some() {
            return inside::remove_dir(place, TREE);
        }
        // Something else had taken the name right before.
        inside::exchange(place, TREE, to.0, to.1)?;
    }
    inside::move_to(place, TREE, to.0, to.1)
}

/// Removes a placeholder, if one is there: by way of a directory of root's own, as users may exchange it for another in any moment. Returns
/// which it was.
pub fn remove(at: (&OwnedFd, &CStr), by_way_of: &OwnedFd) -> Option<Inode> {
    let ino = is_at(at)?;
    let name = CString::new(format!("{ino}.name")).ok()?;
    inside::move_to(at.0, at.1, by_way_of, &name).ok()?;
    match is_at((by_way_of, &name)) {
        Some(moved) => inside::remove_dir(by_way_of, &*name).ok().map(|()| moved),
        None => {
            if let Err(error) = inside::move_to(by_way_of, &name, at.0, at.1) {
                tracing::error!(%error, ?name, "a directory that was put in the place of another stays in the trash");
            }
            None
        }
    }
}

/// The placeholder that has a name; none: something else has it, or nothing.
pub fn is_at((dir, name): (&OwnedFd, &CStr)) -> Option<Inode> {
    let found = beneath::open_dir(dir, name.to_bytes()).ok()?;
    let is = rustix::fs::fstat(&found).ok()?;
    (is.st_uid == rustix::process::geteuid().as_raw() && mark::is_placeholder(&found)).then_some(is.st_ino)
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
        assert_eq!(remove((&ground.above, NAME), &ground.place), None);
        assert!(ground.has("above/job") && ground.has("trash/7/t/f"));
    }

    #[test]
    fn a_placeholder_goes_when_all_is_decided() {
        let Some(ground) = Ground::new() else { return };
        assert!(remove((&ground.above, NAME), &ground.place).is_some());
        assert!(!ground.has("above/job") && ground.has("trash/7/t/f"));
        assert_eq!(remove((&ground.above, NAME), &ground.place), None);
    }
}
