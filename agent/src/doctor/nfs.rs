//! NFS servers on this host, and what of their clients' doings the agent sees.

use std::fs;

use super::Finding;

const V3: &str = "what an NFSv3 client reads from its own cache goes unseen: give rules a grace";

pub(super) fn server() -> Finding {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = names.filter_map(|process| fs::read_to_string(process.path().join("comm")).ok());
    let names: Vec<String> = names.map(|n| n.trim().to_owned()).collect();
    judge(&names)
}

fn judge(processes: &[String]) -> Finding {
    let runs = |name: &str| processes.iter().any(|p| p == name);
    match (runs("nfsd"), runs("ganesha.nfsd")) {
        (false, false) => Finding::good("nfs", "no NFS server runs here"),
        (true, _) => Finding::note(
            "nfs",
            "the kernel's NFS server runs; its reads and writes are seen, its opens not by every kernel (since Linux 6.5)",
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
        let judge = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            judge(&names)
        };
        assert_eq!(judge(&["systemd"]).verdict, Verdict::Good);
        assert!(judge(&["nfsd"]).found.contains("reads and writes are seen"));
        assert!(judge(&["ganesha.nfsd"]).found.contains("nfs-ganesha"));
    }
}
