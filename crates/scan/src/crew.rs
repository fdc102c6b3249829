//! Workers that share tasks, and as many of them as their work answers to.
//!
//! ```text
//!   8 workers --> measure --> more done with twice as many?  yes: again, to the most
//!                                                            no:  back to half, and look again later, each time after twice as long
//!   the processors are busy?  half of them do as much: then they only wait for each other, and fewer work, down to one for each processor
//!                             half of them do less: a server answers late, and they stay
//! ```
//! A worker that asks a file server waits most of the time. So how many are worth it depends on what the server and the way to it give,
//! and not on the number of processors.
//!
//! What may never happen: a task that no worker takes, or an end while a worker still holds something that brings more tasks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use purge_sys::time;

/// Workers at the beginning.
pub const FIRST: usize = 8;
/// The most that ask for attributes.
pub const MOST: usize = 256;
/// More are never worth their memory.
const EVER: usize = 4096;
/// A worker needs little of its stack.
const STACK_BYTES: usize = 256 << 10;
/// What is measured at a time, at least.
const WINDOW: Duration = Duration::from_millis(20);
/// And this much for each worker.
const DONE_BY_EACH: u64 = 3;
/// Twice as many workers must do more by this share.
const GROWTH: f64 = 1.15;
/// The same where an answer takes longer than [`LATE`]: those who wait for it take no processor.
const GROWTH_OF_LATE: f64 = 1.05;
/// Seconds.
const LATE: f64 = 0.001;
/// After this it is tried again whether more are worth it, and after twice as long whenever they were not: one measurement may be chance.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Where more than one of this many workers has nothing to do, nothing can be learnt of their number.
const IDLE_SHARE: usize = 4;
/// One task for each of this many workers waits for the next that is ready: who hands out tasks does so in time.
const KEPT_SHARE: usize = 4;
/// Processors that are busy for this share of the time have no time for more workers.
const BUSY: f64 = 0.85;
/// Half as many workers that do this share of what all did, do as much.
const AS_MUCH: f64 = 0.9;

/// One worker.
pub trait Member {
    /// What it does at a time.
    type Task: Send;

    /// Does it.
    fn work(&mut self, task: Self::Task, crew: &Crew<Self::Task>);

    /// Nothing waits: hands over what it has gathered. False: it has nothing.
    fn hand_over(&mut self, crew: &Crew<Self::Task>) -> bool;
}

/// The tasks, and who works on them.
#[derive(Debug)]
pub struct Crew<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    over: Condvar,
    done: AtomicU64,
    size: AtomicUsize,
    /// As the state says it, for those who ask often: under its lock they would wait for each other, and each wake-up takes as long as a look.
    queued: AtomicUsize,
    idle: AtomicUsize,
}

#[derive(Debug)]
struct State<T> {
    tasks: Vec<T>,
    busy: usize,
    idle: usize,
    /// Workers with a higher number end.
    wanted: usize,
    is_over: bool,
}

impl<T: Send> Crew<T> {
    fn of(tasks: Vec<T>, first: usize) -> Self {
        Self {
            state: Mutex::new(State {
                tasks,
                busy: 0,
                idle: 0,
                wanted: first,
                is_over: false,
            }),
            wake: Condvar::new(),
            over: Condvar::new(),
            done: AtomicU64::new(0),
            size: AtomicUsize::new(first),
            queued: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
        }
    }

    fn publish(&self, state: &State<T>) {
        self.queued.store(state.tasks.len(), Relaxed);
        self.idle.store(state.idle, Relaxed);
    }

    /// Adds tasks.
    pub fn push(&self, tasks: impl IntoIterator<Item = T>) {
        let mut state = self.state.lock();
        let before = state.tasks.len();
        state.tasks.extend(tasks);
        let more = state.tasks.len().saturating_sub(before).min(state.idle);
        self.publish(&state);
        drop(state);
        for _ in 0..more {
            self.wake.notify_one();
        }
    }

    /// Whether workers have nothing to do, or are about to.
    pub fn is_short(&self) -> bool {
        self.queued.load(Relaxed) < self.idle.load(Relaxed).max(1)
    }

    /// Whether more tasks are to be handed out, so that no worker waits for the next.
    pub fn has_room(&self) -> bool {
        let kept = self.size.load(Relaxed).div_ceil(KEPT_SHARE);
        self.queued.load(Relaxed) < self.idle.load(Relaxed).saturating_add(kept)
    }

    /// So much was done.
    pub fn did(&self, count: u64) {
        self.done.fetch_add(count, Relaxed);
    }

    /// How many workers there are to be now.
    pub fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// From now on this number of workers is wanted. Whether some are to end.
    fn want(&self, size: usize) -> bool {
        self.size.store(size, Relaxed);
        let mut state = self.state.lock();
        std::mem::replace(&mut state.wanted, size) > size
    }

    /// Ends the work: what waits is dropped.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.tasks.clear();
        state.is_over = true;
        drop(state);
        self.wake.notify_all();
        self.over.notify_all();
    }

    /// The next task of the worker with this number, which has done the one before, if there was one. None: it ends.
    fn next<M: Member<Task = T>>(&self, number: usize, has_done: bool, member: &mut M) -> Option<T> {
        let mut state = self.state.lock();
        if has_done {
            state.busy -= 1;
        }
        loop {
            if state.is_over {
                return None;
            }
            let is_wanted = number < state.wanted;
            if is_wanted && let Some(task) = state.tasks.pop() {
                state.busy += 1;
                self.publish(&state);
                return Some(task);
            }
            // What this worker still holds may be what the others wait for.
            state.busy += 1;
            drop(state);
            let had = member.hand_over(self);
            state = self.state.lock();
            state.busy -= 1;
            if had {
                continue;
            }
            if state.busy == 0 && state.tasks.is_empty() {
                self.end(state);
                return None;
            }
            if !is_wanted {
                // Another one takes what a wake-up of this one was for.
                self.wake.notify_one();
                return None;
            }
            if state.tasks.is_empty() {
                state.idle += 1;
                self.publish(&state);
                self.wake.wait(&mut state);
                state.idle -= 1;
                self.publish(&state);
            }
        }
    }

    fn end(&self, mut state: parking_lot::MutexGuard<'_, State<T>>) {
        state.is_over = true;
        drop(state);
        self.wake.notify_all();
        self.over.notify_all();
    }

    fn run<M: Member<Task = T>>(&self, number: usize, mut member: M) {
        let mut has_done = false;
        while let Some(task) = self.next(number, has_done, &mut member) {
            member.work(task, self);
            has_done = true;
        }
    }
}

/// Has workers do `tasks` and all that these bring: `make` makes one by its number, and there are `most` at most.
pub fn run<M: Member>(tasks: Vec<M::Task>, most: usize, make: &(dyn Fn(usize) -> M + Sync)) {
    run_from(FIRST, tasks, most, make);
}

/// The same with this number of workers at the beginning: where it is known that a server answers late.
pub fn run_from<M: Member>(
    first: usize,
    tasks: Vec<M::Task>,
    most: usize,
    make: &(dyn Fn(usize) -> M + Sync),
) {
    let most = most.clamp(1, EVER);
    let first = first.clamp(1, most);
    let crew = Crew::of(tasks, first);
    std::thread::scope(|scope| {
        let crew = &crew;
        let hire = |number: usize| {
            let work = move || crew.run(number, make(number));
            let thread = std::thread::Builder::new()
                .name("scan".into())
                .stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work).is_ok()
        };
        let hired = (0..first).take_while(|number| hire(*number)).count();
        if hired == 0 {
            // Where the system gives no thread, this one does the work.
            return crew.run(0, make(0));
        }
        supervise(crew, hired, most, &hire);
    });
}

/// Measures, and hires more or lets some end.
fn supervise<T: Send>(crew: &Crew<T>, first: usize, most: usize, hire: &dyn Fn(usize) -> bool) {
    let processors = available_parallelism().map_or(1, usize::from);
    let mut hiring = Hiring::of(first, most, processors);
    let mut hired = first;
    let mut window = Window::begin(crew);
    loop {
        {
            let mut state = crew.state.lock();
            if state.is_over {
                return;
            }
            crew.over.wait_for(&mut state, WINDOW);
            if state.is_over {
                return;
            }
            // Tasks that wait say nothing: where workers bring them, they are taken at once.
            if state.tasks.len() < state.idle && state.idle > state.wanted / IDLE_SHARE {
                drop(state);
                window = Window::begin(crew);
                continue;
            }
        }
        let Some(seen) = window.end(crew, processors) else {
            continue;
        };
        let size = hiring.next(seen, Instant::now());
        // Before they begin: one that is not wanted ends.
        let fewer = crew.want(size);
        while hired < size && hire(hired) {
            hired += 1;
        }
        if hired < size {
            crew.want(hired);
        }
        // Those that have ended do not come back: others with the same numbers do.
        hired = hired.min(size);
        if fewer {
            crew.wake.notify_all();
        }
        window = Window::begin(crew);
    }
}

/// A stretch that is measured.
struct Window {
    began: Instant,
    done: u64,
    processor: Duration,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Done in a second.
    rate: f64,
    /// The share of the processors' time that this process took.
    busy: f64,
}

impl Window {
    fn begin<T>(crew: &Crew<T>) -> Self {
        Self {
            began: Instant::now(),
            done: crew.done.load(Relaxed),
            processor: time::of_this_process(),
        }
    }

    /// None: too little was done to say.
    fn end<T>(&self, crew: &Crew<T>, processors: usize) -> Option<Seen> {
        let (took, done) = (self.began.elapsed(), crew.done.load(Relaxed));
        let done = done.saturating_sub(self.done);
        let enough = (crew.size.load(Relaxed) as u64).saturating_mul(DONE_BY_EACH);
        if took < WINDOW || (done < enough && took < WINDOW.saturating_mul(20)) {
            return None;
        }
        let processor = time::of_this_process().saturating_sub(self.processor);
        let seconds = took.as_secs_f64();
        Some(Seen {
            rate: done as f64 / seconds,
            busy: processor.as_secs_f64() / seconds / processors as f64,
        })
    }
}

/// How many workers there are to be. Pure.
#[derive(Debug)]
struct Hiring {
    now: usize,
    most: usize,
    /// One for each processor, and two at least.
    least: usize,
    /// What half as many did, while twice as many are tried.
    half_did: Option<f64>,
    /// What twice as many did, while half as many are tried.
    twice_did: Option<f64>,
    /// The second time that twice as many did not do more.
    in_doubt: bool,
    /// Until when it stays.
    settled: Option<Instant>,
    retry: Duration,
}

impl Hiring {
    fn of(first: usize, most: usize, processors: usize) -> Self {
        Self {
            now: first,
            most,
            least: processors.max(2).min(most),
            half_did: None,
            twice_did: None,
            in_doubt: false,
            settled: None,
            retry: RETRY,
        }
    }

    fn is_settled(&self, at: Instant) -> bool {
        self.settled.is_some_and(|until| at < until)
    }

    fn settle(&mut self, at: Instant, wait: Duration) {
        (self.half_did, self.in_doubt) = (None, false);
        self.settled = at.checked_add(wait);
    }

    fn next(&mut self, seen: Seen, at: Instant) -> usize {
        if self
            .twice_did
            .take()
            .is_some_and(|twice| seen.rate < twice * AS_MUCH)
        {
            self.settle(at, RETRY_MOST);
            self.now = self.now.saturating_mul(2).min(self.most);
        } else if seen.busy >= BUSY {
            self.fewer(seen, at);
        } else if let Some(half) = self.half_did {
            self.judge(half, seen, at);
        } else if !self.is_settled(at) {
            self.more(seen, at);
        }
        self.now
    }

    /// The processors are busy.
    fn fewer(&mut self, seen: Seen, at: Instant) {
        (self.half_did, self.in_doubt) = (None, false);
        if self.now <= self.least {
            self.settle(at, RETRY_MOST);
        } else if !self.is_settled(at) {
            self.twice_did = Some(seen.rate);
            self.now = (self.now / 2).max(self.least);
        }
    }

    /// Twice as many were tried.
    fn judge(&mut self, half_did: f64, seen: Seen, at: Instant) {
        let took = self.now as f64 / 2.0 / half_did;
        let growth = if took > LATE { GROWTH_OF_LATE } else { GROWTH };
        if seen.rate >= half_did * growth {
            self.retry = RETRY;
            return self.more(seen, at);
        }
        // Once may be chance.
        if !std::mem::replace(&mut self.in_doubt, true) {
            return;
        }
        self.settle(at, self.retry);
        self.retry = self.retry.saturating_mul(2).min(RETRY_MOST);
        self.now = (self.now / 2).max(1);
    }

    fn more(&mut self, seen: Seen, at: Instant) {
        if self.now >= self.most {
            return self.settle(at, RETRY_MOST);
        }
        (self.half_did, self.settled, self.in_doubt) = (Some(seen.rate), None, false);
        self.now = self.now.saturating_mul(2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Numbers that bring smaller ones, and are handed over in the end only.
    struct Counter<'a> {
        held: Vec<u32>,
        sum: &'a AtomicU64,
    }

    impl Member for Counter<'_> {
        type Task = u32;

        fn work(&mut self, task: u32, crew: &Crew<u32>) {
            self.sum.fetch_add(1, Relaxed);
            crew.did(1);
            self.held.extend((0..task).take(3));
            if task.is_multiple_of(2) {
                self.hand_over(crew);
            }
        }

        fn hand_over(&mut self, crew: &Crew<u32>) -> bool {
            let held = std::mem::take(&mut self.held);
            let had = !held.is_empty();
            crew.push(held);
            had
        }
    }

    fn expected(task: u32) -> u64 {
        1 + (0..task).take(3).map(expected).sum::<u64>()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// However tasks bring others, and however many workers there are: each is done once, and the crew ends.
        #[test]
        fn every_task_is_done_once(tasks in prop::collection::vec(0u32..9, 0..20), most in 1usize..40) {
            let sum = AtomicU64::new(0);
            let wanted: u64 = tasks.iter().map(|t| expected(*t)).sum();
            run(tasks, most, &|_| Counter { held: Vec::new(), sum: &sum });
            prop_assert_eq!(sum.load(Relaxed), wanted);
        }
    }

    struct Sleeper<'a> {
        has_worked: bool,
        in_vain: &'a AtomicUsize,
    }

    impl Drop for Sleeper<'_> {
        fn drop(&mut self) {
            self.in_vain.fetch_add(usize::from(!self.has_worked), Relaxed);
        }
    }

    impl Member for Sleeper<'_> {
        type Task = ();

        fn work(&mut self, (): (), crew: &Crew<()>) {
            self.has_worked = true;
            std::thread::sleep(Duration::from_millis(3));
            crew.did(1);
        }

        fn hand_over(&mut self, _: &Crew<()>) -> bool {
            false
        }
    }

    /// A server that answers each after 3 ms: many ask at a time.
    #[test]
    fn what_waits_gets_many_workers() {
        let (made, in_vain) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let began = Instant::now();
        run(vec![(); 8_000], MOST, &|_| {
            made.fetch_add(1, Relaxed);
            Sleeper {
                has_worked: false,
                in_vain: &in_vain,
            }
        });
        let took = began.elapsed();
        let (made, in_vain) = (made.into_inner(), in_vain.into_inner());
        println!(
            "8,000 answers of 3 ms took {took:?} with {made} workers, {in_vain} of them in vain; 8 would take 3 s"
        );
        assert!(took < Duration::from_millis(2_500), "{took:?}");
        assert!(
            in_vain * 10 <= made,
            "{in_vain} of {made} ended at once, while tasks waited"
        );
    }

    fn grown(busy: f64, rate: impl Fn(usize) -> f64) -> usize {
        let mut hiring = Hiring::of(FIRST, MOST, 2);
        let at = Instant::now();
        for _ in 0..50 {
            let seen = Seen {
                rate: rate(hiring.now),
                busy,
            };
            hiring.next(seen, at);
        }
        hiring.now
    }

    #[test]
    fn the_number_follows_what_is_done() {
        assert_eq!(grown(0.1, |n| n as f64 * 300.0), MOST);
        assert_eq!(grown(0.1, |n| n.min(32) as f64 * 300.0), 32);
        assert_eq!(grown(0.1, |_| 5_000.0), FIRST);
        assert_eq!(grown(0.95, |_| 5_000.0), 2, "busy processors");
        assert_eq!(
            grown(0.95, |n| n as f64 * 300.0),
            FIRST,
            "fewer do less: a server is waited for"
        );
    }
}
