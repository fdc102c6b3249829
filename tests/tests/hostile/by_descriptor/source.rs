//! The calls with a path in the source of what is shipped, and where they may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The state directory is root's alone, and so is every directory above it (`sys::trusted`, at each start).
const STATE: &str = "in the state directory";
const PROC: &str = "/proc, /sys: the kernel's own";

/// Each file with the calls that it may have, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("crates/base/src/clock.rs", "fs::read fs::rename", STATE),
    ("crates/base/src/handover.rs", "fs::read fs::remove_file", STATE),
    ("agent/src/host/announced.rs", "fs::read fs::rename", STATE),
    ("agent/src/host/brakes/known.rs", "fs::read fs::rename", STATE),
    ("agent/src/host/views/growth.rs", "fs::read fs::rename", STATE),
    ("agent/src/host/applier/runs.rs", "fs::remove_file", STATE),
    (
        "agent/src/host/unattended/served.rs",
        "fs::read_to_string fs::rename",
        STATE,
    ),
    ("agent/src/host/applier/tidy.rs", "fs::remove_file", STATE),
    (
        "crates/index/src/aside.rs",
        ".exists fs::read fs::read_dir fs::read_to_string fs::remove_dir_all fs::remove_file fs::rename",
        STATE,
    ),
    (
        "crates/index/src/checkpoint.rs",
        ".exists File::open fs::read fs::rename",
        STATE,
    ),
    (
        "crates/index/src/journal.rs",
        "File::open fs::metadata fs::read fs::read_dir fs::remove_file fs::rename",
        STATE,
    ),
    ("crates/index/src/store/calls.rs", "File::open", STATE),
    (
        "crates/notify/src/file.rs",
        "File::open fs::remove_file fs::rename",
        STATE,
    ),
    ("crates/notify/src/memory.rs", "fs::read", STATE),
    (
        "crates/notify/src/outbox.rs",
        ".exists fs::read fs::read_dir fs::read_to_string fs::rename",
        STATE,
    ),
    (
        "crates/notify/src/tally.rs",
        "fs::read_dir fs::read_to_string fs::remove_file",
        STATE,
    ),
    ("crates/removal/src/run/ledger.rs", "fs::read", STATE),
    (
        "crates/removal/src/taken.rs",
        "fs::read_dir fs::remove_file",
        STATE,
    ),
    ("crates/removal/src/taken/read.rs", "File::open", STATE),
    (
        "agent/src/reload/answer.rs",
        "fs::read_to_string fs::rename",
        STATE,
    ),
    (
        "agent/src/volume/keeper/flush.rs",
        "File::open fs::remove_file",
        STATE,
    ),
    (
        "agent/src/volume/opening.rs",
        "fs::read fs::remove_dir_all",
        STATE,
    ),
    (
        "agent/src/volume/reset.rs",
        "fs::read_to_string fs::remove_file fs::rename",
        STATE,
    ),
    ("agent/src/once/held.rs", "fs::read_dir fs::read_link", PROC),
    (
        "agent/src/once/mod.rs",
        "fs::canonicalize",
        "a look, whether the path is that of the whole system",
    ),
    (
        "crates/collect/src/listeners.rs",
        "fs::read_dir fs::read_link",
        PROC,
    ),
    (
        "crates/collect/src/accessors.rs",
        "fs::read fs::read_link fs::read_to_string",
        PROC,
    ),
    (
        "crates/collect/src/open_files.rs",
        "File::open fs::metadata fs::read_dir fs::read_link fs::read_to_string",
        PROC,
    ),
    (
        "crates/collect/src/mounted.rs",
        "fs::metadata fs::read_dir fs::read_link",
        PROC,
    ),
    (
        "agent/src/volume/claim.rs",
        "fs::read_link fs::read_to_string",
        PROC,
    ),
    (
        "crates/collect/src/nfsd.rs",
        ".exists File::open fs::read fs::read_dir fs::read_to_string",
        PROC,
    ),
    (
        "crates/collect/src/atimes.rs",
        ".exists fs::read fs::read_dir fs::read_to_string",
        PROC,
    ),
    (
        "crates/collect/src/exports.rs",
        "fs::read fs::read_dir fs::read_link fs::read_to_string",
        "/proc, and tables of root's in /etc and /var/lib/nfs",
    ),
    (
        "crates/collect/src/fuse/told.rs",
        "File::open fs::read fs::read_dir fs::remove_file",
        STATE,
    ),
    (
        "crates/collect/src/fuse/asking.rs",
        "File::open UnixListener::bind fs::remove_file",
        STATE,
    ),
    ("crates/collect/src/projects.rs", "fs::read", PROC),
    (
        "crates/collect/src/touched.rs",
        "fs::read fs::read_to_string",
        PROC,
    ),
    (
        "agent/src/reboot.rs",
        "fs::read fs::read_dir fs::read_link fs::read_to_string",
        PROC,
    ),
    ("agent/src/doctor/machine.rs", "fs::read_to_string", PROC),
    ("agent/src/doctor/nfs.rs", "fs::read_dir fs::read_to_string", PROC),
    (
        "crates/base/src/accounts.rs",
        "fs::read_to_string",
        "/etc/passwd and /etc/group",
    ),
    (
        "crates/base/src/accounts/known.rs",
        "fs::read_to_string",
        "/etc/passwd and /etc/group",
    ),
    (
        "crates/base/src/accounts/persons.rs",
        "fs::read_to_string",
        "/etc/subuid",
    ),
    (
        "crates/config/src/check.rs",
        "fs::read_dir",
        "rules.d, which sys::trusted has looked at; its files are opened by sys",
    ),
    (
        "agent/src/main.rs",
        ".is_dir",
        "a look at the volume that the command line names",
    ),
    (
        "crates/base/src/secret.rs",
        "File::open fs::metadata fs::read_to_string",
        "secrets that the configuration names; read only",
    ),
    (
        "crates/config/src/means.rs",
        ".is_file",
        "a look, to say what is missing; what matters is opened by sys",
    ),
    (
        "crates/notify/src/text.rs",
        ".is_dir",
        "a look, to say what is missing",
    ),
    (
        "agent/src/patterns.rs",
        "fs::symlink_metadata",
        "a look whether `check` can ask a running agent",
    ),
    (
        "agent/src/serve/members.rs",
        "fs::metadata",
        "/etc/passwd, /etc/group and /etc/nsswitch.conf",
    ),
    (
        "agent/src/tls.rs",
        ".is_file fs::metadata fs::read",
        "keys and certificates that the configuration names; read only",
    ),
    (
        "agent/src/demo.rs",
        ".exists .is_dir .is_symlink File::create fs::create_dir fs::create_dir_all fs::read_dir symlink tempfile::",
        "a new directory of its own, 0700",
    ),
    (
        "agent/src/parent.rs",
        ".exists UnixDatagram::bind fs::read_to_string open tempfile::",
        "a look at its own program and at /proc, and a socket in a new directory of its own, 0700",
    ),
    (
        "ctl/src/commands/archive.rs",
        ".symlink_metadata OpenOptions::new fs::hard_link fs::remove_file",
        "a file that the caller names, by the caller's rights; it is made beside and replaces nothing",
    ),
    ("agent/src/host/applier/archiving.rs", "fs::read_to_string", STATE),
    ("crates/base/src/probe.rs", "fs::read_to_string", PROC),
    ("crates/base/src/probe/ballast.rs", "fs::remove_file", STATE),
    ("crates/removal/src/run/recover.rs", "fs::remove_file", STATE),
];

/// What takes a path and follows it, or a directory and a name.
const CALLS: &[&str] = &[
    "DirBuilder::new",
    "File::create",
    "File::create_new",
    "File::open",
    "File::options",
    "OpenOptions::new",
    "UnixListener::bind",
    "UnixDatagram::bind",
    "fs::canonicalize",
    "fs::copy",
    "fs::create_dir",
    "fs::create_dir_all",
    "fs::exists",
    "fs::hard_link",
    "fs::metadata",
    "fs::read",
    "fs::read_dir",
    "fs::read_link",
    "fs::read_to_string",
    "fs::remove_dir",
    "fs::remove_dir_all",
    "fs::remove_file",
    "fs::rename",
    "fs::set_permissions",
    "fs::soft_link",
    "fs::symlink_metadata",
    "fs::write",
    ".exists",
    ".is_dir",
    ".is_file",
    ".is_symlink",
    ".try_exists",
    ".canonicalize",
    ".symlink_metadata",
    ".read_dir",
    ".read_link",
    "access",
    "accessat",
    "chmod",
    "chmodat",
    "chown",
    "chownat",
    "lchown",
    "link",
    "linkat",
    "lsetxattr",
    "mkdir",
    "mkdirat",
    "mkfifoat",
    "mknodat",
    "open",
    "openat",
    "openat2",
    "readlink",
    "readlinkat",
    "removexattr",
    "renameat",
    "renameat_with",
    "rmdir",
    "setxattr",
    "stat",
    "statat",
    "symlink",
    "symlinkat",
    "tempfile::",
    "unlink",
    "unlinkat",
    "utimensat",
];
/// What sets something by name. `fchmod`, `fchown`, `futimens`, `fsetxattr` are by descriptor.
const CHANGES: &[&str] = &[
    "fs::set_permissions",
    "chmod",
    "chmodat",
    "chown",
    "chownat",
    "lchown",
    "lsetxattr",
    "removexattr",
    "setxattr",
    "utimensat",
];
/// Words that are functions of ours or of others as well: they count with `rustix::fs::` before them only.
const COMMON: &[&str] = &[
    "access", "link", "open", "stat", "symlink", "unlink", "mkdir", "rmdir", "readlink",
];

/// Only `sys` may have these calls. Each that sets something says how it works without a name.
const CHANGES_IN_SYS: &[(&str, &str)] = &[
    // AT_EMPTY_PATH; /proc/self/fd of an O_PATH descriptor
    (
        "crates/sys/src/backing.rs",
        "chmod chownat removexattr setxattr utimensat",
    ),
    ("crates/sys/src/socket.rs", "chownat chmod"), // AT_EMPTY_PATH; /proc/self/fd of an O_PATH descriptor
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// By file: what it may have.
pub fn known() -> BTreeMap<&'static str, BTreeSet<String>> {
    KNOWN
        .iter()
        .map(|(file, calls, why)| {
            assert!(!why.is_empty(), "{file}: say why");
            (*file, calls.split(' ').map(str::to_owned).collect())
        })
        .collect()
}

/// By file outside of `sys`: what it has.
pub fn found() -> BTreeMap<String, BTreeSet<String>> {
    let all = shipped()
        .into_iter()
        .filter(|(file, _)| !file.starts_with("crates/sys/src/"));
    let calls = all.map(|(file, text)| (file, calls_of(&text, CALLS)));
    calls.filter(|(_, calls)| !calls.is_empty()).collect()
}

/// Calls that set owner, mode, times or attributes by name, in all crates.
pub fn changes_by_name() -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, text) in shipped() {
        let known = CHANGES_IN_SYS.iter().find(|(known, _)| *known == file);
        let known: Vec<&str> = known
            .map(|(_, calls)| calls.split(' ').collect())
            .unwrap_or_default();
        let calls = calls_of(&text, CHANGES);
        wrong.extend(
            calls
                .iter()
                .filter(|c| !known.contains(&c.as_str()))
                .map(|c| format!("{file}: {c}")),
        );
    }
    wrong
}

/// The Rust source of the programs, without tests and comments.
fn shipped() -> Vec<(String, String)> {
    let top = top();
    let crates = fs::read_dir(top.join("crates")).unwrap();
    let crates = crates.map(|entry| entry.unwrap().path().join("src"));
    let others = ["agent/src", "ctl/src", "proto/src"].map(|d| top.join(d));
    let mut left: Vec<PathBuf> = crates.chain(others).collect();
    let mut all = Vec::new();
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                left.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") && !name.ends_with("/tests.rs") {
                all.push((name, without_tests(&fs::read_to_string(&path).unwrap())));
            }
        }
    }
    assert!(all.len() > 100, "the source is not where it was");
    all
}

fn without_tests(text: &str) -> String {
    let shipped = match text.find("#[cfg(test)]\nmod tests {") {
        Some(at) => &text[..at],
        None => text,
    };
    let lines = shipped.lines().filter(|l| !l.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn calls_of(text: &str, calls: &[&str]) -> BTreeSet<String> {
    let has = |call: &&&str| text.match_indices(**call).any(|(at, _)| is_call(text, at, call));
    calls.iter().filter(has).map(|c| (*c).to_owned()).collect()
}

/// Whether a word in a text is a call of that name, not a part of another's or a method.
fn is_call(text: &str, at: usize, call: &str) -> bool {
    let (before, after) = (&text[..at], &text[at + call.len()..]);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let begins = !before.ends_with(is_word) || call.starts_with('.');
    // The function itself may be passed on.
    let ends =
        call.ends_with("::") || after.starts_with('(') || after.starts_with(')') || after.starts_with("::<");
    if !begins || !ends {
        return false;
    }
    if call.starts_with('.') {
        return after.starts_with("()");
    }
    if call.contains("::") {
        return true;
    }
    let by_rustix = before.ends_with("rustix::fs::") || before.ends_with("unix::fs::");
    let alone = !before.ends_with('.') && !before.ends_with("::") && !before.ends_with("fn ");
    by_rustix || (alone && !COMMON.contains(&call))
}
