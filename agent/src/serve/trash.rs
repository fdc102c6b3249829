//! What lies in the trash, listed as the client takes it.

use std::collections::VecDeque;
use std::sync::Arc;

use purge_proto::v1;
use tonic::Status;

use super::convert;
use super::gate::Caller;
use super::walk::Walk;
use crate::host::HostError;
use crate::volume::Volume;
use purge_base::sight::Sight;
use purge_query::Step;
use purge_removal::trash::listing::Listing;

/// The trash of some volumes, one after another.
pub(super) struct InTrash {
    volumes: VecDeque<(Arc<Volume>, Listing)>,
    caller: Caller,
    /// How much of the present volume's paths the caller may know; none: all.
    sight: Option<Sight>,
    left: u64,
}

impl InTrash {
    /// At most `limit` entries; 0: all.
    pub(super) fn new(caller: &Caller, volumes: Vec<(Arc<Volume>, Listing)>, limit: u64) -> Self {
        let sight = volumes.first().and_then(|(volume, _)| sight(caller, volume));
        Self {
            volumes: volumes.into(),
            caller: caller.clone(),
            sight,
            left: if limit == 0 { u64::MAX } else { limit },
        }
    }
}

/// The directories that things came from may not exist any more.
fn sight(caller: &Caller, volume: &Volume) -> Option<Sight> {
    caller.sight(&volume.config.path).map(Sight::of_the_past)
}

impl Walk for InTrash {
    type Item = v1::TrashEntry;

    fn step(&mut self) -> Result<Step<v1::TrashEntry>, Status> {
        let Some((volume, listing)) = self.volumes.front_mut().filter(|_| self.left > 0) else {
            return Ok(Step::Done);
        };
        let found = listing.step().map_err(|e| {
            let why = format!("the trash of volume {}: {e}", volume.config.name);
            convert::status(HostError::Refused(why))
        })?;
        let Some(found) = found else {
            self.volumes.pop_front();
            self.sight = self
                .volumes
                .front()
                .and_then(|(volume, _)| sight(&self.caller, volume));
            return Ok(Step::Working);
        };
        let sight = &mut self.sight;
        let mut may_know = |path: &[u8]| sight.as_mut().is_none_or(|sight| sight.shown(path).is_none());
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let shown = found.into_iter().filter(|lying| may_know(&lying.path)).take(room);
        let entries: Vec<v1::TrashEntry> = shown.map(|lying| convert::in_trash(volume, lying)).collect();
        self.left = self.left.saturating_sub(entries.len() as u64);
        Ok(match entries.is_empty() {
            true => Step::Working,
            false => Step::Items(entries),
        })
    }
}
