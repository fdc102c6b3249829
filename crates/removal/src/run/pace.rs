//! How many candidates a run takes together, and how many in a second.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::candidate::Candidate;
use crate::take::room::Room;

/// Candidates that are leased at once, at most and at least.
const BATCH_CANDIDATES: usize = 512;
const BATCH_CANDIDATES_MIN: usize = 16;
/// Who opens a file of a batch waits until its end: batches that take longer become smaller, those that take much less larger.
const HOLD_MAX: Duration = Duration::from_millis(40);
/// Files of a batch of directories: they are out of reach while they are verified.
const BATCH_FILES: u64 = 2048;
/// Names of the files of a batch: each is looked at and moved while others wait. A file with more goes by itself.
const BATCH_NAMES: u64 = 1024;
/// A wait looks so often whether it is cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The pace of a run, which all its workers share.
#[derive(Debug)]
pub struct Pace {
    /// Candidates a second; 0: unlimited.
    max_rate: u64,
    /// Descriptors for its batches.
    pub room: Room,
    began: Instant,
    /// Candidates begun.
    taken: AtomicU64,
    /// Candidates of a batch, as far as the time of those before allows.
    together: AtomicUsize,
}

impl Pace {
    /// Of a run that begins now and takes at most `max_rate` candidates a second; 0: as many as it can.
    pub fn begin(max_rate: u64, room: Room) -> Self {
        Self {
            max_rate,
            room,
            began: Instant::now(),
            taken: AtomicU64::new(0),
            together: AtomicUsize::new(BATCH_CANDIDATES / 4),
        }
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many of the first candidates go together: others wait for a lease, and no process reaches a directory meanwhile. At least one,
    /// where there is one.
    pub fn batch_len(&self, candidates: &[Candidate]) -> usize {
        let together = self.together.load(Relaxed);
        let most = match self.max_rate {
            0 => together,
            rate => usize::try_from(rate).map_or(together, |n| n.clamp(1, together)),
        };
        let (mut files, mut names) = (0u64, 0u64);
        let fit = candidates.iter().take(most).take_while(|c| {
            files = files.saturating_add(c.files);
            names = names.saturating_add(c.links.max(1).into());
            files <= BATCH_FILES && names <= BATCH_NAMES
        });
        let fit = fit.count().max(1).min(candidates.len());
        self.room.fitting(candidates.get(..fit).unwrap_or_default())
    }

    /// A batch of `count` was held for so long: more or fewer go together from now on.
    pub fn adapt(&self, count: usize, held: Duration) {
        let fitting = if held > HOLD_MAX {
            count / 2
        } else if held < HOLD_MAX / 2 && count >= self.together.load(Relaxed) {
            count.saturating_mul(2)
        } else {
            return;
        };
        self.together
            .store(fitting.clamp(BATCH_CANDIDATES_MIN, BATCH_CANDIDATES), Relaxed);
    }

    /// Waits until `count` more may be taken, or the run is cancelled.
    pub fn wait(&self, count: usize, is_cancelled: impl Fn() -> bool) {
        let before = self.taken.fetch_add(count as u64, Relaxed);
        if self.max_rate == 0 {
            return;
        }
        let due = Duration::from_secs_f64(before as f64 / self.max_rate as f64);
        while self.began.elapsed() < due && !is_cancelled() {
            let left = due.saturating_sub(self.began.elapsed());
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_while_others_wait_long_and_grow_again_within_bounds() {
        let pace = Pace::begin(0, Room::of(10_000, 4));
        let together = || pace.together.load(Relaxed);
        for _ in 0..20 {
            pace.adapt(together(), HOLD_MAX * 2);
        }
        assert_eq!(together(), BATCH_CANDIDATES_MIN);
        pace.adapt(together() / 2, HOLD_MAX / 10);
        assert_eq!(together(), BATCH_CANDIDATES_MIN, "a short batch says little");
        for _ in 0..20 {
            pace.adapt(together(), HOLD_MAX / 10);
        }
        assert_eq!(together(), BATCH_CANDIDATES);
    }
}
