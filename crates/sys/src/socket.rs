//! The unix socket that clients come by (`unix(7)`): bound, given its owner and mode, and removed, all by its directory's descriptor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::trusted::{self, Distrust};

/// What `socket(2)` says where the unit gives no network (`RestrictAddressFamilies=`).
pub const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;
/// And what to do then.
pub const NETWORK_CURE: &str =
    "the unit gives the agent no network: install /usr/share/purge-agent/network.conf as its first lines say";

const WAITING_MAX: i32 = 1024;

/// Makes a socket that only its owner can use until [`open_to`] lets others in. What lay there before goes, unless it is no socket.
///
/// # Errors
/// When the directory is not root's alone ([`trusted`]), and what `bind(2)` says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    remove(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // What is bound gets the mode of the socket itself.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, WAITING_MAX)?;
    Ok(UnixListener::from(socket))
}

/// Gives the socket its owner, group and mode.
///
/// # Errors
/// When there is no socket of the agent's own, and what the kernel says.
pub fn open_to(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let dir = directory(path)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::openat(&dir, name(path)?, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&socket)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(other(path));
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(&socket, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    // The only way to the mode of what is opened with O_PATH before Linux 6.6: the link leads to the descriptor's own inode.
    let itself = format!("/proc/self/fd/{}", socket.as_raw_fd());
    Ok(rustix::fs::chmod(itself, Mode::from_raw_mode(mode))?)
}

/// Removes the socket, if it is there.
///
/// # Errors
/// When something else lies there, and what the kernel says.
pub fn remove(path: &Path) -> io::Result<()> {
    let dir = directory(path)?;
    let name = name(path)?;
    let there = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        there => there?,
    };
    match FileType::from_raw_mode(there.st_mode) {
        FileType::Socket => Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?),
        _ => Err(other(path)),
    }
}

fn other(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is no socket; move it away, or choose another path (listen.unix)",
        path.display()
    ))
}

/// The directory, made unless it is there. Sticky is enough: what root makes in it is not exchanged, and clients find `/tmp` so.
fn directory(path: &Path) -> Result<OwnedFd, Distrust> {
    trusted::holder(path.parent().unwrap_or(Path::new("/")), 0o755)
}

fn name(path: &Path) -> io::Result<&[u8]> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    Ok(name.as_bytes())
}
