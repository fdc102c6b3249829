//! Asks the records of runs what they took at some places: each record once, however many places are asked for.
//!
//! ```text
//!   places  a/b/c  a/d       hashes of each place, and of the directories above it: a run may have taken one of these as a whole
//!   runs    newest first     record -> entries with one of the hashes -> for each place the one that tells most
//! ```
//! So the work depends on what is asked and on the records, whose length is bounded, and not on what is found.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::TrashKeeper;
use crate::host::HostError;
use crate::host::user::{User, not_theirs};
use crate::volume::Volume;
use purge_base::sight::Sight;
use purge_model::path::absolute;
use purge_model::path_set::PathSet;
use purge_removal::runs::Run;
use purge_removal::taken::{Entry, Reader, What, hash};
use purge_removal::trash::Share;

/// Runs that are asked, the newest first.
const RUNS_MAX: usize = 2000;
/// Directories above that are asked for, from the volume's root on: those that rules take lie there.
const ABOVE_MAX: usize = 32;
/// What is told of one place, the newest first.
const TOLD_MAX: usize = 16;

/// What a run took at a place.
pub(super) struct Took {
    pub(super) run: Arc<Run>,
    /// None: no record says it.
    pub(super) rule: Option<String>,
    /// Relative to the volume: what was asked for, or a directory above it that went as a whole.
    pub(super) path: Vec<u8>,
    pub(super) entry: Entry,
    /// Where it was found, if no record tells of it.
    pub(super) lies_in: Option<Share>,
}

/// Of each run that took something: at which of the places.
pub(super) type PlacesOfRuns = FxHashMap<String, PathSet>;

impl TrashKeeper {
    /// Of each place what runs took there, the newest first; for an ordinary user only what was theirs, and that they could see.
    pub(super) fn took(&self, volume: &Volume, places: &PathSet, user: Option<User<'_>>) -> Vec<Vec<Took>> {
        let asked = Asked::of(places);
        let runs = self.runs.list().unwrap_or_default().into_iter();
        let runs = runs.filter(|run| run.volume == volume.config.name);
        let mut told: Vec<Vec<Took>> = places.iter().map(|_| Vec::new()).collect();
        for run in runs.take(RUNS_MAX) {
            let Ok(Some(record)) = Reader::open(&self.ground.anchor, &run.id) else {
                continue;
            };
            let run = Arc::new(run);
            for (place, (end, entry)) in asked.best(&record, user.map(|user| user.uid)) {
                let (Some(told), Some(path)) = (told.get_mut(place), places.get(place)) else {
                    continue;
                };
                if told.len() < TOLD_MAX {
                    told.push(Took {
                        run: Arc::clone(&run),
                        rule: record.rule(&entry).map(str::to_owned),
                        path: path.get(..end).unwrap_or(path).to_vec(),
                        entry,
                        lies_in: None,
                    });
                }
            }
        }
        let Some(user) = user else {
            self.add_unrecorded(volume, places, &mut told);
            return told;
        };
        // In a directory that they cannot enter, they learn nothing of what was theirs either.
        let mut sight = Sight::of(&volume.config.path, user.uid, user.gids).of_the_past();
        let all = told.iter_mut();
        all.for_each(|told| told.retain(|took| sight.shown(&took.path).is_none()));
        told
    }

    /// The runs that took something of each of these places which was a user's.
    ///
    /// # Errors
    /// When of one of them nothing was: also when nothing was taken there.
    pub(super) fn runs_of_theirs(
        &self,
        user: User<'_>,
        (volume, places): (&Volume, &PathSet),
    ) -> Result<PlacesOfRuns, HostError> {
        let mut runs: FxHashMap<String, Vec<Vec<u8>>> = FxHashMap::default();
        for (place, took) in places.iter().zip(self.took(volume, places, Some(user))) {
            if took.is_empty() {
                let root = volume.config.path.as_os_str().as_encoded_bytes();
                return Err(not_theirs(&absolute(root, place), user.uid));
            }
            for took in took {
                runs.entry(took.run.id.clone()).or_default().push(place.to_vec());
            }
        }
        let set = |(run, places)| (run, PathSet::new(places));
        Ok(runs.into_iter().map(set).collect())
    }
}

/// What the records are asked for.
struct Asked {
    /// In order, each once.
    hashes: Vec<u64>,
    /// Of each hash: the places that have it, and with how many bytes of their path.
    of: FxHashMap<u64, Vec<(usize, usize)>>,
    /// Which of these are whole paths.
    lengths: Vec<usize>,
}

impl Asked {
    fn of(places: &PathSet) -> Self {
        let mut of: FxHashMap<u64, Vec<(usize, usize)>> = FxHashMap::default();
        // What lies above a place lies above the next one as well, mostly.
        let mut known: HashMap<&[u8], u64> = HashMap::new();
        for (n, path) in places.iter().enumerate() {
            for end in ends(path) {
                let part = path.get(..end).unwrap_or(path);
                let hash = *known.entry(part).or_insert_with(|| hash(part));
                of.entry(hash).or_default().push((n, end));
            }
        }
        let mut hashes: Vec<u64> = of.keys().copied().collect();
        hashes.sort_unstable();
        Self {
            hashes,
            of,
            lengths: places.iter().map(<[u8]>::len).collect(),
        }
    }

    /// Of each place what tells most of what the record's run took there, and with how many bytes of the path.
    fn best(&self, record: &Reader, owner: Option<u32>) -> FxHashMap<usize, (usize, Entry)> {
        let mut best: FxHashMap<usize, (usize, Entry)> = FxHashMap::default();
        for found in record.find(&self.hashes).unwrap_or_default() {
            let entry = found.entry;
            let places = self.hashes.get(found.asked).and_then(|hash| self.of.get(hash));
            if owner.is_some_and(|uid| uid != entry.uid) {
                continue;
            }
            for (place, end) in places.into_iter().flatten() {
                let is_itself = self.lengths.get(*place) == Some(end);
                let is_better = best
                    .get(place)
                    .is_none_or(|(_, known)| rank(entry.what) < rank(known.what));
                if (is_itself || entry.what == What::Tree) && is_better {
                    best.insert(*place, (*end, entry.clone()));
                }
            }
        }
        best
    }
}

/// Where the path itself ends, and the directories above it.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
    std::iter::once(path.len()).chain(slashes.map(|(at, _)| at).take(ABOVE_MAX))
}

/// What tells most comes first.
fn rank(what: What) -> u8 {
    match what {
        What::Tree | What::File | What::Link => 0,
        What::Above => 1,
        What::EmptyDirectory => 2,
    }
}
