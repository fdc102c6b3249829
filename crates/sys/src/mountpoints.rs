//! Names of mount points of the own mount namespace: what may be one is not touched by name, for the server behind it may answer no more.
//!
//! A process that asks for the attributes of a mount point asks its file system.
//! It waits without end for an NFS server that is down or a FUSE daemon
//! that was stopped. `openat2(2)` with RESOLVE_NO_XDEV refuses a mount point before that, and takes a call more. So the names of all mount
//! points are known beforehand, from the kernel's table, and only what has one of these names is opened so. The kernel tells by `poll(2)` when
//! the table has changed.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rustc_hash::FxHashSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::mountinfo;

/// How often it is asked whether the table has changed.
const ASKED_EVERY: Duration = Duration::from_millis(1);
/// After it took long to read it, it is not read again before this number of times as long.
const REST: u32 = 20;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table {
    began: Instant::now(),
    next: AtomicU64::new(0),
    source: Mutex::default(),
    names: RwLock::new(None),
});

struct Table {
    began: Instant,
    /// When it is asked again whether it has changed, in nanoseconds since it began.
    next: AtomicU64,
    source: Mutex<Source>,
    /// None: they are not known.
    names: RwLock<Option<Names>>,
}

/// The last names of all mount points.
struct Names {
    all: FxHashSet<Vec<u8>>,
    /// How long they are, a bit each: hardly a file is called as long as one of them, and each is asked for.
    lengths: u64,
}

impl Names {
    fn of(all: FxHashSet<Vec<u8>>) -> Self {
        let lengths = all.iter().fold(0, |lengths, name| lengths | length_bit(name));
        Self { all, lengths }
    }

    fn has(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name) != 0 && self.all.contains(name)
    }
}

/// All that are longer share one.
fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

#[derive(Default)]
struct Source {
    file: Option<File>,
    /// It is not read before that.
    rests_until: Option<Instant>,
}

/// Whether a mount point of this namespace has this name, in whichever directory. Doubt is one.
pub fn may_be(name: &CStr) -> bool {
    let now = nanos(TABLE.began.elapsed());
    if now >= TABLE.next.load(Relaxed)
        // Another thread is about to.
        && let Some(source) = TABLE.source.try_lock()
    {
        TABLE.refresh(source);
    }
    let names = TABLE.names.read();
    names.as_ref().is_none_or(|names| names.has(name.to_bytes()))
}

/// Asks now, for what was made a moment ago: it may be a mount point by now.
pub fn ask() {
    TABLE.refresh(TABLE.source.lock());
}

impl Table {
    fn refresh(&self, mut source: MutexGuard<'_, Source>) {
        if has_changed(&mut source.file) {
            *self.names.write() = None;
        }
        let start = Instant::now();
        if self.names.read().is_none() && source.rests_until.is_none_or(|until| until <= start) {
            let names = read(&mut source.file);
            *self.names.write() = names;
            source.rests_until = Instant::now().checked_add(start.elapsed().saturating_mul(REST));
        }
        let next = self.began.elapsed().saturating_add(ASKED_EVERY);
        self.next.store(nanos(next), Relaxed);
    }
}

fn has_changed(file: &mut Option<File>) -> bool {
    let Some(file) = file else { return false };
    let mut asked = [PollFd::new(file, PollFlags::PRI)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut asked, Some(&now)).map_or(true, |changed| changed > 0)
}

fn read(file: &mut Option<File>) -> Option<Names> {
    if file.is_none() {
        *file = File::open("/proc/self/mountinfo").ok();
    }
    let open = file.as_mut()?;
    let mut table = Vec::new();
    open.rewind().and_then(|()| open.read_to_end(&mut table)).ok()?;
    let last = |line: mountinfo::Line<'_>| {
        let point = line.point();
        point.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec)
    };
    Some(Names::of(mountinfo::lines(&table).filter_map(last).collect()))
}

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_long_it_is() {
        let name = |n: usize| vec![b'x'; n];
        let names = Names::of([1, 5, 63, 200].map(name).into_iter().collect());
        let found: Vec<_> = (0..256).filter(|n| names.has(&name(*n))).collect();
        assert_eq!(found, [1, 5, 63, 200]);
        assert!(!names.has(b"y"));
    }

    #[test]
    fn proc_may_be_a_mount_point_and_most_names_are_none() {
        assert!(may_be(c"proc"));
        assert!(!may_be(c"no mount point has this name"));
    }
}
