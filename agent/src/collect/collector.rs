//! The thread that reads the kernel's queue.
//!
//! One pass reads a buffer of events, then applies first the names in it and then the accesses: a file's creation is
//! queued before its first access, so by the time the access is applied the file is known, or it lies outside the volume
//! and is dropped with one look-up.

mod armed;
mod settling;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags};

pub use self::armed::Armed;
use super::Watched;
use super::accessors::Accessors;
use super::doubt::{Suspect, is_proof};
use super::fanotify::decode::{Event, decode_events, whole_events};
use super::fanotify::layout::Layout;
use super::namespace::Namespace;
use super::precision::Windows;
use super::progress::Progress;
use super::touched::Suspicion;
use crate::index::StoreError;
use crate::model::{Inode, Seconds, Source};
use crate::sys::descriptor;
use crate::sys::fanotify::{ACCESS_EVENTS, NAMESPACE_EVENTS, mask};
use crate::sys::shared::SharedBuffer;

/// One `read(2)` takes at most this much: some 2,500 events.
const BUFFER_BYTES: usize = 256 << 10;
/// With descriptors of processes: some 300 events, and as many descriptors open at a time.
const BUFFER_BYTES_WITH_PROCESSES: usize = 32 << 10;
/// How often suspects are settled and changed attributes are read again.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Events gather for this long before they are read.
const GATHER: Duration = Duration::from_millis(4);

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
}

impl Collector {
    /// Starts the thread. Accesses go through the file `buffer`, which outlives a killed process. `on_error` is told of every error; the thread goes on after it where it can.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        armed: Armed,
        layout: Layout,
        watched: Arc<Watched>,
        judges: Judges,
        buffer: &std::path::Path,
        on_error: impl Fn(CollectError) + Send + 'static,
    ) -> Result<Self, CollectError> {
        let kernel = |doing| move |source| CollectError::Kernel { doing, source };
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(io::Error::from).map_err(kernel("make an eventfd"))?);
        let (requests, inbox) = mpsc::channel();
        let buffer = SharedBuffer::of_file(buffer, BUFFER_BYTES).or_else(|error| {
            tracing::warn!(%error, "the buffer of accesses cannot be kept in a file: what is in it is lost if the agent is killed");
            SharedBuffer::private(BUFFER_BYTES)
        });
        let buffer = buffer.map_err(kernel("make a buffer"))?;
        let gives_up = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            gives_up: Arc::clone(&gives_up),
            armed,
            layout,
            namespace: Namespace::new(layout),
            watched,
            suspects: FxHashMap::default(),
            attrib_seen: FxHashMap::default(),
            suspicion: Suspicion::default(),
            progress: Progress::default(),
            used: Vec::new(),
            own_pid: std::process::id().cast_signed(),
            read_at_once: match judges.accessors.is_empty() {
                true => BUFFER_BYTES,
                false => BUFFER_BYTES_WITH_PROCESSES,
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
        })
    }

    /// Waits until every access that was made before this call is in the index, and what can be settled is. False if the collector is
    /// dead.
    pub fn sync(&self) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.ask(Request::Sync(done)) && wait.recv().is_ok()
    }

    /// The same without settling anything: what may turn out to be no use is one, and attributes may be older than the files.
    pub fn barrier(&self) -> bool {
        let (done, wait) = mpsc::sync_channel(1);
        self.ask(Request::Barrier(done)) && wait.recv().is_ok()
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

/// Waits until one of `fds` is ready. An interrupted wait is a short wait.
fn poll(fds: &mut [PollFd<'_>], at_most: Duration) {
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(1),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(fds, Some(&timeout));
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
    armed: Armed,
    layout: Layout,
    namespace: Namespace,
    watched: Arc<Watched>,
    suspects: FxHashMap<Inode, Suspect>,
    /// Whose metadata changed, and by which process.
    attrib_seen: FxHashMap<Inode, i32>,
    suspicion: Suspicion,
    progress: Progress,
    /// Files whose clocks a pass has moved: for the journal.
    used: Vec<Inode>,
    own_pid: i32,
    /// Events are read into this: what a killed process had not recorded yet is found here by the next one. None while
    /// it is worked on.
    buffer: Option<SharedBuffer>,
    /// So much of it is used.
    read_at_once: usize,
}

impl Reader {
    fn run(mut self, inbox: &mpsc::Receiver<Request>, wake: &OwnedFd, on_error: impl Fn(CollectError)) {
        let mut settled = Instant::now();
        if let Err(e) = self.take_what_was_left() {
            on_error(e);
        }
        loop {
            let left = SETTLE_EVERY.saturating_sub(settled.elapsed());
            self.wait(wake, left);
            if let Err(e) = self.pass() {
                on_error(e);
            }
            let mut stop = false;
            while let Ok(request) = inbox.try_recv() {
                let settles = !matches!(request, Request::Barrier(_));
                let caught_up = self.catch_up();
                if let Err(e) = caught_up.and_then(|()| if settles { self.settle(false) } else { Ok(()) }) {
                    on_error(e);
                }
                match request {
                    // Whoever waits hears that this was not done.
                    Request::Sync(_) | Request::Barrier(_) if self.gives_up.load(Relaxed) => {}
                    Request::Sync(done) | Request::Barrier(done) => drop(done.send(())),
                    Request::Stop => stop = true,
                }
            }
            if stop {
                return;
            }
            if settled.elapsed() >= SETTLE_EVERY {
                settled = Instant::now();
                self.suspicion.tick();
                if let Err(e) = self.settle(true) {
                    on_error(e);
                }
            }
        }
    }

    /// Waits for events, but lets them gather for a moment first: whoever makes an event must not pay for waking
    /// this thread each time. A request ends either wait at once.
    fn wait(&self, wake: &OwnedFd, at_most: Duration) {
        let mut asked = [PollFd::new(wake, PollFlags::IN)];
        poll(&mut asked, GATHER.min(at_most));
        if asked.iter().all(|fd| fd.revents().is_empty()) {
            let mut all = [
                PollFd::new(&self.armed.queue, PollFlags::IN),
                PollFd::new(wake, PollFlags::IN),
            ];
            poll(&mut all, at_most.saturating_sub(GATHER));
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(wake, &mut count);
    }

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
        let began = Seconds::now();
        let queue = &self.armed.queue;
        self.progress.about_to_read(began, || queue.queued());
        let read = self.armed.queue.read(bytes).map_err(kernel("read events"));
        let applied = read.and_then(|n| {
            let events = bytes.get_mut(..n).unwrap_or(&mut []);
            let names = there.and_then(|_| self.apply_names(events));
            let applied = self.apply_accesses(events, Process::Known);
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
        let applied = self.apply_accesses(left, Process::Gone);
        buffer.bytes().fill(0);
        self.buffer = Some(buffer);
        applied.map(drop)
    }

    /// Every event is taken, also after one that could not be: the first error is told.
    fn apply_names(&mut self, bytes: &[u8]) -> Result<(), CollectError> {
        // What cannot be decoded is told with the accesses. What the agent itself changes, it tells the index itself.
        let own = self.own_pid;
        let names = |event: &Event<'_>| event.mask & NAMESPACE_EVENTS != 0 && event.pid != own;
        let mut events = decode_events(bytes)
            .map_while(Result::ok)
            .filter(names)
            .peekable();
        if events.peek().is_none() {
            return Ok(());
        }
        // Only now: that the agent opens the volume is an event as well, and would wake it again.
        let kernel = |source| CollectError::Kernel {
            doing: "open the volume",
            source,
        };
        let root = self.watched.open_mount().map_err(kernel)?;
        events
            .map(|event| self.apply_name(&root, &event))
            .fold(Ok(()), Result::and)
    }

    fn apply_name(&mut self, root: &OwnedFd, event: &Event<'_>) -> Result<(), CollectError> {
        if event.mask & mask::ATTRIB != 0
            && let Some(ino) = event.file.and_then(|h| self.layout.inode(&h))
        {
            self.attrib_seen.insert(ino, event.pid);
        }
        Ok(self.namespace.apply(&self.watched, root, event)?)
    }

    fn apply_accesses(&mut self, bytes: &[u8], processes: Process) -> Result<u64, CollectError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let now = Seconds::now();
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
                watched.journal.gap(now, "overflow");
                result = Err(CollectError::Overflow);
                continue;
            }
            // Whoever looks into a directory uses no file.
            if event.mask & ACCESS_EVENTS == 0 || event.mask & mask::ONDIR != 0 || event.pid == self.own_pid {
                continue;
            }
            let Some((ino, handle)) = event.file.and_then(|h| Some((self.layout.inode(&h)?, h))) else {
                continue;
            };
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
            let is_news = before.map_or(unknown_may_be_found, |b| {
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
            if events & (mask::MODIFY | mask::CLOSE_WRITE) != 0 {
                self.namespace.mark_dirty(ino, handle);
            }
        }
        drop(uses);
        drop(index);
        watched.journal.uses(now, &self.used);
        watched.counters.events.fetch_add(count, Relaxed);
        watched.counters.folded.fetch_add(folded, Relaxed);
        result.map(|()| count)
    }

    /// Everything that is queued now reaches the index.
    fn catch_up(&mut self) -> Result<(), CollectError> {
        // New events merge into queued ones or come after them, so having read as many as were there, none of those is
        // left.
        let began = Seconds::now();
        let queued = self.armed.queue.queued();
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
