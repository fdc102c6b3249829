//! What the file system says of an entry, with times as exact as it keeps them (`statx(2)`).

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp};

use super::stat::Device;
use super::{beneath, mountpoints, stat};
use purge_model::{Inode, Kind};

/// A moment: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// The rest.
    pub nanos: u32,
}

impl Moment {
    /// The wall clock's present moment.
    pub fn now() -> Self {
        let now = super::time::wall();
        Self {
            seconds: now.div_euclid(1_000_000_000),
            nanos: u32::try_from(now.rem_euclid(1_000_000_000)).unwrap_or(0),
        }
    }

    /// Later by `seconds`.
    #[must_use]
    pub fn plus(self, seconds: i64) -> Self {
        Self {
            seconds: self.seconds.saturating_add(seconds),
            ..self
        }
    }
}

impl From<&StatxTimestamp> for Moment {
    fn from(at: &StatxTimestamp) -> Self {
        Self {
            seconds: at.tv_sec,
            nanos: at.tv_nsec,
        }
    }
}

/// How new the answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// As the kernel knows it: the directory was listed a moment ago.
    Listed,
    /// As a server knows it now.
    Now,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// Inode number.
    pub ino: Inode,
    /// What it is.
    pub kind: Kind,
    /// Apparent size in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Number of names.
    pub links: u32,
    /// Device.
    pub device: Device,
    /// Last read, as far as the file system keeps it.
    pub atime: Moment,
    /// Last change of the content.
    pub mtime: Moment,
    /// Last change of anything.
    pub ctime: Moment,
    /// Birth, where the file system keeps it.
    pub birth: Option<Moment>,
    /// Something is mounted here.
    pub mount_root: bool,
    /// Not even root removes it (`chattr(1)`).
    pub protected: bool,
}

/// The entry `name` of a directory. No link is followed, and no mount is entered or triggered.
///
/// # Errors
/// What `statx(2)` says; EXDEV for a mount point.
pub fn entry(dir: impl AsFd, name: &CStr, fresh: Fresh) -> io::Result<Exact> {
    if mountpoints::may_be(name) {
        // The server behind a mount point may never answer: this refuses it before it is asked.
        return open(beneath::open_entry(&dir, name.to_bytes())?, fresh);
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | sync(fresh);
    Ok(exact(&rustix::fs::statx(dir, name, flags, wanted())?))
}

/// The file behind a descriptor.
///
/// # Errors
/// What `statx(2)` says.
pub fn open(fd: impl AsFd, fresh: Fresh) -> io::Result<Exact> {
    let flags = AtFlags::EMPTY_PATH | sync(fresh);
    Ok(exact(&rustix::fs::statx(fd, c"", flags, wanted())?))
}

fn sync(fresh: Fresh) -> AtFlags {
    match fresh {
        Fresh::Listed => AtFlags::STATX_DONT_SYNC,
        Fresh::Now => AtFlags::STATX_FORCE_SYNC,
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME
}

fn exact(x: &Statx) -> Exact {
    let has_birth = StatxFlags::from_bits_retain(x.stx_mask).contains(StatxFlags::BTIME);
    Exact {
        ino: x.stx_ino,
        kind: match FileType::from_raw_mode(x.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Special,
        },
        size: x.stx_size,
        uid: x.stx_uid,
        links: x.stx_nlink,
        device: Device {
            major: x.stx_dev_major,
            minor: x.stx_dev_minor,
        },
        atime: Moment::from(&x.stx_atime),
        mtime: Moment::from(&x.stx_mtime),
        ctime: Moment::from(&x.stx_ctime),
        birth: has_birth.then(|| Moment::from(&x.stx_btime)),
        mount_root: x.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || stat::is_zfs_control(x),
        protected: x
            .stx_attributes
            .intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
    }
}
