//! Project ids, asked for only where they are used: most volumes know none, and asking costs a scan a fifth of its time.
//!
//! Directories are always asked. The first that has an id shows that the volume uses them; from then on files are asked as
//! well, and one more scan asks those that were met before it.
//!
//! Before Linux 6.17 every file that is asked must be opened. That is done only where the file system is mounted with `prjquota`, or
//! a quota on projects wants the ids; elsewhere everything has project 0. The agent's own opens are told by its pid, and are no use.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use purge_model::Kind;
use purge_sys::project::{self, Way};
use purge_sys::stat::{self, Device, Located};

/// Whether a volume uses project ids.
#[derive(Debug)]
pub struct Projects {
    state: AtomicU8,
    /// They are told by name.
    by_name: bool,
    /// Otherwise: files and directories are opened to ask them.
    may_open: AtomicBool,
}

const UNUSED: u8 = 0;
/// Used, and files that were met earlier must be asked.
const FOUND: u8 = 1;
const USED: u8 = 2;

impl Projects {
    /// `used`: files are asked from the beginning. `device` is that of the volume.
    pub fn new(used: bool, device: Device) -> Self {
        let by_name = project::is_told_by_name();
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let may_open = !by_name && has_project_quota(&String::from_utf8_lossy(&mounts), device);
        Self {
            state: AtomicU8::new(if used { USED } else { UNUSED }),
            by_name,
            may_open: AtomicBool::new(may_open),
        }
    }

    /// A quota or a caller needs the ids, at any cost of asking.
    pub fn are_wanted(&self) {
        if !self.by_name && !self.may_open.swap(true, Relaxed) {
            self.state.store(FOUND, Relaxed);
        }
    }

    /// Whether ids are asked for at all.
    pub fn are_told(&self) -> bool {
        self.way().is_some()
    }

    fn way(&self) -> Option<Way> {
        match self.by_name {
            true => Some(Way::ByName),
            false => self.may_open.load(Relaxed).then_some(Way::ByOpening),
        }
    }

    /// True once, after the first directory with an id was met.
    pub fn wants_scan(&self) -> bool {
        let found = self.state.compare_exchange(FOUND, USED, Relaxed, Relaxed);
        found.is_ok()
    }

    /// The entry `name` of the directory `dir`, as [`stat::entry`] but with its project.
    ///
    /// # Errors
    /// As for [`stat::entry`].
    pub fn entry(&self, dir: impl AsFd, name: &CStr) -> io::Result<Located> {
        let found = stat::entry(&dir, name)?;
        Ok(self.with_project(found, |way| way.of_entry(dir, name)))
    }

    /// The same right after the directory was listed, as [`stat::listed_entry`].
    ///
    /// # Errors
    /// As for [`stat::listed_entry`].
    pub fn listed_entry(&self, dir: impl AsFd, name: &CStr) -> io::Result<Located> {
        let found = stat::listed_entry(&dir, name)?;
        Ok(self.with_project(found, |way| way.of_entry(dir, name)))
    }

    /// An open file, as [`stat::open_file`] but with its project.
    ///
    /// # Errors
    /// As for [`stat::open_file`].
    pub fn open_file(&self, fd: impl AsFd) -> io::Result<Located> {
        let found = stat::open_file(&fd)?;
        Ok(self.with_project(found, |way| way.of_open(fd)))
    }

    fn with_project(&self, mut found: Located, ask: impl FnOnce(Way) -> io::Result<u32>) -> Located {
        // Its file system may never answer.
        if found.mount_root {
            return found;
        }
        let asked = match found.stat.kind {
            Kind::Directory => true,
            Kind::File => self.state.load(Relaxed) != UNUSED,
            Kind::Symlink | Kind::Special => false,
        };
        if let Some(way) = self.way().filter(|_| asked) {
            found.stat.project = ask(way).unwrap_or(0);
            if found.stat.project != 0 {
                let _ = self.state.compare_exchange(UNUSED, FOUND, Relaxed, Relaxed);
            }
        }
        found
    }
}

/// Whether a mount of this device keeps account of projects: the file system's own options are the last field.
fn has_project_quota(mountinfo: &str, device: Device) -> bool {
    let number = format!("{}:{}", device.major, device.minor);
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(number.as_str());
    mountinfo.lines().filter(of_device).any(|line| {
        let own = line.split_once(" - ").map_or("", |(_, own)| own);
        let mut options = own.split(' ').nth(2).unwrap_or("").split(',');
        options.any(|o| matches!(o, "prjquota" | "pquota"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_of_the_file_system_counts() {
        let info = "36 35 7:1 / /mnt/a\\040b rw,noatime shared:1 - xfs /dev/loop1 rw,attr2,prjquota\n\
                    37 35 7:2 / /prjquota rw - ext4 /dev/loop2 rw,usrquota\n\
                    38 35 7:3 / /c rw - ext4 /dev/loop3 rw,prjquota\n";
        let of = |minor| has_project_quota(info, Device { major: 7, minor });
        assert_eq!([1, 2, 3, 4].map(of), [true, false, true, false]);
    }
}
