//! The device of a whole file system, as all of `/proc` writes it: with mounts, maps and locks. Of btrfs it is not that of a subvolume, which
//! `stat(2)` tells.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::mountinfo::{self, Line};
use super::stat::{self, Device};

/// No table of the agent's own namespace is longer.
const TABLE_BYTES: u64 = 256 << 20;

/// That of an open file.
///
/// # Errors
/// What `statx(2)` and `read(2)` say; ENOENT if this process's table of mounts does not list the file's mount.
pub fn of(fd: impl AsFd) -> io::Result<Device> {
    let mount = stat::mount_id(fd)?;
    let (table, _) = mountinfo::read(Path::new("/proc/self/mountinfo"), TABLE_BYTES)?;
    let listed = mountinfo::find(&table, mount).and_then(|line| of_mount(&line));
    listed.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "/proc/self/mountinfo does not list its mount",
        )
    })
}

/// That of a mount in a table.
pub fn of_mount(mount: &Line<'_>) -> Option<Device> {
    let (major, minor) = std::str::from_utf8(mount.device).ok()?.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}
