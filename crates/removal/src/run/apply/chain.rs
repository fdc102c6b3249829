//! The batches of one worker, one after another: each is carried out when the next is decided.
//!
//! What may never happen: that what was moved is removed, or stays in the trash, before a barrier has said that no other process has renamed
//! or changed it.

use std::time::{Duration, Instant};

use parking_lot::RwLockReadGuard;

use super::{Runner, Seen, UNLEASED_MAX, ledger_broken};
use crate::run::ending::Stop;
use crate::run::ledger::Position;
use crate::take::batch::Batch;
use crate::take::forget::{enter_trash, forget};
use crate::take::moves::Finished;
use crate::take::went::tell_mount;
use crate::trash::origin::Recent;
use purge_base::descriptors::Taken as Descriptors;

/// What is not ended by the barrier of the next batch waits for one of its own, this long each time: until it is this old and a process waits
/// for one of its files, and no longer than where nothing is leased.
const LAST_BARRIER: Duration = Duration::from_millis(100);
const AGE_MAX: Duration = Duration::from_millis(900);

/// The batches of one worker. One comes to its end when the next is decided: those who are late have that long to come to what was moved, and
/// what has no grace is removed by the next (see [`crate::take::batch`]).
pub(super) struct Chain<'r> {
    pub(super) worker: u8,
    pub(super) last: Option<Decided<'r>>,
    /// What it knows of the directories that it takes files out of.
    pub(super) recent: Recent,
}

/// A batch that is decided and not yet carried out.
pub(super) struct Decided<'r> {
    pub(super) at: Position,
    pub(super) batch: Batch<'r>,
    /// A barrier has passed since it was decided.
    pub(super) is_seen: bool,
    pub(super) _no_new_holds: RwLockReadGuard<'r, ()>,
    pub(super) _descriptors: Descriptors<'r>,
}

impl<'r> Chain<'r> {
    pub(super) fn of(worker: u8) -> Self {
        Self {
            worker,
            last: None,
            recent: Recent::default(),
        }
    }

    /// A barrier has passed.
    pub(super) fn note_seen(&mut self) {
        if let Some(last) = &mut self.last {
            last.is_seen = true;
        }
    }

    pub(super) fn last_batch(&mut self) -> Option<&mut Batch<'r>> {
        self.last.as_mut().map(|last| &mut last.batch)
    }
}

impl Runner<'_> {
    /// Carries out what was decided last.
    pub(super) fn end_chain(&self, chain: &mut Chain<'_>) {
        let Some(last) = chain.last.take() else { return };
        let is_seen = self.is_seen(&last);
        if let Err(stop) = self.end_batch((last.at, last.batch), is_seen) {
            self.halt(stop);
        }
    }

    /// Whether a barrier has passed since all of it was moved, once it was waited for.
    fn is_seen(&self, last: &Decided<'_>) -> bool {
        if last.is_seen || last.batch.moved_at().is_none() {
            return true;
        }
        let began = Instant::now();
        loop {
            match self.around.sync(LAST_BARRIER) {
                Seen::Everything => return true,
                Seen::NotEverything => return false,
                Seen::Late => {}
            }
            let is_awaited = last.batch.age() > AGE_MAX && last.batch.is_awaited();
            if is_awaited || began.elapsed() > UNLEASED_MAX {
                return false;
            }
        }
    }

    /// Carries out what was decided on a batch, and tells it.
    fn end_batch(&self, (at, batch): (Position, Batch<'_>), is_seen: bool) -> Result<(), Stop> {
        let moved = batch.moved_at();
        let mounted = moved.map(|moved| self.watched.mounted.look(self.watched, moved));
        let mounted = mounted.unwrap_or_else(|| self.watched.mounted.last());
        let read_uses = || self.around.sync(LAST_BARRIER) == Seen::Everything;
        let (part, finished) = batch.finish(mounted, is_seen, &read_uses);
        let Finished {
            fates,
            amended,
            gone,
            trashed,
            leases,
            freed,
        } = finished;
        let fates: Vec<_> = part.iter().zip(fates).collect();
        tell_mount(
            self.watched,
            fates.iter().map(|(candidate, fate)| (*candidate, fate)),
            &trashed,
        );
        let forgotten = enter_trash(self.watched, &trashed).and_then(|()| forget(self.watched, gone, &freed));
        drop(leases);
        let amended = amended.into_iter().try_for_each(|position| {
            let at = at.plus(position);
            let fate = fates.get(position).map(|(_, fate)| fate);
            fate.map_or(Ok(()), |fate| self.order.ledger.amended(at, fate))
        });
        let told = self.tell(&fates);
        self.count(&fates);
        amended.map_err(ledger_broken)?;
        told.map_err(|e| Stop::Broken(e.to_string()))?;
        self.order.ledger.told(at, fates.len()).map_err(ledger_broken)?;
        forgotten.map_err(|e| Stop::Broken(e.to_string()))
    }
}
