//! What the agent notes of directories in extended attributes that only root can give (`xattr(7)`): that it made one, and that it frees one.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

const MARK: &std::ffi::CStr = c"trusted.purge_agent.trash";

/// Marks an open directory.
///
/// # Errors
/// What `fsetxattr(2)` says.
pub fn give(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(dir, MARK, b"1", XattrFlags::empty())?)
}

/// Of [`give`]: where the file system keeps no such attributes, none is needed.
///
/// # Errors
/// Any other error.
pub fn may_lack(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSPC | libc::EDQUOT) => Ok(()),
        _ => Err(error),
    }
}

/// Whether an open directory is marked. Where the file system keeps no such attributes, each counts as marked.
///
/// # Errors
/// What `fgetxattr(2)` says.
pub fn is_on(dir: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::fgetxattr(dir, MARK, &mut [0u8; 8]) {
        Ok(_) | Err(Errno::OPNOTSUPP) => Ok(true),
        Err(Errno::NODATA) => Ok(false),
        // It has another value than the agent gives.
        Err(Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What [`set_freeing`] says in a directory.
const FREEING: &std::ffi::CStr = c"trusted.purge_agent.freeing";
/// The longest word that is given.
const WORD_MAX: usize = 64;

/// Notes in a directory that some of what was in it has been freed. Where the file system keeps no such attributes, nothing is noted.
pub fn set_freeing(dir: &OwnedFd, word: &str) {
    let _ = rustix::fs::fsetxattr(dir, FREEING, word.as_bytes(), XattrFlags::empty());
}

/// Whether a directory has that note, with the same word. Doubt is no.
pub fn is_freeing(dir: &OwnedFd, word: &str) -> bool {
    let mut found = [0u8; WORD_MAX];
    let len = rustix::fs::fgetxattr(dir, FREEING, &mut found).unwrap_or(0);
    found.get(..len) == Some(word.as_bytes())
}

/// What is noted of a place of the trash in which something was used.
const USED: &std::ffi::CStr = c"trusted.purge_agent.used";

/// Notes that what lies in a directory was used. Where the file system keeps no such attributes, nothing is noted.
pub fn set_used(dir: &OwnedFd) {
    let _ = rustix::fs::fsetxattr(dir, USED, b"1", XattrFlags::empty());
}

/// Whether a directory has that note.
pub fn is_used(dir: &OwnedFd) -> bool {
    rustix::fs::fgetxattr(dir, USED, &mut [0u8; 8]).is_ok()
}

/// What a placeholder has.
const PLACEHOLDER: &std::ffi::CStr = c"trusted.purge_agent.placeholder";

/// Marks an open directory as one that has another's name for a while.
///
/// # Errors
/// What `fsetxattr(2)` says, also where the file system keeps no such attributes.
pub fn set_placeholder(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        dir,
        PLACEHOLDER,
        b"1",
        XattrFlags::empty(),
    )?)
}

/// Whether an open directory is marked so. Doubt is no.
pub fn is_placeholder(dir: &OwnedFd) -> bool {
    rustix::fs::fgetxattr(dir, PLACEHOLDER, &mut [0u8; 8]).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::beneath;

    #[test]
    fn only_what_was_marked_is() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = beneath::open_dir(beneath::open_root(tmp.path()).unwrap(), b"").unwrap();
        let before = is_on(&dir).unwrap();
        give(&dir).unwrap();
        assert!(!before && is_on(&dir).unwrap());
        assert!(!is_freeing(&dir, "7.8.9") && !is_freeing(&dir, "x"));
        set_freeing(&dir, "7.8.9");
        assert!(is_freeing(&dir, "7.8.9") && !is_freeing(&dir, "7.8.10"));
    }
}
