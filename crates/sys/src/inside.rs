//! Changing names in directories that others may write to: all of it by descriptor of the directory and a single name.
//!
//! No call here follows a link, and none changes the owner, the mode or anything else of what a name leads to: between the call that made
//! it and the next one a user may have put something else there. What gets an owner and a mode gets them by its descriptor, in a
//! directory that only root can enter, and is moved to its place afterwards: see [`super::likeness`].

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::path::Arg;

use super::{beneath, stat};

/// A link that is no longer than this fits into a block of 1 KiB, the smallest there is.
const LINK_BYTES_MAX: usize = 1000;
/// Longer notes are cut: no path of a candidate is as long.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// Exchanges what two names lead to (`renameat2(2)`, RENAME_EXCHANGE).
///
/// # Errors
/// EINVAL where the file system cannot do that, ENOENT when one of them leads nowhere, and what `renameat2(2)` says.
pub fn exchange(a: impl AsFd, name_a: &CStr, b: impl AsFd, name_b: &CStr) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        a,
        name_a,
        b,
        name_b,
        RenameFlags::EXCHANGE,
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

/// Makes a directory (0700, with any umask), and opens it as an anchor. True: it is new.
///
/// # Errors
/// What `mkdirat(2)` and `openat2(2)` say.
pub fn make_dir(dir: impl AsFd, name: &[u8]) -> io::Result<(OwnedFd, bool)> {
    let is_new = make_private_dir(&dir, name)?;
    Ok((beneath::open_anchor(&dir, name)?, is_new))
}

/// The same, open so that it can be listed.
///
/// # Errors
/// As for [`make_dir`].
pub fn make_listable_dir(dir: impl AsFd, name: &[u8]) -> io::Result<(OwnedFd, bool)> {
    let is_new = make_private_dir(&dir, name)?;
    Ok((beneath::open_dir(&dir, name)?, is_new))
}

fn make_private_dir(dir: impl AsFd, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(e) => Err(e.into()),
    }
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

/// Makes a directory that none but root can enter or list (0000).
///
/// # Errors
/// What `mkdirat(2)` says.
pub fn make_closed_dir(dir: impl AsFd, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::empty())?)
}

/// Writes a note in a directory that is root's alone: a symbolic link that is never followed, or, where the note is longer than a link may be
/// on some file systems, a file (0600).
///
/// # Errors
/// What `symlinkat(2)`, `openat(2)` and `write(2)` say.
pub fn write_note(dir: impl AsFd, name: &CStr, note: &[u8]) -> io::Result<()> {
    if note.len() < LINK_BYTES_MAX {
        return Ok(rustix::fs::symlinkat(note, dir, name)?);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    let written = std::fs::File::from(file).write_all(note);
    written.inspect_err(|_| drop(unlink(&dir, name)))
}

/// What such a note says.
///
/// # Errors
/// What `readlinkat(2)`, `openat(2)` and `read(2)` say.
pub fn read_note(dir: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    match rustix::fs::readlinkat(&dir, name, Vec::new()) {
        Ok(note) => Ok(note.into_bytes()),
        // It is no link.
        Err(rustix::io::Errno::INVAL) => {
            let mut note = Vec::new();
            let file = std::fs::File::from(beneath::open_file(dir, name)?);
            file.take(NOTE_BYTES_MAX).read_to_end(&mut note)?;
            Ok(note)
        }
        Err(e) => Err(e.into()),
    }
}

/// Moves the change time of what has a name: it gets a second name for a moment, which takes no inode.
///
/// # Errors
/// What `linkat(2)` and `unlinkat(2)` say.
pub fn renew(dir: impl AsFd, name: &CStr, second: &CStr) -> io::Result<()> {
    let _ = unlink(&dir, second);
    rustix::fs::linkat(&dir, name, &dir, second, AtFlags::empty())?;
    unlink(&dir, second)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn notes_of_any_length_are_read_as_they_were_written() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = beneath::open_root(tmp.path()).unwrap();
        for (name, len) in [(c"short", 5), (c"link", LINK_BYTES_MAX - 1), (c"file", 100_000)] {
            let note = vec![b'/'; len];
            write_note(&dir, name, &note).unwrap();
            assert_eq!(read_note(&dir, name).unwrap(), note);
            assert!(write_note(&dir, name, b"again").is_err());
        }
        assert!(read_note(&dir, c"nothing").is_err());
    }
}
