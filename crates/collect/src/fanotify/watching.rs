//! The source: a group that is marked on the volume's file system, made or taken over; then with a thread that records.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::layout::Layout;
use super::queue::Queue;
use crate::Watched;
use crate::accessors::{Accessor, Accessors};
use crate::collector::{BUFFER_BYTES, CollectError, Collector, Judges};
use crate::precision::{Hiding, Windows, end_window_of_another};
use crate::source::{self, Barrier, Blind, Certainty, Kind, Mode, Profile, Reads, Since, Source, Watching};
use purge_base::clock;
use purge_base::handover::{self, Handover};
use purge_model::{Inode, Seconds};
use purge_sys::fanotify::{Feature, Features, Found, Group, Who, probe};
use purge_sys::handle::Handle;
use purge_sys::shared::SharedBuffer;

/// What is to be watched, and how.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The volume's root.
    pub root: PathBuf,
    /// Its inode.
    pub ino: Inode,
    /// The number of its kind of file system (`statfs(2)`), and its name.
    pub filesystem: (u64, String),
    /// Whose uses do not count.
    pub ignored: Vec<Accessor>,
    /// Length of a precision window in seconds.
    pub precision: u64,
}

impl Wish {
    /// How events name the process that caused them.
    fn who(&self, features: Features) -> Who {
        match self.ignored.is_empty() || !features.has(Feature::Pidfd) {
            true => Who::Pid,
            false => Who::Process,
        }
    }

    /// What the queue of a volume is called in systemd's keeping: another file system, or another kind of queue, has another name.
    fn key(&self, volume: &str, features: Features) -> String {
        let who = match self.who(features) {
            Who::Pid => "p",
            Who::Process => "fd",
        };
        match features.tells_whose_names() {
            true => format!("{volume}.{who}"),
            false => format!("{volume}.{who}.unnamed"),
        }
    }

    /// What there is, and how file handles are read.
    fn probe(&self) -> Result<(Found, Layout), CollectError> {
        let found = probe(&self.root).map_err(CollectError::kernel("watch it with fanotify"))?;
        let (magic, name) = &self.filesystem;
        let kernel = CollectError::kernel("get a file handle");
        let root = Handle::of_path(&self.root).map_err(&kernel)?;
        let unknown = || io::Error::other(format!("the agent does not know the file handles of {name}"));
        let layout = Layout::probe(*magic, &root, self.ino);
        let layout = layout.filter(|_| found.features.has(Feature::Handles));
        Ok((found, layout.ok_or_else(|| kernel(unknown()))?))
    }

    fn profile(&self, features: Features) -> Profile {
        Profile {
            kind: Kind::Fanotify,
            mode: Mode::FileSystem,
            features,
            knows_names: true,
            knows_who: match self.who(features) {
                Who::Pid if self.ignored.is_empty() => source::Who::Number,
                Who::Pid => source::Who::Lasting,
                Who::Process => source::Who::Process,
            },
            certainty: Certainty::Exact,
            hides: true,
            outlives: true,
            reads: Reads::Seen,
            blind: &[Blind::ClientCaches, Blind::Mappings, Blind::Images],
        }
    }
}

/// A marked group: from now on no access is lost.
#[derive(Debug)]
pub struct Armed {
    wish: Wish,
    group: Arc<Group>,
    layout: Layout,
    since: Since,
    /// What its queue and its memory are called in keeping.
    key: String,
    buffer: Option<SharedBuffer>,
}

impl Armed {
    /// Marks the file system. When this is dropped, nothing is left of it.
    ///
    /// # Errors
    /// See [`Group::on_filesystem`]; and where the file handles are of a kind that is not known.
    pub fn arm(wish: Wish) -> Result<Self, CollectError> {
        let (found, layout) = wish.probe()?;
        let group = mark(&wish, found)?;
        Ok(Self::with(wish, group, layout, false))
    }

    /// Takes over what an earlier process of this service left, if it still watches the file system: since then nothing was missed. Otherwise
    /// marks it. The queue is given into systemd's keeping, and events will be read into memory that outlives this process too: what a killed
    /// process had read and not recorded is found there ([`handover::memory`]). `volume` names both there; `beside` is where the memory is a
    /// file, without systemd.
    ///
    /// # Errors
    /// As for [`Armed::arm`], and ENOMEM.
    pub fn arm_or_take_over(
        wish: Wish,
        volume: &str,
        beside: &Path,
        handover: &mut Handover,
    ) -> Result<Self, CollectError> {
        let (found, layout) = wish.probe()?;
        let key = wish.key(volume, found.features);
        let left = handover.claim(&queue_name(&key));
        let left = left.and_then(|left| Group::left(left, &wish.root, found).ok().flatten());
        let nothing_missed = left.is_some();
        let group = left.map_or_else(|| mark(&wish, found), Ok)?;
        handover::keep(&queue_name(&key), &group);
        let mut armed = Self::with(wish, group, layout, nothing_missed);
        let buffer = handover::memory(handover, &key, &beside.join("accesses"), BUFFER_BYTES);
        armed.key = key;
        armed.buffer = Some(buffer.map_err(CollectError::kernel("make a buffer"))?);
        Ok(armed)
    }

    fn with(wish: Wish, group: Group, layout: Layout, nothing_missed: bool) -> Self {
        // The mark is there: what happens from here on is told.
        let since = Since {
            at: clock::now(),
            nothing_missed,
        };
        Self {
            wish,
            group: Arc::new(group),
            layout,
            since,
            key: String::new(),
            buffer: None,
        }
    }
}

fn mark(wish: &Wish, found: Found) -> Result<Group, CollectError> {
    let group = Group::on_filesystem(&wish.root, wish.who(found.features), found);
    group.map_err(CollectError::kernel("watch it with fanotify"))
}

/// The name of a queue in systemd's keeping.
fn queue_name(key: &str) -> String {
    format!("{key}.events")
}

impl source::Armed for Armed {
    fn profile(&self) -> Profile {
        self.wish.profile(self.group.features())
    }

    fn since(&self) -> Since {
        self.since
    }

    fn run(
        self: Box<Self>,
        watched: &Arc<Watched>,
        window_end: Seconds,
        on_error: Box<dyn Fn(CollectError) + Send>,
    ) -> Result<Box<dyn Watching>, CollectError> {
        let Self {
            wish,
            group,
            layout,
            since,
            key,
            buffer,
        } = *self;
        let hiding: Arc<dyn Hiding> = Arc::clone(&group) as _;
        end_window_of_another(watched, &*hiding, window_end)
            .map_err(CollectError::kernel("take ignore marks away"))?;
        let windows = Windows::new(hiding, wish.precision, &wish.root, since.at);
        let windows = Arc::new(windows);
        let has_processes = wish.who(group.features()) == Who::Process;
        let judges = Judges {
            accessors: match has_processes {
                true => Accessors::new(wish.ignored.clone()),
                false => Accessors::without_descriptors(wish.ignored.clone()),
            },
            windows: Some(Arc::clone(&windows)),
        };
        let without = || CollectError::kernel("make a buffer")(io::ErrorKind::NotFound.into());
        let buffer = buffer.ok_or_else(without)?;
        let queue = Queue::new(Arc::clone(&group), layout, has_processes);
        let collector = Collector::start(queue, Arc::clone(watched), judges, buffer, on_error)?;
        Ok(Box::new(Fanotify {
            wish,
            key,
            group,
            windows,
            collector: RwLock::new(Some(collector)),
        }))
    }
}

/// The source while it watches.
#[derive(Debug)]
struct Fanotify {
    wish: Wish,
    key: String,
    group: Arc<Group>,
    windows: Arc<Windows>,
    /// None once it has ended.
    collector: RwLock<Option<Collector>>,
}

impl Source for Fanotify {
    fn profile(&self) -> Profile {
        self.wish.profile(self.group.features())
    }

    fn queued(&self) -> u64 {
        self.group.queued()
    }

    fn barrier(&self, at_most: Duration) -> Barrier {
        let collector = self.collector.read();
        let passed = collector.as_ref().map(|collector| collector.barrier(at_most));
        passed.unwrap_or(Barrier::Dead)
    }
}

impl Watching for Fanotify {
    fn sync_while(&self, goes_on: &dyn Fn() -> bool) -> bool {
        let collector = self.collector.read();
        collector.as_ref().is_some_and(|c| c.sync_while(goes_on))
    }

    fn sync_within(&self, at_most: Duration) -> bool {
        let collector = self.collector.read();
        collector.as_ref().is_some_and(|c| c.sync_within(at_most))
    }

    fn sync_or_give_up(&self, at_most: Duration) -> bool {
        let collector = self.collector.read();
        collector.as_ref().is_none_or(|c| c.sync_or_give_up(at_most))
    }

    fn end(&self) {
        // Dropping it reads what came meanwhile.
        self.collector.write().take();
    }

    fn release(&self) {
        handover::release(&queue_name(&self.key), &self.key);
    }

    fn is_watching(&self) -> io::Result<bool> {
        self.group.is_marked()
    }

    fn watch_again(&self) -> io::Result<()> {
        self.group.mark_again(&self.wish.root)
    }

    fn windows(&self) -> Option<&Windows> {
        Some(&self.windows)
    }

    fn hide_own(&self, dir: BorrowedFd<'_>) {
        let _ = self.group.ignore_names_in(dir);
    }

    fn hide_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        self.group.ignore_mount(mount)
    }
}
