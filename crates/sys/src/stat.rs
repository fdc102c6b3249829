//! What the file system says of an entry (`statx(2)`) and of a mount (`statfs(2)`, `statvfs(3)`).

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatVfsMountFlags, Statx, StatxAttributes, StatxFlags};

use super::{beneath, mountpoints};
use purge_model::{Kind, Seconds, Stat};

/// Device of a file system, or of a btrfs subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// An entry's [`Stat`] and where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Located {
    /// What it is.
    pub stat: Stat,
    /// On which device.
    pub device: Device,
    /// Something is mounted here.
    pub mount_root: bool,
    /// It is immutable, or may only be appended to (`chattr(1)`): not even root renames or removes it.
    pub protected: bool,
    /// The file system keeps births: `stat.birth` is one. Elsewhere it is the change time.
    pub keeps_birth: bool,
    /// Its permission bits, set-id bits and sticky bit.
    pub mode: u32,
    /// The change time with nanoseconds, and whether the access and modification times are exactly the same.
    pub fine: FineTimes,
}

impl Located {
    /// All that is known of a mount point.
    fn of_mount_point() -> Self {
        let unknown = Seconds::MIN;
        Self {
            stat: Stat {
                ino: 0,
                kind: Kind::Directory,
                size: 0,
                allocated: 0,
                project: 0,
                uid: 0,
                gid: 0,
                links: 1,
                atime: unknown,
                mtime: unknown,
                ctime: unknown,
                ctime_nanos: 0,
                birth: unknown,
            },
            device: Device { major: 0, minor: 0 },
            mount_root: true,
            protected: false,
            keeps_birth: false,
            mode: 0,
            fine: FineTimes {
                atime_is_ctime: false,
                mtime_is_ctime: false,
            },
        }
    }
}

/// What whole seconds cannot tell: how the three times relate exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FineTimes {
    /// atime and ctime are the same to the nanosecond.
    pub atime_is_ctime: bool,
    /// mtime and ctime are the same to the nanosecond.
    pub mtime_is_ctime: bool,
}

/// Attributes come from a server, for a volume is on its file system.
static SERVERS_ARE_ASKED: AtomicBool = AtomicBool::new(false);

/// From now on attributes are as new as a server knows them: a volume is on a file system of which only a server knows them. On all others a
/// file system that users mount below (FUSE) is not asked.
pub fn ask_servers() {
    SERVERS_ARE_ASKED.store(true, Relaxed);
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME
}

/// The entry `name` of the directory `dir`, not followed if it is a symlink, mounts not triggered. Of a mount point nothing is told but that it
/// is one: its file system is not asked, for that may never answer.
///
/// # Errors
/// What `statx(2)` says.
pub fn entry(dir: impl AsFd, name: &CStr) -> io::Result<Located> {
    if mountpoints::may_be(name) {
        return match beneath::open_entry(&dir, name.to_bytes()) {
            Ok(entry) => open_file(entry),
            Err(e) if e.raw_os_error() == Some(libc::EXDEV) => Ok(Located::of_mount_point()),
            Err(e) => Err(e),
        };
    }
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if !SERVERS_ARE_ASKED.load(Relaxed) {
        // A mount point may have another name than the table of mounts said a moment ago: then what is known of it is enough.
        flags |= AtFlags::STATX_DONT_SYNC;
    }
    Ok(located(&rustix::fs::statx(dir, name, flags, wanted())?))
}

/// The same as the kernel knows it now, and no server is asked: for an entry whose directory was listed a moment ago, which told of its
/// entries as well (READDIRPLUS).
///
/// # Errors
/// What `statx(2)` says.
pub fn listed_entry(dir: impl AsFd, name: &CStr) -> io::Result<Located> {
    if mountpoints::may_be(name) {
        return entry(dir, name);
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    Ok(located(&rustix::fs::statx(dir, name, flags, wanted())?))
}

/// The same as a server knows it now: what is decided right after it must not rest on an older answer.
///
/// # Errors
/// What `statx(2)` says.
pub fn entry_now(dir: impl AsFd, name: &CStr) -> io::Result<Located> {
    if mountpoints::may_be(name) {
        return entry(dir, name);
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_FORCE_SYNC;
    Ok(located(&rustix::fs::statx(dir, name, flags, wanted())?))
}

/// The file behind an open descriptor, as a server knows it now.
///
/// # Errors
/// What `statx(2)` says.
pub fn open_file_now(fd: impl AsFd) -> io::Result<Located> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    Ok(located(&rustix::fs::statx(fd, c"", flags, wanted())?))
}

/// The file behind an open descriptor.
///
/// # Errors
/// What `statx(2)` says.
pub fn open_file(fd: impl AsFd) -> io::Result<Located> {
    Ok(located(&rustix::fs::statx(
        fd,
        c"",
        AtFlags::EMPTY_PATH,
        wanted(),
    )?))
}

/// Which file is open: where it lies, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// Its number.
    pub ino: u64,
    /// Its device.
    pub device: Device,
    /// Its kind.
    pub kind: Kind,
}

/// Which file an open descriptor is of, as the kernel knows it: no server is asked.
///
/// # Errors
/// What `statx(2)` says.
pub fn which(fd: impl AsFd) -> io::Result<Which> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = located(&rustix::fs::statx(
        fd,
        c"",
        flags,
        StatxFlags::INO | StatxFlags::TYPE,
    )?);
    Ok(Which {
        ino: found.stat.ino,
        device: found.device,
        kind: found.stat.kind,
    })
}

/// The number of the mount through which something is open (Linux 5.8). No server is asked.
///
/// # Errors
/// What `statx(2)` says.
pub fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

/// The file at `path`, not followed if it is a symlink.
///
/// # Errors
/// What `statx(2)` says.
pub fn path(path: &Path) -> io::Result<Located> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(located(&rustix::fs::statx(
        rustix::fs::CWD,
        path,
        flags,
        wanted(),
    )?))
}

/// What a link leads to, which may be one of `/proc/PID/fd`. A server is not asked.
///
/// # Errors
/// What `statx(2)` says.
pub fn behind(link: &Path) -> io::Result<Located> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(located(&rustix::fs::statx(
        rustix::fs::CWD,
        link,
        flags,
        wanted(),
    )?))
}

fn located(x: &Statx) -> Located {
    let kind = match FileType::from_raw_mode(x.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    };
    let ctime = Seconds::from_unix(x.stx_ctime.tv_sec);
    let has_birth = StatxFlags::from_bits_retain(x.stx_mask).contains(StatxFlags::BTIME);
    let birth = if has_birth {
        Seconds::from_unix(x.stx_btime.tv_sec)
    } else {
        ctime
    };
    let exact = |t: &rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
    Located {
        stat: Stat {
            ino: x.stx_ino,
            kind,
            size: x.stx_size,
            allocated: x.stx_blocks.saturating_mul(512),
            project: 0,
            uid: x.stx_uid,
            gid: x.stx_gid,
            links: x.stx_nlink,
            atime: Seconds::from_unix(x.stx_atime.tv_sec),
            mtime: Seconds::from_unix(x.stx_mtime.tv_sec),
            ctime,
            ctime_nanos: x.stx_ctime.tv_nsec,
            birth,
        },
        device: Device {
            major: x.stx_dev_major,
            minor: x.stx_dev_minor,
        },
        mount_root: x.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || is_zfs_control(x),
        protected: x
            .stx_attributes
            .intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
        keeps_birth: has_birth,
        mode: u32::from(x.stx_mode) & 0o7777,
        fine: FineTimes {
            atime_is_ctime: exact(&x.stx_atime) == exact(&x.stx_ctime),
            mtime_is_ctime: exact(&x.stx_mtime) == exact(&x.stx_ctime),
        },
    }
}

/// Whether it is the directory `.zfs`, in which ZFS shows its snapshots: it is left alone like a mount, for what lies in it mounts itself. No file of
/// ZFS has this number, nor one above it (`ZFSCTL_INO_ROOT`).
pub(crate) fn is_zfs_control(x: &Statx) -> bool {
    const ROOT: u64 = 0x0000_FFFF_FFFF_FFFF;
    x.stx_ino == ROOT && FileType::from_raw_mode(x.stx_mode.into()) == FileType::Directory
}

/// What a mount promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// File system type: "ext4", "xfs", "btrfs", "tmpfs", "zfs", or its magic number in hex.
    pub filesystem: String,
    /// Its magic number (`statfs(2)`).
    pub magic: u64,
    /// Reads move the access time (relatime and strictatime mounts).
    pub keeps_atime: bool,
    /// Mounted read-only.
    pub read_only: bool,
}

impl Mount {
    /// Whether other hosts may use the same files: not on file systems of which it is known that they cannot.
    pub fn may_be_shared(&self) -> bool {
        let alone = [
            magic::EXT4,
            magic::XFS,
            magic::BTRFS,
            magic::TMPFS,
            magic::OVERLAY,
            magic::ZFS,
            magic::F2FS,
            magic::BCACHEFS,
        ];
        !alone.contains(&self.magic)
    }

    /// Whether the kernel itself knows what lies there, and asks no server.
    pub fn is_local(&self) -> bool {
        let local = [magic::EXT4, magic::XFS, magic::BTRFS, magic::TMPFS, magic::ZFS];
        local.contains(&self.magic)
    }
}

/// How full a file system is (`statvfs(3)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that users may still fill: what is reserved for root is neither used nor available, as `df` counts.
    pub available: u64,
    /// Inodes there are; 0 where the file system has no fixed number.
    pub inodes: u64,
    /// Inodes in use.
    pub inodes_used: u64,
}

/// How full the file system at `path` is.
///
/// # Errors
/// What `statvfs(3)` says.
pub fn space(path: &Path) -> io::Result<Space> {
    Ok(Space::from(&rustix::fs::statvfs(path)?))
}

impl From<&rustix::fs::StatVfs> for Space {
    fn from(s: &rustix::fs::StatVfs) -> Self {
        Self {
            used: s.f_blocks.saturating_sub(s.f_bfree).saturating_mul(s.f_frsize),
            available: s.f_bavail.saturating_mul(s.f_frsize),
            inodes: s.f_files,
            inodes_used: s.f_files.saturating_sub(s.f_ffree),
        }
    }
}

/// Has the file system of an open directory write down what it only remembers (`syncfs(2)`): btrfs frees space then.
///
/// # Errors
/// What `syncfs(2)` says.
pub fn sync(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(dir)?)
}

/// A file system with less is taken for full.
const ROOM_BYTES: u64 = 1 << 20;
const ROOM_INODES: u64 = 16;

/// Whether the file system that holds an open directory has room for more, so that an ENOSPC there comes of a user's or a project's limit.
///
/// # Errors
/// What `fstatvfs(3)` says.
pub fn has_room(dir: impl AsFd) -> io::Result<bool> {
    let s = rustix::fs::fstatvfs(dir)?;
    let bytes = s.f_bavail.saturating_mul(s.f_frsize);
    // Where the number of inodes is not fixed there are 0.
    Ok(bytes >= ROOM_BYTES && (s.f_files == 0 || s.f_ffree >= ROOM_INODES))
}

/// Magic numbers of `statfs(2)`.
pub mod magic {
    /// ext2, ext3 and ext4.
    pub const EXT4: u64 = 0xEF53;
    /// xfs.
    pub const XFS: u64 = 0x5846_5342;
    /// btrfs.
    pub const BTRFS: u64 = 0x9123_683E;
    /// tmpfs.
    pub const TMPFS: u64 = 0x0102_1994;
    /// overlayfs.
    pub const OVERLAY: u64 = 0x794c_7630;
    /// ZFS on Linux.
    pub const ZFS: u64 = 0x2fc1_2fc1;
    /// f2fs.
    pub const F2FS: u64 = 0xF2F5_2010;
    /// bcachefs.
    pub const BCACHEFS: u64 = 0xca45_1a4e;
    /// NFS, on a client.
    pub const NFS: u64 = 0x6969;
    /// FUSE.
    pub const FUSE: u64 = 0x6573_5546;
}

/// The mount that holds `path`.
///
/// # Errors
/// What `statfs(2)` says.
pub fn mount(path: &Path) -> io::Result<Mount> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    let flags = rustix::fs::fstatvfs(&dir)?.f_flag;
    // The kernel gives a signed long; the magic numbers have 32 bits.
    let magic = u64::from(rustix::fs::fstatfs(&dir)?.f_type as u32);
    let filesystem = match magic {
        magic::EXT4 => "ext4".into(),
        magic::XFS => "xfs".into(),
        magic::BTRFS => "btrfs".into(),
        magic::TMPFS => "tmpfs".into(),
        magic::ZFS => "zfs".into(),
        other => format!("{other:#x}"),
    };
    Ok(Mount {
        filesystem,
        magic,
        keeps_atime: !flags.contains(StatVfsMountFlags::NOATIME),
        read_only: flags.contains(StatVfsMountFlags::RDONLY),
    })
}
