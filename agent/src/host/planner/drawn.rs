//! Some of the files that a watermark's plan takes, with their handles: to be looked for if too little comes free.

use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::OwnedFd;

use super::sharing::path_of;
use crate::volume::Volume;
use purge_base::accounts::Persons;
use purge_policy::evaluate::Pick;
use purge_policy::sample::{self, Candidate, Drawn, Kept};
use purge_removal::plans::{OwnerProbes, Probe};
use purge_sys::handle::Handle;
use purge_sys::{beneath, stat};

/// Draws some of the files that a plan takes: by what they take on disk, or each alike.
pub(super) fn draw(volume: &Volume, picks: &[Pick], by_bytes: bool) -> Vec<OwnerProbes> {
    let (luck, persons) = (RandomState::new(), Persons::of_host());
    let candidates: Vec<Candidate> = {
        let index = volume.watched.index.read();
        let candidate = |pick: &Pick| {
            let (entry, _) = index.get(pick.ino)?;
            Some(Candidate {
                owner: persons.of(entry.uid),
                ino: pick.ino,
                takes: entry.allocated,
                luck: luck.hash_one(pick.ino),
            })
        };
        picks.iter().filter_map(candidate).collect()
    };
    let Ok(root) = volume.watched.open_root() else {
        return Vec::new();
    };
    let drawn = sample::draw(&candidates, by_bytes);
    drawn.into_iter().map(|of| probes(volume, &root, of)).collect()
}

fn probes(volume: &Volume, root: &OwnedFd, drawn: Kept) -> OwnerProbes {
    let probe = |of: &Drawn| {
        let ino = of.ino;
        let path = path_of(volume, ino)?;
        let entry = beneath::open_entry(root, &path).ok()?;
        let is_it = stat::open_file(&entry).is_ok_and(|found| found.stat.ino == ino);
        let handle = Handle::of_open(&entry).ok().filter(|_| is_it)?;
        Some(Probe {
            ino,
            takes: of.takes,
            weight: of.weight,
            uid: of.owner,
            kind: handle.kind(),
            handle: handle.content().to_vec(),
        })
    };
    OwnerProbes {
        uid: 0,
        threshold: drawn.threshold,
        probes: drawn.files.iter().filter_map(probe).collect(),
    }
}
