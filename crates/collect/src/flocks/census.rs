//! Which processes each user has. Listed for all users at once: a user can make very many processes, and each search would list them all.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{FRESH_MAX, REST};
use crate::open_files::{self, Until};

/// The processes of this host, by the user whose they are.
#[derive(Debug)]
pub(super) struct Census {
    of: FxHashMap<u32, Vec<u32>>,
    began: Instant,
    ended: Instant,
}

/// When a listing failed, and how much time it had.
static FAILED: LazyLock<Mutex<Option<(Instant, Duration)>>> = LazyLock::new(Mutex::default);
static NEWEST: LazyLock<Mutex<Option<Arc<Census>>>> = LazyLock::new(Mutex::default);

impl Census {
    /// One that began after a moment, and is not too old. None: the processes could not be listed in time.
    pub(super) fn taken(since: Option<Instant>, within: Duration) -> Option<Arc<Self>> {
        let newest = NEWEST.lock().clone();
        if let Some(census) = newest.filter(|census| census.is_fresh(since)) {
            return Some(census);
        }
        // Where so much time was not enough a moment ago, no more is spent on it.
        let began = Instant::now();
        let is_vain = |(at, spent): &(Instant, Duration)| {
            *spent >= within && began.saturating_duration_since(*at) < spent.saturating_mul(REST)
        };
        if FAILED.lock().as_ref().is_some_and(is_vain) {
            return None;
        }
        let Some(census) = Self::take(Until::after(within)) else {
            *FAILED.lock() = Some((Instant::now(), within));
            return None;
        };
        let census = Arc::new(census);
        *NEWEST.lock() = Some(Arc::clone(&census));
        Some(census)
    }

    /// It holds for a multiple of the time that it took, as what is found by it does.
    fn is_fresh(&self, since: Option<Instant>) -> bool {
        let took = self.ended.saturating_duration_since(self.began);
        let fresh_for = took.saturating_mul(REST).min(FRESH_MAX);
        since.is_none_or(|since| self.began >= since) && self.ended.elapsed() < fresh_for
    }

    fn take(until: Until) -> Option<Self> {
        let began = Instant::now();
        let mut of: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for process in open_files::processes().ok()? {
            let process = process.ok()?;
            if until.is_over() {
                return None;
            }
            if let Some(uid) = whose(process) {
                of.entry(uid).or_default().push(process);
            }
        }
        Some(Self {
            of,
            began,
            ended: Instant::now(),
        })
    }

    /// The processes of a user.
    pub(super) fn of(&self, uid: u32) -> &[u32] {
        self.of.get(&uid).map_or(&[], Vec::as_slice)
    }

    /// Those of all users that are none of these.
    pub(super) fn but_of(&self, uids: impl Fn(u32) -> bool) -> impl Iterator<Item = u32> {
        let others = self.of.iter().filter(move |(uid, _)| !uids(**uid));
        others.flat_map(|(_, processes)| processes.iter().copied())
    }
}

/// The user whose a process is; none: it has ended. A user can start any program with the set-user-ID bit of root: who started it has its
/// open files.
pub(super) fn whose(process: u32) -> Option<u32> {
    match open_files::effective_uid(process)? {
        0 => open_files::real_uid(process),
        uid => Some(uid),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_listing_that_may_take_no_time_is_none() {
        assert!(Census::take(Until::after(Duration::ZERO)).is_none());
    }

    #[test]
    fn a_process_is_listed_under_its_user_and_no_other() {
        let own = rustix::process::getuid().as_raw();
        // This process itself is left out, and the one that started it is mostly of the same user.
        let Some(parent) = rustix::process::getppid().map(|id| id.as_raw_nonzero().get().cast_unsigned())
        else {
            return;
        };
        let census = Census::take(Until::after(Duration::from_secs(60))).unwrap();
        let is_own = whose(parent) == Some(own);
        assert_eq!(census.of(own).contains(&parent), is_own);
        assert_eq!(census.but_of(|uid| uid == own).any(|id| id == parent), !is_own);
        let later = Instant::now();
        assert!(!census.is_fresh(Some(later)));
    }
}
