//! What an apply needs of a volume that has no free block or no free inode: it is made beforehand, and kept in the trash.
//!
//! ```text
//!   .purge-agent-trash/ready/        a share of a run without a grace, with all its lanes: it is renamed, which takes no space
//!   .purge-agent-trash/ballast/      empty directories that are removed when another one must be made
//! ```
//! After the run the share is renamed back.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use crate::trash::lanes::Lanes;
use crate::trash::layout::{FILES, FLAT, TREES};
use purge_sys::walk::list;
use purge_sys::{beneath, inside, vacant};

const READY: &CStr = c"ready";
const BALLAST: &CStr = c"ballast";
/// Enough for the lanes of all workers, for what some trees need, and for the directories above a file.
const BALLAST_DIRS: u32 = 48;
/// Removed at a time: what is removed may be taken by users.
const BALLAST_DROPPED: usize = 4;

/// Whether a file system refuses for lack of space. A quota that is used up (EDQUOT) is one user's, and none of the reserve's.
pub fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOSPC)
}

/// Makes what is missing of it.
///
/// # Errors
/// When there is no space for it now.
pub fn keep(trash: &OwnedFd, workers: u8) -> io::Result<()> {
    if !inside::is_there(trash, READY)? {
        make_share(trash, READY.to_bytes())?;
        for worker in 0..workers {
            for n in 0..Lanes::COUNT {
                let lane = format!("ready/{FLAT}/{worker}.{n}");
                inside::make_own_dir(trash, lane.as_bytes())?;
            }
        }
    }
    let (ballast, _) = inside::make_own_dir(trash, BALLAST.to_bytes())?;
    // Asked for every few seconds: while this has the volume open, no process can unmount it.
    let there = list(&beneath::open_dir(trash, BALLAST.to_bytes())?)?;
    for n in 0..BALLAST_DIRS {
        let name = n.to_string();
        if !there.iter().any(|found| found.to_bytes() == name.as_bytes()) {
            inside::make_own_dir(&ballast, name.as_bytes())?;
        }
    }
    Ok(())
}

/// Makes a share and its parts.
///
/// # Errors
/// When one of them cannot be made.
pub fn make_share(trash: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let (dir, _) = inside::make_own_dir(trash, name)?;
    for part in [FILES, TREES, FLAT] {
        inside::make_own_dir(&dir, part.as_bytes())?;
    }
    Ok(())
}

/// The share that was made beforehand becomes this one.
///
/// # Errors
/// When there is none.
pub fn take(trash: &OwnedFd, name: &CStr) -> io::Result<()> {
    vacant::take(trash, READY, trash, name)
}

/// Keeps a share for the next run, if there is none and nothing is in this one.
pub fn give_back(trash: &OwnedFd, name: &CStr) -> bool {
    is_clean(trash, name).unwrap_or(false) && vacant::take(trash, name, trash, READY).is_ok()
}

fn is_clean(trash: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let share = beneath::open_anchor(trash, name.to_bytes())?;
    let part = |part: &str| beneath::open_dir(&share, part.as_bytes());
    let flat = part(FLAT)?;
    for lane in list(&flat)? {
        if !list(&beneath::open_dir(&flat, lane.to_bytes())?)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(list(&part(FILES)?)?.is_empty() && list(&part(TREES)?)?.is_empty())
}

/// Runs something that makes directories; where there is no space, once more with less ballast, and so on.
///
/// # Errors
/// What it says the last time.
pub fn with_ballast<T>(trash: &OwnedFd, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match make() {
            Err(e) if is_full(&e) && drop_ballast(trash) => {}
            done => return done,
        }
    }
}

/// Whether any was left.
fn drop_ballast(trash: &OwnedFd) -> bool {
    let Ok(ballast) = beneath::open_dir(trash, BALLAST.to_bytes()) else {
        return false;
    };
    let names = list(&ballast).unwrap_or_default();
    let removed = names
        .iter()
        .filter(|name| inside::remove_dir(&ballast, &***name).is_ok());
    removed.take(BALLAST_DROPPED).count() > 0
}
