//! Opening what lies below a volume's root and nowhere else (`openat2(2)`).
//!
//! The kernel itself refuses to leave the root: no `..`, no symlink, no other mount, no matter what others do to the
//! path in the meantime.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::OpenTreeFlags;

/// The kernel takes paths of less than this many bytes (PATH_MAX); longer ones are walked in steps.
const STEP_BYTES_MAX: usize = 4000;

const STAY: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Opens the root of a volume. Holding it keeps the file system from being unmounted, so hold it briefly.
///
/// # Errors
/// What `open(2)` says; ENOTDIR if it is no directory.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the root so that it can stand for its mount: `open_by_handle_at(2)` refuses an O_PATH descriptor. Hold it
/// briefly.
///
/// # Errors
/// What `open(2)` says.
pub fn open_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The tree of directories below `dir` as a mount of its own, which no other process sees and which ends with the descriptor.
/// What is mounted below `dir` is not in it.
///
/// # Errors
/// What `open_tree(2)` says: ENOSYS before Linux 5.2, EPERM without CAP_SYS_ADMIN.
pub fn mount_apart(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(dir, c"", flags)?)
}

/// Opens the directory at `relative` (empty: the root itself) for listing, without moving its access time.
///
/// # Errors
/// ELOOP for a symlink on the way, EXDEV for a mount point or an escape, and what `openat2(2)` says.
pub fn open_dir(root: impl AsFd, relative: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open(&root, relative, flags | OFlags::NOATIME) {
        // Only the owner and CAP_FOWNER may ask for it.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => open(&root, relative, flags),
        other => other,
    }
}

/// Opens the directory at `relative` for use as an anchor only.
///
/// # Errors
/// As for [`open_dir`].
pub fn open_anchor(root: impl AsFd, relative: &[u8]) -> io::Result<OwnedFd> {
    open(
        &root,
        relative,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    )
}

/// Opens what lies at `relative`, for a look at it only.
///
/// # Errors
/// As for [`open_dir`].
pub fn open_entry(root: impl AsFd, relative: &[u8]) -> io::Result<OwnedFd> {
    open(&root, relative, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
}

/// What an open symbolic link leads to, in its own words. Nothing is followed.
///
/// # Errors
/// What `readlinkat(2)` says; ENOENT where it is no link.
pub fn words_of_link(link: impl AsFd) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes())
}

/// Opens the regular file `name` of a directory, without moving its access time. Nothing blocks if it is no regular file.
///
/// # Errors
/// ELOOP for a symlink, EXDEV for a mount point, and what `openat2(2)` says.
pub fn open_file(dir: impl AsFd, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // A mount point's server may never answer. EAGAIN is that of a lease here, so that this is tried once.
    Ok(rustix::fs::openat2(dir, name, flags, Mode::empty(), STAY)?)
}

/// The directory above an open directory, also across mounts. The top of a file system tree is its own parent.
///
/// # Errors
/// What `openat(2)` says.
pub fn open_parent(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, c"..", flags, Mode::empty())?)
}

/// The same, open so that it can be listed.
///
/// # Errors
/// What `openat(2)` says.
pub fn open_listable_parent(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, c"..", flags, Mode::empty())?)
}

/// The last name of an open file's path, as the kernel knows it; none for the top of a mount. The file may have been
/// renamed by the time this returns: look there before believing it.
///
/// # Errors
/// What `readlink(2)` of `/proc/self/fd` says.
pub fn last_name(fd: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?.into_bytes();
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(&[]);
    Ok((!name.is_empty()).then(|| name.to_vec()))
}

fn open(root: &impl AsFd, relative: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut rest = relative;
    let mut anchor: Option<OwnedFd> = None;
    while rest.len() > STEP_BYTES_MAX {
        let head = rest.get(..STEP_BYTES_MAX).unwrap_or(rest);
        // No name is longer than 255 bytes, so there is a slash in any step.
        let cut = head
            .iter()
            .rposition(|b| *b == b'/')
            .ok_or(io::ErrorKind::InvalidFilename)?;
        let (step, after) = rest.split_at(cut);
        let by = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        anchor = Some(one_step(
            anchor.as_ref().map_or(root.as_fd(), |a| a.as_fd()),
            step,
            by,
        )?);
        rest = after.strip_prefix(b"/").unwrap_or(after);
    }
    let rest = if rest.is_empty() { b"." } else { rest };
    one_step(anchor.as_ref().map_or(root.as_fd(), |a| a.as_fd()), rest, flags)
}

fn one_step(anchor: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(&anchor, path, flags, Mode::empty(), STAY) {
            // A rename elsewhere on the system raced with the walk: openat2(2) asks to try again.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_outside_the_root_can_be_opened() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("root/in")).unwrap();
        std::fs::create_dir(tmp.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../out", tmp.path().join("root/link")).unwrap();
        let root = open_root(&tmp.path().join("root")).unwrap();
        assert!(open_dir(&root, b"in").is_ok());
        assert!(open_dir(&root, b"").is_ok());
        for bad in [&b"../out"[..], b"link", b"/etc", b"in/../../out"] {
            assert!(open_dir(&root, bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_walked() {
        let tmp = tempfile::tempdir().unwrap();
        let root = open_root(tmp.path()).unwrap();
        let name = "d".repeat(200);
        let mut at = open_anchor(&root, b"").unwrap();
        let mut path = Vec::new();
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = open_anchor(&at, name.as_bytes()).unwrap();
            path.extend_from_slice(name.as_bytes());
            path.push(b'/');
        }
        path.pop();
        assert!(path.len() > 4096);
        assert!(open_dir(&root, &path).is_ok());
    }
}
