//! `ignore_accessors = [ { comm = "updatedb" }, { comm = "ganesha.nfsd", what = "opens" } ]`: whose reads, or opens, do not count.

use std::path::PathBuf;

use super::keys::Key;
use super::keys::volume::{ACCESSOR, IGNORE_ACCESSORS, accessor as key};
use super::section::{At, Section, Source};
use purge_base::accounts::{Unclear, group_id, user_id};
use purge_collect::accessors::{Accessor, What};

/// A kernel keeps at most this number of bytes of a process's name (`TASK_COMM_LEN` without its NUL).
const COMM_BYTES_MAX: usize = 15;

const WHATS: [(&str, What); 2] = [("reads", What::Reads), ("opens", What::Opens)];

/// Reads the list of a volume.
pub(super) fn read_accessors(s: &Section<'_, '_>, src: &mut Source<'_>) -> Vec<Accessor> {
    let tables = s.tables(src, IGNORE_ACCESSORS);
    let read = |(table, span)| read_accessor(Section::new(&ACCESSOR, table, span), src);
    tables.into_iter().filter_map(read).collect()
}

fn read_accessor(s: Section<'_, '_>, src: &mut Source<'_>) -> Option<Accessor> {
    let before = src.faults.len();
    let accessor = Accessor {
        comm: read_comm(&s, src),
        exe: absolute(&s, src, key::EXE).map(PathBuf::from),
        uid: account(&s, src, key::UID, user_id),
        gid: account(&s, src, key::GID, group_id),
        cgroup: absolute(&s, src, key::CGROUP),
        what: s.choice(src, key::WHAT, &WHATS).unwrap_or(What::Nothing),
    };
    let span = s.span.clone();
    s.finish(src);
    if src.faults.len() > before {
        return None;
    }
    if !accessor.names_a_process() {
        let what = "an accessor that names no process would ignore all processes";
        src.fault(
            &span,
            what,
            "give comm, exe, uid, gid or cgroup; several must all hold",
        );
        return None;
    }
    Some(accessor)
}

fn read_comm(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<String> {
    let (comm, span) = s.string(src, key::COMM)?;
    if comm.is_empty() || comm.contains('/') {
        src.fault(
            &span,
            format!("comm {comm:?} is no name of a process"),
            "write the name that `ps -o comm` shows",
        );
    } else if comm.len() > COMM_BYTES_MAX {
        let cut: String = comm.chars().take(COMM_BYTES_MAX).collect();
        let what = format!("comm {comm:?} is longer than the 15 bytes that the kernel keeps");
        src.fault(&span, what, format!("write {cut:?}, or name the program by exe"));
    }
    Some(comm)
}

fn absolute(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<String> {
    let (path, span): At<String> = s.string(src, key)?;
    if !path.starts_with('/') || path.trim_end_matches('/').is_empty() {
        let what = format!("{} {path:?} is no absolute path below /", key.name);
        src.fault(
            &span,
            what,
            "write it as /proc shows it, such as \"/usr/bin/restic\" or \"/system.slice/backup.service\"",
        );
    }
    Some(path)
}

fn account(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static Key,
    id_of: fn(&str) -> Option<u32>,
) -> Option<u32> {
    let (name, span) = s.string(src, key)?;
    let id = id_of(&name);
    if id.is_none() {
        super::scope::unclear_account(src, key, &name, &span, &Unclear::Unknown);
    }
    id
}
