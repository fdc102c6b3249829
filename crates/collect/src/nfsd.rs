//! What clients of the kernel's NFS server (version 4) have open, or may read from their own caches: a use, though no event tells.
//!
//! A client with a delegation opens, reads and maps a file without asking the server, and one that keeps a file open may read it from
//! its cache for weeks. The server lists both in `/proc/fs/nfsd/clients/NUMBER/states` (Linux 5.3), a line for each:
//!
//! ```text
//! - 0x...: { type: open, access: r-, deny: --, superblock: "fe:10:1234", filename: "a", owner: "open id:..." }
//! - 0x...: { type: deleg, access: r, superblock: "fe:10:1234", filename: "a" }
//! ```
//! The superblock is device (hex) and inode (decimal), and stands before anything that a client may choose. Locks and layouts look
//! alike, and count as well: a client that holds anything of a file uses the file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::Watched;
use super::event::{Access, Acts, By};
use super::source::{Barrier, Blind, Certainty, Kind, Mode, Profile, Reads, Source, Who};
use purge_base::clock;
use purge_model::Inode;
use purge_sys::fanotify::Features;

/// Where the server lists its clients.
pub const CLIENTS: &str = "/proc/fs/nfsd/clients";

/// A file system's device as the kernel knows it. Not what `stat(2)` says: btrfs has one for each subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    major: u32,
    minor: u32,
}

impl Superblock {
    /// The one that a file lies on.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or does not say.
    pub fn of(file: &impl AsRawFd) -> io::Result<Self> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let mount = info
            .lines()
            .find_map(|l| l.strip_prefix("mnt_id:"))
            .map(str::trim);
        // Mount points may be named in any bytes.
        let mounts = fs::read("/proc/self/mountinfo")?;
        let mounts = String::from_utf8_lossy(&mounts);
        mount
            .and_then(|mount| mounts.lines().find_map(|line| of_mount(line, mount)))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "/proc/self/mountinfo does not list it"))
    }
}

/// `36 35 98:0 /root /mount ...`
fn of_mount(line: &str, id: &str) -> Option<Superblock> {
    let mut fields = line.split(' ');
    let (number, _, device) = (fields.next()?, fields.next()?, fields.next()?);
    let (major, minor) = device.split_once(':').filter(|_| number == id)?;
    Some(Superblock {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// The file that a line tells of.
fn state(line: &[u8]) -> Option<(Superblock, Inode)> {
    const BEFORE: &[u8] = b"superblock: \"";
    let at = line.windows(BEFORE.len()).position(|w| w == BEFORE)?;
    let rest = line.get(at.checked_add(BEFORE.len())?..)?;
    let end = rest.iter().position(|b| *b == b'"')?;
    let mut parts = std::str::from_utf8(rest.get(..end)?).ok()?.splitn(3, ':');
    let (major, minor, ino) = (parts.next()?, parts.next()?, parts.next()?);
    let superblock = Superblock {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
    };
    Some((superblock, ino.parse().ok()?))
}

/// Every file of a file system that a client holds. Nothing where no server runs.
///
/// # Errors
/// When the list cannot be read: who holds what is unknown then.
pub fn held(clients: &Path, of: Superblock) -> io::Result<FxHashSet<Inode>> {
    let mut held = FxHashSet::default();
    let list = match fs::read_dir(clients) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(held),
        Err(e) => return Err(e),
    };
    for client in list {
        let mut states = match File::open(client?.path().join("states")) {
            Ok(states) => BufReader::new(states),
            // It left meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let mut line = Vec::new();
        while states.read_until(b'\n', &mut line)? > 0 {
            held.extend(state(&line).filter(|(on, _)| *on == of).map(|(_, ino)| ino));
            line.clear();
        }
    }
    Ok(held)
}

/// The server's list as a source of a volume's uses.
#[derive(Debug)]
pub struct NfsServer {
    watched: Arc<Watched>,
    /// Working memory.
    news: Mutex<Vec<Inode>>,
}

impl NfsServer {
    /// For this volume.
    pub fn new(watched: Arc<Watched>) -> Self {
        Self {
            watched,
            news: Mutex::default(),
        }
    }

    /// Records that what clients hold is used now. Returns how many files of the volume's file system that are.
    ///
    /// # Errors
    /// As for [`held`], and when the volume cannot be opened.
    pub fn look(&self) -> io::Result<usize> {
        let clients = Path::new(CLIENTS);
        if !clients.exists() {
            return Ok(0);
        }
        let superblock = Superblock::of(&self.watched.open_root()?)?;
        let held = held(clients, superblock)?;
        // After the list was read: late, never early.
        let at = clock::now();
        self.watched.recorder().batch(&mut self.news.lock(), |batch| {
            for inode in &held {
                batch.record(Access {
                    inode: *inode,
                    at,
                    by: By::UNKNOWN,
                    what: Acts::HELD,
                });
            }
        });
        Ok(held.len())
    }
}

impl Source for NfsServer {
    fn profile(&self) -> Profile {
        Profile {
            kind: Kind::NfsServer,
            mode: Mode::Asked,
            features: Features::ALL,
            knows_names: false,
            knows_who: Who::Unknown,
            certainty: Certainty::LastLook,
            hides: false,
            outlives: false,
            reads: Reads::AtScans,
            blind: &[Blind::BetweenLooks, Blind::Who, Blind::Names],
        }
    }

    fn queued(&self) -> u64 {
        0
    }

    fn barrier(&self, _at_most: Duration) -> Barrier {
        match self.look() {
            Ok(_) => Barrier::Passed,
            Err(_) => Barrier::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const VOLUME: Superblock = Superblock {
        major: 0xfe,
        minor: 0x10,
    };

    #[test]
    fn every_file_that_a_client_holds_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let client = |number: &str, states: &str| {
            fs::create_dir(dir.path().join(number)).unwrap();
            fs::write(dir.path().join(number).join("states"), states).unwrap();
        };
        client(
            "3",
            "- 0x01: { type: open, access: r-, deny: --, superblock: \"fe:10:12\", filename: \"a\", owner: \"open id:\\x00\" }\n\
             - 0x02: { type: lock, superblock: \"fe:10:13\", filename: \"b\", owner: \"lock\" }\n\
             - 0x03: { type: open, access: rw, deny: --, superblock: \"fe:11:14\", filename: \"on another disk\" }\n",
        );
        client(
            "4",
            "- 0x04: { type: deleg, access: r, superblock: \"fe:10:18446744073709551615\", filename: \"c\" }\n\
             - 0x05: { type: layout, superblock: \"fe:10:15\", filename: \"d\nsuperblock: \\\"\" }\n- 0x06: { type: open",
        );
        fs::create_dir(dir.path().join("5")).unwrap();
        let held = held(dir.path(), VOLUME).unwrap();
        assert_eq!(held, [12, 13, 15, u64::MAX].into_iter().collect());
    }

    #[test]
    fn no_client_holds_anything_where_no_server_runs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(held(&dir.path().join("clients"), VOLUME).unwrap().is_empty());
    }

    #[test]
    fn a_states_file_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("3/states")).unwrap();
        assert!(held(dir.path(), VOLUME).is_err());
    }

    #[test]
    fn what_makes_no_sense_belongs_to_no_client() {
        for line in [
            "",
            "superblock: \"",
            "superblock: \"1:2\"",
            "superblock: \"x:y:z\"",
            "superblock: \"1:2:-3\"",
        ] {
            assert_eq!(state(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_superblock_is_what_the_mount_table_says() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = File::open(dir.path()).unwrap();
        let found = Superblock::of(&file).unwrap();
        let device = file.metadata().unwrap().dev();
        assert_eq!(found.major, rustix::fs::major(device));
        assert_eq!(found.minor, rustix::fs::minor(device));
    }
}
