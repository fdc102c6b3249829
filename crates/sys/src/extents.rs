//! How much of a file's data lies in blocks that something else uses as well (`FS_IOC_FIEMAP`, fiemap of linux/Documentation): a
//! snapshot, or a copy by reflink. To remove the file frees none of these.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{beneath, project, stat};
use purge_model::{Inode, Kind};

/// `_IOWR('f', 11, struct fiemap)` of linux/fs.h; `_IOWR` is the same on the architectures that the agent is built for.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
/// The last extent of the file.
const EXTENT_LAST: u32 = 0x1;
/// Another file uses it as well.
const EXTENT_SHARED: u32 = 0x2000;
/// Extents of one call.
const BATCH: usize = 128;
/// Calls for one file: what lies behind them is taken to be like what lies before.
const CALLS_MAX: usize = 64;

/// `struct fiemap_extent` of linux/fiemap.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// `struct fiemap` of linux/fiemap.h, with room for some extents.
#[repr(C)]
#[derive(Debug)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}

/// Where a file's data lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extents {
    /// Bytes of the file that have blocks, as far as they were looked at.
    pub mapped: u64,
    /// Of these: in blocks that something else uses as well.
    pub shared: u64,
}

impl Extents {
    /// What comes free of `allocated` bytes when the file goes.
    pub fn frees(self, allocated: u64) -> u64 {
        let own = self.mapped.saturating_sub(self.shared);
        match self.shared {
            // Data within the inode, and data that is still to be written, has no extents.
            0 => allocated,
            _ => {
                let part = u128::from(allocated).saturating_mul(own.into());
                let part = part.checked_div(self.mapped.into()).unwrap_or(0);
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Where a file's data lies, block by block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Bytes in blocks that nothing else uses.
    pub own: u64,
    /// Where on the disk the blocks lie that something else uses as well, which may be the same file: start and length.
    pub shared: Vec<(u64, u64)>,
    /// The look came to the file's end.
    pub is_whole: bool,
}

/// Looks at the regular file `ino` at `relative` below `root`. It is opened for reading, its access time stays, and a process that holds a
/// lease of it is not waited for.
///
/// # Errors
/// ENOTTY or EOPNOTSUPP where the file system does not tell; ESTALE where another file lies there now; EWOULDBLOCK for a
/// file under a lease; and what `openat2(2)` says.
pub fn of(root: impl AsFd, relative: &[u8], ino: Inode) -> io::Result<Extents> {
    let mut found = Extents::default();
    extents(&open(root, relative, ino)?, |extent| {
        found.mapped = found.mapped.saturating_add(extent.length);
        if extent.flags & EXTENT_SHARED != 0 {
            found.shared = found.shared.saturating_add(extent.length);
        }
    })?;
    Ok(found)
}

/// How much a file takes on disk now. It is not opened.
///
/// # Errors
/// As for [`of`].
pub fn allocated(root: impl AsFd, relative: &[u8], ino: Inode) -> io::Result<u64> {
    Ok(entry(root, relative, ino)?.1.stat.allocated)
}

/// The same, with the places on the disk.
///
/// # Errors
/// As for [`of`].
pub fn places(root: impl AsFd, relative: &[u8], ino: Inode) -> io::Result<Places> {
    let mut found = Places::default();
    let is_whole = extents(&open(root, relative, ino)?, |extent| {
        if extent.flags & EXTENT_SHARED != 0 {
            found.shared.push((extent.physical, extent.length));
        } else {
            found.own = found.own.saturating_add(extent.length);
        }
    })?;
    Ok(Places { is_whole, ..found })
}

/// Whether an error says that the file system does not tell.
pub fn is_untold(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP))
}

fn open(root: impl AsFd, relative: &[u8], ino: Inode) -> io::Result<OwnedFd> {
    project::reopen(entry(root, relative, ino)?.0)
}

fn entry(root: impl AsFd, relative: &[u8], ino: Inode) -> io::Result<(OwnedFd, stat::Located)> {
    let entry = beneath::open_entry(root, relative)?;
    let found = stat::open_file(&entry)?;
    match found.stat.ino == ino && found.stat.kind == Kind::File {
        true => Ok((entry, found)),
        false => Err(io::Error::from_raw_os_error(libc::ESTALE)),
    }
}

/// Shows each extent; false: there are more.
fn extents(file: &OwnedFd, mut show: impl FnMut(&Extent)) -> io::Result<bool> {
    let mut start = 0u64;
    for _ in 0..CALLS_MAX {
        let mut map = Map {
            start,
            length: u64::MAX.saturating_sub(start),
            flags: 0,
            mapped: 0,
            count: u32::try_from(BATCH).unwrap_or(0),
            reserved: 0,
            extents: [Extent::default(); BATCH],
        };
        // SAFETY: the kernel reads and writes one `struct fiemap` at the address and at most `count` extents behind it: those of
        // `map`, which are plain integers without padding.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let told = usize::try_from(map.mapped).unwrap_or(0).min(BATCH);
        for extent in map.extents.iter().take(told) {
            show(extent);
            let end = extent.logical.saturating_add(extent.length);
            if extent.flags & EXTENT_LAST != 0 || end <= start {
                return Ok(true);
            }
            start = end;
        }
        if told == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_structs_are_as_long_as_the_number_of_the_call_says() {
        assert_eq!(size_of::<Extent>(), 56);
        assert_eq!(size_of::<Map>() - size_of::<[Extent; BATCH]>(), 0x20);
    }

    #[test]
    fn only_the_file_that_is_meant_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), [7; 5000]).unwrap();
        let root = beneath::open_root(dir.path()).unwrap();
        let ino = stat::path(&dir.path().join("f")).unwrap().stat.ino;
        let other = of(&root, b"f", ino + 1).unwrap_err();
        assert_eq!(other.raw_os_error(), Some(libc::ESTALE));
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        assert!(of(&root, b"link", ino).is_err());
        match of(&root, b"f", ino) {
            Ok(found) => assert_eq!(found.shared, 0),
            Err(e) => assert!(
                matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)),
                "{e}"
            ),
        }
    }

    proptest! {
        #[test]
        fn no_more_comes_free_than_there_is(mapped: u64, shared: u64, allocated: u64) {
            let extents = Extents { mapped, shared };
            let frees = extents.frees(allocated);
            prop_assert!(frees <= allocated);
            if shared >= mapped && shared > 0 {
                prop_assert_eq!(frees, 0);
            }
        }
    }
}
