//! What does not work and goes on so: a volume that is degraded for any reason, and what cannot be freed of its trash. The operators hear when
//! it begins and when it is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{LookError, Lookout};
use purge_notify::event::{Audience, What};

/// What is over sooner is not told.
const LASTS: Duration = Duration::from_secs(15);
/// Names an episode: `trouble/VOLUME/CHECK`.
const PREFIX: &str = "trouble/";

/// Reason and cure.
type Wrong = (String, String);

impl Lookout {
    /// All that does not work now, by volume and check. The first word of a check stands for all.
    fn wrong_now(&self) -> BTreeMap<(String, &'static str), Wrong> {
        let mut all = BTreeMap::new();
        let mut add = |volume: &str, check: &'static str, wrong: Wrong| {
            all.entry((volume.to_owned(), check)).or_insert(wrong);
        };
        for volume in &self.ground.volumes() {
            let name = &volume.config.name;
            for (what, reason) in volume.ailments() {
                add(name, what.check(), (reason, what.cure().to_owned()));
            }
            if let Some(stuck) = self.trash.stuck_in(name) {
                add(name, "trash", (stuck.words(), stuck.cure));
            }
        }
        for absent in self.ground.absent() {
            let wrong = (absent.found_there.clone(), absent.cure.clone());
            add(&absent.config.name, "mount", wrong);
        }
        all
    }
}

impl Lookout {
    pub(super) fn troubles(&mut self) -> Result<(), LookError> {
        // A notice is a file there: it is told afterwards, if the rest goes on. Metrics and alert rules tell of this one.
        if self.ground.state().defect().is_some() {
            return Ok(());
        }
        let wrong = self.wrong_now();
        let key_of = |volume: &str, check: &str| format!("{PREFIX}{volume}/{check}");
        self.wrong
            .retain(|key, _| wrong.keys().any(|(volume, check)| key_of(volume, check) == *key));
        for ((volume, check), (reason, cure)) in &wrong {
            let key = key_of(volume, check);
            let before = self.memory.episode(&key);
            let since = *self.wrong.entry(key.clone()).or_insert_with(Instant::now);
            if before.on || since.elapsed() < LASTS {
                continue;
            }
            let what = What::Trouble {
                check: (*check).to_owned(),
                reason: reason.clone(),
                cure: cure.clone(),
            };
            self.turn(&key, &before, true, (volume, Audience::Operator, what))?;
        }
        for rest in self.memory.going_on(PREFIX) {
            let Some((volume, check)) = rest.rsplit_once('/') else {
                continue;
            };
            let goes_on = wrong.keys().any(|(v, c)| v == volume && *c == check);
            if goes_on || !self.is_known(volume) {
                continue;
            }
            let key = key_of(volume, check);
            let before = self.memory.episode(&key);
            let what = What::TroubleEnded {
                check: check.to_owned(),
            };
            self.turn(&key, &before, false, (volume, Audience::Operator, what))?;
        }
        Ok(())
    }
}

impl Lookout {
    /// Whether the configuration has a volume of this name, be it there or not.
    fn is_known(&self, volume: &str) -> bool {
        self.ground.member(volume).is_some()
    }
}
