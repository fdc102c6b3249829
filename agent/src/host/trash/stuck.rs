//! What lies in the trash of a volume and cannot be freed: it is named with a cure, counted apart, and not promised as free.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use purge_proto::units::{format_count, format_size};
use rustix::io::Errno;

use purge_model::Totals;
use purge_removal::trash::Share;
use purge_sys::failure::Failure;

/// What of a share cannot be freed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// What is left of the share.
    pub totals: Totals,
    /// The first thing, as a path of the host.
    pub path: Vec<u8>,
    /// Why it stays.
    pub why: String,
    /// What to do.
    pub cure: String,
}

impl Stuck {
    /// What is left of a share, the first thing that could not be removed, and why.
    pub(super) fn new(totals: Totals, path: Vec<u8>, error: &io::Error) -> Self {
        Self {
            cure: cure(error, &path),
            why: error.to_string(),
            totals,
            path,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        format!(
            "{} files and {} directories, {}, cannot be freed and are not counted as space that comes free: {}: {}",
            format_count(self.totals.all_files()),
            format_count(self.totals.directories),
            format_size(self.totals.bytes),
            crate::host::lossy(&self.path),
            self.why
        )
    }
}

fn cure(error: &io::Error, path: &[u8]) -> String {
    let path = crate::host::lossy(path);
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            format!(
                "it is immutable or append-only (lsattr -d): chattr -i -a '{path}', then remove it, or put it back with purgectl restore"
            )
        }
        Some(Errno::BUSY) => {
            format!(
                "something is mounted on it, or it is in use by the kernel (findmnt, swapon, losetup -a): umount '{path}'; the agent tries again by itself"
            )
        }
        _ => Failure::of(error).cure_of_volume().to_owned(),
    }
}

/// What cannot be freed, by volume and share.
#[derive(Debug, Default)]
pub(super) struct AllStuck(Mutex<BTreeMap<String, BTreeMap<String, Stuck>>>);

impl AllStuck {
    /// Notes what of a share cannot be freed; none: all of it is freed. Whether that is new.
    pub(super) fn note(&self, volume: &str, share: &Share, stuck: Option<Stuck>) -> bool {
        let mut all = self.0.lock();
        let of_volume = all.entry(volume.to_owned()).or_default();
        let key = format!("{}.{}", share.run, share.until);
        match stuck {
            None => of_volume.remove(&key).is_some(),
            Some(stuck) => of_volume.insert(key, stuck.clone()) != Some(stuck),
        }
    }

    /// Forgets shares that are no more.
    pub(super) fn keep(&self, volume: &str, shares: &[Share]) {
        if let Some(of_volume) = self.0.lock().get_mut(volume) {
            of_volume.retain(|key, _| shares.iter().any(|s| *key == format!("{}.{}", s.run, s.until)));
        }
    }

    /// All that cannot be freed on a volume together, with the first thing; none: nothing.
    pub(super) fn of(&self, volume: &str) -> Option<Stuck> {
        let all = self.0.lock();
        let mut of_volume = all.get(volume)?.values();
        let mut sum = of_volume.next()?.clone();
        for more in of_volume {
            sum.totals = sum.totals.plus(more.totals);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_stuck_is_summed_and_forgotten_once_it_is_freed() {
        let all = AllStuck::default();
        let share = |until| Share {
            run: "r".into(),
            until,
            open: false,
        };
        let stuck = |files| {
            let totals = Totals {
                files,
                directories: 1,
                bytes: 10,
                ..Totals::default()
            };
            Stuck::new(totals, b"/v/x".to_vec(), &Errno::PERM.into())
        };
        assert!(all.note("v", &share(1), Some(stuck(1))));
        assert!(!all.note("v", &share(1), Some(stuck(1))), "nothing new");
        assert!(all.note("v", &share(2), Some(stuck(2))));
        let sum = all.of("v").unwrap();
        assert_eq!((sum.totals.files, sum.totals.bytes), (3, 20));
        assert!(sum.cure.contains("chattr -i -a '/v/x'"), "{}", sum.cure);
        assert!(all.note("v", &share(1), None));
        all.keep("v", &[]);
        assert_eq!((all.of("v"), all.of("w")), (None, None));
    }
}
