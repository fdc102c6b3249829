//! What tests put into an index.
#![allow(clippy::unwrap_used)]

use super::{DirId, Found, Index, Store, VolumeId};
use purge_model::{Inode, Kind, LastUse, Seconds, Source, Stat};

/// An inode whose times are all `at`.
pub fn stat(ino: Inode, kind: Kind, size: u64, at: u32) -> Stat {
    let at = Seconds(at);
    Stat {
        ino,
        kind,
        size,
        allocated: size.next_multiple_of(512),
        project: 0,
        uid: 1,
        gid: 2,
        links: 1,
        atime: at,
        mtime: at,
        ctime: at,
        ctime_nanos: 0,
        birth: at,
    }
}

/// A file below the root, last used at 5 for all that is known.
pub fn found(ino: Inode, size: u64, name: &[u8]) -> Found<'_> {
    let first_use = LastUse {
        at: Seconds(5),
        source: Source::Baseline,
    };
    Found {
        stat: stat(ino, Kind::File, size, 1),
        parent: DirId::ROOT,
        name,
        first_use,
    }
}

/// An index that holds only its root, inode 2.
pub fn empty() -> (Store, Index) {
    let store = Store::temporary().unwrap();
    let mut index = Index::new(store.clone(), VolumeId(1));
    index.set_root(&stat(2, Kind::Directory, 0, 1));
    (store, index)
}
