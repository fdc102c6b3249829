//! Whether the file system of a volume takes changes, and how full it is, asked by a thread of its own: it may not answer.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::StatVfsMountFlags;

use purge_base::probe::{Look, Probe};
use purge_collect::Watched;
use purge_removal::trash::Trash;
use purge_sys::failure::{Defect, Failure};
use purge_sys::stat::Space;

/// How full a file system is, as of the last look; none: it is not there.
pub(super) type Room = Arc<Mutex<Option<Space>>>;

/// Begins to ask.
///
/// # Errors
/// When no thread can be started.
pub(super) fn probe(watched: &Arc<Watched>, room: &Room, volume: &str) -> io::Result<Probe> {
    let (watched, room) = (Arc::clone(watched), Arc::clone(room));
    Probe::begin(format!("the file system of volume {volume}"), move |how| {
        look(&watched, &room, how)
    })
}

/// Whether the file system of a volume takes changes. What lies there instead of it is told elsewhere.
fn look(watched: &Watched, room: &Room, how: Look) -> Option<Defect> {
    let trash = match how {
        Look::Thorough => Trash::open(watched).and_then(|trash| trash.map_or(Ok(()), |trash| trash.touch())),
        Look::Glance => Ok(()),
    };
    let root = watched.open_root();
    let seen = root.and_then(|root| Ok(rustix::fs::fstatvfs(&root)?));
    *room.lock() = seen.as_ref().ok().map(Space::from);
    let looked = trash
        .and(seen)
        .and_then(|is| match is.f_flag.contains(StatVfsMountFlags::RDONLY) {
            true => Err(rustix::io::Errno::ROFS.into()),
            false => Ok(()),
        });
    let error = looked.err()?;
    let failure = Failure::of(&error);
    let what = match failure {
        Failure::ReadOnly => "is read-only, nothing can be removed",
        Failure::Broken => "fails, or was shut down after an error",
        _ => return None,
    };
    Some(Defect {
        failure,
        words: format!("the file system at {} {what}: {error}", watched.path.display()),
    })
}
