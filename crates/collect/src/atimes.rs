//! Whether each read of a volume leaves an access time, for every reader and every way to read.
//!
//! ```text
//! ext4                    btrfs and xfs copy files by sharing their blocks, and leave no access time
//! every mount of it       in each mount namespace: relatime or strictatime, writable, no lazytime, no mapped ids
//! no file server          that is seen: its clients read from their own caches after an open
//! clocks                  the wall clock, which access times are from, goes with the agent's own
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::mounted::{Key, namespace_of};
use purge_model::{Kind, Seconds, Stat};
use purge_sys::mountinfo;
use purge_sys::stat::{Device, Mount, magic};
use purge_sys::superblock;
use purge_sys::time;

/// relatime moves an access time that is as old as this.
const DAY: u64 = 24 * 3600;
/// The file system's clock and the agent's agree before the gap and after it: within 2 s each time, and stamps are cut off.
const CLOCKS_DIFFER_MAX: u64 = 5;
/// The wall clock may differ by this number of seconds.
const APART_MAX: u64 = 2;
/// A longer table of mounts is not read.
const TABLE_BYTES: u64 = 64 << 20;
/// Numbers of users, from this one on; those below are the system's.
const USERS_FROM: u32 = 1000;
/// Processes that answer clients which keep what they have read.
pub const SERVERS: [&str; 3] = ["nfsd", "ganesha.nfsd", "smbd"];

/// Access times are kept, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtimeKeeping(String);

impl AtimeKeeping {
    /// Looks at the host; none where a read may leave no trace, or that cannot be told.
    pub fn find(mount: &Mount, device: Device) -> Option<Self> {
        if mount.magic != magic::EXT4 || !mount.keeps_atime || mount.read_only || !clocks_agree() {
            return None;
        }
        // In a process namespace of its own the agent does not see who else mounts the volume, or serves it.
        if fs::read_to_string("/proc/2/comm").ok()?.trim() != "kthreadd" {
            return None;
        }
        let own = fs::read("/proc/self/mountinfo").ok()?;
        let own = mounts_of(&String::from_utf8_lossy(&own), device);
        let mut namespaces = BTreeSet::new();
        for process in fs::read_dir("/proc").ok()? {
            let path = process.ok()?.path();
            let is_process = path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().parse::<u32>().is_ok());
            if !is_process {
                continue;
            }
            // A process that has ended reads nothing.
            let Ok(name) = fs::read_to_string(path.join("comm")) else {
                continue;
            };
            if SERVERS.contains(&name.trim()) {
                return None;
            }
            let id = path.file_name().and_then(|n| n.to_str()?.parse().ok());
            let Some(namespace) = id.and_then(namespace_of) else {
                continue;
            };
            if namespaces.insert(namespace)
                && let Ok((mounts, whole)) = mountinfo::read(&path.join("mountinfo"), TABLE_BYTES)
            {
                let mounts = mounts_of(&String::from_utf8_lossy(&mounts), device);
                if !whole || !mounts.iter().all(|m| keeps(m)) {
                    return None;
                }
            }
        }
        let boot: String = time::boot_id().iter().map(|b| format!("{b:02x}")).collect();
        let known = !own.is_empty() && own.iter().all(|m| keeps(m)) && boot.contains(|c| c != '0');
        known.then(|| Self(format!("{boot} {}", own.join(" "))))
    }

    /// The same as long as nothing changes: the boot, and the mounts with their options.
    pub fn word(&self) -> &str {
        &self.0
    }
}

/// Whether some mount of a directory's file system, in any mount namespace that is seen, leaves no access times: `noatime`, or read-only. A namespace that is the
/// host's own but for what is read-only there is one in which systemd runs a service (`ProtectSystem=`): nearly every host has some, and
/// users read nothing through them, unless a process of a user's lives there: a job of a batch system, a session.
pub fn some_mount_keeps_none(root: impl AsFd) -> bool {
    // Of btrfs each subvolume has a device of its own, which no table of mounts tells.
    let device = match superblock::of(root) {
        Ok(device) => device,
        Err(error) => {
            tracing::warn!(%error, "it cannot be told whether a mount keeps no access times: doubt counts as one that does not");
            return true;
        }
    };
    let (host, _) = mountinfo::read(Path::new("/proc/1/mountinfo"), TABLE_BYTES).unwrap_or_default();
    let (host, of_host) = (Top::of(&host), namespace_of(1));
    processes_by_namespace()
        .into_iter()
        .any(|(namespace, processes)| {
            let table = processes.iter().find_map(|id| {
                let path = format!("/proc/{id}/mountinfo");
                mountinfo::read(Path::new(&path), TABLE_BYTES).ok()
            });
            // Its processes have all ended.
            let Some((table, whole)) = table else { return false };
            let mounts = mounts_of(&String::from_utf8_lossy(&table), device);
            let is_like_the_host = Some(namespace) != of_host && host.is_that_of(&table);
            // Each process is asked only where its answer counts.
            let is_service = is_like_the_host
                && mounts.iter().any(|mount| leaves_none(mount, false))
                && !processes.iter().any(|id| is_of_a_user(*id));
            // A table that is too long to be read whole is doubt.
            !whole && !mounts.is_empty() || mounts.iter().any(|mount| leaves_none(mount, is_service))
        })
}

fn processes_by_namespace() -> BTreeMap<Key, Vec<u32>> {
    let mut all: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return all;
    };
    for process in processes.filter_map(Result::ok) {
        let id = process.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((id, namespace)) = id.and_then(|id: u32| Some((id, namespace_of(id)?))) {
            all.entry(namespace).or_default().push(id);
        }
    }
    all
}

/// Whether the real user of a process is none of the system's. One that cannot be asked and still lives is a user's: doubt counts.
fn is_of_a_user(process: u32) -> bool {
    match fs::read_to_string(format!("/proc/{process}/status")) {
        Ok(status) => real_user(&status).is_none_or(|uid| uid >= USERS_FROM),
        Err(_) => Path::new(&format!("/proc/{process}")).exists(),
    }
}

fn real_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Whether the wall clock goes with the agent's own.
pub fn clocks_agree() -> bool {
    purge_base::clock::ahead_seconds().unsigned_abs() <= APART_MAX
}

/// Whether the times of a file show that it was not read since `from`. Pure.
pub fn was_unused_since(stat: &Stat, from: Seconds) -> bool {
    let from = from.minus(CLOCKS_DIFFER_MAX);
    // A change hides what was before it: an access time can be set.
    let changed = stat.ctime.max(stat.mtime).max(stat.birth);
    let is_moved_by_any_read = stat.atime < stat.ctime.max(stat.mtime) || stat.atime.plus(DAY) < from;
    match stat.kind {
        Kind::File => changed < from && stat.atime < from && is_moved_by_any_read,
        Kind::Directory => changed < from,
        Kind::Symlink | Kind::Special => false,
    }
}

/// The mounts of a device: `number:options:options of the file system`.
fn mounts_of(mountinfo: &str, device: Device) -> Vec<String> {
    let number = format!("{}:{}", device.major, device.minor);
    let of_line = |line: &str| {
        let (mount, own) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let (id, _, dev) = (fields.next()?, fields.next()?, fields.next()?);
        let options = fields.nth(2)?;
        let own = own.split(' ').nth(2)?;
        (dev == number).then(|| format!("{id}:{options}:{own}"))
    };
    let mut mounts: Vec<String> = mountinfo.lines().filter_map(of_line).collect();
    mounts.sort_unstable();
    mounts
}

fn keeps(mount: &str) -> bool {
    let mut options = mount.split([':', ',']);
    !options.any(|o| matches!(o, "noatime" | "ro" | "lazytime" | "idmapped"))
}

fn leaves_none(mount: &str, of_a_service: bool) -> bool {
    let mut options = mount.split([':', ',']);
    options.any(|o| o == "noatime" || (o == "ro" && !of_a_service))
}

/// What is mounted at the top of a mount namespace.
#[derive(Debug, PartialEq, Eq)]
struct Top(
    /// Device and root.
    Option<(Vec<u8>, Vec<u8>)>,
);

impl Top {
    fn of(table: &[u8]) -> Self {
        // What is mounted last covers the others.
        let top = mountinfo::lines(table)
            .filter(|line| *line.point() == *b"/")
            .last();
        Self(top.map(|line| (line.device.to_vec(), line.root().into_owned())))
    }

    /// Whether another table has the same at its top.
    fn is_that_of(&self, table: &[u8]) -> bool {
        self.0.is_some() && *self == Self::of(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: u32 = 1_000_000;

    fn file(atime: u32, changed: u32) -> Stat {
        Stat {
            ino: 7,
            kind: Kind::File,
            size: 1,
            allocated: 512,
            project: 0,
            uid: 0,
            gid: 0,
            links: 1,
            atime: Seconds(atime),
            mtime: Seconds(changed),
            ctime: Seconds(changed),
            ctime_nanos: 0,
            birth: Seconds(changed),
        }
    }

    /// What a relatime mount does when a file is read at `at`.
    fn after_read(mut stat: Stat, at: u32) -> Stat {
        let age = i64::from(at) - i64::from(stat.atime.0);
        if stat.mtime >= stat.atime || stat.ctime >= stat.atime || age >= 24 * 3600 {
            stat.atime = Seconds(at);
        }
        stat
    }

    #[test]
    fn an_access_time_within_a_day_hides_a_read() {
        let since = |atime, changed| was_unused_since(&file(atime, changed), Seconds(FROM));
        assert!(since(FROM - 90_000, 5));
        assert!(!since(FROM - 80_000, 5), "relatime would not have moved it");
        assert!(
            since(FROM - 80_000, FROM - 70_000),
            "a later change: it would have"
        );
        assert!(!since(FROM + 1, 5), "read");
        assert!(!since(FROM - 90_000, FROM + 1), "changed");
    }

    proptest! {
        #[test]
        fn no_read_in_a_gap_goes_unseen(
            atime in FROM - 200_000..FROM + 100,
            changed in FROM - 200_000..FROM + 100,
            later in 0u32..200_000,
        ) {
            let read = after_read(file(atime, changed), FROM + later);
            prop_assert!(!was_unused_since(&read, Seconds(FROM)));
        }
    }

    #[test]
    fn one_mount_without_access_times_is_enough() {
        let info = "36 35 7:1 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/loop1 rw\n\
                    37 35 7:1 /sub /mnt/c rw,nosuid - ext4 /dev/loop1 rw,errors=remount-ro\n\
                    38 35 7:2 / /c rw,noatime - ext4 /dev/loop3 rw\n\
                    39 35 7:3 / /d rw,relatime,idmapped - ext4 /dev/loop3 rw\n\
                    40 35 7:4 / /d rw,relatime - ext4 /dev/loop3 rw,lazytime\n\
                    41 35 7:5 / /d rw,relatime - ext4 /dev/loop3 ro\n";
        let of = |minor| mounts_of(info, Device { major: 7, minor });
        assert_eq!(of(1), ["36:rw,relatime:rw", "37:rw,nosuid:rw,errors=remount-ro"]);
        let all_keep = |minor| of(minor).iter().all(|m| keeps(m));
        assert_eq!([1, 2, 3, 4, 5].map(all_keep), [true, false, false, false, false]);
        assert!(of(6).is_empty());
        let some_leaves_none = |minor| of(minor).iter().any(|m| leaves_none(m, false));
        assert_eq!(
            [1, 2, 3, 4, 5].map(some_leaves_none),
            [false, true, false, false, true]
        );
        let in_a_service = |minor| of(minor).iter().any(|m| leaves_none(m, true));
        assert_eq!([2, 5].map(in_a_service), [true, false]);
    }

    #[test]
    fn the_real_user_of_a_process_counts() {
        let status = "Name:\tsleep\nUmask:\t0022\nUid:\t54321\t0\t0\t0\nGid:\t0\t0\t0\t0\n";
        assert_eq!(real_user(status), Some(54_321));
        assert_eq!(real_user("Name:\tsleep\n"), None);
        assert!(!is_of_a_user(1), "init is root's");
    }

    #[test]
    fn a_namespace_of_a_service_has_the_hosts_top() {
        let host = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n36 22 7:1 / /srv rw - ext4 /dev/loop1 rw\n";
        let service = b"90 80 254:0 / / ro,relatime shared:1 - ext4 /dev/vda rw\n91 90 7:1 / /srv ro - ext4 /dev/loop1 rw\n";
        let container =
            b"95 80 0:50 / / rw,relatime - overlay overlay rw\n96 95 7:1 / /srv ro - ext4 /dev/loop1 rw\n";
        let top = Top::of(host);
        assert!(top.is_that_of(service) && !top.is_that_of(container));
        assert!(!Top::of(b"").is_that_of(b""));
    }
}
