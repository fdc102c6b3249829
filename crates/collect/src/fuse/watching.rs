//! The source: what watches the file system behind the mount, with what the mount tells beside it.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::told::{self, Listener, Told};
use crate::Watched;
use crate::error::CollectError;
use crate::event::{Access, Acts, By};
use crate::precision::Windows;
use crate::recorder::Loss;
use crate::source::{self, Barrier, Blind, Kind, Profile, Reading, Since, Source, Watching, Who};
use crate::takeover::{OnError, tell};
use crate::tree::Tree;
use purge_base::clock;
use purge_model::{Inode, Seconds};

/// How often it is looked at what was told, where no run asks.
const LISTENED_EVERY: Duration = Duration::from_millis(200);

/// What a volume behind a mount is, where this watches what lies behind. The mount uses files for its users: who they are is not told there.
pub(crate) fn profile_over(behind: Profile) -> Profile {
    Profile {
        kind: Kind::Fuse,
        knows_who: Who::Unknown,
        blind: and_who(behind.blind),
        ..behind
    }
}

/// These, and [`Blind::Who`].
fn and_who(blind: &'static [Blind]) -> &'static [Blind] {
    /// As many as there are kinds of sources.
    static KNOWN: Mutex<Vec<&'static [Blind]>> = Mutex::new(Vec::new());
    if blind.contains(&Blind::Who) {
        return blind;
    }
    let all: Vec<Blind> = Blind::ALL
        .into_iter()
        .filter(|spot| blind.contains(spot) || *spot == Blind::Who)
        .collect();
    let mut known = KNOWN.lock();
    if let Some(same) = known.iter().find(|same| **same == all.as_slice()) {
        return same;
    }
    let kept: &'static [Blind] = Vec::leak(all);
    known.push(kept);
    kept
}

/// Told of every use from now on.
#[derive(Debug)]
pub(crate) struct Armed {
    behind: Box<dyn source::Armed>,
    listener: Listener,
}

impl Armed {
    /// `behind` watches what lies behind the mount; the mount tells in `beside`.
    ///
    /// # Errors
    /// When it cannot be read what the mount tells.
    pub fn over(behind: Box<dyn source::Armed>, beside: &Path) -> Result<Self, CollectError> {
        let listener = Listener::begin(&told::place(beside));
        let listener = listener.map_err(CollectError::kernel("read what the mount tells"))?;
        Ok(Self { behind, listener })
    }
}

impl source::Armed for Armed {
    fn profile(&self) -> Profile {
        profile_over(self.behind.profile())
    }

    fn since(&self) -> Since {
        self.behind.since()
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        self.behind.tree()
    }

    fn run(
        self: Box<Self>,
        watched: &Arc<Watched>,
        window_end: Seconds,
        on_error: Box<dyn Fn(CollectError) + Send>,
    ) -> Result<Box<dyn Watching>, CollectError> {
        let on_error: OnError = Arc::new(Mutex::new(on_error));
        let behind = self.behind.run(watched, window_end, tell(&on_error))?;
        let ear = Arc::new(Ear {
            watched: Arc::clone(watched),
            on_error,
            listening: Mutex::new(Listening {
                listener: self.listener,
                news: Vec::new(),
            }),
            ends: AtomicBool::new(false),
        });
        let listening = Arc::clone(&ear);
        let thread = std::thread::Builder::new()
            .name("told".into())
            .spawn(move || listening.listen_on())
            .map_err(CollectError::kernel("start a thread"))?;
        Ok(Box::new(Mounted {
            behind,
            ear,
            thread: Mutex::new(Some(thread)),
        }))
    }
}

/// Hears what the mount tells.
struct Ear {
    watched: Arc<Watched>,
    on_error: OnError,
    listening: Mutex<Listening>,
    ends: AtomicBool,
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ear")
            .field("listening", &self.listening)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Listening {
    listener: Listener,
    /// Working memory.
    news: Vec<Inode>,
}

impl Ear {
    /// Records everything that was told before this call. False: it is not all known.
    fn listen(&self) -> bool {
        let mut lost = false;
        let mut listening = self.listening.lock();
        let Listening { listener, news } = &mut *listening;
        let done = listener.listen(|told| lost |= self.record(told, news));
        drop(listening);
        if lost {
            self.on_error.lock()(CollectError::Overflow);
        }
        if let Err(error) = done {
            self.on_error.lock()(CollectError::kernel("read what the mount tells")(error));
            return false;
        }
        !lost
    }

    /// Whether something could not be told.
    fn record(&self, told: &[Told], news: &mut Vec<Inode>) -> bool {
        let at = clock::now();
        let mut lost = false;
        let recorder = self.watched.recorder();
        recorder.batch(news, |batch| {
            for told in told {
                match told {
                    Told::Use(inode) => {
                        batch.record(Access {
                            inode: *inode,
                            at,
                            by: By::UNKNOWN,
                            what: Acts::OPEN,
                        });
                    }
                    Told::Any => lost = true,
                }
            }
        });
        if lost {
            recorder.lost(1, at, Loss::Overflow);
        }
        lost
    }

    fn listen_on(&self) {
        while !self.ends.load(SeqCst) {
            self.listen();
            std::thread::park_timeout(LISTENED_EVERY);
        }
    }
}

/// The source while it watches.
#[derive(Debug)]
struct Mounted {
    behind: Box<dyn Watching>,
    ear: Arc<Ear>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Mounted {
    fn end_listening(&self) {
        self.ear.ends.store(true, SeqCst);
        if let Some(thread) = self.thread.lock().take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Source for Mounted {
    fn profile(&self) -> Profile {
        profile_over(self.behind.profile())
    }

    fn queued(&self) -> u64 {
        self.behind.queued()
    }

    fn barrier(&self, at_most: Duration) -> Barrier {
        match self.ear.listen() {
            true => self.behind.barrier(at_most),
            false => Barrier::Dead,
        }
    }
}

impl Watching for Mounted {
    fn reading(&self) -> Option<&dyn Reading> {
        self.behind.reading()
    }

    fn sync_while(&self, goes_on: &dyn Fn() -> bool) -> bool {
        self.ear.listen() && self.behind.sync_while(goes_on)
    }

    fn sync_within(&self, at_most: Duration) -> bool {
        self.ear.listen() && self.behind.sync_within(at_most)
    }

    fn sync_or_give_up(&self, at_most: Duration) -> bool {
        self.ear.listen() & self.behind.sync_or_give_up(at_most)
    }

    fn end(&self) {
        self.end_listening();
        self.behind.end();
    }

    fn release(&self) {
        self.behind.release();
    }

    fn is_watching(&self) -> io::Result<bool> {
        self.behind.is_watching()
    }

    fn watch_again(&self) -> io::Result<()> {
        self.behind.watch_again()
    }

    fn windows(&self) -> Option<&Windows> {
        self.behind.windows()
    }

    fn hide_own(&self, dir: BorrowedFd<'_>) {
        self.behind.hide_own(dir);
    }

    fn hide_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        self.behind.hide_mount(mount)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.end_listening();
    }
}
