//! The allocator (`mallopt(3)`, `malloc_trim(3)`), and how much memory this process may use.
//!
//! Measured with a million files: glibc's arena for each thread, and what the first scan left free in them, made
//! 350 MB of what is 130 MB with two arenas that are trimmed once.

use std::fs;
use std::path::Path;

/// Version 1 of control groups writes this much, or more, where there is no bound.
const UNBOUND: u64 = 1 << 62;

/// The bounds of the control group that this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBounds {
    /// Beyond it the group is slowed down (`memory.high`).
    pub high: Option<u64>,
    /// It may never have more.
    pub max: Option<u64>,
}

/// The bounds of the control group that this process is in, and of those above it.
pub fn group_bounds() -> GroupBounds {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bound = |prefix: &str, mount: &str, file: &str| {
        let own = groups
            .lines()
            .find_map(|l| l.split_once(':')?.1.strip_prefix(prefix))?;
        least_bound(&Path::new(mount).join(own), file)
    };
    let of_two = |file| bound(":/", "/sys/fs/cgroup", file);
    let of_one = bound("memory:/", "/sys/fs/cgroup/memory", "memory.limit_in_bytes");
    GroupBounds {
        high: of_two("memory.high"),
        max: of_two("memory.max").or(of_one),
    }
}

/// The least bound of a group and those above it.
fn least_bound(group: &Path, file: &str) -> Option<u64> {
    let texts = group
        .ancestors()
        .filter_map(|g| fs::read_to_string(g.join(file)).ok());
    let bounds = texts.filter_map(|text| text.trim().parse().ok());
    bounds.filter(|bytes| *bytes < UNBOUND).min()
}

/// How many bytes of memory this process may use at most: what the host has, or what its control group allows.
pub fn bound() -> u64 {
    let host = rustix::system::sysinfo();
    let host = host.totalram.saturating_mul(u64::from(host.mem_unit));
    let group = group_bounds();
    [group.high, group.max].into_iter().flatten().fold(host, u64::min)
}

/// Keeps the number of arenas small; to be called before the first thread is started.
pub fn few_arenas() {
    // SAFETY: mallopt takes two integers and changes nothing but the allocator's own settings.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives free memory back to the system. Takes milliseconds: for after a scan, not for every day.
pub fn give_back() {
    // SAFETY: malloc_trim has no preconditions.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A buffer whose pages are there from the beginning, and are not swapped out where this process may lock them (`mlock(2)`).
///
/// The kernel gives up to fill a page that is not there when the process is killed in that moment.
pub fn resident(bytes: usize) -> Vec<u8> {
    // Not zeros: those would be pages that are made when something is written there.
    let buffer = vec![1; bytes];
    // SAFETY: the pages are the buffer's, and locking changes nothing of what they hold.
    let locked = unsafe { rustix::mm::mlock(buffer.as_ptr().cast_mut().cast(), buffer.len()) };
    if let Err(error) = locked {
        tracing::debug!(%error, bytes, "memory that may be swapped out");
    }
    buffer
}

/// Resident memory of this process (VmRSS in `/proc/self/status`).
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}
