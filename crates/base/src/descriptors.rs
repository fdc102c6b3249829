//! Who may have how many descriptors open: the one place that divides RLIMIT_NOFILE.
//!
//! | part | takes |
//! |---|---|
//! | base | what is open all the time, and what a task, a restore or a look into the trash opens for a moment |
//! | clients | a connection each; root, other local users and certificates have places of their own |
//! | requests | what answering them opens |
//! | events | a descriptor of the process with each event of one read, where a volume has `ignore_accessors` |
//! | files | the files of one read's events, where the kernel gives no file ids |
//! | scan | directories of which other workers ask for the entries |
//! | runs | leases of files, and the directories that their names lie in: all that is left |
//!
//! Runs of all volumes share one [`Pool`]. A batch takes from it what it may open at most, before it opens anything; a batch never waits while
//! another of the same worker holds something, so none waits for ever.

use std::sync::OnceLock;

use parking_lot::{Condvar, Mutex};

use purge_sys::limits;

/// Descriptors that are always open, with room for those that are open for a moment.
const BASE: u64 = 88;
/// Queue, watch and journal of a volume, with its mount.
const BASE_OF_A_VOLUME: u64 = 8;
/// Where the kernel allows fewer, runs are given this all the same: without it they could do nothing.
const RUNS_MIN: usize = 48;

/// How many descriptors each part may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Connections of root on the unix socket.
    pub root: usize,
    /// Connections of other local users.
    pub local: usize,
    /// Connections of clients with certificates.
    pub remote: usize,
    /// Descriptors of processes that one read of a queue may bring.
    pub events: usize,
    /// Files that one read of a queue may open.
    pub files: usize,
    /// Shared parts of large directories that wait in one scan.
    pub scan: usize,
    /// Workers of one scan.
    pub scan_workers: usize,
    /// All runs together.
    pub runs: usize,
}

impl Shares {
    /// Of `limit` descriptors, with this number of volumes, some of which ask for the processes of events.
    pub fn of(limit: u64, volumes: u64, with_processes: u64) -> Self {
        let part = |divisor: u64, least: u64, most: u64| {
            limit
                .checked_div(divisor)
                .unwrap_or(0)
                .clamp(least, most.max(least))
        };
        let volumes = volumes.max(1);
        let (root, local, remote) = (part(16, 16, 512), part(32, 16, 256), part(64, 16, 128));
        let events = part(16_u64.saturating_mul(with_processes.max(1)), 32, 512);
        let scan = part(32_u64.saturating_mul(volumes), 4, 128);
        let workers = part(64_u64.saturating_mul(volumes), 8, SCAN_WORKERS);
        let requests = part(16, 8, 256);
        let files = part(128, 2, 16);
        let others = [
            BASE,
            BASE_OF_A_VOLUME.saturating_add(files).saturating_mul(volumes),
            root,
            local,
            remote,
            requests,
            events.saturating_mul(with_processes),
            scan.saturating_add(workers)
                .saturating_add(4)
                .saturating_mul(volumes),
        ];
        let others = others.into_iter().fold(0, u64::saturating_add);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            root: count(root),
            local: count(local),
            remote: count(remote),
            events: count(events),
            files: count(files),
            scan: count(scan),
            scan_workers: count(workers),
            runs: count(limit.saturating_sub(others)).max(RUNS_MIN),
        }
    }
}

/// The most workers of a scan: each has a directory open.
const SCAN_WORKERS: u64 = 256;

static SHARES: OnceLock<(Shares, Pool)> = OnceLock::new();

/// Divides what this process may have open, once the configuration is known. To be called before anything asks for its share.
pub fn divide(volumes: usize, with_processes: usize) {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let shares = Shares::of(limits::open_files(), count(volumes), count(with_processes));
    let _ = SHARES.set((shares, Pool::of(shares.runs)));
}

fn divided() -> &'static (Shares, Pool) {
    SHARES.get_or_init(|| {
        let shares = Shares::of(limits::open_files(), 1, 1);
        (shares, Pool::of(shares.runs))
    })
}

/// Who may have how many.
pub fn shares() -> Shares {
    divided().0
}

/// For all runs.
pub fn for_runs() -> &'static Pool {
    &divided().1
}

/// Descriptors that several may have open, and no more together than there are.
#[derive(Debug)]
pub struct Pool {
    max: usize,
    free: Mutex<usize>,
    freed: Condvar,
    /// Of the one that waits for more than is free: the others wait behind it, so its turn comes.
    turn: Mutex<()>,
}

impl Pool {
    /// With this number of descriptors.
    pub fn of(max: usize) -> Self {
        Self {
            max,
            free: Mutex::new(max),
            freed: Condvar::new(),
            turn: Mutex::new(()),
        }
    }

    /// How many there are.
    pub fn max(&self) -> usize {
        self.max
    }

    /// This number now, or all that there are if that is less. None: others have them, or wait for them.
    pub fn try_take(&self, count: usize) -> Option<Taken<'_>> {
        let count = count.min(self.max);
        let _turn = self.turn.try_lock()?;
        let mut free = self.free.lock();
        *free = free.checked_sub(count)?;
        Some(Taken { of: self, count })
    }

    /// The same, once others have given back enough. To be called by one who holds nothing of it.
    pub fn take(&self, count: usize) -> Taken<'_> {
        let count = count.min(self.max);
        let _turn = self.turn.lock();
        let mut free = self.free.lock();
        loop {
            if let Some(left) = free.checked_sub(count) {
                *free = left;
                return Taken { of: self, count };
            }
            self.freed.wait(&mut free);
        }
    }
}

/// Descriptors of a pool, until this is dropped: drop it after what was opened is closed.
#[derive(Debug)]
pub struct Taken<'a> {
    of: &'a Pool,
    count: usize,
}

impl Taken<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut free = self.of.free.lock();
        *free = free.saturating_add(self.count);
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn what_is_given_away_is_never_more_than_there_is() {
        for limit in [256, 512, 1024, 4096, 16_384, 65_536, u64::MAX] {
            for volumes in [1, 2, 4] {
                let s = Shares::of(limit, volumes, 0);
                let others = s.root + s.local + s.remote + s.scan * usize::try_from(volumes).unwrap();
                assert!(s.runs > RUNS_MIN || limit < 512, "{limit} {volumes}: {s:?}");
                assert!(others.saturating_add(s.runs) as u64 <= limit, "{limit}: {s:?}");
            }
        }
        let few = Shares::of(0, 100, 100);
        assert_eq!((few.runs, few.root, few.scan), (RUNS_MIN, 16, 4));
    }

    proptest! {
        /// Threads that take and give back at random: never more than there is, and each gets what it asks for.
        #[test]
        fn a_pool_is_never_overdrawn_and_no_thread_waits_for_ever(
            max in 1usize..20,
            wanted in prop::collection::vec(prop::collection::vec(0usize..30, 1..20), 1..5),
        ) {
            let (pool, out) = (Pool::of(max), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for wanted in &wanted {
                    let (pool, out) = (&pool, &out);
                    scope.spawn(move || {
                        for count in wanted {
                            let taken = pool.try_take(*count).unwrap_or_else(|| pool.take(*count));
                            let now = out.fetch_add(taken.count(), SeqCst) + taken.count();
                            assert!(now <= max && taken.count() == (*count).min(max));
                            out.fetch_sub(taken.count(), SeqCst);
                        }
                    });
                }
            });
            prop_assert_eq!(*pool.free.lock(), max);
        }
    }
}
