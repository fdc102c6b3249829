//! What lies in the trash longer than its grace, because it may have been used while no agent was watching.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use purge_removal::trash::Share;

/// When such shares are freed, in unix seconds, by volume and share.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<BTreeMap<String, BTreeMap<String, i64>>>);

impl Waiting {
    /// Notes a share. Whether that is new.
    pub(super) fn note(&self, volume: &str, share: &Share, until: i64) -> bool {
        let mut all = self.0.lock();
        let of_volume = all.entry(volume.to_owned()).or_default();
        of_volume.insert(share.name(), until) != Some(until)
    }

    /// Whether a share was noted with this end.
    pub(super) fn is_noted(&self, volume: &str, share: &Share, until: i64) -> bool {
        let all = self.0.lock();
        all.get(volume).and_then(|of_volume| of_volume.get(&share.name())) == Some(&until)
    }

    /// A share waits no longer.
    pub(super) fn forget(&self, volume: &str, share: &Share) {
        if let Some(of_volume) = self.0.lock().get_mut(volume) {
            of_volume.remove(&share.name());
        }
    }

    /// Forgets shares that are no more.
    pub(super) fn keep(&self, volume: &str, shares: &[Share]) {
        if let Some(of_volume) = self.0.lock().get_mut(volume) {
            of_volume.retain(|name, _| shares.iter().any(|s| s.name() == *name));
        }
    }

    /// When the last of a volume's is freed.
    pub(super) fn until(&self, volume: &str) -> Option<i64> {
        self.0.lock().get(volume)?.values().max().copied()
    }
}
