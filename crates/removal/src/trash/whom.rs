//! For whom something is put back. A restore for an ordinary user does what the user could do with the file: only what is theirs goes back,
//! from directories that they could enter, into directories in which they may make entries. A directory that is missing is made for them only if it
//! was theirs.

use std::os::fd::OwnedFd;

use purge_sys::likeness::Likeness;
use purge_sys::protection::Protection;

/// An ordinary user.
#[derive(Debug, Clone, Copy)]
pub struct Whom<'w> {
    /// Which.
    pub uid: u32,
    /// Their groups.
    pub gids: &'w [u32],
}

impl Whom<'_> {
    /// Whether they may enter a directory. Doubt says no.
    pub fn may_enter(self, dir: &OwnedFd) -> bool {
        Protection::of(dir).is_ok_and(|is| is.lets_enter(self.uid, || self.gids))
    }

    /// Whether they may make entries in a directory. Doubt says no.
    pub fn may_change(self, dir: &OwnedFd) -> bool {
        Protection::of(dir).is_ok_and(|is| is.lets_change(self.uid, || self.gids))
    }

    /// A directory of theirs that no other user can enter, in a directory of this group.
    pub fn own(self, gid: u32) -> Likeness {
        Likeness::protected_as(&Protection {
            uid: self.uid,
            gid,
            mode: 0o700,
            acl: None,
        })
    }
}
