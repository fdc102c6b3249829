//! Removes what is over: expired holds and plans, and the records of runs that are long past. What clients can make the agent keep is
//! bounded when it is made; this gives the room back.

use rustc_hash::FxHashSet;

use super::Applier;
use crate::host::HostError;
use purge_base::clock;
use purge_removal::run::ledger;
use purge_removal::taken;
use purge_removal::trash::Trash;

impl Applier {
    /// Removes holds and plans that are over. To be called every few seconds: it costs next to nothing while there are none.
    pub fn tidy(&self) {
        if let Err(error) = self.holds.tidy() {
            tracing::error!(%error, "expired holds cannot be removed: it is tried again");
        }
        if self.runs.any_live() {
            for volume in &self.ground.volumes() {
                self.holds.look_up_again(&volume.config.name, &volume.config.path);
            }
        }
        if let Err(error) = self.plans.tidy(clock::now()) {
            tracing::error!(%error, "old plans cannot be removed: it is tried again");
        }
    }

    /// Removes the records of runs that are long past, but for those of which something lies in a trash. To be called every hour.
    pub fn tidy_runs(&self) {
        let tidied = self.in_the_trash().and_then(|lying| {
            let is_needed = |run: &str| lying.contains(run);
            Ok(self.runs.tidy(clock::now(), is_needed)?)
        });
        match tidied {
            Ok(removed) => {
                for run in removed {
                    // As a rule there is none.
                    let _ = std::fs::remove_file(ledger::path(&self.ground.anchor, &run));
                    let _ = std::fs::remove_file(taken::path(&self.ground.anchor, &run));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the records of old runs cannot be removed: it is tried again")
            }
        }
    }

    /// The runs of which something lies in the trash of a volume.
    fn in_the_trash(&self) -> Result<FxHashSet<String>, HostError> {
        let mut runs = FxHashSet::default();
        for volume in &self.ground.volumes() {
            if let Some(defect) = volume.silence() {
                return Err(HostError::Refused(defect.words));
            }
            let shares =
                Trash::open(&volume.watched).and_then(|t| t.map_or_else(|| Ok(Vec::new()), |t| t.shares()));
            let shares = shares.map_err(|e| {
                HostError::Refused(format!("the trash of volume {}: {e}", volume.config.name))
            })?;
            runs.extend(shares.into_iter().map(|s| s.run));
        }
        Ok(runs)
    }
}
