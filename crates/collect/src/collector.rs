//! The thread that reads the kernel's queue.
//!
//! One pass reads a buffer of events, notes the names in it and records the accesses. To look at what the names mean takes a hundred times as
//! long as reading them, so that is done between the passes, some milliseconds at a time, and so is the settlement: this thread
//! keeps up with the processes that fill the queue, and a barrier waits for no look.
//!
//! - `feed`      what a source with a queue is to this thread
//! - `backlog`   when more waits than is read (pure)
//! - `spare`     what is done without while too many wait
//! - `rounds`    what the thread does when
//! - `settling`  what an event alone cannot decide

mod backlog;
mod feed;
mod rounds;
mod settling;
mod spare;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use rustix::event::EventfdFlags;

use self::backlog::Backlog;
pub use self::feed::{Feed, Processes};
use self::settling::Settlement;
use self::spare::Spare;
use super::Watched;
use super::accessors::Accessors;
use super::changes::Changers;
use super::doubt::{Suspect, is_proof};
pub use super::error::CollectError;
use super::error::Unknown;
use super::event::{Access, Acts, By, Change, Changes, Event, Node, Used};
use super::namespace::Namespace;
use super::precision::Windows;
use super::progress::Progress;
use super::recorder::{Batch, Loss};
pub use super::source::Barrier;
use super::source::Reading;
use super::touched::Suspicion;
use purge_base::clock;
use purge_model::{Inode, Seconds};
use purge_sys::memory;
use purge_sys::shared::SharedBuffer;

/// Whether it is worth waiting for the thread is asked so often.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// Whether it has ended is looked at so often.
const LOOKED_EVERY: Duration = Duration::from_millis(5);
/// One `read(2)` takes at most this much: some 2,500 events.
pub const BUFFER_BYTES: usize = 256 << 10;

/// What others ask of the collector.
#[derive(Debug)]
enum Request {
    /// Answer once everything that was queued before has reached the index and is settled.
    Sync(mpsc::SyncSender<()>),
    /// Answer once everything that was queued before has reached the index.
    Barrier(mpsc::SyncSender<()>),
    /// End the thread.
    Stop,
}

/// The running collector. Dropping it ends the thread.
#[derive(Debug)]
pub struct Collector {
    requests: mpsc::Sender<Request>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    gives_up: Arc<AtomicBool>,
    /// A request waits: all other work can wait.
    asked: Arc<AtomicBool>,
}

impl Collector {
    /// Starts the thread. Events go through `buffer`, which outlives a killed process. `on_error` is called with every error; the thread goes
    /// on after it where it can.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        feed: impl Feed,
        watched: Arc<Watched>,
        judges: Judges,
        buffer: SharedBuffer,
        on_error: impl Fn(CollectError) + Send + 'static,
    ) -> Result<Self, CollectError> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|e| CollectError::kernel("make an eventfd")(e.into()))?;
        let wake = Arc::new(wake);
        let (requests, inbox) = mpsc::channel();
        let gives_up = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            gives_up: Arc::clone(&gives_up),
            asked: Arc::clone(&asked),
            namespace: Namespace::of_reports(feed.tells_whose_names()),
            feed: Arc::new(feed),
            watched,
            suspects: FxHashMap::default(),
            changers: Changers::default(),
            suspicion: Suspicion::default(),
            progress: Progress::default(),
            backlog: Backlog::within(memory::bound()),
            spare: Spare::default(),
            read_total: 0,
            is_full: false,
            is_empty: false,
            names_lost: None,
            settlement: None,
            waiting: Vec::new(),
            used: Vec::new(),
            own: By::process(std::process::id().cast_signed()),
            buffer: Some(buffer),
            judges,
        };
        let reader_wake = Arc::clone(&wake);
        let thread = std::thread::Builder::new()
            .name("collector".into())
            .spawn(move || reader.run(&inbox, &reader_wake, on_error))
            .map_err(CollectError::kernel("start the collector's thread"))?;
        Ok(Self {
            requests,
            wake,
            thread: Some(thread),
            gives_up,
            asked,
        })
    }

    /// Waits until every access that was made before this call is in the index, and what can be settled is: for as long as `goes_on` says, which
    /// is asked now and then. False: what was used last may be missing, or the collector is dead.
    pub fn sync_while(&self, goes_on: impl Fn() -> bool) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        if !self.ask(Request::Sync(done)) {
            return false;
        }
        loop {
            match wait.recv_timeout(ASKED_EVERY) {
                Ok(()) => return true,
                Err(mpsc::RecvTimeoutError::Timeout) if goes_on() => {}
                Err(_) => return false,
            }
        }
    }

    /// The same for so long at most. False: what was used last may be missing.
    pub fn sync_within(&self, at_most: Duration) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.ask(Request::Sync(done)) && wait.recv_timeout(at_most).is_ok()
    }

    /// The same of the accesses alone, and without settling anything: what may turn out to be no use is one, and names and attributes may be
    /// older than the files. Waits so long at most.
    pub fn barrier(&self, at_most: Duration) -> Barrier {
        let (done, wait) = mpsc::sync_channel(1);
        if !self.ask(Request::Barrier(done)) {
            return Barrier::Dead;
        }
        match wait.recv_timeout(at_most) {
            Ok(()) => Barrier::Passed,
            Err(mpsc::RecvTimeoutError::Timeout) => Barrier::Late,
            Err(mpsc::RecvTimeoutError::Disconnected) => Barrier::Dead,
        }
    }

    /// The same before the end, for so long at most. After a false one nothing more is read: what still waits is for the next
    /// process, or lost.
    pub fn sync_or_give_up(&self, at_most: Duration) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        let caught_up = self.ask(Request::Sync(done)) && wait.recv_timeout(at_most).is_ok();
        self.gives_up.store(!caught_up, Relaxed);
        caught_up
    }

    /// Ends the thread, and waits for that so long at most: it may wait for a file server. False: it ends with the process.
    pub fn end_within(mut self, at_most: Duration) -> bool {
        self.ask(Request::Stop);
        let Some(thread) = self.thread.take() else {
            return true;
        };
        let began = Instant::now();
        while !thread.is_finished() {
            if began.elapsed() >= at_most {
                return false;
            }
            std::thread::sleep(LOOKED_EVERY);
        }
        thread.join().is_ok()
    }

    fn ask(&self, request: Request) -> bool {
        let sent = self.requests.send(request).is_ok();
        self.asked.store(true, Relaxed);
        // The counter cannot overflow before it is read: a failed write means that the thread is awake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
    }
}

/// A collector, until it is ended.
#[derive(Debug)]
pub struct Running(RwLock<Option<Collector>>);

impl Running {
    /// From now on.
    pub fn new(collector: Collector) -> Self {
        Self(RwLock::new(Some(collector)))
    }

    /// See [`Collector::barrier`]. One that has ended is dead.
    pub fn barrier(&self, at_most: Duration) -> Barrier {
        let collector = self.0.read();
        let passed = collector.as_ref().map(|c| c.barrier(at_most));
        passed.unwrap_or(Barrier::Dead)
    }

    /// The collector; dropping it reads what came meanwhile.
    pub fn take(&self) -> Option<Collector> {
        self.0.write().take()
    }
}

impl Reading for Running {
    fn sync_while(&self, goes_on: &dyn Fn() -> bool) -> bool {
        self.0.read().as_ref().is_some_and(|c| c.sync_while(goes_on))
    }

    fn sync_within(&self, at_most: Duration) -> bool {
        self.0.read().as_ref().is_some_and(|c| c.sync_within(at_most))
    }

    fn sync_or_give_up(&self, at_most: Duration) -> bool {
        self.0.read().as_ref().is_none_or(|c| c.sync_or_give_up(at_most))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.ask(Request::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What decides on an access besides the index.
#[derive(Debug)]
pub struct Judges {
    /// Whose reads do not count.
    pub accessors: Accessors,
    /// What is used again and again, where its further uses can be hidden.
    pub windows: Option<Arc<Windows>>,
}

/// The thread's state.
struct Reader<F> {
    judges: Judges,
    /// The agent ends, and cannot wait until all is read.
    gives_up: Arc<AtomicBool>,
    /// A request waits.
    asked: Arc<AtomicBool>,
    feed: Arc<F>,
    namespace: Namespace,
    watched: Arc<Watched>,
    suspects: FxHashMap<Inode, Suspect>,
    /// Whose metadata changed, and by which process.
    changers: Changers,
    suspicion: Suspicion,
    progress: Progress,
    backlog: Backlog,
    spare: Spare,
    /// Events read so far.
    read_total: u64,
    /// The last pass has filled its buffer: more waits.
    is_full: bool,
    /// The last pass has found nothing, or could not look.
    is_empty: bool,
    /// Since when names have been let go of which nothing was told yet.
    names_lost: Option<Seconds>,
    /// A settlement on its way.
    settlement: Option<Settlement>,
    /// Who waits until names are looked at and all is settled.
    waiting: Vec<Waiting>,
    /// Files whose clocks a pass has moved: for the journal.
    used: Vec<Inode>,
    /// This process.
    own: By,
    /// Events are read into this: what a killed process had not recorded yet is found here by the next one. None while
    /// it is worked on.
    buffer: Option<SharedBuffer>,
}

/// A caller that waits until what was queued is read, looked at and settled.
struct Waiting {
    until: Until,
    done: mpsc::SyncSender<()>,
}

/// What a caller waits for next.
enum Until {
    /// This number of events has been read, or none is left.
    Read(u64),
    /// See [`super::pending::Pending::mark`].
    LookedAt(u64),
}

impl<F: Feed> Reader<F> {
    /// Reads one buffer of events. Returns how many that were.
    fn pass(&mut self) -> Result<u64, CollectError> {
        self.watched.counters.pulse.beat();
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(0);
        };
        // Without the volume accesses are recorded, but no name can be looked at: that is told as long as it lasts, is a
        // gap, and is followed by a scan.
        let there = self.watched.open_root();
        let there = there.map_err(CollectError::kernel("open the volume"));
        let bytes = buffer.bytes();
        let bytes = bytes.get_mut(..self.feed.bytes_at_once()).unwrap_or(&mut []);
        let began = clock::now();
        self.progress.about_to_read(began, || self.feed.queued());
        let too_many = self.too_many();
        let names_again = self.spare_names();
        if let Some(queued) = too_many {
            let let_go = self.let_go(bytes, queued);
            self.buffer = Some(buffer);
            self.progress.failed();
            return Err(let_go.err().unwrap_or(CollectError::Backlog(queued)));
        }
        let read = self.feed.read(bytes).map_err(CollectError::kernel("read events"));
        self.is_full = read.as_ref().is_ok_and(|n| *n > bytes.len() / 2);
        self.is_empty = read.as_ref().map_or(true, |n| *n == 0);
        let applied = read.and_then(|n| {
            let events = bytes.get_mut(..n).unwrap_or(&mut []);
            let names = there.map(drop);
            let notes = names.is_ok() && self.spare.follows_names();
            let applied = self.apply(events, Processes::Known, notes);
            // They are in the journal now.
            events.fill(0);
            // Lost events are the worst that can be told.
            applied.and_then(|count| names.and(names_again).map(|()| count))
        });
        self.buffer = Some(buffer);
        match &applied {
            Ok(count) => self.note_progress(began, *count),
            Err(_) => self.progress.failed(),
        }
        applied
    }

    fn note_progress(&mut self, began: Seconds, count: u64) {
        if let Some(until) = self.progress.recorded(began, count) {
            self.watched.recorder().seen(until);
        }
    }

    /// A process that was killed may have read accesses and not recorded them.
    fn take_what_was_left(&mut self) -> Result<(), CollectError> {
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(());
        };
        let left = self.feed.whole_events(buffer.bytes()).len();
        let left = buffer.bytes().get(..left).unwrap_or(&[]);
        // A scan looks at the names.
        let applied = self.apply(left, Processes::Ended, false);
        buffer.bytes().fill(0);
        self.buffer = Some(buffer);
        applied.map(drop)
    }

    /// Reads this number of events and drops them, as they have waited for longer than it takes to read them:
    /// what they told is lost, and the kernel has its memory back.
    fn let_go(&mut self, bytes: &mut [u8], queued: u64) -> Result<(), CollectError> {
        let mut read = 0;
        while read < queued && !self.gives_up.load(Relaxed) {
            self.watched.counters.pulse.beat();
            let n = self.feed.read(bytes);
            let n = n.map_err(CollectError::kernel("read events"))?;
            let events = bytes.get(..n).unwrap_or(&[]);
            let events = self.feed.events(events, Processes::Known);
            // Each closes the descriptor of its process.
            events.map_while(Result::ok).for_each(|_| read += 1);
            bytes.get_mut(..n).unwrap_or(&mut []).fill(0);
            if n == 0 {
                break;
            }
        }
        // Changes of metadata were among them.
        self.changers.note_unknown();
        self.read_total = self.read_total.wrapping_add(read);
        self.watched.recorder().lost(read, clock::now(), Loss::Backlog);
        Ok(())
    }

    /// Records the accesses among these events, and notes the names if they can be looked at. What the agent itself changes, it tells the
    /// index itself.
    fn apply(&mut self, bytes: &[u8], processes: Processes, notes: bool) -> Result<u64, CollectError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let now = clock::now();
        let (watched, feed) = (Arc::clone(&self.watched), Arc::clone(&self.feed));
        let mut used = std::mem::take(&mut self.used);
        let (mut count, mut own, mut result) = (0, 0, Ok(()));
        watched.recorder().batch(&mut used, |batch| {
            // No event that still waits is older than the end of a read that did not fill its buffer.
            let emptied = processes == Processes::Known && !self.is_full;
            self.judges.accessors.begin(emptied);
            for event in feed.events(bytes, processes) {
                match event {
                    Ok(event) => {
                        count += 1;
                        own += u64::from(event.by == self.own && !event.is_loss);
                        if event.is_loss {
                            batch.lost(now);
                            result = Err(CollectError::Overflow);
                        } else {
                            self.take(batch, event, now, notes);
                        }
                    }
                    Err(error) => {
                        if error.leaves_unknown() == Unknown::Uses {
                            batch.lost(now);
                        }
                        if result.is_ok() {
                            result = Err(error);
                        }
                    }
                }
            }
        });
        self.used = used;
        self.read_total = self.read_total.wrapping_add(count);
        watched
            .counters
            .events
            .fetch_add(count.saturating_sub(own), Relaxed);
        watched.counters.own.fetch_add(own, Relaxed);
        result.map(|()| count)
    }

    /// Takes one event.
    #[inline]
    fn take(&mut self, batch: &mut Batch<'_>, event: Event<'_>, now: Seconds, notes: bool) {
        let Event {
            by, process, change, ..
        } = event;
        // What the agent itself does is no use, and it tells the index itself of what it changes.
        if by == self.own {
            return self.note_own(change.filter(|_| notes));
        }
        // One that does something for many is not the same twice.
        let by = match self.watched.is_used_for_others {
            true => By::UNKNOWN,
            false => by,
        };
        if let Some(change) = &change
            && let Some(node) = change.of
            && (self.feed.tells_who() || change.is_of_others())
        {
            self.watched.altered.note(node.ino);
        }
        if let Some(change) = &change {
            self.use_on_arrival(batch, change, by, now);
        }
        match change {
            Some(change) if notes => self.note_name(&change, by),
            Some(_) => self.changers.note_unknown(),
            None => {}
        }
        let Some((what, used)) = event.access else {
            return;
        };
        // The agent opens what it is about to take. A user's open is followed by a close, which comes before the agent can have the lease.
        if !self.feed.tells_who() && what.only(Acts::OPEN) && self.watched.altered.is_followed(used.ino) {
            return;
        }
        // Also what is not a use, or not known yet: a running scan may have read it before.
        if what.any(Acts::WRITE | Acts::CLOSE_WRITER) && !self.namespace.mark_written(used) {
            self.names_lost.get_or_insert_with(clock::now);
        }
        if self.judges.accessors.ignores(what, by, process) {
            self.watched.counters.ignored.fetch_add(1, Relaxed);
            return;
        }
        let access = Access {
            inode: used.ino,
            at: now,
            by,
            what,
        };
        self.record(batch, access, used);
    }

    /// A file that comes from a directory of which nothing is told may have been used there.
    fn use_on_arrival(&self, batch: &mut Batch<'_>, change: &Change<'_>, by: By, at: Seconds) {
        let Some(tree) = &self.watched.tree else { return };
        let from_unwatched = change.old.is_none_or(|old| !tree.is_watched(old.dir.ino));
        if let (Some(node), true) = (change.of, change.new.is_some() && from_unwatched) {
            batch.record(Access {
                inode: node.ino,
                at,
                by,
                what: Acts::HELD,
            });
        }
    }

    /// Records a use, and notes what may have to be said of it later.
    #[inline]
    fn record(&mut self, batch: &mut Batch<'_>, access: Access, used: Used) {
        let Some(before) = batch.record(access) else {
            return;
        };
        let pid = access.by.number();
        if access.what.any(Acts::READ) && self.suspicion.read(pid, used.ino) {
            let owner = |ino| batch.owner(ino);
            self.suspicion.judge(&self.watched.touched, pid, owner);
        }
        if let Some(windows) = &self.judges.windows {
            windows.note(access, used.handle, before);
        }
        if is_proof(access.what) {
            self.suspects.remove(&used.ino);
        } else if let Some(handle) = used.handle {
            // Elsewhere no change of metadata is told, by which it might turn out to be no use.
            self.suspect(access, handle, before);
        }
    }

    /// Who changes the metadata of files decides what their opens were.
    fn note_changer(&mut self, change: &Change<'_>, by: By) {
        let Some(Node { ino, .. }) = change.of else { return };
        if change.kinds.any(Changes::METADATA) {
            self.changers.note(ino, by);
        }
        if change.kinds.any(Changes::MOVED) {
            self.changers.note_rename(ino);
        }
    }

    /// What another process removed is deleted by this one, if it was the last to have it open: where reports say which file a name is of, that
    /// was told before.
    fn note_own(&mut self, change: Option<Change<'_>>) {
        let deleted = change.filter(|change| change.kinds.any(Changes::DELETED));
        if let Some(change) = deleted.filter(|_| self.namespace.doubts().is_some())
            && !self.namespace.note(&change)
        {
            self.names_lost.get_or_insert_with(clock::now);
        }
    }

    fn note_name(&mut self, change: &Change<'_>, by: By) {
        self.note_changer(change, by);
        if !self.namespace.note(change) {
            self.names_lost.get_or_insert_with(clock::now);
        }
    }
}
