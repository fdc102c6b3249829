//! Who reads requests, and on which processor.
//!
//! ```text
//!   one thread reads and answers; the others rest
//!   the watch, a thread that is awake only while there is work, calls one more:
//!     when all who read are held up in a request (a disk, a file server)        at once
//!     when they are busy all the time                                            up to one for each processor
//! ```
//! To wake a thread, and to have another processor do it, takes longer than to answer most requests. So as few threads read as there is work for, and
//! while a single thread asks, the one that answers stays on the same processor.
//!
//! What may never happen: a request that waits because another one is held up, as long as there are threads that rest.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use purge_sys::processor::{self, Allowed};

/// How often it is looked whether those who read are held up, while there is work.
const LOOKED_EVERY: Duration = Duration::from_millis(1);
/// Those who read were busy at this number of looks in turn: there is more work than they do.
const BUSY_LOOKS: u32 = 16;
/// After this number of looks without a request the watch sleeps.
const QUIET_LOOKS: u32 = 20;
/// A thread that alone has asked for this number of looks is followed to its processor, and it is looked as rarely where it is by now.
const ALONE_LOOKS: u32 = 3;
/// No processor in particular.
const ANY: usize = usize::MAX;

/// The threads that answer, and how many of them read.
#[derive(Debug)]
pub struct Crew {
    duty: Mutex<Duty>,
    /// Someone is called, or it ends.
    called: Condvar,
    /// Of those on duty, these wait for a request.
    idle: AtomicUsize,
    /// Requests that were read.
    taken: AtomicU64,
    /// More are on duty than are wanted.
    are_many: AtomicBool,
    /// The watch is awake.
    watched: AtomicBool,
    woken: Condvar,
    /// Which thread asked last.
    asker: AtomicU32,
    /// The processor on which it is answered.
    near: AtomicUsize,
    processors: usize,
}

#[derive(Debug)]
struct Duty {
    /// Threads that read, or answer what they have read.
    on: usize,
    /// This number is enough.
    wanted: usize,
    /// All there are.
    threads: usize,
    ended: bool,
}

impl Crew {
    /// Of this number of threads.
    pub fn of(threads: usize) -> Self {
        Self {
            duty: Mutex::new(Duty {
                on: 0,
                wanted: 1,
                threads,
                ended: false,
            }),
            called: Condvar::new(),
            idle: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            are_many: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            woken: Condvar::new(),
            asker: AtomicU32::new(0),
            near: AtomicUsize::new(ANY),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Works as one of them until it ends. `read` waits for a request; none: there will be no more. `answer` says whether it goes on.
    pub fn serve<T>(&self, mut read: impl FnMut() -> Option<T>, mut answer: impl FnMut(T) -> bool) {
        let mut stays = Stays::anywhere();
        while self.begin_duty() {
            loop {
                stays.near(self.near.load(SeqCst));
                self.idle.fetch_add(1, SeqCst);
                let request = read();
                self.idle.fetch_sub(1, SeqCst);
                let Some(request) = request else {
                    return self.end();
                };
                self.note();
                if !answer(request) {
                    return self.end();
                }
                if self.may_rest() {
                    break;
                }
            }
        }
    }

    /// Rests until this thread is called. False: it ends.
    fn begin_duty(&self) -> bool {
        let mut duty = self.duty.lock();
        while duty.on >= duty.wanted && !duty.ended {
            self.called.wait(&mut duty);
        }
        duty.on = duty.on.saturating_add(1);
        !duty.ended
    }

    /// Whether others are enough: this one rests then.
    fn may_rest(&self) -> bool {
        if !self.are_many.load(SeqCst) {
            return false;
        }
        let mut duty = self.duty.lock();
        let may = duty.on > duty.wanted;
        if may {
            duty.on = duty.on.saturating_sub(1);
        }
        may
    }

    /// This thread asked what is answered now; 0: none did.
    pub fn is_asked_by(&self, thread: u32) {
        if thread != 0 {
            self.asker.store(thread, SeqCst);
        }
    }

    /// A request was read: from now on it is looked whether it holds up others.
    fn note(&self) {
        self.taken.fetch_add(1, SeqCst);
        if !self.watched.load(SeqCst) {
            let _duty = self.duty.lock();
            self.watched.store(true, SeqCst);
            self.woken.notify_one();
        }
    }

    fn end(&self) {
        self.duty.lock().ended = true;
        self.called.notify_all();
        self.woken.notify_all();
    }

    /// Calls those who rest, until it ends.
    pub fn watch(&self) {
        let (mut taken, mut quiet, mut busy) = (0, 0u32, 0u32);
        let mut alone = Alone::default();
        while !self.duty.lock().ended {
            let now = self.taken.load(SeqCst);
            let is_new = now != taken;
            taken = now;
            let is_busy = self.idle.load(SeqCst) == 0;
            quiet = if is_new { 0 } else { quiet.saturating_add(1) };
            busy = if is_busy { busy.saturating_add(1) } else { 0 };
            let is_short = is_new && busy >= BUSY_LOOKS;
            let on = self.adjust(!is_new && is_busy, is_short);
            if is_short {
                busy = 0;
            }
            if is_new && let Some(near) = alone.look(self.asker.load(SeqCst), on) {
                self.near.store(near, SeqCst);
            }
            if quiet > QUIET_LOOKS && !is_busy {
                self.sleep_until_work(taken);
                quiet = 0;
            }
            std::thread::sleep(LOOKED_EVERY);
        }
    }

    fn sleep_until_work(&self, taken: u64) {
        let mut duty = self.duty.lock();
        self.watched.store(false, SeqCst);
        // What was read before that was seen is looked after now; what is read later wakes.
        while self.taken.load(SeqCst) == taken && !duty.ended && !self.watched.load(SeqCst) {
            self.woken.wait(&mut duty);
        }
        self.watched.store(true, SeqCst);
    }

    /// `is_held_up`: all are, in one request each; `is_short`: they are busy all the time. How many are on duty.
    fn adjust(&self, is_held_up: bool, is_short: bool) -> usize {
        let idle = self.idle.load(SeqCst);
        let mut duty = self.duty.lock();
        let is_short = is_short && duty.on < self.processors;
        if (is_held_up || is_short) && duty.on < duty.threads {
            duty.wanted = duty.on.saturating_add(1);
            self.called.notify_one();
        } else if idle > 1 && duty.wanted > 1 {
            duty.wanted = duty.on.saturating_sub(1).max(1);
        }
        self.are_many.store(duty.on > duty.wanted, SeqCst);
        duty.on
    }
}

/// Which thread asks alone, and for how long.
#[derive(Debug, Default)]
struct Alone {
    asker: u32,
    looks: u32,
}

impl Alone {
    /// This thread has asked last, and this number of threads answers. Where they are to do that from now on; none: as before.
    fn look(&mut self, asker: u32, on: usize) -> Option<usize> {
        if asker != self.asker || on > 1 {
            let was_alone = self.looks >= ALONE_LOOKS;
            *self = Self { asker, looks: 0 };
            return was_alone.then_some(ANY);
        }
        self.looks = self.looks.saturating_add(1);
        let is_time = self.looks.is_multiple_of(ALONE_LOOKS);
        is_time.then(|| processor::of_thread(asker).unwrap_or(ANY))
    }
}

/// On which processor a thread of the crew stays.
#[derive(Debug)]
struct Stays {
    /// None: that cannot be said.
    allowed: Option<Allowed>,
    at: usize,
}

impl Stays {
    fn anywhere() -> Self {
        Self {
            allowed: Allowed::now().ok(),
            at: ANY,
        }
    }

    fn near(&mut self, at: usize) {
        if at == self.at {
            return;
        }
        self.at = at;
        if let Some(allowed) = &self.allowed {
            // Where it may not, it stays where it is.
            let _ = allowed.only((at != ANY).then_some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    /// Serves what is sent as the time that it takes, and says in which order it was done.
    fn begin(threads: usize) -> (mpsc::Sender<u64>, mpsc::Receiver<u64>, Arc<Crew>) {
        let crew = Arc::new(Crew::of(threads));
        let (send, receive) = mpsc::channel();
        let (done, order) = mpsc::channel();
        let receive = Arc::new(Mutex::new(receive));
        for _ in 0..threads {
            let (crew, receive, done) = (Arc::clone(&crew), Arc::clone(&receive), done.clone());
            std::thread::spawn(move || {
                let read = || receive.lock().recv().ok();
                crew.serve(read, |millis| {
                    std::thread::sleep(Duration::from_millis(millis));
                    let _ = done.send(millis);
                    true
                });
            });
        }
        let watch = Arc::clone(&crew);
        std::thread::spawn(move || watch.watch());
        (send, order, crew)
    }

    #[test]
    fn what_is_held_up_holds_up_no_other_and_those_who_helped_rest_again() {
        let (send, order, crew) = begin(4);
        for round in 0..3 {
            // Also after the watch has slept.
            std::thread::sleep(Duration::from_millis(60 * round));
            for millis in [700, 701, 702, 0] {
                send.send(millis).unwrap();
            }
            let first = order.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(first, 0, "it waited for one that is held up");
            for _ in 0..3 {
                assert!(order.recv_timeout(Duration::from_secs(5)).unwrap() >= 700);
            }
        }
        for _ in 0..500 {
            if crew.duty.lock().on == 1 {
                break;
            }
            send.send(0).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(crew.duty.lock().on, 1);
        assert!(order.iter().take(1).all(|millis| millis == 0));
    }

    #[test]
    fn each_request_is_answered_once_and_all_end() {
        let (send, order, crew) = begin(8);
        for _ in 0..2000 {
            send.send(0).unwrap();
        }
        drop(send);
        assert_eq!(order.iter().count(), 2000);
        assert!(crew.duty.lock().ended);
    }

    #[test]
    fn who_asks_alone_is_followed_until_another_asks() {
        let me = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let mut alone = Alone::default();
        let told: Vec<Option<usize>> = (0..3 * ALONE_LOOKS).map(|_| alone.look(me, 1)).collect();
        let followed: Vec<usize> = told.into_iter().flatten().collect();
        assert!(!followed.is_empty() && !followed.contains(&ANY), "{followed:?}");
        assert_eq!(alone.look(me + 1, 1), Some(ANY));
        assert_eq!(alone.look(me, 1), None);
        (0..ALONE_LOOKS).for_each(|_| {
            alone.look(me, 1);
        });
        assert_eq!(alone.look(me, 2), Some(ANY), "two answer");
    }
}
