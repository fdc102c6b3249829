//! Marks of directories, one by one: for file systems that cannot be marked as a whole, and for processes that may not do it.
//!
//! The mark of a directory tells what is done to what lies in it, by the names there. A file with a name elsewhere is marked itself.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use fanotify::low_level as fan;

use super::{ACCESS_EVENTS, Group, IGNORABLE, mask, namespace_events};
use crate::handle::Handle;

/// How many marks the groups of a process without CAP_SYS_ADMIN may have: on this host, and in this user namespace.
const MARKS_MAX: [&str; 2] = [
    "/proc/sys/fs/fanotify/max_user_marks",
    "/proc/sys/user/max_fanotify_marks",
];

impl Group {
    /// From now on it is reported what is done to this directory and to what lies in it. `dir` may be an O_PATH descriptor.
    ///
    /// # Errors
    /// ENOSPC when there are too many marks, and what else `fanotify_mark(2)` says.
    pub fn mark_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let events = ACCESS_EVENTS | namespace_events(self.features()) | mask::ONDIR | mask::ON_CHILD;
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        self.add(events, fan::AT_FDCWD, Path::new(&path), 0)
    }

    /// From now on uses of this file are reported, by whichever name. No symbolic link is followed.
    ///
    /// # Errors
    /// As for [`Group::mark_dir`].
    pub fn mark_file(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let events = ACCESS_EVENTS | mask::ATTRIB;
        self.add(events, dir.as_raw_fd(), name, fan::FAN_MARK_DONT_FOLLOW)
    }

    /// From now on uses of what lies in this directory are reported, and no names.
    ///
    /// # Errors
    /// As for [`Group::mark_dir`].
    pub fn mark_uses(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        self.add(ACCESS_EVENTS | mask::ON_CHILD, fan::AT_FDCWD, Path::new(&path), 0)
    }

    /// The events of this file that [`Group::ignore`] hides are queued again. `inode` may be an O_PATH descriptor.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says; ENOENT, where there is no such mark any more, is none.
    pub fn show(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        let how = fan::FAN_MARK_REMOVE | fan::FAN_MARK_IGNORED_MASK;
        let path = format!("/proc/self/fd/{}", inode.as_raw_fd());
        let done = fan::fanotify_mark(
            self.fd.as_raw_fd(),
            how,
            IGNORABLE,
            fan::AT_FDCWD,
            Path::new(&path),
        );
        match done {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn add(&self, events: u64, at: i32, path: &Path, how: u32) -> io::Result<()> {
        fan::fanotify_mark(self.fd.as_raw_fd(), fan::FAN_MARK_ADD | how, events, at, path)
    }

    /// The inodes that have a mark of their own, of directories and of files.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn marked_inodes(&self) -> io::Result<Vec<(u64, Handle)>> {
        let mut all = Vec::new();
        self.each_line(|line| {
            all.extend(marked(line).and_then(|ino| Some((ino, handle_of(line)?))));
            true
        })?;
        Ok(all)
    }

    /// The files that a mark hides events of, and of which nothing else is reported.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn hidden(&self) -> io::Result<Vec<Handle>> {
        let mut all = Vec::new();
        self.each_line(|line| {
            all.extend(hidden(line));
            true
        })?;
        Ok(all)
    }

    pub(super) fn has_marked_dirs(&self) -> io::Result<bool> {
        let mut any = false;
        self.each_line(|line| {
            any |= marked(line).is_some();
            !any
        })?;
        Ok(any)
    }

    fn each_line(&self, mut each: impl FnMut(&str) -> bool) -> io::Result<()> {
        let info = File::open(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        for line in BufReader::new(info).lines() {
            if !each(&line?) {
                break;
            }
        }
        Ok(())
    }

    /// How many marks this process may have; none: as many as it likes.
    pub fn marks_max(&self) -> Option<u64> {
        least(&MARKS_MAX).filter(|_| self.found.is_limited)
    }
}

/// The least of these limits.
pub fn least(limits: &[&str]) -> Option<u64> {
    let read = |limit: &&str| std::fs::read_to_string(limit).ok()?.trim().parse().ok();
    limits.iter().filter_map(read).min()
}

/// The inode of a line of `fdinfo` (proc_pid_fdinfo(5)); none where the line is another one, or the mark only hides.
fn marked(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("fanotify ino:")?;
    let field = |name: &str| rest.split(' ').find_map(|part| part.strip_prefix(name));
    let reports = field("mask:").and_then(|mask| u64::from_str_radix(mask, 16).ok())?;
    let ino = u64::from_str_radix(rest.split(' ').next()?, 16).ok()?;
    (reports != 0).then_some(ino)
}

/// The file of a line, where its mark only hides.
fn hidden(line: &str) -> Option<Handle> {
    let rest = line.strip_prefix("fanotify ino:")?;
    let field = |name: &str| rest.split(' ').find_map(|part| part.strip_prefix(name));
    let bits = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    if bits("mask:")? != 0 || bits("ignored_mask:")? == 0 {
        return None;
    }
    handle_of(line)
}

/// What a line calls its file.
fn handle_of(line: &str) -> Option<Handle> {
    let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name));
    let kind = i32::from_str_radix(field("fhandle-type:")?, 16).ok()?;
    let hex = field("f_handle:")?.as_bytes();
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes = hex.chunks_exact(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    Handle::new(kind, &bytes.collect::<Option<Vec<u8>>>()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn marks_are_read_from_the_kernel_s_list() {
        let dir = "fanotify ino:2 sdev:700000 mflags:0 mask:58000ff7 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:02";
        assert_eq!(marked(dir), Some(2));
        let hides = "fanotify ino:1f sdev:700000 mflags:240 mask:0 ignored_mask:31 fhandle-bytes:8 fhandle-type:1 f_handle:02";
        assert_eq!(marked(hides), None);
        assert_eq!(hidden(dir), None);
        assert_eq!(hidden(hides).unwrap().content(), [2]);
        assert_eq!(
            marked("fanotify sdev:700000 mflags:0 mask:5 ignored_mask:0"),
            None
        );
        assert_eq!(marked("fanotify flags:2 event-flags:8000"), None);
    }
}
