//! Whether the file system of a volume takes changes, asked by a thread of its own: it may not answer.

use std::io;
use std::sync::Arc;

use rustix::fs::StatVfsMountFlags;

use purge_base::probe::{Look, Probe};
use purge_collect::Watched;
use purge_removal::trash::Trash;
use purge_sys::failure::{Defect, Failure};

/// Begins to ask.
///
/// # Errors
/// When no thread can be started.
pub(super) fn probe(watched: &Arc<Watched>, volume: &str) -> io::Result<Probe> {
    let watched = Arc::clone(watched);
    Probe::begin(format!("the file system of volume {volume}"), move |how| {
        look(&watched, how)
    })
}

/// Whether the file system of a volume takes changes. What lies there instead of it is told elsewhere.
fn look(watched: &Watched, how: Look) -> Option<Defect> {
    let trash = match how {
        Look::Thorough => Trash::open(watched).and_then(|trash| trash.map_or(Ok(()), |trash| trash.touch())),
        Look::Glance => Ok(()),
    };
    let looked = trash.and_then(|()| watched.open_root()).and_then(|root| {
        let is = rustix::fs::fstatvfs(&root)?;
        match is.f_flag.contains(StatVfsMountFlags::RDONLY) {
            true => Err(rustix::io::Errno::ROFS.into()),
            false => Ok(()),
        }
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
