//! What lies in the trash of each volume: what runs moved there, without what was put back and freed. After a start all of it is counted, and
//! when a share is no longer there, what is left of its run. So no figure stays after the trash itself is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use parking_lot::Mutex;

use super::TrashKeeper;
use crate::volume::{State, Volume};
use purge_model::Totals;
use purge_removal::runs::{Run, RunState};
use purge_removal::trash::{Share, Trash};

/// A count is made again if a restore came between, at most this number of times.
const TRIES: usize = 3;

/// What was there when the trash of each volume was looked at last.
#[derive(Debug, Default)]
pub(super) struct Figures(Mutex<BTreeMap<String, Seen>>);

#[derive(Debug, Clone, Default)]
struct Seen {
    /// Names of the shares whose grace will end.
    shares: BTreeSet<String>,
    /// What lies in those of runs that have no record.
    without_record: Totals,
}

impl TrashKeeper {
    /// What of a run lies in the trash.
    pub(in crate::host) fn in_trash_of(&self, run: &str) -> Totals {
        let run = self.runs.get(run);
        run.map_or_else(|_| Totals::default(), |run| run.left_in_trash())
    }

    /// What lies in the trash of a volume.
    pub fn trash_of(&self, volume: &str) -> Totals {
        self.trash_by_volume().get(volume).copied().unwrap_or_default()
    }

    /// What lies in the trash of each volume that has any.
    pub fn trash_by_volume(&self) -> BTreeMap<String, Totals> {
        let seen = self.figures.0.lock();
        let mut all: BTreeMap<String, Totals> = seen
            .iter()
            .map(|(volume, seen)| (volume.clone(), seen.without_record))
            .collect();
        drop(seen);
        for run in self.runs.list().unwrap_or_default() {
            let sum = all.entry(run.volume.clone()).or_default();
            *sum = sum.plus(run.left_in_trash());
        }
        all
    }

    /// The volume is opened again: all that lies in its trash is counted, as after a start.
    pub(in crate::host) fn begin_again(&self, volume: &str) {
        self.figures.0.lock().remove(volume);
    }

    /// Makes the figures of a volume's trash those of what lies there.
    pub(super) fn recount_trash(&self, volume: &Volume) {
        if let Err(error) = self.recount(volume)
            && !volume.is_stopping()
        {
            tracing::warn!(volume = %volume.config.name, %error, "the trash cannot be counted: its figures may be old");
        }
    }

    fn recount(&self, volume: &Volume) -> io::Result<()> {
        let name = &volume.config.name;
        if matches!(volume.condition().state, State::Degraded(_)) && volume.check_identity().is_err() {
            return Ok(());
        }
        let trash = Trash::open(&volume.watched)?;
        let shares = trash.as_ref().map_or(Ok(Vec::new()), Trash::shares)?;
        let lying: Vec<Share> = shares.into_iter().filter(|s| !s.open && !s.is_kept()).collect();
        let names: BTreeSet<String> = lying.iter().map(Share::name).collect();
        let seen = self.figures.0.lock().get(name).cloned();
        let is_first = seen.is_none();
        let mut now = seen.unwrap_or_default();
        if !is_first && now.shares == names {
            return Ok(());
        }
        for run in self.runs.list().map_err(io::Error::other)? {
            let has_changed = is_first || now.shares.iter().any(|s| is_of(s, &run) && !names.contains(s));
            if run.volume == *name && has_changed {
                self.recount_run(volume, trash.as_ref(), (run, &lying))?;
            }
        }
        if is_first || now.without_record != Totals::default() {
            let lost = lying.iter().filter(|share| self.runs.get(&share.run).is_err());
            now.without_record = count(volume, trash.as_ref(), lost)?;
        }
        now.shares = names;
        self.figures.0.lock().insert(name.clone(), now);
        Ok(())
    }

    fn recount_run(
        &self,
        volume: &Volume,
        trash: Option<&Trash>,
        (mut run, lying): (Run, &[Share]),
    ) -> io::Result<()> {
        for _ in 0..TRIES {
            // What is going on counts for itself, and what is stuck is counted apart.
            if run.state == RunState::Running || run.trash_freed.is_some() {
                return Ok(());
            }
            let left = count(volume, trash, lying.iter().filter(|share| share.run == run.id))?;
            let _one = volume.turns.trash_work.lock();
            let Ok(mut record) = self.runs.get(&run.id) else {
                return Ok(());
            };
            if (record.restored, record.trash_freed) == (run.restored, run.trash_freed) {
                if record.left_in_trash() != left {
                    record.in_trash = Some(left);
                    self.runs.save(&record).map_err(io::Error::other)?;
                }
                return Ok(());
            }
            run = record;
        }
        Ok(())
    }
}

fn is_of(share: &str, run: &Run) -> bool {
    let end = share.strip_prefix(run.id.as_str());
    end.is_some_and(|end| end.starts_with('.'))
}

fn count<'s>(
    volume: &Volume,
    trash: Option<&Trash>,
    shares: impl Iterator<Item = &'s Share>,
) -> io::Result<Totals> {
    let mut sum = Totals::default();
    let Some(trash) = trash else { return Ok(sum) };
    for share in shares {
        match trash.left_of(share, &|| volume.is_stopping()) {
            Ok(left) => sum = sum.plus(left),
            // Restored or freed since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sum)
}
