//! Looks again and again whether a place on disk takes changes, on a thread of its own: a caller has an answer at once, also while the
//! look itself waits for a file system that is frozen.
//!
//! - [`Probe`]    the thread, and what it has found
//! - `ballast`    room in the state directory that is given up when its file system is full
//! - [`StateDir`] the state directory: it must be there, be the same as at the start, and take changes

mod ballast;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::process::Pid;

use purge_model::Inode;
use purge_sys::failure::{Defect, Failure};
use purge_sys::{beneath, stat};

/// A look that takes longer has no answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(6);
/// How often it is looked, and with how many of the looks something is changed: each is a write to the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const THOROUGH_EVERY: u64 = 5;

/// How thoroughly it is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What can be seen without a change.
    Glance,
    /// Something is changed as well.
    Thorough,
}

#[derive(Debug)]
struct Shared {
    name: String,
    found: Mutex<Found>,
    wake: Condvar,
    /// The thread that looks.
    thread: OnceLock<Pid>,
}

#[derive(Debug, Default)]
struct Found {
    /// A look is going on since then.
    since: Option<Instant>,
    defect: Option<Defect>,
    looks: u64,
    /// A caller waits for a fresh look.
    asked: bool,
    ended: bool,
    told: Option<Defect>,
}

/// What is looked at again and again.
#[derive(Debug)]
pub struct Probe(Arc<Shared>);

impl Probe {
    /// Begins to look at what is called `name`. Until the first look has ended nothing is wrong.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn begin(name: String, look: impl Fn(Look) -> Option<Defect> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            found: Mutex::default(),
            wake: Condvar::new(),
            thread: OnceLock::new(),
        });
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("probe".into());
        thread.spawn(move || mine.keep_looking(look))?;
        Ok(Self(shared))
    }

    /// What is wrong, if anything.
    pub fn defect(&self) -> Option<Defect> {
        let found = self.0.found.lock();
        match found.since {
            Some(since) if since.elapsed() >= ANSWERS_WITHIN => Some(self.0.silent()),
            _ => found.defect.clone(),
        }
    }

    /// A fresh look, waited for so long at most.
    pub fn look_now(&self, at_most: Duration) -> Option<Defect> {
        let until = Instant::now().checked_add(at_most);
        let mut found = self.0.found.lock();
        // One that is going on may have begun before what is asked for happened.
        let wanted = found.looks.saturating_add(1 + u64::from(found.since.is_some()));
        found.asked = true;
        self.0.wake.notify_all();
        while found.looks < wanted {
            let is_late = until.is_none_or(|until| self.0.wake.wait_until(&mut found, until).timed_out());
            if is_late && found.looks < wanted {
                return Some(self.0.silent());
            }
        }
        found.defect.clone()
    }

    /// What is to be told, when that has changed since the last call: what is wrong, or that nothing is any more.
    pub fn news(&self) -> Option<Option<Defect>> {
        let now = self.defect();
        let mut found = self.0.found.lock();
        if found.told == now {
            return None;
        }
        found.told.clone_from(&now);
        Some(now)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.found.lock().ended = true;
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn keep_looking(&self, look: impl Fn(Look) -> Option<Defect>) {
        let _ = self.thread.set(rustix::thread::gettid());
        loop {
            let how = {
                let mut found = self.found.lock();
                found.since = Some(Instant::now());
                let is_due = found.looks.is_multiple_of(THOROUGH_EVERY);
                // What only a change has shown, only a change shows to be well again.
                match std::mem::take(&mut found.asked) || found.defect.is_some() || is_due {
                    true => Look::Thorough,
                    false => Look::Glance,
                }
            };
            let defect = look(how);
            let mut found = self.found.lock();
            (found.since, found.defect) = (None, defect);
            found.looks = found.looks.saturating_add(1);
            self.wake.notify_all();
            let until = Instant::now().checked_add(LOOK_EVERY);
            while !found.asked && !found.ended {
                if until.is_none_or(|until| self.wake.wait_until(&mut found, until).timed_out()) {
                    break;
                }
            }
            if found.ended {
                return;
            }
        }
    }

    fn silent(&self) -> Defect {
        let seconds = ANSWERS_WITHIN.as_secs();
        Defect {
            failure: Failure::Silent,
            words: format!(
                "{} does not answer: a change there takes longer than {seconds} s{}",
                self.name,
                match self.thread.get().is_some_and(|thread| is_frozen(*thread)) {
                    true => ", because its file system is frozen",
                    false => "",
                }
            ),
        }
    }
}

/// Whether a thread of this process waits until a file system is thawed (`FIFREEZE`): what it waits for is the semaphore that each write takes.
fn is_frozen(thread: Pid) -> bool {
    let waits = format!("/proc/self/task/{}/wchan", thread.as_raw_nonzero());
    let waits = std::fs::read_to_string(waits);
    // Before Linux 5.6 the function had another name.
    waits.is_ok_and(|at| at == "percpu_rwsem_wait" || at == "__percpu_down_read")
}

/// Whether the file system of an open directory of the agent's own takes changes: the directory's modification time becomes now. A file system
/// that is full takes that.
///
/// # Errors
/// What `statvfs(3)` and `utimensat(2)` say; EROFS for a mount that is read-only.
pub fn takes_changes(dir: impl AsFd) -> io::Result<()> {
    let is = rustix::fs::fstatvfs(&dir)?;
    if is.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(rustix::io::Errno::ROFS.into());
    }
    let time = |nanos| Timespec {
        tv_sec: 0,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time(UTIME_OMIT),
        last_modification: time(UTIME_NOW),
    };
    let touched = rustix::fs::futimens(dir, &times).map_err(io::Error::from);
    match touched {
        // btrfs has no room for the new time, and may have room for what counts.
        Err(error) if Failure::of(&error) == Failure::Full => Ok(()),
        other => other,
    }
}

/// What must stay as it is: the directory itself, and the store in it.
const PARTS: [&str; 3] = ["", "index", "index/db"];

/// The state directory of a running agent.
#[derive(Debug)]
pub struct StateDir(Probe);

impl StateDir {
    /// Begins to look at it. The store must be open.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let known: Vec<(PathBuf, Place)> = PARTS
            .iter()
            .map(|part| match part.is_empty() {
                true => path.to_owned(),
                false => path.join(part),
            })
            .map(|part| Ok((part.clone(), place(&part)?)))
            .collect::<io::Result<_>>()?;
        let name = format!("the state directory {}", path.display());
        let path = path.to_owned();
        Probe::begin(name, move |how| look_at_state(&path, &known, how)).map(Self)
    }

    /// What is wrong with it, if anything: nothing is planned or applied then.
    pub fn defect(&self) -> Option<Defect> {
        self.0.defect()
    }

    /// Whether it is another one, or none: nothing is to be written at its path.
    pub fn is_away(&self) -> bool {
        let defect = self.0.defect();
        defect.is_some_and(|d| matches!(d.failure, Failure::Missing | Failure::Replaced))
    }

    /// Whether it does not answer: what is written there waits.
    pub fn is_silent(&self) -> bool {
        let defect = self.0.defect();
        defect.is_some_and(|defect| defect.failure == Failure::Silent)
    }

    /// A fresh look, waited for so long at most.
    pub fn look_now(&self, at_most: Duration) -> Option<Defect> {
        self.0.look_now(at_most)
    }

    /// Writes what has changed into the log.
    pub fn tell(&self) {
        match self.0.news() {
            Some(Some(defect)) => {
                tracing::error!(
                    cure = defect.failure.cure_of_state(),
                    "{}: nothing is planned or applied",
                    defect.words
                );
            }
            Some(None) => tracing::info!("the state directory is as it should be again"),
            None => {}
        }
    }
}

type Place = (stat::Device, Inode);

fn place(path: &Path) -> io::Result<Place> {
    stat::path(path).map(|found| (found.device, found.stat.ino))
}

fn look_at_state(path: &Path, known: &[(PathBuf, Place)], how: Look) -> Option<Defect> {
    for (part, known) in known {
        let shown = part.display();
        match place(part) {
            Ok(found) if found == *known => {}
            Ok(_) => {
                return Some(Defect {
                    failure: Failure::Replaced,
                    words: format!(
                        "the state directory was replaced: another {shown} lies there than the agent has open"
                    ),
                });
            }
            Err(error) => {
                let what = match Failure::of(&error) {
                    Failure::Missing => "was removed or unmounted",
                    _ => "cannot be read",
                };
                return Some(defect(
                    &error,
                    format!("the state directory {what}: {shown}: {error}"),
                ));
            }
        }
    }
    ballast::tend(path, how == Look::Thorough);
    if how == Look::Glance {
        return None;
    }
    let changed = open(path).and_then(takes_changes);
    let error = changed.err()?;
    let words = format!(
        "the state directory {} cannot be changed: {error}",
        path.display()
    );
    Some(defect(&error, words))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    beneath::open_dir(beneath::open_root(path)?, b"")
}

fn defect(error: &io::Error, words: String) -> Defect {
    Defect {
        failure: Failure::of(error),
        words,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_look_that_does_not_end_is_told_and_holds_up_no_caller() {
        let (end, ends) = mpsc::channel::<()>();
        let ends = Mutex::new(ends);
        let look = move |_| {
            let _ = ends.lock().recv();
            None
        };
        let probe = Probe::begin("it".into(), look).unwrap();
        let defect = probe.look_now(Duration::from_millis(20)).unwrap();
        assert_eq!(defect.failure, Failure::Silent);
        assert_eq!(probe.defect(), None, "it may yet answer");
        drop(end);
        assert_eq!(probe.look_now(Duration::from_secs(20)), None);
    }

    #[test]
    fn a_state_directory_that_is_removed_or_replaced_is_told_until_it_is_back() {
        let tmp = tempfile::tempdir().unwrap();
        let (path, aside) = (tmp.path().join("state"), tmp.path().join("aside"));
        fs::create_dir_all(path.join("index")).unwrap();
        fs::write(path.join("index/db"), b"").unwrap();
        let state = StateDir::begin(&path).unwrap();
        let look = || state.look_now(Duration::from_secs(20)).map(|d| d.failure);
        assert_eq!(look(), None);
        fs::rename(&path, &aside).unwrap();
        assert_eq!(look(), Some(Failure::Missing));
        fs::create_dir_all(path.join("index")).unwrap();
        assert_eq!(look(), Some(Failure::Replaced));
        assert!(state.is_away());
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(look(), None);
        fs::remove_dir_all(path.join("index")).unwrap();
        assert_eq!(look(), Some(Failure::Missing));
    }
}
