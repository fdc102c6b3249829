//! What processes of a user have open with a lock (`flock(2)`), as the kernel tells of each open file.
//!
//! Not by `/proc/locks`: each user can make that list so long that one read of it takes minutes, it skips locks while others come and end,
//! and it names who took a lock, whose number another process may have by now. Instead the open files of the processes of those users are
//! looked at whose locks count. Other users can neither add to these nor make the search longer: which processes there are is listed once
//! for all users (`census`).
//!
//! ```text
//! /proc/PID            the user as whom it acts, and /proc/PID/status the one who started it
//! /proc/PID/fd/N       does that have a path?
//! /proc/PID/fdinfo/N   lock: 1: FLOCK ADVISORY READ 4711 08:01:131074 0 EOF
//! ```
//! What was found holds for a multiple of the time that it took, so a run spends a bounded part of its time on this however many directories
//! are locked. A user whose processes have more open files than can be looked at in time is in doubt, and only on that user's directories.
//!
//! Not seen: a descriptor that waits in a socket, and one that only a thread with open files of its own has.

mod census;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use self::census::{Census, whose};
use super::open_files::{self, Holder, Missed, Until};
use purge_sys::time;

/// Stands for all users but root.
pub(super) const OTHERS: u32 = u32::MAX;
/// What was found holds for this multiple of the time that it took, but no longer than [`FRESH_MAX`]; and so does the list of processes.
const REST: u32 = 3;
const FRESH_MAX: Duration = Duration::from_millis(500);
/// Doubt about a user holds for so long.
const DOUBT: Duration = Duration::from_secs(10);
/// Processes that are named of those that have the same lock.
const HOLDERS_MAX: usize = 8;

/// How much processor time a search may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    all: Duration,
    root: Duration,
    user: Duration,
    /// For one process, where those of many users are looked at.
    process: Duration,
}

/// For a decision. Root's processes are looked at for a long time: doubt about them concerns all directories.
const DECISION: Limits = Limits {
    all: Duration::from_secs(3),
    root: Duration::from_secs(2),
    user: Duration::from_millis(200),
    process: Duration::from_secs(2),
};
/// For a question: who asks has a second, and there may be several volumes.
const QUESTION: Limits = Limits {
    all: Duration::from_millis(200),
    root: Duration::from_millis(150),
    user: Duration::from_millis(150),
    process: Duration::from_millis(150),
};
/// For the names of others. One process may have very many files.
const NAMES: Limits = Limits {
    all: Duration::from_millis(100),
    root: Duration::ZERO,
    user: Duration::from_millis(100),
    process: Duration::from_millis(25),
};

/// What the processes of a user have locked.
#[derive(Debug)]
pub(super) struct Seen {
    locked: FxHashMap<Box<str>, Vec<Holder>>,
    /// Why not all of it was seen.
    pub(super) missed: Option<Missed>,
    began: Instant,
    ended: Instant,
    fresh_for: Duration,
}

impl Seen {
    /// Who has a lock on that.
    pub(super) fn holders(&self, what: &str) -> &[Holder] {
        self.locked.get(what).map_or(&[], Vec::as_slice)
    }

    /// Whether it can be used by one who wants no look that began before that moment. Doubt can: it lasts.
    fn is_fresh(&self, since: Option<Instant>) -> bool {
        let is_of_now = since.is_none_or(|since| self.began >= since);
        (is_of_now || self.fresh_for >= DOUBT) && self.ended.elapsed() < self.fresh_for
    }

    fn note(&mut self, what: &str, (process, uid): (u32, u32)) {
        let holders = self.locked.entry(what.into()).or_default();
        let is_known = holders.last().is_some_and(|last| last.process == process);
        if !is_known && holders.len() < HOLDERS_MAX {
            holders.push(Holder::new(process, uid));
        }
    }
}

/// What was seen lately on this host, of each user.
#[derive(Debug, Default)]
struct Lately {
    seen: Mutex<OfUsers>,
    /// Held by a run that searches: others may need the same. No question waits for it.
    searching: Mutex<()>,
}

#[derive(Debug, Default)]
struct OfUsers {
    of: FxHashMap<u32, Arc<Seen>>,
    /// What was seen before does not count.
    since: Option<Instant>,
}

static LATELY: LazyLock<Lately> = LazyLock::new(Lately::default);

impl Lately {
    /// What is known of these users, and of which of them nothing is.
    fn known(&self, uids: &[u32]) -> (Vec<Arc<Seen>>, Vec<u32>) {
        let seen = self.seen.lock();
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for uid in uids {
            match seen.of.get(uid).filter(|found| found.is_fresh(seen.since)) {
                Some(seen) => known.push(Arc::clone(seen)),
                None => unknown.push(*uid),
            }
        }
        (known, unknown)
    }

    /// What was seen before does not count.
    fn since(&self) -> Option<Instant> {
        self.seen.lock().since
    }

    fn remember(&self, found: &FxHashMap<u32, Arc<Seen>>) {
        let mut seen = self.seen.lock();
        let since = seen.since;
        seen.of.retain(|_, seen| seen.is_fresh(since));
        seen.of
            .extend(found.iter().map(|(uid, found)| (*uid, Arc::clone(found))));
    }
}

/// From now on no look counts that began before: a run begins, and a lock that was taken before it counts in it.
pub(super) fn look_again() {
    LATELY.seen.lock().since = Some(Instant::now());
}

/// What the processes of these users have locked, for a decision.
pub(super) fn of_users(uids: &[u32]) -> Vec<Arc<Seen>> {
    let (known, unknown) = LATELY.known(uids);
    if unknown.is_empty() {
        return known;
    }
    let _one = LATELY.searching.lock();
    let (mut known, unknown) = LATELY.known(uids);
    if !unknown.is_empty() {
        let found = Search::new(&unknown, DECISION).done(LATELY.since());
        LATELY.remember(&found);
        known.extend(found.into_values());
    }
    known
}

/// What root's processes have locked, for a question: nothing waits, and what cannot be seen in time changes no decision.
pub(super) fn of_root() -> Arc<Seen> {
    of_one(0, QUESTION)
}

/// What processes of other users have locked, as far as they can be seen in a moment.
pub(super) fn of_others() -> Arc<Seen> {
    of_one(OTHERS, NAMES)
}

fn of_one(uid: u32, limits: Limits) -> Arc<Seen> {
    if let Some(known) = LATELY.known(&[uid]).0.pop() {
        return known;
    }
    let mut found = Search::new(&[uid], limits).done(LATELY.since());
    if uid == OTHERS || found.values().all(|seen| seen.missed != Some(Missed::Time)) {
        LATELY.remember(&found);
    }
    found.remove(&uid).unwrap_or_else(|| Arc::new(nothing()))
}

fn nothing() -> Seen {
    Seen {
        locked: FxHashMap::default(),
        missed: None,
        began: Instant::now(),
        ended: Instant::now(),
        fresh_for: Duration::ZERO,
    }
}

/// One pass over the processes.
struct Search {
    limits: Limits,
    began: Instant,
    /// What was found of each user, and the time that took.
    of: FxHashMap<u32, (Seen, Duration)>,
}

impl Search {
    fn new(uids: &[u32], limits: Limits) -> Self {
        Self {
            limits,
            began: Instant::now(),
            of: uids
                .iter()
                .map(|uid| (*uid, (nothing(), Duration::ZERO)))
                .collect(),
        }
    }

    /// With what has been listed since a moment.
    fn done(mut self, since: Option<Instant>) -> FxHashMap<u32, Arc<Seen>> {
        if !self.look(since) {
            let all = self.of.values_mut();
            all.for_each(|(seen, _)| seen.missed = Some(Missed::Time));
        }
        let took = self.began.elapsed();
        let fresh_for = took.saturating_mul(REST).min(FRESH_MAX);
        let ended = |(uid, (mut seen, _)): (u32, (Seen, Duration))| {
            seen.ended = Instant::now();
            let is_doubt = seen.missed == Some(Missed::Time) && uid != OTHERS;
            seen.fresh_for = if is_doubt { DOUBT } else { fresh_for };
            (uid, Arc::new(seen))
        };
        self.of.into_iter().map(ended).collect()
    }

    /// Looks at all processes of these users. False: there was no time for all of them.
    fn look(&mut self, since: Option<Instant>) -> bool {
        let until = Until::after(self.limits.all);
        let Some(census) = Census::taken(since, self.limits.all) else {
            return false;
        };
        let uids: Vec<u32> = self.of.keys().copied().collect();
        for under in uids {
            let processes: Vec<u32> = match under {
                OTHERS => census
                    .but_of(|uid| uid == 0 || self.of.contains_key(&uid))
                    .collect(),
                uid => census.of(uid).to_vec(),
            };
            for process in processes {
                if until.is_over() {
                    return false;
                }
                self.look_at(process, under);
            }
        }
        true
    }

    fn look_at(&mut self, process: u32, under: u32) {
        let began = time::of_this_thread();
        // Another process may have its number by now.
        let Some(uid) = whose(process).filter(|uid| under == OTHERS || *uid == under) else {
            return;
        };
        let base = match open_files::files_of(process) {
            Ok(None) => return,
            found => found.ok().flatten(),
        };
        let limits = self.limits;
        let Some((seen, spent)) = self.of.get_mut(&under) else {
            return;
        };
        let of_user = if under == 0 { limits.root } else { limits.user };
        let budget = of_user.saturating_sub(*spent).min(limits.process);
        let missed = match base {
            Some(base) => open_files::look_at(&base, Until::after(budget), |info| {
                locked(info).for_each(|what| seen.note(what, (process, uid)));
            }),
            None => Some(Missed::Denied),
        };
        seen.missed = seen.missed.max(missed);
        *spent = spent.saturating_add(time::of_this_thread().saturating_sub(began));
    }
}

/// What an open file has a `flock(2)` on, as `major:minor:inode`: at most one. A byte range that is locked (`fcntl(2)`) is no lock on it.
fn locked(info: &str) -> impl Iterator<Item = &str> {
    info.lines().filter_map(|line| {
        let mut fields = line.strip_prefix("lock:")?.split_whitespace();
        let is_flock = fields.nth(1)? == "FLOCK";
        is_flock.then(|| fields.nth(3)).flatten()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_flock_is_a_lock_on_what_is_open() {
        let info = "pos:\t0\nflags:\t02100000\nmnt_id:\t29\nino:\t131074\n\
                    lock:\t1: FLOCK  ADVISORY  READ 4711 08:01:131074 0 EOF\n\
                    lock:\t2: POSIX  ADVISORY  WRITE 4711 08:01:5 0 EOF\n\
                    lock:\t3: LEASE  ACTIVE    WRITE 4711 08:01:6 0 EOF\n";
        assert_eq!(locked(info).collect::<Vec<_>>(), ["08:01:131074"]);
    }

    #[test]
    fn a_search_that_may_take_no_time_is_doubt() {
        let none = Limits {
            all: Duration::ZERO,
            ..DECISION
        };
        let seen = Search::new(&[0], none)
            .done(Some(Instant::now()))
            .remove(&0)
            .unwrap();
        assert!(
            seen.missed == Some(Missed::Time)
                && seen.is_fresh(Some(Instant::now()))
                && seen.holders("08:01:2").is_empty()
        );
    }

    proptest! {
        #[test]
        fn any_words_of_the_kernel_can_be_read(info in "(lock:|FLOCK|[ -~]|\n|\t){0,80}") {
            locked(&info).for_each(drop);
        }
    }
}
