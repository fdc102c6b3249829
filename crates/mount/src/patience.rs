//! Requests that have to wait: for a lease that the agent has on a file, or for a lock. They wait together, on one thread, so that no thread that
//! answers others is ever held up by them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::device::{Done, Ticket};

/// How often it is tried again.
const TRIED_EVERY: Duration = Duration::from_millis(1);
/// The agent gives a lease back within milliseconds, and the kernel takes one away after `fs.lease-break-time` (45 s).
const LEASE_WITHIN: Duration = Duration::from_secs(60);

/// At most this number of interrupts of requests that do not wait is remembered.
const INTERRUPTED_MAX: usize = 256;

/// What is tried. None: not yet.
pub type Attempt = Box<dyn FnMut() -> Option<Done> + Send>;

struct Waiting {
    ticket: Ticket,
    attempt: Attempt,
    /// Then it ends with EAGAIN; none: it waits as long as it takes.
    until: Option<Instant>,
}

/// Those that wait.
#[derive(Default)]
pub struct Patience {
    waiting: Mutex<Vec<Waiting>>,
    /// Those that were interrupted before they waited, or while they were tried.
    interrupted: Mutex<VecDeque<u64>>,
    come: Condvar,
}

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience")
            .field("waiting", &self.waiting.lock().len())
            .finish()
    }
}

impl Patience {
    /// Answers as soon as an attempt succeeds: at once, or later. `for_a_lock`: it may take as long as others keep the lock.
    pub fn answer(&self, ticket: Ticket, mut attempt: Attempt, for_a_lock: bool) {
        if let Some(done) = attempt() {
            return ticket.answer(done);
        }
        let until = (!for_a_lock).then(|| Instant::now() + LEASE_WITHIN);
        self.wait([Waiting {
            ticket,
            attempt,
            until,
        }]);
        self.come.notify_one();
    }

    /// Who asked this does not wait any more.
    pub fn interrupt(&self, unique: u64) {
        let mut waiting = self.waiting.lock();
        let found = waiting.iter().position(|one| one.ticket.unique() == unique);
        let found = found.map(|at| waiting.swap_remove(at));
        drop(waiting);
        if let Some(one) = found {
            return one.ticket.answer(Err(Errno::INTR));
        }
        let mut interrupted = self.interrupted.lock();
        if interrupted.len() >= INTERRUPTED_MAX {
            interrupted.pop_front();
        }
        interrupted.push_back(unique);
    }

    fn wait(&self, those: impl IntoIterator<Item = Waiting>) {
        for one in those {
            let mut waiting = self.waiting.lock();
            let mut interrupted = self.interrupted.lock();
            match interrupted
                .iter()
                .position(|unique| *unique == one.ticket.unique())
            {
                Some(at) => {
                    interrupted.remove(at);
                    drop((interrupted, waiting));
                    one.ticket.answer(Err(Errno::INTR));
                }
                None => waiting.push(one),
            }
        }
    }

    /// Tries, for as long as the process lives.
    pub fn keep(self: &Arc<Self>) {
        loop {
            let mut waiting = self.waiting.lock();
            if waiting.is_empty() {
                self.come.wait(&mut waiting);
            }
            let tried = std::mem::take(&mut *waiting);
            drop(waiting);
            let left: Vec<Waiting> = tried.into_iter().filter_map(try_one).collect();
            self.wait(left);
            std::thread::sleep(TRIED_EVERY);
        }
    }
}

/// What has to go on waiting.
fn try_one(mut one: Waiting) -> Option<Waiting> {
    match (one.attempt)() {
        Some(done) => one.ticket.answer(done),
        None if one.until.is_some_and(|until| Instant::now() > until) => one.ticket.answer(Err(Errno::AGAIN)),
        None => return Some(one),
    }
    None
}
