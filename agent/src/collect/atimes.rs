//! Whether each read of a volume leaves an access time, whoever reads and by which way.
//!
//! ```text
//! ext4                    btrfs and xfs copy files by sharing their blocks, and leave no access time
//! every mount of it       in each mount namespace: relatime or strictatime, writable, no lazytime, no mapped ids
//! no file server          that is seen: its clients read from their own caches after an open
//! clocks                  the wall clock, which access times are from, goes with the agent's own
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::mounted::namespace_of;
use crate::sys::mountinfo;
use crate::sys::stat::{Device, Mount, magic};
use crate::sys::time;

/// The wall clock may differ by so many seconds.
const APART_MAX: u64 = 2;
/// A longer table of mounts is not read.
const TABLE_BYTES: u64 = 64 << 20;
/// Processes that answer clients which keep what they have read.
const SERVERS: [&str; 3] = ["nfsd", "ganesha.nfsd", "smbd"];

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

/// Whether some mount of a device, in any mount namespace that is seen, leaves no access times: `noatime`, or read-only. A namespace that is the
/// host's own but for what is read-only there is one in which systemd runs a service (`ProtectSystem=`): nearly every host has some, and
/// users read nothing by way of them.
pub fn some_mount_keeps_none(device: Device) -> bool {
    let mut namespaces = BTreeSet::new();
    let (host, _) = mountinfo::read(Path::new("/proc/1/mountinfo"), TABLE_BYTES).unwrap_or_default();
    let (host, of_host) = (Top::of(&host), namespace_of(1));
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.filter_map(Result::ok).any(|process| {
        let path = process.path();
        let id = path.file_name().and_then(|n| n.to_str()?.parse().ok());
        let namespace = id.and_then(namespace_of);
        let is_new = namespace.is_some_and(|namespace| namespaces.insert(namespace));
        let mounts = || mountinfo::read(&path.join("mountinfo"), TABLE_BYTES).unwrap_or_default();
        is_new && {
            let (table, whole) = mounts();
            let mounts = mounts_of(&String::from_utf8_lossy(&table), device);
            let is_service = namespace != of_host && host.is_that_of(&table);
            // A table that is too long to be read whole is doubt.
            !whole && !mounts.is_empty() || mounts.iter().any(|mount| leaves_none(mount, is_service))
        }
    })
}

/// Whether the wall clock goes with the agent's own.
pub fn clocks_agree() -> bool {
    crate::clock::ahead_seconds().unsigned_abs() <= APART_MAX
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
