//! What a mount of the agent's does on the file system behind it, for its users: all of it by descriptor of a directory and a single name,
//! or by the descriptor of the file itself. Nothing here follows a link or enters another mount.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawDir, RenameFlags, SeekFrom,
    StatVfs, Statx, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
};

use super::beneath;

/// What of a listing is read at once.
const LISTED_BYTES: usize = 32 << 10;
/// No attribute's value, and no list of names, is longer (`XATTR_SIZE_MAX` in `linux/limits.h`).
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// Opens the top, so that it can stand for its mount.
///
/// # Errors
/// What `open(2)` says.
pub fn open_top(path: &std::path::Path) -> io::Result<OwnedFd> {
    beneath::open_mount(path)
}

/// Opens what has a name in a directory, for a look at it only.
///
/// # Errors
/// ENOENT; EXDEV for a mount point; what `openat2(2)` says.
pub fn entry(dir: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    beneath::open_entry(dir, name.to_bytes())
}

/// What the file system says of it.
///
/// # Errors
/// What `statx(2)` says.
pub fn attributes(node: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    Ok(rustix::fs::statx(node, c"", flags, wanted)?)
}

/// Opens once more, as a user asked for it, what is open for a look. EWOULDBLOCK: a process has a lease on it, and has been told.
///
/// # Errors
/// What `open(2)` says.
pub fn reopen(node: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
    let flags =
        (flags & !(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL)) | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(itself(&node), flags, Mode::empty())?)
}

/// A path that leads to what a descriptor leads to, and nowhere else.
fn itself(node: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", node.as_fd().as_raw_fd())
}

/// Makes a regular file. One that is there is never opened by this: whether a user may open it was not asked.
///
/// # Errors
/// EEXIST, and what `openat(2)` says.
pub fn make_file(dir: impl AsFd, name: &CStr, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(mode & 0o7777),
    )?)
}

/// Opens a regular file that an earlier process may have made for a user: only if it is the user's, for an owner may give himself any right.
///
/// # Errors
/// ESTALE if it is another's, or no regular file; what `openat2(2)` says.
pub fn made_before(dir: impl AsFd, name: &CStr, flags: OFlags, uid: u32) -> io::Result<OwnedFd> {
    let node = entry(dir, name)?;
    let found = rustix::fs::fstat(&node)?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    match is_file && found.st_uid == uid {
        true => reopen(node, flags),
        false => Err(rustix::io::Errno::STALE.into()),
    }
}

/// Makes a file without a name.
///
/// # Errors
/// What `openat(2)` says.
pub fn make_nameless(dir: impl AsFd, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let keep = OFlags::ACCMODE | OFlags::APPEND | OFlags::EXCL | OFlags::SYNC | OFlags::DSYNC;
    let flags = (flags & keep) | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        c".",
        flags,
        Mode::from_raw_mode(mode & 0o7777),
    )?)
}

/// Makes a directory.
///
/// # Errors
/// What `mkdirat(2)` says.
pub fn make_dir(dir: impl AsFd, name: &CStr, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(
        dir,
        name,
        Mode::from_raw_mode(mode & 0o7777),
    )?)
}

/// Makes a file of any kind.
///
/// # Errors
/// What `mknodat(2)` says.
pub fn make_node(dir: impl AsFd, name: &CStr, mode: u32, device: u32) -> io::Result<()> {
    let kind = FileType::from_raw_mode(mode);
    let mode = Mode::from_raw_mode(mode & 0o7777);
    // As requests carry it (`new_encode_dev` in `linux/kdev_t.h`): 12 bits of major, 20 of minor.
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    let device = rustix::fs::makedev(major, minor);
    Ok(rustix::fs::mknodat(dir, name, kind, mode, device)?)
}

/// Makes a symbolic link.
///
/// # Errors
/// What `symlinkat(2)` says.
pub fn make_link(target: &CStr, dir: impl AsFd, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// Gives a file another name.
///
/// # Errors
/// What `linkat(2)` says.
pub fn add_name(node: impl AsFd, dir: impl AsFd, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::linkat(node, c"", dir, name, AtFlags::EMPTY_PATH)?)
}

/// Moves a name.
///
/// # Errors
/// What `renameat2(2)` says.
pub fn rename(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr, flags: u32) -> io::Result<()> {
    let flags = RenameFlags::from_bits_retain(flags);
    Ok(rustix::fs::renameat_with(from, name, to, as_name, flags)?)
}

/// What a symbolic link says.
///
/// # Errors
/// What `readlinkat(2)` says.
pub fn target(node: impl AsFd) -> io::Result<Vec<u8>> {
    beneath::words_of_link(node)
}

/// Sets the mode.
///
/// # Errors
/// What `chmod(2)` says.
pub fn set_mode(node: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmod(
        itself(&node),
        Mode::from_raw_mode(mode & 0o7777),
    )?)
}

/// Sets owner and group, as far as they are given.
///
/// # Errors
/// What `fchownat(2)` says.
pub fn set_owner(node: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    Ok(rustix::fs::chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// A time to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// It stays.
    Kept,
    /// This moment.
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

impl Time {
    fn raw(self) -> Timespec {
        let (tv_sec, tv_nsec) = match self {
            Self::Kept => (0, libc::UTIME_OMIT),
            Self::Now => (0, libc::UTIME_NOW),
            Self::At(seconds, nanos) => (seconds, i64::from(nanos)),
        };
        Timespec { tv_sec, tv_nsec }
    }
}

/// Sets access and modification time.
///
/// # Errors
/// What `utimensat(2)` says.
pub fn set_times(node: impl AsFd, access: Time, modification: Time) -> io::Result<()> {
    let times = Timestamps {
        last_access: access.raw(),
        last_modification: modification.raw(),
    };
    Ok(rustix::fs::utimensat(node, c"", &times, AtFlags::EMPTY_PATH)?)
}

/// Sets the length of a file that is open for writing.
///
/// # Errors
/// What `ftruncate(2)` says.
pub fn set_length(file: impl AsFd, length: u64) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(file, length)?)
}

/// The value of an attribute.
///
/// # Errors
/// What `getxattr(2)` says.
pub fn attribute(node: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    /// Nearly each fits.
    const FIRST: usize = 256;
    let node = itself(&node);
    let mut value = Vec::with_capacity(FIRST);
    match rustix::fs::getxattr(&node, name, rustix::buffer::spare_capacity(&mut value)) {
        Err(rustix::io::Errno::RANGE) => {}
        done => return Ok(done.map(|_| value)?),
    }
    value = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
    rustix::fs::getxattr(&node, name, rustix::buffer::spare_capacity(&mut value))?;
    Ok(value)
}

/// The names of all attributes, each with a NUL.
///
/// # Errors
/// What `listxattr(2)` says.
pub fn attribute_names(node: impl AsFd) -> io::Result<Vec<u8>> {
    let mut names = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
    rustix::fs::listxattr(itself(&node), rustix::buffer::spare_capacity(&mut names))?;
    Ok(names)
}

/// Sets an attribute.
///
/// # Errors
/// What `setxattr(2)` says.
pub fn set_attribute(node: impl AsFd, name: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
    let flags = XattrFlags::from_bits_retain(flags);
    Ok(rustix::fs::setxattr(itself(&node), name, value, flags)?)
}

/// Removes an attribute.
///
/// # Errors
/// What `removexattr(2)` says.
pub fn remove_attribute(node: impl AsFd, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::removexattr(itself(&node), name)?)
}

/// An entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its number.
    pub ino: u64,
    /// `DT_*`: what kind of file it is.
    pub kind: u32,
    /// Its name.
    pub name: &'a CStr,
    /// Where the listing goes on after it.
    pub next: u64,
}

/// Lists a directory from a place in it, for as long as `each` says that there is room.
///
/// # Errors
/// What `lseek(2)` and `getdents(2)` say.
pub fn list(
    dir: BorrowedFd<'_>,
    from: u64,
    mut each: impl FnMut(Listed<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    rustix::fs::seek(dir, SeekFrom::Start(from))?;
    let mut buffer = vec![MaybeUninit::uninit(); LISTED_BYTES];
    let mut listing = RawDir::new(dir, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let kind = match entry.file_type() {
            FileType::Unknown => 0,
            known => known.as_raw_mode() >> 12,
        };
        let listed = Listed {
            ino: entry.ino(),
            kind,
            name: entry.file_name(),
            next: entry.next_entry_cookie(),
        };
        if !each(listed)? {
            break;
        }
    }
    Ok(())
}

/// Reads from a place into what is spare of `into`.
///
/// # Errors
/// What `pread(2)` says.
pub fn read(file: impl AsFd, into: &mut Vec<u8>, at: u64) -> io::Result<usize> {
    Ok(rustix::io::pread(file, rustix::buffer::spare_capacity(into), at)?)
}

/// Writes to a place.
///
/// # Errors
/// What `pwrite(2)` says.
pub fn write(file: impl AsFd, bytes: &[u8], at: u64) -> io::Result<usize> {
    Ok(rustix::io::pwrite(file, bytes, at)?)
}

/// Makes durable; `data`: not the times.
///
/// # Errors
/// What `fsync(2)` says.
pub fn sync(file: impl AsFd, data: bool) -> io::Result<()> {
    let synced = match data {
        true => rustix::fs::fdatasync(file),
        false => rustix::fs::fsync(file),
    };
    Ok(synced?)
}

/// Takes, frees or moves room of a file.
///
/// # Errors
/// What `fallocate(2)` says.
pub fn allocate(file: impl AsFd, mode: u32, at: u64, length: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(
        file,
        FallocateFlags::from_bits_retain(mode),
        at,
        length,
    )?)
}

/// Where data, or a hole, begins.
///
/// # Errors
/// EINVAL for anything else, and what `lseek(2)` says.
pub fn find(file: impl AsFd, at: u64, whence: u32) -> io::Result<u64> {
    let from = match i32::try_from(whence) {
        Ok(libc::SEEK_DATA) => SeekFrom::Data(at),
        Ok(libc::SEEK_HOLE) => SeekFrom::Hole(at),
        _ => return Err(rustix::io::Errno::INVAL.into()),
    };
    Ok(rustix::fs::seek(file, from)?)
}

/// Copies a part of a file into another.
///
/// # Errors
/// What `copy_file_range(2)` says.
pub fn copy(from: impl AsFd, mut at: u64, to: impl AsFd, mut to_at: u64, length: usize) -> io::Result<usize> {
    Ok(rustix::fs::copy_file_range(
        from,
        Some(&mut at),
        to,
        Some(&mut to_at),
        length,
    )?)
}

/// A lock of a whole file (`flock(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// For readers.
    Shared,
    /// For one.
    Exclusive,
    /// None any more.
    Released,
}

/// Locks a file, or says EWOULDBLOCK.
///
/// # Errors
/// What `flock(2)` says.
pub fn lock(file: impl AsFd, lock: Lock) -> io::Result<()> {
    let how = match lock {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::Released => FlockOperation::Unlock,
    };
    Ok(rustix::fs::flock(file, how)?)
}

/// Room and limits of the file system.
///
/// # Errors
/// What `statfs(2)` says.
pub fn room(dir: impl AsFd) -> io::Result<StatVfs> {
    Ok(rustix::fs::fstatvfs(dir)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A user may have asked whether the name is free the moment before another made the file.
    #[test]
    fn making_a_file_opens_none_that_is_there() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("private"), "x").unwrap();
        let dir = beneath::open_root(tmp.path()).unwrap();
        let made = make_file(&dir, c"private", OFlags::RDWR, 0o600);
        assert_eq!(made.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(make_file(&dir, c"new", OFlags::RDWR, 0o600).is_ok());
    }

    #[test]
    fn what_was_made_before_is_opened_for_its_owner_alone() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", tmp.path().join("link")).unwrap();
        std::fs::create_dir(tmp.path().join("dir")).unwrap();
        let dir = beneath::open_root(tmp.path()).unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert!(made_before(&dir, c"file", OFlags::RDWR, me).is_ok());
        for (name, uid) in [(c"file", me + 1), (c"link", me), (c"dir", me)] {
            let refused = made_before(&dir, name, OFlags::RDONLY, uid).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ESTALE), "{name:?}");
        }
    }
}
