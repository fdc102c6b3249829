//! What a run removed leaves the index: the agent's own removals are not in the event stream that it reads.

use std::ffi::CString;
use std::io;

use crate::take::moves::Freed;
use purge_collect::Watched;
use purge_index::StoreError;
use purge_index::table::Index;
use purge_model::{Inode, Kind, Seconds};
use purge_sys::{beneath, stat};

/// A file with more names than this is not looked for: the collector waits meanwhile.
const LOOKED_AT_MAX: usize = 16;

/// Forgets what is in `gone`, and what was `freed` unless its inode is something new: an inode that was freed may be a new
/// file's, whose creation the collector has told already.
///
/// # Errors
/// When the index cannot be read or written.
pub fn forget(watched: &Watched, mut gone: Vec<Inode>, freed: &[Freed]) -> Result<(), StoreError> {
    let mut index = watched.index.write();
    for freed in freed {
        if let Some((now, _)) = index.get(freed.ino)
            && (now == freed.known || !is_at_its_place(watched, &index, freed.ino)?)
        {
            gone.push(freed.ino);
        }
    }
    index.remove(&gone)
}

/// Forgets what lies in the trash now, and was used no later than this when it was decided on. What was used since is remembered.
///
/// # Errors
/// When the index cannot be read or written.
pub fn enter_trash(watched: &Watched, trashed: &[(Inode, Seconds)]) -> Result<(), StoreError> {
    let mut index = watched.index.write();
    for (ino, unused_since) in trashed {
        // Few were used since. Only of those the attributes are read, which takes as long as reading half a page of them.
        let is_later = index
            .last_use(*ino)
            .is_some_and(|access| access.at > *unused_since);
        let was_used = is_later && index.get(*ino).is_some_and(|(known, _)| known.kind == Kind::File);
        watched.trashed.enter(*ino, was_used);
    }
    let all: Vec<Inode> = trashed.iter().map(|(ino, _)| *ino).collect();
    index.remove(&all)
}

/// Whether an inode has one of the names that the index knows. Doubt is yes: a scan finds what is not there.
fn is_at_its_place(watched: &Watched, index: &Index, ino: Inode) -> Result<bool, StoreError> {
    let Ok(root) = watched.open_root() else {
        return Ok(true);
    };
    let names = index.names(ino)?;
    if names.len() > LOOKED_AT_MAX {
        return Ok(true);
    }
    for (dir, name) in names {
        let Some(path) = index.dirs().path(dir) else {
            continue;
        };
        let name = CString::new(name).unwrap_or_default();
        let found = beneath::open_anchor(&root, &path).and_then(|dir| stat::entry(&dir, &name));
        match found {
            Ok(found) if found.stat.ino == ino => return Ok(true),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Ok(true),
        }
    }
    Ok(false)
}
