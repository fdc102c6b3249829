//! The thread that reads the kernel's queue.
//!
//! One pass reads a buffer of events, notes the names in it and records the accesses. To look at what the names mean takes a hundred times as
//! long as reading them, so that is done between the passes, some milliseconds at a time, and so is the settlement: whoever fills the
//! queue is kept up with, and a barrier waits for no look.
//!
//! - `armed`     a group of the kernel's that is marked
//! - `backlog`   when more waits than is read (pure)
//! - `rounds`    what the thread does when
//! - `settling`  what an event alone cannot decide

mod armed;
mod backlog;
mod rounds;
mod settling;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustc_hash::FxHashMap;
use rustix::event::EventfdFlags;

pub use self::armed::{Armed, BUFFER_BYTES, buffer};
use self::backlog::Backlog;
use self::settling::Settlement;
use super::Watched;
use super::accessors::Accessors;
use super::doubt::{Suspect, is_proof};
use super::fanotify::decode::{Event, decode_events, whole_events};
use super::fanotify::layout::Layout;
use super::namespace::Namespace;
use super::precision::Windows;
use super::progress::Progress;
use super::touched::Suspicion;
use purge_base::clock;
use purge_base::descriptors;
use purge_index::StoreError;
use purge_model::{Inode, Seconds, Source};
use purge_sys::descriptor;
use purge_sys::fanotify::{ACCESS_EVENTS, NAMESPACE_EVENTS, mask};
use purge_sys::shared::SharedBuffer;

/// Whether it is worth waiting for the thread is asked so often.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// With descriptors of processes at most this much: some 300 events, and as many descriptors open at a time.
const BUFFER_BYTES_WITH_PROCESSES: usize = 32 << 10;
/// An event with two of the longest names needs less than half of this.
const BUFFER_BYTES_MIN: usize = 2 << 10;
/// No event that carries a name and a process is shorter.
const EVENT_BYTES_MIN: usize = 64;
/// Inodes of which it is remembered at most that their metadata changed. Those beyond count as used.
const ATTRIB_SEEN_MAX: usize = 1 << 17;

/// The bytes of one read that brings this number of descriptors of processes at most.
fn bytes_with_processes(descriptors: usize) -> usize {
    descriptors
        .saturating_mul(EVENT_BYTES_MIN)
        .clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_WITH_PROCESSES)
}

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

/// Why a collector cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The kernel does not give what is needed.
    #[error("cannot {doing}: {source}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The index cannot take the events.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel dropped events, so accesses may be unknown.
    #[error("the kernel's event queue overflowed")]
    Overflow,
    /// More events waited than may lie in the kernel's memory: they were let go.
    #[error("{0} events waited, more than can be read in time, and were let go")]
    Backlog(u64),
    /// More names changed than can be followed. No use is lost by that, but where files lie.
    #[error("more names changed than can be followed; a scan looks where everything is")]
    Names {
        /// Since when.
        since: Seconds,
    },
    /// What the kernel writes cannot be read.
    #[error(transparent)]
    Decode(#[from] super::fanotify::decode::DecodeError),
}

/// The running collector. Dropping it ends the thread.
#[derive(Debug)]
pub struct Collector {
    requests: mpsc::Sender<Request>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    gives_up: Arc<AtomicBool>,
    /// Somebody asks: whatever else is done can wait.
    asked: Arc<AtomicBool>,
}

/// What came of a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// Everything that was queued before is in the index.
    Passed,
    /// Not in time.
    Late,
    /// The collector is dead.
    Dead,
}

impl Collector {
    /// Starts the thread. Accesses go through `buffer`, which outlives a killed process. `on_error` is told of every error; the thread goes on after it where it can.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        armed: Armed,
        layout: Layout,
        watched: Arc<Watched>,
        judges: Judges,
        buffer: SharedBuffer,
        on_error: impl Fn(CollectError) + Send + 'static,
    ) -> Result<Self, CollectError> {
        let kernel = |doing| move |source| CollectError::Kernel { doing, source };
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(io::Error::from).map_err(kernel("make an eventfd"))?);
        let (requests, inbox) = mpsc::channel();
        let gives_up = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            gives_up: Arc::clone(&gives_up),
            asked: Arc::clone(&asked),
            armed,
            layout,
            namespace: Namespace::new(layout),
            watched,
            suspects: FxHashMap::default(),
            attrib_seen: FxHashMap::default(),
            suspicion: Suspicion::default(),
            progress: Progress::default(),
            backlog: Backlog::default(),
            read_total: 0,
            is_full: false,
            is_empty: false,
            names_lost: None,
            settlement: None,
            waiting: Vec::new(),
            used: Vec::new(),
            own_pid: std::process::id().cast_signed(),
            read_at_once: match judges.accessors.is_empty() {
                true => BUFFER_BYTES,
                false => bytes_with_processes(descriptors::shares().events),
            },
            buffer: Some(buffer),
            judges,
        };
        let reader_wake = Arc::clone(&wake);
        let thread = std::thread::Builder::new()
            .name("collector".into())
            .spawn(move || reader.run(&inbox, &reader_wake, on_error))
            .map_err(kernel("start the collector's thread"))?;
        Ok(Self {
            requests,
            wake,
            thread: Some(thread),
            gives_up,
            asked,
        })
    }

    /// Waits until every access that was made before this call is in the index, and what can be settled is. False if the collector is
    /// dead.
    pub fn sync(&self) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.ask(Request::Sync(done)) && wait.recv().is_ok()
    }

    /// The same for as long as `goes_on` says, which is asked now and then. False: what was used last may be missing.
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

    fn ask(&self, request: Request) -> bool {
        let sent = self.requests.send(request).is_ok();
        self.asked.store(true, Relaxed);
        // The counter cannot overflow before it is read: a failed write means that the thread is awake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
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

/// What the descriptors of processes in event records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// Open in this process.
    Known,
    /// Those of a process that is no more: whoever it was, it counts as a user.
    Gone,
}

/// What decides on an access besides the index.
#[derive(Debug)]
pub struct Judges {
    /// Whose reads do not count.
    pub accessors: Accessors,
    /// What is used again and again.
    pub windows: Arc<Windows>,
}

/// The thread's state.
struct Reader {
    judges: Judges,
    /// The agent ends, and cannot wait until all is read.
    gives_up: Arc<AtomicBool>,
    /// Somebody asks.
    asked: Arc<AtomicBool>,
    armed: Armed,
    layout: Layout,
    namespace: Namespace,
    watched: Arc<Watched>,
    suspects: FxHashMap<Inode, Suspect>,
    /// Whose metadata changed, and by which process.
    attrib_seen: FxHashMap<Inode, i32>,
    suspicion: Suspicion,
    progress: Progress,
    backlog: Backlog,
    /// Events read so far.
    read_total: u64,
    /// The last pass has filled its buffer: more waits.
    is_full: bool,
    /// The last pass has found nothing, or could not look.
    is_empty: bool,
    /// Since when names have been let go that nobody was told of yet.
    names_lost: Option<Seconds>,
    /// A settlement on its way.
    settlement: Option<Settlement>,
    /// Who waits until names are looked at and all is settled.
    waiting: Vec<Waiting>,
    /// Files whose clocks a pass has moved: for the journal.
    used: Vec<Inode>,
    own_pid: i32,
    /// Events are read into this: what a killed process had not recorded yet is found here by the next one. None while
    /// it is worked on.
    buffer: Option<SharedBuffer>,
    /// So much of it is used.
    read_at_once: usize,
}

/// Somebody who waits until what was queued is read, looked at and settled.
struct Waiting {
    until: Until,
    done: mpsc::SyncSender<()>,
}

/// What somebody waits for next.
enum Until {
    /// So many events have been read, or none is left.
    Read(u64),
    /// See [`super::pending::Pending::mark`].
    LookedAt(u64),
}

impl Reader {
    /// Reads one buffer of events. Returns how many that were.
    fn pass(&mut self) -> Result<u64, CollectError> {
        self.watched.counters.pulse.beat();
        let kernel = |doing| move |source| CollectError::Kernel { doing, source };
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(0);
        };
        // Without the volume accesses are recorded, but no name can be looked at: that is told as long as it lasts, is a
        // gap, and is followed by a scan.
        let there = self.watched.open_root().map_err(kernel("open the volume"));
        let bytes = buffer.bytes();
        let bytes = bytes.get_mut(..self.read_at_once).unwrap_or(&mut []);
        let began = clock::now();
        let mut too_many = None;
        let (queue, backlog) = (&self.armed.queue, &mut self.backlog);
        self.progress.about_to_read(began, || {
            let queued = queue.queued();
            too_many = backlog.is_too_much(queued).then_some(queued);
            queued
        });
        if let Some(queued) = too_many {
            let let_go = self.let_go(bytes, queued);
            self.buffer = Some(buffer);
            self.progress.failed();
            return Err(let_go.err().unwrap_or(CollectError::Backlog(queued)));
        }
        let read = self.armed.queue.read(bytes).map_err(kernel("read events"));
        self.is_full = read.as_ref().is_ok_and(|n| *n > bytes.len() / 2);
        self.is_empty = read.as_ref().map_or(true, |n| *n == 0);
        let applied = read.and_then(|n| {
            let events = bytes.get_mut(..n).unwrap_or(&mut []);
            let names = there.map(drop);
            let applied = self.apply(events, Process::Known, names.is_ok());
            // They are in the journal now.
            events.fill(0);
            // Lost events are the worst that can be told.
            applied.and_then(|count| names.map(|()| count))
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
            self.watched.counters.seen_until.store(until.0, Relaxed);
            self.watched.journal.seen(until);
        }
    }

    /// A process that was killed may have read accesses and not recorded them.
    fn take_what_was_left(&mut self) -> Result<(), CollectError> {
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(());
        };
        let left = whole_events(buffer.bytes());
        // A scan looks at the names.
        let applied = self.apply(left, Process::Gone, false);
        buffer.bytes().fill(0);
        self.buffer = Some(buffer);
        applied.map(drop)
    }

    fn note_name(&mut self, event: &Event<'_>) {
        if event.mask & mask::ATTRIB != 0
            && let Some(ino) = event.file.and_then(|h| self.layout.inode(&h))
            && (self.attrib_seen.len() < ATTRIB_SEEN_MAX || self.attrib_seen.contains_key(&ino))
        {
            self.attrib_seen.insert(ino, event.pid);
        }
        if !self.namespace.note(event) {
            self.names_lost.get_or_insert_with(clock::now);
        }
    }

    /// So many events have been waiting for longer than it takes to read them: what they told is lost, and the kernel has its memory back.
    fn let_go(&mut self, bytes: &mut [u8], queued: u64) -> Result<(), CollectError> {
        let mut read = 0;
        while read < queued && !self.gives_up.load(Relaxed) {
            self.watched.counters.pulse.beat();
            let n = self.armed.queue.read(bytes);
            let n = n.map_err(|source| CollectError::Kernel {
                doing: "read events",
                source,
            })?;
            let events = bytes.get(..n).unwrap_or(&[]);
            for event in decode_events(events).map_while(Result::ok) {
                read += 1;
                drop(event.pidfd.and_then(descriptor::adopt));
            }
            bytes.get_mut(..n).unwrap_or(&mut []).fill(0);
            if n == 0 {
                break;
            }
        }
        self.read_total = self.read_total.wrapping_add(read);
        self.watched.counters.lost.fetch_add(read, Relaxed);
        self.watched.journal.gap(clock::now(), "backlog");
        Ok(())
    }

    /// Records the accesses among these events, and notes the names if they can be looked at. What the agent itself changes, it tells the
    /// index itself.
    fn apply(&mut self, bytes: &[u8], processes: Process, notes: bool) -> Result<u64, CollectError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let now = clock::now();
        let watched = Arc::clone(&self.watched);
        let mut index = watched.index.write();
        let (mut count, mut folded) = (0, 0);
        self.judges.accessors.forget();
        let mut result = Ok(());
        let unknown_may_be_found = index.remembers_unknown();
        self.used.clear();
        let mut uses = index.uses_in_haste();
        for event in decode_events(bytes) {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    result = result.and(Err(error.into()));
                    continue;
                }
            };
            count += 1;
            // Owned at once: it is closed whatever becomes of the event.
            let process = event.pidfd.filter(|_| processes == Process::Known);
            let process = process.and_then(descriptor::adopt);
            if event.mask & mask::OVERFLOW != 0 {
                watched.counters.lost.fetch_add(1, Relaxed);
                result = Err(CollectError::Overflow);
                continue;
            }
            if notes && event.mask & NAMESPACE_EVENTS != 0 && event.pid != self.own_pid {
                self.note_name(&event);
            }
            // Whoever looks into a directory uses no file.
            if event.mask & ACCESS_EVENTS == 0 || event.mask & mask::ONDIR != 0 || event.pid == self.own_pid {
                continue;
            }
            let Some((ino, handle)) = event.file.and_then(|h| Some((self.layout.inode(&h)?, h))) else {
                continue;
            };
            // Also what is not a use, or not known yet: a running scan may have read it before.
            if event.mask & (mask::MODIFY | mask::CLOSE_WRITE) != 0 && !self.namespace.mark_dirty(ino, handle)
            {
                self.names_lost.get_or_insert_with(clock::now);
            }
            if self
                .judges
                .accessors
                .ignores(event.mask & ACCESS_EVENTS, event.pid, process)
            {
                watched.counters.ignored.fetch_add(1, Relaxed);
                continue;
            }
            // Names may have been merged into it.
            let events = event.mask & ACCESS_EVENTS;
            let before = uses.record(ino, now);
            let was_trashed = before.is_none() && watched.trashed.note(ino);
            let is_news = before.map_or(unknown_may_be_found || was_trashed, |b| {
                b.at < now || (b.at == now && b.source != Source::Observed)
            });
            if is_news {
                self.used.push(ino);
            } else if before.is_some() {
                folded += 1;
            }
            let Some(before) = before else { continue };
            if events & mask::ACCESS != 0 && self.suspicion.read(event.pid, ino) {
                let owner = |ino| uses.get(ino).map(|(a, _)| a.uid);
                self.suspicion.judge(&watched.touched, event.pid, owner);
            }
            self.judges.windows.note(events, ino, handle, before, now);
            if is_proof(events) {
                self.suspects.remove(&ino);
            } else {
                self.suspect((events, event.pid), ino, handle, before, now);
            }
        }
        drop(uses);
        drop(index);
        // Nothing waits for the disk while the index is held.
        if matches!(result, Err(CollectError::Overflow)) {
            watched.journal.gap(now, "overflow");
        }
        watched.journal.uses(now, &self.used);
        self.read_total = self.read_total.wrapping_add(count);
        watched.counters.events.fetch_add(count, Relaxed);
        watched.counters.folded.fetch_add(folded, Relaxed);
        result.map(|()| count)
    }
}
