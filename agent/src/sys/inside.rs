//! Changing names in directories that others may write to: all of it by descriptor of the directory and a single name.
//!
//! No call here follows a link, and none changes the owner, the mode or anything else of what a name leads to: between the call that made
//! it and the next one a user may have put something else there. What gets an owner and a mode gets them by its descriptor, in a
//! directory that only root can enter, and is moved to its place afterwards: see [`super::likeness`].

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::path::Arg;

use super::{beneath, stat};

/// Moves a name to a place that is free (`renameat2(2)`, RENAME_NOREPLACE).
///
/// # Errors
/// EEXIST when something has the name, EXDEV on another mount, and what `renameat2(2)` says.
pub fn move_to(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        from,
        name,
        to,
        as_name,
        RenameFlags::NOREPLACE,
    )?)
}

/// Moves a name over another, whose file is removed by it.
///
/// # Errors
/// What `renameat(2)` says.
pub fn move_over(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::renameat(from, name, to, as_name)?)
}

/// Removes a name of anything that is no directory.
///
/// # Errors
/// What `unlinkat(2)` says.
pub fn unlink(dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes an empty directory.
///
/// # Errors
/// ENOTEMPTY, and what `unlinkat(2)` says.
pub fn remove_dir(dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Makes a directory (0700, whatever the umask), and opens it as an anchor. True: it is new.
///
/// # Errors
/// What `mkdirat(2)` and `openat2(2)` say.
pub fn make_dir(dir: impl AsFd, name: &[u8]) -> io::Result<(OwnedFd, bool)> {
    let is_new = match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(e) => return Err(e.into()),
    };
    Ok((beneath::open_anchor(&dir, name)?, is_new))
}

/// The same for a directory that is the agent's alone.
///
/// # Errors
/// As for [`make_dir`]; EPERM when what lies there belongs to another user.
pub fn make_own_dir(dir: impl AsFd, name: &[u8]) -> io::Result<(OwnedFd, bool)> {
    let (made, is_new) = make_dir(dir, name)?;
    match rustix::fs::fstat(&made)?.st_uid == rustix::process::geteuid().as_raw() {
        true => Ok((made, is_new)),
        false => Err(rustix::io::Errno::PERM.into()),
    }
}

/// Makes a symbolic link that is never followed: what it holds is a note.
///
/// # Errors
/// What `symlinkat(2)` says.
pub fn write_note(dir: impl AsFd, name: &CStr, note: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(note, dir, name)?)
}

/// What such a link holds.
///
/// # Errors
/// What `readlinkat(2)` says.
pub fn read_note(dir: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Whether something has this name.
///
/// # Errors
/// What `statx(2)` says but for ENOENT.
pub fn is_there(dir: impl AsFd, name: &CStr) -> io::Result<bool> {
    match stat::entry(dir, name) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
