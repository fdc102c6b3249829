//! The source: a group that is marked on the volume's file system, made or taken over; then with a thread that records.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::hiding::OneByOne;
use super::layout::Layout;
use super::learnt::{Inodes, Learnt};
use super::queue::Queue;
use super::trees::{Known, Trees};
use crate::Watched;
use crate::accessors::{Accessor, Accessors};
use crate::blindness;
use crate::collector::{BUFFER_BYTES, CollectError, Collector, Judges, Running};
use crate::precision::{Hiding, Windows, correct_what_another_hid, end_window_of_another};
use crate::source::{
    self, Barrier, Blind, Certainty, Kind, Mode, Profile, Reading, Reads, Since, Source, Watching,
};
use crate::tree::{Ground, Tree, identity};
use purge_base::clock;
use purge_base::handover::{self, Handover, queue_name};
use purge_model::{Inode, Seconds};
use purge_sys::beneath;
use purge_sys::fanotify::{Feature, Found, Group, Marks, Who, probe};
use purge_sys::handle::Handle;
use purge_sys::shared::SharedBuffer;
use purge_sys::stat::Device;

/// What is to be watched, and how.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The volume's root.
    pub root: PathBuf,
    /// Its inode.
    pub ino: Inode,
    /// The number of its kind of file system (`statfs(2)`), and its name.
    pub filesystem: (u64, String),
    /// Other hosts may use it.
    pub is_shared: bool,
    /// Whose uses do not count.
    pub ignored: Vec<Accessor>,
    /// Length of a precision window in seconds.
    pub precision: u64,
    /// The file system.
    pub device: Device,
    /// Directories of the agent's own on it: where each directory is watched by itself, these are not.
    pub own: Vec<Inode>,
}

impl Wish {
    /// Where each directory is to be watched.
    pub(crate) fn ground(&self) -> Ground<'_> {
        Ground {
            root: &self.root,
            device: self.device,
            not_watched: &self.own,
        }
    }

    /// How events name the process that caused them.
    fn who(&self, found: Found) -> Who {
        match self.ignored.is_empty() || !found.features.has(Feature::Pidfd) {
            true => Who::Pid,
            false => Who::Process,
        }
    }

    /// Of the queue that this would make.
    fn sort(&self, found: Found) -> Sort {
        Sort {
            who: self.who(found),
            marks: found.marks,
            names: found.features.tells_whose_names(),
        }
    }

    /// What there is, and how the inodes of file handles are found out. None: handles lead nowhere. Then each directory has to be
    /// marked, and names say what an event is of.
    fn probe(&self, marks: Marks) -> Result<(Found, Option<Inodes>), CollectError> {
        let found = probe(&self.root, marks).map_err(CollectError::kernel("watch it with fanotify"))?;
        if found.is_limited && !self.ignored.is_empty() {
            let words = "ignore_accessors needs CAP_SYS_ADMIN: without it the kernel does not say which process uses a file";
            return Err(CollectError::kernel("leave accessors out")(io::Error::other(
                words,
            )));
        }
        let kernel = CollectError::kernel("get a file handle");
        match (self.inodes(found), marks) {
            (Ok((found, inodes)), _) => Ok((found, Some(inodes))),
            (Err(error), Marks::FileSystem) => Err(kernel(error)),
            (Err(_), Marks::Directories) => {
                let root = beneath::open_root(&self.root).and_then(|root| Handle::id_of(root, c""));
                let found = found.without(Feature::OpenHandles);
                root.map(|_| (found, None)).map_err(kernel)
            }
        }
    }

    /// How the inodes of handles are found out, where handles lead to their files.
    fn inodes(&self, found: Found) -> io::Result<(Found, Inodes)> {
        let (magic, name) = &self.filesystem;
        if !found.features.has(Feature::OpenHandles) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let root = Handle::of_path(&self.root)?;
        if found.marks == Marks::Directories {
            // CAP_DAC_READ_SEARCH.
            root.open_path(beneath::open_mount(&self.root)?)?;
        }
        let layout = Layout::probe(*magic, &root, self.ino);
        if let Some(layout) = layout.filter(|_| found.features.has(Feature::Handles)) {
            return Ok((found, Inodes::Read(layout)));
        }
        // What a server calls a file leads nowhere as soon as it has forgotten it.
        if found.marks == Marks::Directories && self.is_shared {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let learnt = Learnt::probe(self.root.clone(), &root).map_err(|e| {
            io::Error::other(format!(
                "the agent does not know the file handles of {name}, and cannot open files by them: {e}"
            ))
        })?;
        Ok((found.without(Feature::Handles), Inodes::Learnt(learnt)))
    }

    fn profile(&self, found: Found) -> Profile {
        let is_whole = found.marks == Marks::FileSystem;
        Profile {
            kind: Kind::Fanotify,
            mode: match found.marks {
                Marks::FileSystem => Mode::FileSystem,
                Marks::Directories => Mode::Directories,
            },
            features: found.features,
            knows_names: true,
            knows_who: match self.who(found) {
                _ if found.is_limited => source::Who::Unknown,
                Who::Pid if self.ignored.is_empty() => source::Who::Number,
                Who::Pid => source::Who::Lasting,
                Who::Process => source::Who::Process,
            },
            certainty: Certainty::Exact,
            // A mark that hides is taken away by the file's handle.
            hides: is_whole || found.features.has(Feature::OpenHandles),
            // Which names are where is known to this process alone.
            outlives: is_whole || found.features.has(Feature::OpenHandles),
            reads: Reads::Seen,
            blind: match found.marks {
                Marks::FileSystem => &[Blind::ClientCaches, Blind::Mappings, Blind::Images],
                Marks::Directories => blindness::of_directories(self.is_shared, found.is_limited),
            },
        }
    }
}

/// What a queue's events are like, and what is marked. Queues of different sorts are no substitute for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sort {
    who: Who,
    marks: Marks,
    /// Events of names say which file they are of.
    names: bool,
}

impl Sort {
    const ALL: [Self; 8] = {
        const fn of(who: Who, marks: Marks, names: bool) -> Sort {
            Sort { who, marks, names }
        }
        [
            of(Who::Pid, Marks::FileSystem, true),
            of(Who::Process, Marks::FileSystem, true),
            of(Who::Pid, Marks::Directories, true),
            of(Who::Process, Marks::Directories, true),
            of(Who::Pid, Marks::FileSystem, false),
            of(Who::Process, Marks::FileSystem, false),
            of(Who::Pid, Marks::Directories, false),
            of(Who::Process, Marks::Directories, false),
        ]
    };

    /// What the queue of a volume is called in systemd's keeping: another file system, or another sort of queue, has another name.
    fn key(self, volume: &str) -> String {
        let who = match self.who {
            Who::Pid => "p",
            Who::Process => "fd",
        };
        let marks = match self.marks {
            Marks::FileSystem => "",
            Marks::Directories => ".dirs",
        };
        match self.names {
            true => format!("{volume}.{who}{marks}"),
            false => format!("{volume}.{who}{marks}.unnamed"),
        }
    }
}

/// What leads from an event to an inode.
#[derive(Debug)]
enum Ways {
    Handles(Arc<Inodes>),
    Names(Known),
}

/// A marked group: from now on no access is lost.
#[derive(Debug)]
pub struct Armed {
    wish: Wish,
    group: Arc<Group>,
    /// Where each directory is marked by itself.
    tree: Option<Arc<Tree>>,
    ids: Ways,
    since: Since,
    who: Who,
    /// What its queue and its memory are called in keeping.
    key: String,
    buffer: Option<SharedBuffer>,
}

impl Armed {
    /// Marks the file system, or the volume's root. When this is dropped, nothing is left of it.
    ///
    /// # Errors
    /// See [`Group::on`]; and where the file handles are of a kind that is not known.
    pub fn arm(wish: Wish, marks: Marks) -> Result<Self, CollectError> {
        let (found, layout) = wish.probe(marks)?;
        let group = mark(&wish, found)?;
        let who = wish.who(found);
        Ok(Self::with((wish, who), group, layout, None))
    }

    /// Takes over what an earlier process of this service left, if it still watches the file system: since then nothing was missed. Otherwise
    /// marks it. The queue is given into systemd's keeping, and events will be read into memory that outlives this process too: what a killed
    /// process had read and not recorded is found there ([`handover::memory`]). `volume` names both there; `beside` is where the memory is a
    /// file, without systemd.
    ///
    /// # Errors
    /// As for [`Armed::arm`], and ENOMEM.
    pub fn arm_or_take_over(
        (wish, marks): (Wish, Marks),
        volume: &str,
        beside: &Path,
        handover: &mut Handover,
    ) -> Result<Self, CollectError> {
        let (found, layout) = wish.probe(marks)?;
        let sort = wish.sort(found);
        let key = sort.key(volume);
        let left = handover.claim(&queue_name(&key));
        let left = left.and_then(|left| Group::left(left, &wish.root, found).ok().flatten());
        // Which names an earlier process knew is lost with it.
        let left = left.filter(|_| layout.is_some());
        // What it has marked is told since then; the rest is marked now.
        let marked = left.as_ref().map(marked).transpose()?;
        let group = left.map_or_else(|| mark(&wish, found), Ok)?;
        handover::keep(&queue_name(&key), &group);
        let mut armed = Self::with((wish, sort.who), group, layout, marked);
        if let Some(tree) = armed.tree.as_ref().filter(|_| !armed.since.nothing_missed) {
            let watched = tree.watch_all(&armed.wish.ground());
            let directories = watched.map_err(CollectError::kernel("watch its directories"))?;
            tracing::info!(volume, directories, "directories are watched one by one");
            armed.since.at = clock::now();
        }
        let buffer = handover::memory(handover, &key, &beside.join("accesses"), BUFFER_BYTES);
        armed.key = key;
        armed.buffer = Some(buffer.map_err(CollectError::kernel("make a buffer"))?);
        Ok(armed)
    }

    /// The queue of this name, which an earlier process left that watched in another way; none: it is no queue of this kind. No use that it tells
    /// of is ignored.
    ///
    /// # Errors
    /// Where it cannot be read any more, or does not watch the file system: something may have been missed.
    pub fn of_another(
        wish: &Wish,
        (volume, name): (&str, &str),
        beside: &Path,
        handover: &mut Handover,
    ) -> Result<Option<Self>, CollectError> {
        let is_it = |sort: &Sort| queue_name(&sort.key(volume)) == name;
        let Some(sort) = Sort::ALL.into_iter().find(is_it) else {
            return Ok(None);
        };
        let gone = || CollectError::kernel("read it")(io::ErrorKind::NotFound.into());
        let wish = Wish {
            ignored: Vec::new(),
            ..wish.clone()
        };
        let (found, inodes) = wish.probe(sort.marks)?;
        let found = match sort.names {
            true => found,
            false => found.without(Feature::TargetFid),
        };
        if found.features.tells_whose_names() != sort.names || inodes.is_none() {
            return Err(gone());
        }
        let left = handover.claim(name).ok_or_else(gone)?;
        let group = Group::left(left, &wish.root, found).map_err(CollectError::kernel("read it"))?;
        let group = group.ok_or_else(gone)?;
        let marked = marked(&group)?;
        let mut armed = Self::with((wish, sort.who), group, inodes, Some(marked));
        armed.key = sort.key(volume);
        let buffer = handover::memory(
            handover,
            &armed.key,
            &beside.join("accesses.former"),
            BUFFER_BYTES,
        );
        armed.buffer = Some(buffer.map_err(CollectError::kernel("make a buffer"))?);
        Ok(Some(armed))
    }

    /// `marked`: what an earlier process has marked.
    fn with(
        (wish, who): (Wish, Who),
        group: Group,
        inodes: Option<Inodes>,
        marked: Option<Vec<(Inode, u64)>>,
    ) -> Self {
        // The mark is there: what happens from here on is told.
        let since = Since {
            at: clock::now(),
            nothing_missed: marked.is_some(),
        };
        let group = Arc::new(group);
        let ids = inodes.map_or_else(
            || Ways::Names(Known::default()),
            |inodes| Ways::Handles(Arc::new(inodes)),
        );
        let known = match &ids {
            Ways::Handles(_) => None,
            Ways::Names(known) => Some(known.clone()),
        };
        let tree = (group.marks() == Marks::Directories).then(|| {
            let places = match &known {
                Some(known) => (Arc::clone(&known.places), true),
                None => (Arc::default(), false),
            };
            let group = Arc::clone(&group);
            let marking = Box::new(Trees { group, known });
            Arc::new(Tree::new(marking, places, marked.unwrap_or_default()))
        });
        Self {
            wish,
            group,
            tree,
            ids,
            since,
            who,
            key: String::new(),
            buffer: None,
        }
    }
}

/// What a group has marked, inode by inode.
fn marked(group: &Group) -> Result<Vec<(Inode, u64)>, CollectError> {
    let all = group.marked_inodes();
    let all = all.map_err(CollectError::kernel("read the list of marks"))?;
    Ok(all.iter().map(|(ino, handle)| (*ino, identity(handle))).collect())
}

/// Precision windows. What those of an earlier process hid is corrected first.
fn windows(
    hiding: Arc<dyn Hiding>,
    wish: &Wish,
    watched: &Watched,
    window_end: Seconds,
    now: Seconds,
) -> Result<Arc<Windows>, CollectError> {
    end_window_of_another(watched, &*hiding, window_end)
        .map_err(CollectError::kernel("take ignore marks away"))?;
    Ok(Arc::new(Windows::new(hiding, wish.precision, &wish.root, now)))
}

fn mark(wish: &Wish, found: Found) -> Result<Group, CollectError> {
    let group = Group::on(&wish.root, wish.who(found), found);
    group.map_err(CollectError::kernel("watch it with fanotify"))
}

impl source::Armed for Armed {
    fn profile(&self) -> Profile {
        self.wish.profile(self.group.found())
    }

    fn since(&self) -> Since {
        self.since
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        self.tree.clone()
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
            tree,
            ids,
            since,
            who,
            key,
            buffer,
        } = *self;
        let hiding: Option<Arc<dyn Hiding>> = match (&tree, &ids) {
            (None, _) => Some(Arc::clone(&group) as _),
            (Some(_), Ways::Handles(_)) => {
                let left = group
                    .hidden()
                    .map_err(CollectError::kernel("read the list of marks"))?;
                let root = wish.root.clone();
                Some(Arc::new(OneByOne::new(Arc::clone(&group), root, left)))
            }
            (Some(_), Ways::Names(_)) => None,
        };
        let windows = match hiding {
            Some(hiding) => Some(windows(hiding, &wish, watched, window_end, since.at)?),
            // Nothing of what this queue tells was hidden. Of what another told, something may have been.
            None => {
                correct_what_another_hid(watched, window_end);
                None
            }
        };
        let has_processes = who == Who::Process;
        let judges = Judges {
            accessors: match has_processes {
                true => Accessors::new(wish.ignored.clone()),
                false => Accessors::without_descriptors(wish.ignored.clone()),
            },
            windows: windows.clone(),
        };
        let without = || CollectError::kernel("make a buffer")(io::ErrorKind::NotFound.into());
        let buffer = buffer.ok_or_else(without)?;
        let (queue, watched) = (Arc::clone(&group), Arc::clone(watched));
        let collector = match ids {
            Ways::Handles(layout) => {
                let queue = Queue::new(queue, layout, has_processes);
                Collector::start(queue, watched, judges, buffer, on_error)?
            }
            Ways::Names(known) => {
                let queue = Queue::new(queue, known, has_processes);
                Collector::start(queue, watched, judges, buffer, on_error)?
            }
        };
        Ok(Box::new(Fanotify {
            wish,
            key,
            group,
            tree,
            windows,
            collector: Running::new(collector),
        }))
    }
}

/// The source while it watches.
#[derive(Debug)]
struct Fanotify {
    wish: Wish,
    key: String,
    group: Arc<Group>,
    tree: Option<Arc<Tree>>,
    windows: Option<Arc<Windows>>,
    collector: Running,
}

impl Source for Fanotify {
    fn profile(&self) -> Profile {
        self.wish.profile(self.group.found())
    }

    fn queued(&self) -> u64 {
        self.group.queued()
    }

    fn barrier(&self, at_most: Duration) -> Barrier {
        self.collector.barrier(at_most)
    }
}

impl Watching for Fanotify {
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
        self.group.is_marked()
    }

    fn watch_again(&self) -> io::Result<()> {
        if let Some(tree) = &self.tree {
            tree.forget_all();
        }
        self.group.mark_again(&self.wish.root)
    }

    fn windows(&self) -> Option<&Windows> {
        self.windows.as_deref()
    }

    fn hide_own(&self, dir: BorrowedFd<'_>) {
        let told = match self.tree {
            None => self.group.ignore_names_in(dir),
            // Uses of what lies there are to be told.
            Some(_) => self.group.mark_uses(dir),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a directory of the trash");
        }
    }

    fn hide_mount(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        self.group.ignore_mount(mount)
    }
}
