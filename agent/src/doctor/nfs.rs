//! NFS servers on this host, and what of their clients' doings the agent sees.

use std::fs;

use super::{Finding, machine};

/// Since then the kernel's server opens files in a way that is seen; before, only reads and writes are.
const OPENS_SEEN: (u32, u32) = (6, 5);

const V3: &str = "what an NFSv3 client reads from its own cache goes unseen: give rules a grace";

pub(super) fn server(kernel_release: &str) -> Finding {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = names.filter_map(|process| fs::read_to_string(process.path().join("comm")).ok());
    let names: Vec<String> = names.map(|n| n.trim().to_owned()).collect();
    judge(&names, machine::version(kernel_release))
}

fn judge(processes: &[String], kernel: Option<(u32, u32)>) -> Finding {
    let runs = |name: &str| processes.iter().any(|p| p == name);
    match (runs("nfsd"), runs("ganesha.nfsd")) {
        (false, false) => Finding::good("nfs", "no NFS server runs here"),
        (true, _) if kernel.is_some_and(|v| v < OPENS_SEEN) => Finding::note(
            "nfs",
            "the kernel's NFS server runs; before Linux 6.5 its opens go unseen, its reads and writes do not",
            V3,
        ),
        (true, _) => Finding::note(
            "nfs",
            "the kernel's NFS server runs; its reads and writes are seen",
            V3,
        ),
        (_, true) => Finding::note(
            "nfs",
            "nfs-ganesha runs; its opens, reads and writes are seen",
            V3,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        let judge = |names: &[&str], kernel| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            judge(&names, Some(kernel))
        };
        assert_eq!(judge(&["systemd"], (6, 1)).verdict, Verdict::Good);
        assert!(judge(&["nfsd"], (6, 1)).found.contains("opens go unseen"));
        assert!(!judge(&["nfsd"], (6, 12)).found.contains("unseen"));
        assert!(judge(&["ganesha.nfsd"], (6, 1)).found.contains("nfs-ganesha"));
    }
}
