//! What a file system does, found out with a file of our own: whether reads leave access times, and whether leases are given.
//!
//! A mount option says what the kernel of this host does, and nothing of a file server. So neither is assumed. The file has a name, because
//! few file servers make one without (`O_TMPFILE`), and is removed again.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::exact::{self, Fresh, Moment};
use super::{beneath, inside, lease};

/// What reads leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traces {
    /// Each read moves the access time.
    Each,
    /// A read moves it if that is a day old, or from before the last change (relatime).
    Daily,
    /// None.
    None,
}

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// What reads leave behind.
    pub traces: Traces,
    /// A lease is given on a file that no other process knows.
    pub leases: bool,
    /// The moment on the file system's clock.
    pub now: Moment,
}

const HOUR: i64 = 3600;

/// Names of such files begin so.
pub const PREFIX: &[u8] = b".purge-agent-probe.";

/// A file that is removed when this goes.
struct Own<'a> {
    dir: &'a OwnedFd,
    name: CString,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let _ = inside::unlink(self.dir, &*self.name);
    }
}

/// Tries it in a directory.
///
/// # Errors
/// When no file can be made there, or what its calls say.
pub fn try_in(dir: &OwnedFd) -> io::Result<Tried> {
    let (own, file) = make(dir)?;
    rustix::io::write(&file, b"purge-agent tries here whether reads move access times\n")?;
    // What is written may reach a server only now.
    drop(file);
    let now = exact::entry(dir, &own.name, Fresh::Now)?.ctime;
    let moves = |atime: Moment| -> io::Result<bool> {
        set_times(dir, &own.name, atime, now.plus(-24 * HOUR))?;
        let set = exact::entry(dir, &own.name, Fresh::Now)?.atime;
        read(dir, &own.name)?;
        let found = exact::entry(dir, &own.name, Fresh::Now)?.atime;
        // One that did not take the time that was set says nothing.
        Ok(set.seconds == atime.seconds && found != set)
    };
    let old = moves(now.plus(-48 * HOUR))?;
    // Later than the last change, which setting it is: relatime leaves that alone.
    let each = old && moves(now.plus(HOUR))?;
    let file = beneath::open_file(dir, &own.name)?;
    let leases = matches!(lease::ask(file), Ok(lease::Asked::Granted(_)));
    Ok(Tried {
        traces: match (old, each) {
            (true, true) => Traces::Each,
            (true, false) => Traces::Daily,
            (false, _) => Traces::None,
        },
        leases,
        now,
    })
}

fn make(dir: &OwnedFd) -> io::Result<(Own<'_>, OwnedFd)> {
    let mut name = PREFIX.to_vec();
    let number = super::time::wall() ^ i64::from(std::process::id()).rotate_left(40);
    name.extend_from_slice(format!("{number:x}").as_bytes());
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &*name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok((Own { dir, name }, file))
}

fn set_times(dir: impl AsFd, name: &CStr, atime: Moment, mtime: Moment) -> io::Result<()> {
    let of = |at: Moment| Timespec {
        tv_sec: at.seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: of(atime),
        last_modification: of(mtime),
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Reads it as processes do: what a cache answers leaves no trace, and is to be found out as well.
fn read(dir: impl AsFd, name: &CStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut buffer = [0; 16];
    rustix::io::read(&file, &mut buffer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_left_of_it() {
        let tmp = tempfile::tempdir().unwrap();
        let root = beneath::open_root(tmp.path()).unwrap();
        let tried = try_in(&root).unwrap();
        println!("{tried:?}");
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
        let apart = Moment::now().seconds - tried.now.seconds;
        assert!(apart.abs() < 5, "{apart}");
    }
}
