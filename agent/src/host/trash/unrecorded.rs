//! What lies in the trash though no record tells of it: a run of an older agent took it, or its record was lost.
//!
//! Only for callers who may know all: how long it takes to look depends on what is there.

use std::sync::Arc;

use super::TrashKeeper;
use super::records::Took;
use crate::volume::Volume;
use purge_model::path_set::PathSet;
use purge_model::{Kind, Seconds};
use purge_removal::runs::Run;
use purge_removal::taken::{Entry, Reader, What};
use purge_removal::trash::listing::{Listing, Lying};
use purge_removal::trash::{Share, Trash};

/// Places that are looked for in one call.
const PLACES_MAX: usize = 16;
/// Steps of the list for each of them: some hundred thousand names.
const STEPS_MAX: usize = 10_000;

impl TrashKeeper {
    /// Adds what lies in the trash to places of which no record tells.
    pub(super) fn add_unrecorded(&self, volume: &Volume, places: &PathSet, told: &mut [Vec<Took>]) {
        let missing = told.iter_mut().enumerate().filter(|(_, took)| took.is_empty());
        let mut missing = missing.take(PLACES_MAX).peekable();
        if missing.peek().is_none() {
            return;
        }
        let Some(trash) = Trash::open(&volume.watched).ok().flatten() else {
            return;
        };
        let shares = self.unrecorded(&trash);
        if shares.is_empty() {
            return;
        }
        for (place, took) in missing {
            let path = places.get(place).unwrap_or_default();
            let lying = first_below(&trash, shares.clone(), path);
            took.extend(lying.map(|lying| self.took_of(volume, lying, path)));
        }
    }

    /// Shares of runs that have no record, the newest run first.
    fn unrecorded(&self, trash: &Trash) -> Vec<Share> {
        let anchor = &self.ground.anchor;
        let has_none = |share: &Share| !share.open && matches!(Reader::open(anchor, &share.run), Ok(None));
        let shares = trash.shares().unwrap_or_default().into_iter();
        let mut shares: Vec<Share> = shares.filter(has_none).collect();
        shares.reverse();
        shares
    }

    fn took_of(&self, volume: &Volume, lying: Lying, path: &[u8]) -> Took {
        let what = match lying.kind {
            _ if lying.path != path => What::Above,
            Kind::Directory => What::Tree,
            Kind::Symlink => What::Link,
            Kind::File | Kind::Special => What::File,
        };
        let run = self.runs.get(&lying.share.run).unwrap_or_else(|_| Run {
            id: lying.share.run.clone(),
            volume: volume.config.name.clone(),
            ..Run::default()
        });
        Took {
            run: Arc::new(run),
            rule: None,
            path: path.to_vec(),
            entry: Entry {
                what,
                ino: 0,
                bytes: lying.bytes,
                files: u32::try_from(lying.files_inside).unwrap_or(u32::MAX),
                uid: lying.uid,
                until: u32::try_from(lying.share.until).unwrap_or(u32::MAX),
                last: Seconds::MIN,
                at: lying.taken,
                rule: 0,
            },
            lies_in: Some(lying.share),
        }
    }
}

/// The first that lies at a path, or came from below it.
fn first_below(trash: &Trash, shares: Vec<Share>, path: &[u8]) -> Option<Lying> {
    let mut listing = Listing::new(trash, shares, path.to_vec(), None).ok()?;
    for _ in 0..STEPS_MAX {
        let found = listing.step().ok()??;
        if let Some(first) = found.into_iter().next() {
            return Some(first);
        }
    }
    None
}
