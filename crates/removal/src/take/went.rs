//! What a run takes is told to the mount by which users come to the volume: the names that they know of it lead nowhere from then on.

use purge_collect::Watched;
use purge_collect::fuse::asking::Went;
use purge_model::{Inode, Seconds};

use crate::candidate::Candidate;
use crate::fate::Fate;

/// Tells it, where there is one, before those who wait go on and before the index forgets the names. `trashed`: what lies in the trash now, also
/// inside of directories that went as a whole.
pub fn tell_mount<'c>(
    watched: &Watched,
    candidates: impl Iterator<Item = (&'c Candidate, &'c Fate)>,
    trashed: &[(Inode, Seconds)],
) {
    let Some(mount) = watched.asker.talk() else { return };
    let taken = candidates.filter(|(_, fate)| matches!(fate, Fate::Deleted | Fate::Trashed));
    let mut all: Vec<Went> = trashed.iter().map(|(ino, _)| went(*ino)).collect();
    let index = watched.index.read();
    for (candidate, _) in taken {
        let names = index.names(candidate.ino).unwrap_or_default();
        let dirs = index.dirs();
        all.extend(names.into_iter().filter_map(|(dir, name)| {
            let dir = dirs.get(dir)?.ino;
            Some(Went {
                dir,
                name,
                ..went(candidate.ino)
            })
        }));
    }
    drop(index);
    if let Err(error) = mount.tell_went(all) {
        tracing::warn!(%error, "the mount is not told what was taken: for a second its users may still find it by name");
    }
}

fn went(ino: Inode) -> Went {
    Went {
        ino,
        dir: 0,
        name: Vec::new(),
    }
}
