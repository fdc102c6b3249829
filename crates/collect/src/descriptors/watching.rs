//! The source: a group that is marked on the volume's file system or mount, made or taken over; then with a thread that records.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Hidden, Queue};
use crate::Watched;
use crate::accessors::Accessors;
use crate::collector::{BUFFER_BYTES, CollectError, Collector, Judges, Running};
use crate::fanotify::Wish;
use crate::precision::{Hiding, Windows, end_window_of_another};
use crate::source::{
    self, Barrier, Blind, Certainty, Kind, Mode, Profile, Reading, Reads, Since, Source, Watching, Who,
};
use purge_base::clock;
use purge_base::handover::{self, Handover, queue_name};
use purge_model::Seconds;
use purge_sys::fanotify::{Feature, Features, OpenGroup, Scope, probe_descriptors};
use purge_sys::shared::SharedBuffer;
use purge_sys::stat;

/// The thread may wait for a file server: the end of the agent does not wait for it longer than this.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// What is not seen through a mark on the file system of a local disk,
const BLIND: &[Blind] = &[
    Blind::Names,
    Blind::Attributes,
    Blind::ClientCaches,
    Blind::Mappings,
    Blind::Images,
];
/// of one that other hosts may use, or whose files may be reached around it,
const BLIND_SHARED: &[Blind] = &[
    Blind::OtherHosts,
    Blind::Names,
    Blind::Attributes,
    Blind::Mappings,
    Blind::Images,
    Blind::Bypass,
];
/// and through a mark on a mount.
const BLIND_MOUNT: &[Blind] = &[
    Blind::Names,
    Blind::Attributes,
    Blind::ClientCaches,
    Blind::Mappings,
    Blind::Images,
    Blind::Bypass,
];

/// What a group is made by.
#[derive(Debug)]
struct Plan {
    wish: Wish,
    features: Features,
    is_shared: bool,
}

impl Plan {
    fn of(wish: Wish) -> Result<Self, CollectError> {
        const DOING: &str = "watch it by descriptors";
        let features = probe_descriptors(&wish.root).map_err(CollectError::kernel(DOING))?;
        let mount = stat::mount(&wish.root).map_err(CollectError::kernel(DOING))?;
        if !Windows::are_possible(wish.precision) {
            let words = "the kernel opens a file again for each use that it tells of, so repeated uses must be hidden: set precision to \
                         2s or more, or collector = \"scan\"";
            return Err(CollectError::kernel(DOING)(io::Error::other(words)));
        }
        Ok(Self {
            wish,
            features,
            is_shared: mount.may_be_shared(),
        })
    }

    fn scope(&self) -> Scope {
        OpenGroup::scope_of(self.features)
    }

    fn make(&self) -> Result<OpenGroup, CollectError> {
        OpenGroup::on(&self.wish.root, self.features).map_err(CollectError::kernel("watch it by descriptors"))
    }

    fn profile(&self) -> Profile {
        Profile {
            kind: Kind::Fanotify,
            mode: Mode::Descriptors,
            features: self.features,
            knows_names: false,
            knows_who: match self.wish.ignored.is_empty() {
                true => Who::Number,
                false => Who::Lasting,
            },
            certainty: Certainty::Exact,
            hides: true,
            outlives: true,
            reads: Reads::Seen,
            blind: match (self.is_shared, self.scope()) {
                (true, _) => BLIND_SHARED,
                (false, Scope::FileSystem) => BLIND,
                (false, Scope::Mount) => BLIND_MOUNT,
            },
        }
    }
}

/// A marked group: from now on no access is lost.
#[derive(Debug)]
pub struct Armed {
    plan: Plan,
    group: Arc<OpenGroup>,
    since: Since,
    /// What its queue and its memory are called in keeping.
    key: String,
    buffer: Option<SharedBuffer>,
}

impl Armed {
    /// Marks the file system, or the mount. When this is dropped, nothing is left of it.
    ///
    /// # Errors
    /// What the kernel refuses; and where uses cannot be hidden.
    pub fn arm(wish: Wish) -> Result<Self, CollectError> {
        let plan = Plan::of(wish)?;
        let group = plan.make()?;
        Ok(Self::with(plan, group, false))
    }

    /// Takes over what an earlier process left, or marks it: see [`crate::fanotify::Armed::arm_or_take_over`].
    ///
    /// # Errors
    /// As for [`Armed::arm`], and ENOMEM.
    pub fn arm_or_take_over(
        wish: Wish,
        volume: &str,
        beside: &Path,
        handover: &mut Handover,
    ) -> Result<Self, CollectError> {
        let plan = Plan::of(wish)?;
        let key = key(volume, plan.scope());
        let left = handover.claim(&queue_name(&key));
        let left = left.and_then(|left| {
            OpenGroup::left(left, &plan.wish.root, plan.features)
                .ok()
                .flatten()
        });
        let nothing_missed = left.is_some();
        let group = left.map_or_else(|| plan.make(), Ok)?;
        handover::keep(&queue_name(&key), &group);
        let mut armed = Self::with(plan, group, nothing_missed);
        let buffer = handover::memory(handover, &key, &beside.join("opened"), BUFFER_BYTES);
        armed.key = key;
        armed.buffer = Some(buffer.map_err(CollectError::kernel("make a buffer"))?);
        Ok(armed)
    }

    /// The queue of this name, which an earlier process left: see [`crate::fanotify::Armed::of_another`].
    ///
    /// # Errors
    /// As there.
    pub fn of_another(
        wish: &Wish,
        (volume, name): (&str, &str),
        beside: &Path,
        handover: &mut Handover,
    ) -> Result<Option<Self>, CollectError> {
        let is_it = |scope: &Scope| queue_name(&key(volume, *scope)) == name;
        let Some(scope) = SCOPES.into_iter().find(is_it) else {
            return Ok(None);
        };
        let gone = || CollectError::kernel("read it")(io::ErrorKind::NotFound.into());
        let mut plan = Plan::of(Wish {
            ignored: Vec::new(),
            ..wish.clone()
        })?;
        if scope == Scope::Mount {
            plan.features = plan.features.without(Feature::FilesystemMarks);
        }
        if plan.scope() != scope {
            return Err(gone());
        }
        let key = key(volume, scope);
        let left = handover.claim(name).ok_or_else(gone)?;
        let group = OpenGroup::left(left, &plan.wish.root, plan.features);
        let group = group.map_err(CollectError::kernel("read it"))?.ok_or_else(gone)?;
        let mut armed = Self::with(plan, group, true);
        let buffer = handover::memory(handover, &key, &beside.join("opened.former"), BUFFER_BYTES);
        armed.key = key;
        armed.buffer = Some(buffer.map_err(CollectError::kernel("make a buffer"))?);
        Ok(Some(armed))
    }

    fn with(plan: Plan, group: OpenGroup, nothing_missed: bool) -> Self {
        // The mark is there: what happens from here on is told.
        let since = Since {
            at: clock::now(),
            nothing_missed,
        };
        Self {
            plan,
            group: Arc::new(group),
            since,
            key: String::new(),
            buffer: None,
        }
    }
}

const SCOPES: [Scope; 2] = [Scope::FileSystem, Scope::Mount];

/// What the queue and the memory of a volume are called in keeping.
fn key(volume: &str, scope: Scope) -> String {
    let scope = match scope {
        Scope::FileSystem => "opened",
        Scope::Mount => "opened.mount",
    };
    format!("{volume}.{scope}")
}

impl source::Armed for Armed {
    fn profile(&self) -> Profile {
        self.plan.profile()
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
            plan,
            group,
            since,
            key,
            buffer,
        } = *self;
        let wish = &plan.wish;
        let hiding: Arc<dyn Hiding> = Arc::new(Hidden {
            group: Arc::clone(&group),
            root: wish.root.clone(),
        });
        end_window_of_another(watched, &*hiding, window_end)
            .map_err(CollectError::kernel("take ignore marks away"))?;
        let windows = Windows::new(hiding, wish.precision, &wish.root, since.at);
        if !windows.hide() {
            let words = "the kernel does not hide repeated uses there: set collector = \"scan\"";
            return Err(CollectError::kernel("watch it by descriptors")(io::Error::other(
                words,
            )));
        }
        let windows = Arc::new(windows);
        let judges = Judges {
            accessors: Accessors::without_descriptors(wish.ignored.clone()),
            windows: Some(Arc::clone(&windows)),
        };
        let without = || CollectError::kernel("make a buffer")(io::ErrorKind::NotFound.into());
        let buffer = buffer.ok_or_else(without)?;
        let queue = Queue::new(Arc::clone(&group), watched.device);
        let collector = Collector::start(queue, Arc::clone(watched), judges, buffer, on_error)?;
        Ok(Box::new(Descriptors {
            plan,
            key,
            group,
            windows,
            collector: Running::new(collector),
        }))
    }
}

/// The source while it watches.
#[derive(Debug)]
struct Descriptors {
    plan: Plan,
    key: String,
    group: Arc<OpenGroup>,
    windows: Arc<Windows>,
    collector: Running,
}

impl Source for Descriptors {
    fn profile(&self) -> Profile {
        self.plan.profile()
    }

    fn queued(&self) -> u64 {
        self.group.queued()
    }

    fn barrier(&self, at_most: Duration) -> Barrier {
        self.collector.barrier(at_most)
    }
}

impl Watching for Descriptors {
    fn reading(&self) -> Option<&dyn Reading> {
        Some(&self.collector)
    }

    fn end(&self) {
        let ended = self.collector.take();
        if ended.is_some_and(|collector| !collector.end_within(ENDS_WITHIN)) {
            tracing::warn!(root = %self.plan.wish.root.display(), "the file system does not answer: its collector ends with this process");
        }
    }

    fn release(&self) {
        handover::release(&self.key);
    }

    fn is_watching(&self) -> io::Result<bool> {
        self.group.is_marked()
    }

    fn watch_again(&self) -> io::Result<()> {
        self.group.mark_again(&self.plan.wish.root)
    }

    fn windows(&self) -> Option<&Windows> {
        Some(&self.windows)
    }

    // No names are reported.
    fn hide_own(&self, _: BorrowedFd<'_>) {}

    fn hide_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        self.group.ignore_mount(mount)
    }
}
