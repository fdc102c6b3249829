//! The kernel, what the process may do, its limits, systemd.

use std::fs;
use std::path::Path;

use purge_proto::units::{format_count, format_size};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use purge_base::descriptors;
use purge_base::handover;
use purge_sys::failure::Defect;
use purge_sys::stat;

/// Leases of several batches, and room for clients.
const FILES_MIN: u64 = 4096;
/// Less room than this for the index is too little.
const STATE_BYTES_MIN: u64 = 1 << 30;

/// What each capability is for, by its number (`capabilities(7)`).
const CAPABILITIES: [(u32, &str, &str); 7] = [
    (21, "CAP_SYS_ADMIN", "watching whole file systems"),
    (2, "CAP_DAC_READ_SEARCH", "opening files by their handles"),
    (1, "CAP_DAC_OVERRIDE", "removing other people's files"),
    (3, "CAP_FOWNER", "reading directories without moving their times"),
    (0, "CAP_CHOWN", "the socket's group, and the trash"),
    (
        4,
        "CAP_FSETID",
        "directories that keep their set-group-ID bit in the trash",
    ),
    (28, "CAP_LEASE", "leases on other people's files"),
];

/// What it has is tried for each volume: its number says little.
pub(super) fn kernel() -> Finding {
    let uname = rustix::system::uname();
    Finding::good("kernel", format!("Linux {}", uname.release().to_string_lossy()))
}

pub(super) fn capabilities() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    judge_capabilities(line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()))
}

fn judge_capabilities(effective: Option<u64>) -> Finding {
    let Some(effective) = effective else {
        return Finding::note("capabilities", "/proc/self/status says nothing", "mount /proc");
    };
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(bit, _, _)| effective & (1 << bit) == 0)
        .map(|(_, name, what_for)| format!("{name} ({what_for})"))
        .collect();
    match missing.is_empty() {
        true => Finding::good("capabilities", "all that is needed"),
        false => Finding::bad(
            "capabilities",
            format!("missing: {}", missing.join(", ")),
            "run it as root; under systemd, CapabilityBoundingSet= must have them",
        ),
    }
}

pub(super) fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let shares = descriptors::shares();
    let clients = shares
        .root
        .saturating_add(shares.local)
        .saturating_add(shares.remote);
    let of_them = format!(
        "{} of them for runs of all volumes, {} for clients",
        format_count(shares.runs as u64),
        format_count(clients as u64)
    );
    let found = match limit {
        Some(n) => format!("{} files may be open, {of_them}", format_count(n)),
        None => "any number of files may be open".into(),
    };
    match limit {
        Some(n) if n < FILES_MIN => Finding::note(
            "files",
            found,
            format!(
                "batches are smaller than they could be, and a file whose names lie in very many directories stays \
                 (many_names): LimitNOFILE=65536 in the unit, or ulimit -n {FILES_MIN}"
            ),
        ),
        _ => Finding::good("files", found),
    }
}

fn sysctl(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

/// `volumes`: how many are watched by it.
pub(super) fn inotify(volumes: usize) -> Finding {
    let (watches, instances) = (
        sysctl("fs/inotify/max_user_watches"),
        sysctl("fs/inotify/max_user_instances"),
    );
    let number = |n: Option<u64>| n.map_or_else(|| "?".into(), format_count);
    let needed = match volumes {
        0 => "no volume is watched by inotify, so none is needed".to_owned(),
        1 => "a volume is watched by inotify, and takes a watch for each directory".to_owned(),
        n => format!("{n} volumes are watched by inotify, and take a watch for each directory"),
    };
    let found = format!(
        "{} watches and {} instances a user; {needed}",
        number(watches),
        number(instances)
    );
    Finding::good("inotify", found)
}

pub(super) fn leases() -> Finding {
    match sysctl("fs/leases-enable") {
        Some(0) => Finding::bad(
            "leases",
            "fs.leases-enable is 0",
            "sysctl -w fs.leases-enable=1: without leases only the trash's grace keeps a file that is used in the moment of its \
             removal",
        ),
        _ => Finding::good("leases", "the kernel gives leases"),
    }
}

pub(super) fn systemd() -> Vec<Finding> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    if let Some(parent) = handover::parent() {
        let parent = parent.as_raw_nonzero();
        return vec![Finding::good(
            "fd-store",
            format!("the agent's parent (process {parent}) keeps the event queues over a crash"),
        )];
    }
    if variable("NOTIFY_SOCKET").is_none() {
        return vec![Finding::note(
            "fd-store",
            "not started by systemd, and as a single process",
            "what happens while the agent is restarted goes unseen and counts as use: run it as purge-agent.service, which keeps \
             the event queues, or without --single-process",
        )];
    }
    let store = match variable("FDSTORE").map(|n| n.parse::<u32>().unwrap_or(0)) {
        Some(0) => Finding::bad(
            "fd-store",
            "systemd keeps no descriptors",
            "FileDescriptorStoreMax=256 in the unit",
        ),
        Some(n) => Finding::good("fd-store", format!("systemd keeps up to {n} descriptors")),
        // Versions before 254 do not say.
        None => Finding::good("fd-store", "systemd keeps the event queues over a restart"),
    };
    let watchdog = match variable("WATCHDOG_USEC").and_then(|n| n.parse::<u64>().ok()) {
        Some(micros) => {
            let seconds = micros / 1_000_000;
            Finding::good(
                "watchdog",
                format!("systemd starts the agent again when it has hung for {seconds} s"),
            )
        }
        None => Finding::note(
            "watchdog",
            "no one notices an agent that hangs",
            "WatchdogSec=60 in the unit",
        ),
    };
    vec![store, watchdog]
}

pub(super) fn state_dir(dir: &Path, defect: Option<Defect>) -> Finding {
    if let Some(defect) = defect {
        return Finding::bad("state", defect.words, defect.failure.cure_of_state());
    }
    let place = dir.display();
    match stat::space(dir) {
        Err(error) => Finding::bad(
            "state",
            format!("{place}: {error}"),
            "mount it, or correct state_dir",
        ),
        Ok(space) if space.available < STATE_BYTES_MIN => Finding::note(
            "state",
            format!("{place}: {} free", format_size(space.available)),
            "the index takes about 100 bytes a file, and cannot be written when nothing is left: make room",
        ),
        Ok(space) => Finding::good("state", format!("{place}: {} free", format_size(space.available))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_a_process_may_not_do_is_named() {
        assert_eq!(judge_capabilities(Some(u64::MAX)).verdict, Verdict::Good);
        let found = judge_capabilities(Some(!(1 << 28)));
        assert_eq!(found.verdict, Verdict::Bad);
        assert!(found.found.contains("CAP_LEASE (leases on other people's files)"));
        assert!(!found.found.contains("CAP_CHOWN"));
    }
}
