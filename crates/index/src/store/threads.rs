//! Threads for the calls of the store that may wait: the caller waits for a bounded time.
//!
//! sled 0.34.7 waits without end for a buffer that an error has left unfinished (it cannot make a file in `blobs`), and each write waits
//! while the file system is frozen. Such a call keeps its thread; the caller hears that the store does not answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// More calls than these wait for each other.
const THREADS_MAX: usize = 8;
/// A thread without work ends after this time.
const IDLE_MAX: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one store.
#[derive(Debug, Default)]
pub(super) struct Threads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    wake: Condvar,
    /// Calls that still run though their callers wait no longer.
    overdue: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let overdue = self.overdue.load(SeqCst);
        f.debug_struct("Shared")
            .field("overdue", &overdue)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    Runs,
    Done,
    /// Its caller waits no longer.
    Overdue,
}

impl Threads {
    /// How many calls still run though their callers wait no longer.
    pub(super) fn overdue(&self) -> usize {
        self.0.overdue.load(SeqCst)
    }

    /// Runs a call and waits for its end for so long at most; none: it does not answer. A call that had not begun by then never begins.
    pub(super) fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, wait) = mpsc::sync_channel(1);
        let stage = Arc::new(Mutex::new(Stage::Waits));
        let (shared, of_job) = (Arc::clone(&self.0), Arc::clone(&stage));
        let job = move || {
            {
                let mut stage = of_job.lock();
                if *stage != Stage::Waits {
                    return;
                }
                *stage = Stage::Runs;
            }
            let result = call();
            let before = std::mem::replace(&mut *of_job.lock(), Stage::Done);
            // The channel has room; no caller: the result is dropped here.
            let _ = done.send(result);
            if before == Stage::Overdue {
                shared.overdue.fetch_sub(1, SeqCst);
            }
        };
        self.give(Box::new(job));
        if let Ok(result) = wait.recv_timeout(patience) {
            return Some(result);
        }
        {
            let mut stage = stage.lock();
            if *stage == Stage::Runs {
                self.0.overdue.fetch_add(1, SeqCst);
            }
            if *stage != Stage::Done {
                *stage = Stage::Overdue;
                return None;
            }
        }
        wait.recv().ok()
    }

    fn give(&self, job: Job) {
        let mut jobs = self.0.jobs.lock();
        jobs.queue.push_back(job);
        if jobs.queue.len() > jobs.idle && jobs.threads < THREADS_MAX {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("store".into());
            // Without a thread the caller hears that nothing answers.
            if thread.spawn(move || shared.work()).is_ok() {
                jobs.threads = jobs.threads.saturating_add(1);
            }
        }
        drop(jobs);
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn work(&self) {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(job) = jobs.queue.pop_front() {
                drop(jobs);
                job();
                jobs = self.jobs.lock();
                continue;
            }
            jobs.idle = jobs.idle.saturating_add(1);
            let waited = self.wake.wait_for(&mut jobs, IDLE_MAX);
            jobs.idle = jobs.idle.saturating_sub(1);
            if waited.timed_out() && jobs.queue.is_empty() {
                jobs.threads = jobs.threads.saturating_sub(1);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_end_keeps_no_caller() {
        let threads = Threads::default();
        assert_eq!(threads.run(Duration::from_secs(5), || 7), Some(7));
        let (end, ends) = mpsc::channel::<()>();
        let waits = move || ends.recv().is_ok();
        assert_eq!(threads.run(Duration::from_millis(20), waits), None);
        assert_eq!(threads.overdue(), 1);
        assert_eq!(threads.run(Duration::from_secs(5), || 8), Some(8), "others go on");
        drop(end);
        while threads.overdue() > 0 {
            std::thread::yield_now();
        }
    }
}
