//! Whether an NFS server of this host exports a volume: what its clients open, it opens by file handle.
//!
//! The kernel's server is asked for the exports that it has in use (`/proc/fs/nfsd/exports`), and for those it would accept (the table of
//! `exportfs(8)`). nfs-ganesha has no such table: while it runs, each volume counts as exported.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// In use by clients; accepted; configured.
const TABLES: [&str; 3] = ["/proc/fs/nfsd/exports", "/var/lib/nfs/etab", "/etc/exports"];
/// A server in user space.
const GANESHA: &str = "ganesha.nfsd";
/// A table is read to this length.
const TABLE_MAX: usize = 4 << 20;

/// What is exported of the volume, of what it lies in, or of what lies in it.
pub fn of(root: &Path) -> Option<PathBuf> {
    let tables = TABLES.iter().filter_map(|table| fs::read(table).ok());
    let exported = tables
        .filter_map(|table| touching(table.get(..TABLE_MAX).unwrap_or(&table), root))
        .next();
    exported.or_else(|| ganesha_runs().then(|| root.to_owned()))
}

fn touching(table: &[u8], root: &Path) -> Option<PathBuf> {
    let lines = table.split(|b| *b == b'\n');
    let paths = lines.filter_map(|line| {
        let first = line.split(u8::is_ascii_whitespace).next()?;
        first.starts_with(b"/").then(|| unescaped(first))
    });
    paths
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(&path)))
        .find(|path| root.starts_with(path) || path.starts_with(root))
}

/// Blanks are written in octal.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|three| u8::from_str_radix(std::str::from_utf8(three).ok()?, 8).ok());
        plain.push(value.unwrap_or(*first));
        rest = match value {
            Some(_) => after.get(3..).unwrap_or(&[]),
            None => after,
        };
    }
    plain
}

fn ganesha_runs() -> bool {
    let own = fs::read_link("/proc/self/ns/user").ok();
    let mut processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.any(|process| {
        let status = fs::read_to_string(process.path().join("status"));
        // Where it cannot be read, its capabilities may be those of this host.
        let elsewhere = || fs::read_link(process.path().join("ns/user")).is_ok_and(|of| Some(of) != own);
        status.is_ok_and(|status| is_ganesha(&status, elsewhere))
    })
}

/// By `/proc/PID/status`. Any user may give a process this name; files are opened by their handles by root and by who has CAP_DAC_READ_SEARCH
/// (`open_by_handle_at(2)`) in this user namespace. In one of their own, users have all capabilities.
fn is_ganesha(status: &str, elsewhere: impl FnOnce() -> bool) -> bool {
    const DAC_READ_SEARCH: u64 = 1 << 2;
    let value = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    if value("Name:") != Some(GANESHA) {
        return false;
    }
    let is_roots = value("Uid:").is_none_or(|ids| ids.split_whitespace().any(|id| id == "0"));
    let has = |mask: &str| u64::from_str_radix(mask, 16).map_or(true, |mask| mask & DAC_READ_SEARCH != 0);
    let is_able = || value("CapPrm:").is_none_or(has);
    is_roots || is_able() && !elsewhere()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_open_by_handle_is_no_file_server() {
        let is = |name: &str, uid: u32, caps: &str, elsewhere: bool| {
            let status = format!("Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapPrm:\t{caps}\n");
            is_ganesha(&status, || elsewhere)
        };
        let (none, able) = ("0000000000000000", "0000000000000004");
        assert!(is(GANESHA, 0, none, false) && is(GANESHA, 0, able, true));
        assert!(is(GANESHA, 1000, able, false), "a server need not be root's");
        assert!(
            !is(GANESHA, 1000, none, false) && !is(GANESHA, 1000, able, true) && !is("sh", 0, able, false)
        );
        assert!(is_ganesha("Name:\tganesha.nfsd\n", || false), "doubt is one");
    }

    #[test]
    fn a_volume_is_exported_with_what_lies_above_and_below_it() {
        let table = b"# exports\n/srv/data 10.0.0.0/8(rw)\n/mnt/a\\040b\t*(ro)\n";
        let of = |root: &str| touching(table, Path::new(root)).is_some();
        assert!(of("/srv/data") && of("/srv/data/scratch") && of("/srv") && of("/mnt/a b"));
        assert!(!of("/srv/database") && !of("/home"));
    }
}
