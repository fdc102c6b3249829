//! Directories that are empty by now: the deepest first, those of one level many at a time.

use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use purge_model::Kind;
use purge_proto::shown::Shown;
use purge_scan::crew::{self, Crew, Member};
use purge_sys::exact::{self, Fresh};
use purge_sys::protection::Protection;
use purge_sys::{beneath, inside};

use super::scan::Ground;
use super::tally::Tally;
use super::tree::{DirNo, Tree};

/// Removes directories that are empty, at most `most` of them (0: all). The root stays.
pub(super) fn remove(on: &Ground<'_>, tally: &Tally, tree: Tree, most: u64, workers_max: usize) {
    let mut levels: Vec<Vec<DirNo>> = Vec::new();
    for (number, dir) in (0..).zip(&tree.0) {
        let depth = dir.depth as usize;
        if levels.len() <= depth {
            levels.resize_with(depth + 1, Vec::new);
        }
        if let Some(level) = levels.get_mut(depth) {
            level.push(number);
        }
    }
    let emptying = Emptying {
        on,
        tally,
        left: AtomicU64::new(if most == 0 { u64::MAX } else { most }),
        tree: Mutex::new(tree),
    };
    for level in levels.into_iter().skip(1).rev() {
        let stay = |number: &DirNo| {
            let mut tree = emptying.tree.lock();
            let dir = tree.0.get(*number as usize);
            let (stays, above) = dir.map_or((true, 0), |dir| (dir.stays, dir.above));
            if stays {
                tree.keep(above);
            }
            stays
        };
        let these: Vec<DirNo> = level.into_iter().filter(|number| !stay(number)).collect();
        crew::run(these, workers_max, &|_| Worker { of: &emptying });
        if on.stop.load(Relaxed) {
            return;
        }
    }
}

struct Emptying<'a> {
    on: &'a Ground<'a>,
    tally: &'a Tally,
    left: AtomicU64,
    tree: Mutex<Tree>,
}

struct Worker<'a> {
    of: &'a Emptying<'a>,
}

impl Member for Worker<'_> {
    type Task = DirNo;

    fn work(&mut self, number: DirNo, crew: &Crew<DirNo>) {
        let of = self.of;
        if of.on.stop.load(Relaxed) {
            return crew.stop();
        }
        let took = of.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        let removed = took.is_ok() && of.take(number);
        if took.is_ok() && !removed {
            of.left.fetch_add(1, Relaxed);
        }
        let mut tree = of.tree.lock();
        let above = tree.0.get(number as usize).map_or(0, |dir| dir.above);
        match removed {
            true => {
                of.tally.removed_dirs.fetch_add(1, Relaxed);
                if let Some(above) = tree.0.get_mut(above as usize) {
                    above.changed = true;
                }
            }
            false => tree.keep(above),
        }
        drop(tree);
        crew.did(1);
    }

    fn hand_over(&mut self, _: &Crew<DirNo>) -> bool {
        false
    }
}

impl Emptying<'_> {
    fn take(&self, number: DirNo) -> bool {
        match self.try_take(number) {
            Ok(removed) => removed,
            // It is in use again, or another process was sooner.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOENT | libc::EBUSY)
                ) =>
            {
                false
            }
            Err(error) => {
                let path = self.tree.lock().path(number);
                let path = Shown::name(&path).to_string();
                tracing::warn!(%error, path, "an empty directory cannot be removed");
                self.tally.failed.fetch_add(1, Relaxed);
                false
            }
        }
    }

    fn try_take(&self, number: DirNo) -> io::Result<bool> {
        let (above, name, ino, ctime, changed) = {
            let tree = self.tree.lock();
            let Some(dir) = tree.0.get(number as usize) else {
                return Ok(false);
            };
            let path = tree.path(dir.above);
            (path, dir.name.clone(), dir.ino, dir.ctime, dir.changed)
        };
        let name = CString::new(name.into_vec()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let above = beneath::open_dir(self.on.root, &above)?;
        let found = exact::entry(&above, &name, Fresh::Now)?;
        let is_it = (found.ino, found.kind, found.device) == (ino, Kind::Directory, self.on.device);
        // What this job removed from it has changed it; a change by others is a use.
        let is_used = !changed && found.ctime != ctime;
        if !is_it || is_used || found.mount_root || found.protected {
            return Ok(false);
        }
        // A directory that its owner could not make again stays.
        let could_make_it = Protection::of(&above)?.lets_change(found.uid, || &[]);
        if !could_make_it {
            return Ok(false);
        }
        inside::remove_dir(&above, &*name)?;
        Ok(true)
    }
}
