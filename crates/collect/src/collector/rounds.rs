//! What the collector's thread does when: it reads, answers, looks at names, and settles.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::{CollectError, Feed, Reader, Request, Until, Waiting};
use purge_base::clock;

/// How often suspects are settled and changed attributes are read again.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Events gather for this long before they are read.
const GATHER: Duration = Duration::from_millis(4);
/// Names are looked at, and suspects settled, for so long at a time, or for as long as was read before; then the queue is read again.
const SLICE_MIN: Duration = Duration::from_millis(10);
const SLICE_MAX: Duration = Duration::from_millis(40);
/// Full buffers that are read one after another before anything else is done.
const PASSES_MAX: usize = 64;
/// Names that were let go are told of when all that is left has been looked at, or after this number of seconds.
const LOST_TOLD_AFTER: u64 = 60;

/// Waits until one of `fds` is ready. An interrupted wait is a short wait.
fn poll(fds: &mut [PollFd<'_>], at_most: Duration) {
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(1),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(fds, Some(&timeout));
}

impl<F: Feed> Reader<F> {
    pub(super) fn run(
        mut self,
        inbox: &mpsc::Receiver<Request>,
        wake: &OwnedFd,
        on_error: impl Fn(CollectError),
    ) {
        let mut settled = Instant::now();
        let mut stops = false;
        if let Err(e) = self.take_what_was_left() {
            on_error(e);
        }
        loop {
            self.rest(wake, SETTLE_EVERY.saturating_sub(settled.elapsed()));
            let began = Instant::now();
            self.read_eagerly().unwrap_or_else(&on_error);
            // A process that fills the queue must not keep this thread at reading alone.
            let longest = if self.backlog.lets_names_go() {
                SLICE_MIN
            } else {
                SLICE_MAX
            };
            let slice = began.elapsed().clamp(SLICE_MIN, longest);
            stops |= self.answer(inbox, &on_error);
            self.look_at_names(slice).unwrap_or_else(&on_error);
            self.tell_of_lost_names().unwrap_or_else(&on_error);
            self.settle_some(slice, &on_error);
            self.begin_asked_settlement();
            if stops && (self.gives_up.load(Relaxed) || self.is_at_rest()) {
                return;
            }
            if settled.elapsed() >= SETTLE_EVERY && self.settlement.is_none() {
                settled = Instant::now();
                self.suspicion.tick();
                self.begin_settlement(true, Vec::new());
                if self.namespace.has_doubts() && self.waiting.is_empty() {
                    self.will_settle(mpsc::sync_channel(1).0);
                }
            }
        }
    }

    /// Waits for events, but lets them gather for a moment first: a process that makes an event must not pay for waking
    /// this thread each time. A request ends either wait at once. Who has work left does not wait.
    fn rest(&self, wake: &OwnedFd, at_most: Duration) {
        if self.is_at_rest() && !self.is_full {
            let mut asked = [PollFd::new(wake, PollFlags::IN)];
            poll(&mut asked, GATHER.min(at_most));
            if asked.iter().all(|fd| fd.revents().is_empty()) {
                let mut all = [
                    PollFd::new(&*self.feed, PollFlags::IN),
                    PollFd::new(wake, PollFlags::IN),
                ];
                poll(&mut all, at_most.saturating_sub(GATHER));
            }
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(wake, &mut count);
    }

    /// Whether nothing that was read is left to be done.
    fn is_at_rest(&self) -> bool {
        self.namespace.pending().is_empty() && self.settlement.is_none() && self.waiting.is_empty()
    }

    fn read_eagerly(&mut self) -> Result<(), CollectError> {
        for _ in 0..PASSES_MAX {
            self.pass()?;
            if !self.is_full || self.asked.load(Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Answers who asks, or notes that they wait. True if the thread should end.
    fn answer(&mut self, inbox: &mpsc::Receiver<Request>, on_error: &impl Fn(CollectError)) -> bool {
        let mut stops = false;
        self.asked.store(false, Relaxed);
        while let Ok(request) = inbox.try_recv() {
            // A caller that waits hears that this was not done.
            if self.gives_up.load(Relaxed) {
                self.waiting.clear();
                stops |= matches!(request, Request::Stop);
                continue;
            }
            match request {
                Request::Barrier(done) => {
                    self.catch_up().unwrap_or_else(on_error);
                    // A caller that has given up does not wait.
                    let _ = done.send(());
                }
                Request::Sync(done) => self.will_settle(done),
                Request::Stop => {
                    stops = true;
                    // What waits is read and settled before the end.
                    self.will_settle(mpsc::sync_channel(1).0);
                }
            }
        }
        stops
    }

    fn will_settle(&mut self, done: mpsc::SyncSender<()>) {
        let read = self.read_total.saturating_add(self.feed.queued());
        let until = Until::Read(read);
        self.waiting.push(Waiting { until, done });
    }

    /// Whether it is time for something else, for one who has just begun.
    fn slice(&self, long: Duration) -> impl Fn() -> bool + use<F> {
        let (began, asked) = (Instant::now(), std::sync::Arc::clone(&self.asked));
        move || asked.load(Relaxed) || began.elapsed() >= long
    }

    fn look_at_names(&mut self, long: Duration) -> Result<(), CollectError> {
        if self.namespace.pending().is_empty() {
            return Ok(());
        }
        if self.gives_up.load(Relaxed) {
            // Every start looks at everything.
            self.namespace.give_up();
            return Ok(());
        }
        let is_time = self.slice(long);
        match self.watched.open_mount() {
            Ok(root) => Ok(self.namespace.work(&self.watched, &root, is_time)?),
            // A scan will look.
            Err(source) => {
                self.namespace.give_up();
                Err(CollectError::Kernel {
                    doing: "open the volume",
                    source,
                })
            }
        }
    }

    fn tell_of_lost_names(&mut self) -> Result<(), CollectError> {
        let is_over = self.namespace.pending().is_empty() && self.spare.follows_names();
        let now = clock::now();
        let told = self
            .names_lost
            .take_if(|since| is_over || since.age_at(now) >= LOST_TOLD_AFTER);
        told.map_or(Ok(()), |since| Err(CollectError::Names { since }))
    }

    /// Settles for those whose names have been looked at.
    fn begin_asked_settlement(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let pending = self.namespace.pending();
        for waiting in &mut self.waiting {
            if let Until::Read(read) = waiting.until
                && (self.read_total >= read || self.is_empty)
            {
                waiting.until = Until::LookedAt(pending.mark());
            }
        }
        if self.settlement.is_some() {
            return;
        }
        let is_past = |waiting: &mut Waiting| match waiting.until {
            Until::Read(_) => false,
            Until::LookedAt(mark) => pending.is_past(mark),
        };
        let done: Vec<_> = self.waiting.extract_if(.., is_past).map(|w| w.done).collect();
        if !done.is_empty() {
            self.begin_settlement(false, done);
        }
    }

    fn settle_some(&mut self, long: Duration, on_error: &impl Fn(CollectError)) {
        let Some(mut settlement) = self.settlement.take() else {
            return;
        };
        let is_time = self.slice(long);
        let over = self.settle(&mut settlement, is_time);
        if matches!(over, Ok(false)) {
            self.settlement = Some(settlement);
            return;
        }
        over.map(drop).unwrap_or_else(on_error);
        if !self.gives_up.load(Relaxed) {
            settlement.tell_those_who_wait();
        }
    }

    /// Everything that is queued now reaches the index.
    pub(super) fn catch_up(&mut self) -> Result<(), CollectError> {
        // New events merge into queued ones or come after them, so having read as many as were there, none of those is
        // left.
        let began = clock::now();
        let queued = self.feed.queued();
        let mut read = 0;
        while !self.gives_up.load(Relaxed) {
            let n = self.pass()?;
            read += n;
            if n == 0 || read >= queued {
                self.note_progress(began, 0);
                break;
            }
        }
        Ok(())
    }
}
