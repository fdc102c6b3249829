//! Whether what was taken lies in the trash.

use std::io;
use std::os::fd::OwnedFd;

use super::{Entry, What};
use crate::trash::layout::{FILES, TREE, TREES};
use crate::trash::{Share, Trash};
use purge_sys::{beneath, likeness, stat};

/// Whether something that a run took at `path`, relative to the volume, lies in a share. What may not be looked at does not.
pub fn lies_in(trash: &Trash, share: &Share, path: &[u8], entry: &Entry) -> bool {
    let Ok(dir) = beneath::open_anchor(&trash.dir, share.name().as_bytes()) else {
        return false;
    };
    let ino = |open: io::Result<OwnedFd>| open.and_then(stat::open_file).map(|found| found.stat.ino);
    let tree = || {
        let place = format!("{TREES}/{}/", entry.ino).into_bytes();
        let tree = beneath::open_entry(&dir, &[place.as_slice(), TREE.to_bytes()].concat());
        ino(tree).is_ok_and(|found| found == entry.ino)
    };
    let file = beneath::open_entry(&dir, &[FILES.as_bytes(), b"/", path].concat());
    match entry.what {
        What::Tree => tree(),
        What::File | What::Link => ino(file).is_ok_and(|found| found == entry.ino) || tree(),
        What::EmptyDirectory => {
            let removed = file.and_then(|dir| beneath::open_dir(dir, b""));
            removed.is_ok_and(|dir| likeness::is_noted_removed(&dir))
        }
        What::Above => file.is_ok(),
    }
}
