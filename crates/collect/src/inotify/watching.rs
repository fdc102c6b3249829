//! The source: watches, made again at each start; then with a thread that records.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags};

use super::decode::{Record, records};
use super::events::{Trees, Watches, is_one_move};
use crate::Watched;
use crate::accessors::Accessors;
use crate::blindness;
use crate::collector::{BUFFER_BYTES, CollectError, Collector, Feed, Judges, Processes, Running};
use crate::event::Event;
use crate::fanotify::Wish;
use crate::precision::{Windows, correct_what_another_hid};
use crate::source::{
    self, Barrier, Certainty, Kind, Mode, Profile, Reading, Reads, Since, Source, Watching, Who,
};
use crate::tree::{Mark, Tree};
use purge_base::clock;
use purge_base::handover::{self, Handover};
use purge_model::Seconds;
use purge_sys::fanotify::{Feature, Features};
use purge_sys::shared::SharedBuffer;
use purge_sys::{beneath, stat};

/// The shortest record.
const RECORD_BYTES_MIN: u64 = 16;

/// Told of what is done in the root, and from then on in each directory that is met.
#[derive(Debug)]
pub(crate) struct Armed {
    wish: Wish,
    watches: Arc<Watches>,
    tree: Arc<Tree>,
    since: Since,
    key: String,
    buffer: Option<SharedBuffer>,
}

impl Armed {
    /// Watches the root. When this is dropped, nothing is left of it.
    ///
    /// # Errors
    /// Where inotify cannot be had, or the limits of this host are reached.
    pub fn arm(wish: Wish) -> Result<Self, CollectError> {
        let kernel = CollectError::kernel("watch it with inotify");
        let allowed = Features::allowed().map_err(|e| kernel(io::Error::other(e)))?;
        if !allowed.has(Feature::Inotify) {
            return Err(kernel(io::ErrorKind::Unsupported.into()));
        }
        if !wish.ignored.is_empty() {
            let words =
                "ignore_accessors has no effect with inotify, which does not say which process uses a file";
            return Err(kernel(io::Error::other(words)));
        }
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        let watches = Arc::new(Watches::new(fd.map_err(&kernel)?, Arc::default()));
        let places = (Arc::clone(&watches.places), true);
        let tree = Arc::new(Tree::new(Box::new(Trees(Arc::clone(&watches))), places, []));
        watch_root(&wish, &tree).map_err(&kernel)?;
        let since = Since {
            at: clock::now(),
            nothing_missed: false,
        };
        Ok(Self {
            wish,
            watches,
            tree,
            since,
            key: String::new(),
            buffer: None,
        })
    }

    /// The same, with memory into which events are read.
    ///
    /// # Errors
    /// As for [`Armed::arm`], and ENOMEM.
    pub fn arm_beside(
        wish: Wish,
        volume: &str,
        beside: &Path,
        handover: &mut Handover,
    ) -> Result<Self, CollectError> {
        let mut armed = Self::arm(wish)?;
        let watched = armed.tree.watch_all(&armed.wish.ground());
        let directories = watched.map_err(CollectError::kernel("watch its directories"))?;
        tracing::info!(volume, directories, "directories are watched one by one");
        armed.since.at = clock::now();
        armed.key = format!("{volume}.inotify");
        let buffer = handover::memory(
            handover,
            &armed.key,
            &beside.join("accesses.inotify"),
            BUFFER_BYTES,
        );
        armed.buffer = Some(buffer.map_err(CollectError::kernel("make a buffer"))?);
        Ok(armed)
    }
}

/// The mark of [`Tree::watch_all`], or of a scan, is the first that counts.
fn watch_root(wish: &Wish, tree: &Tree) -> io::Result<()> {
    let root = beneath::open_dir(beneath::open_root(&wish.root)?, b".")?;
    let ino = stat::open_file(&root)?.stat.ino;
    let mark = tree.watch_dir(ino, root.as_fd());
    tree.forget(ino);
    match mark {
        Mark::Refused => Err(io::Error::other(
            "the root cannot be watched: see fs.inotify.max_user_watches and the log",
        )),
        Mark::Fresh | Mark::Kept => Ok(()),
    }
}

fn profile(wish: &Wish) -> Profile {
    Profile {
        kind: Kind::Inotify,
        mode: Mode::Watches,
        // It needs none of them.
        features: Features::ALL,
        knows_names: true,
        knows_who: Who::Unknown,
        certainty: Certainty::Exact,
        hides: false,
        outlives: false,
        reads: Reads::Seen,
        blind: blindness::of_directories(wish.is_shared, true),
    }
}

impl source::Armed for Armed {
    fn profile(&self) -> Profile {
        profile(&self.wish)
    }

    fn since(&self) -> Since {
        self.since
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        Some(Arc::clone(&self.tree))
    }

    fn run(
        self: Box<Self>,
        watched: &Arc<Watched>,
        window_end: Seconds,
        on_error: Box<dyn Fn(CollectError) + Send>,
    ) -> Result<Box<dyn Watching>, CollectError> {
        correct_what_another_hid(watched, window_end);
        let judges = Judges {
            accessors: Accessors::without_descriptors(Vec::new()),
            windows: None,
        };
        let without = || CollectError::kernel("make a buffer")(io::ErrorKind::NotFound.into());
        let buffer = self.buffer.ok_or_else(without)?;
        let queue = Queue(Arc::clone(&self.watches));
        let collector = Collector::start(queue, Arc::clone(watched), judges, buffer, on_error)?;
        Ok(Box::new(Inotify {
            wish: self.wish,
            key: self.key,
            watches: self.watches,
            tree: self.tree,
            collector: Running::new(collector),
        }))
    }
}

/// The queue, as the collector's thread reads it.
#[derive(Debug)]
struct Queue(Arc<Watches>);

fn queued(watches: &Watches) -> u64 {
    let bytes = rustix::io::ioctl_fionread(&watches.fd);
    bytes.map_or(u64::MAX, |bytes| bytes.div_ceil(RECORD_BYTES_MIN))
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Feed for Queue {
    fn queued(&self) -> u64 {
        queued(&self.0)
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.0.fd, &mut *into) {
                Ok(n) => return Ok(n),
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    // Each watch would have to be changed.
    fn leave_names_out(&self, _: &OwnedFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn report_names(&self, _: &OwnedFd) -> io::Result<()> {
        Ok(())
    }

    // By the name at which it was seen last.
    fn tells_whose_names(&self) -> bool {
        true
    }

    fn tells_who(&self) -> bool {
        false
    }

    fn bytes_at_once(&self) -> usize {
        BUFFER_BYTES
    }

    fn events<'a>(
        &self,
        bytes: &'a [u8],
        _: Processes,
    ) -> impl Iterator<Item = Result<Event<'a>, CollectError>> + use<'a> {
        let watches = Arc::clone(&self.0);
        let mut records = records(bytes).peekable();
        std::iter::from_fn(move || {
            let record: Record<'a> = match records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(CollectError::Decode(error.to_string()))),
            };
            let to = records.next_if(|next| next.as_ref().is_ok_and(|next| is_one_move(&record, next)));
            Some(Ok(watches.event(record, to.and_then(Result::ok))))
        })
    }

    // The watches end with the process that made them: the time until the next one is a gap.
    fn whole_events<'a>(&self, _: &'a [u8]) -> &'a [u8] {
        &[]
    }
}

/// The source while it watches.
#[derive(Debug)]
struct Inotify {
    wish: Wish,
    key: String,
    watches: Arc<Watches>,
    tree: Arc<Tree>,
    collector: Running,
}

impl Source for Inotify {
    fn profile(&self) -> Profile {
        profile(&self.wish)
    }

    fn queued(&self) -> u64 {
        queued(&self.watches)
    }

    fn barrier(&self, at_most: Duration) -> Barrier {
        self.collector.barrier(at_most)
    }
}

impl Watching for Inotify {
    fn reading(&self) -> Option<&dyn Reading> {
        Some(&self.collector)
    }

    fn end(&self) {
        // Dropping it reads what came meanwhile.
        self.collector.take();
    }

    fn release(&self) {
        handover::release(&self.key);
    }

    fn is_watching(&self) -> io::Result<bool> {
        Ok(!self.watches.is_empty())
    }

    fn watch_again(&self) -> io::Result<()> {
        self.tree.forget_all();
        watch_root(&self.wish, &self.tree)
    }

    fn windows(&self) -> Option<&Windows> {
        None
    }

    fn hide_own(&self, dir: BorrowedFd<'_>) {
        // Uses of what lies there are to be told.
        let told = stat::open_file(dir).and_then(|found| self.watches.mark_uses(found.stat.ino, dir));
        if let Err(error) = told {
            tracing::debug!(%error, "a directory of the trash");
        }
    }

    fn hide_mount(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
