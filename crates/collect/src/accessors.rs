//! Readers whose reads are no use: backups, indexers, scanners; servers whose opens are none (`ignore_accessors`).
//!
//! An event names its process by number, and by the time it is read the process may have ended and its number be another's.
//! So with accessors to ignore, every event carries a descriptor of its process (`FAN_REPORT_PIDFD`), and a use is
//! ignored only if that very process is alive after it was looked up in `/proc`. A process that has ended was a user: doubt
//! counts as use. What a process writes counts in any case. A process is what it is when its events are read, some
//! milliseconds after the use: a process that reads a file and then becomes an ignored program (`execve(2)`) is taken for that program.
//!
//! Where events carry no descriptors ([`Accessors::without_descriptors`]), the agent opens them itself, and a use is ignored only if:
//!
//! ```text
//!   process opened, looked up --> queue was empty --> event queued, read --> looked up again: still ignored, and alive
//! ```
//! An event that is read after the queue was empty was made after that. Its number belonged to one process from before the event until after
//! it was read, so that process caused the event. Every other process is a user: also an ignored one whose first events these are.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::event::{Acts, By};

/// Whose reads do not count. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accessor {
    /// The process's name (`/proc/PID/comm`, at most 15 bytes).
    pub comm: Option<String>,
    /// The program it runs.
    pub exe: Option<PathBuf>,
    /// Its effective user.
    pub uid: Option<u32>,
    /// Its effective group.
    pub gid: Option<u32>,
    /// Its control group (version 2), or one above: "/system.slice/backup.service".
    pub cgroup: Option<String>,
    /// What of it does not count.
    pub what: What,
}

/// What of an accessor does not count. Each contains those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Nothing: it is a user like any other.
    #[default]
    Nothing,
    /// That it opens files and closes them again without reading or writing, as nfs-ganesha does for every file that a client
    /// only looks at. What it reads counts.
    Opens,
    /// What it reads as well.
    Reads,
}

/// Opened and closed, and nothing else in between that the kernel has told.
const OPENS: Acts = Acts::OPEN.and(Acts::CLOSE_READER);

impl What {
    /// Whether these acts do not count.
    fn covers(self, acts: Acts) -> bool {
        match self {
            Self::Nothing => false,
            Self::Opens => acts.only(OPENS),
            // What a process writes counts, whichever process it is.
            Self::Reads => !acts.any(Acts::WRITE),
        }
    }
}

/// What `/proc` says of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Process {
    comm: Vec<u8>,
    exe: PathBuf,
    uid: Option<u32>,
    gid: Option<u32>,
    cgroup: String,
}

impl Accessor {
    /// Whether anything is given that a process must be.
    pub fn names_a_process(&self) -> bool {
        let none = Self {
            what: self.what,
            ..Self::default()
        };
        *self != none
    }

    fn is(&self, process: &Process) -> bool {
        let holds = |given: bool, same: bool| !given || same;
        // A value that is not given holds for every process, so an empty accessor would as well: it is none.
        self.names_a_process()
            && holds(
                self.comm.is_some(),
                self.comm.as_ref().is_some_and(|c| name_of(c) == process.comm),
            )
            && holds(self.exe.is_some(), self.exe.as_ref() == Some(&process.exe))
            && holds(self.uid.is_some(), self.uid == process.uid)
            && holds(self.gid.is_some(), self.gid == process.gid)
            && holds(
                self.cgroup.is_some(),
                self.cgroup
                    .as_ref()
                    .is_some_and(|c| is_in_cgroup(&process.cgroup, c)),
            )
    }
}

/// The kernel keeps 15 bytes of a name (`TASK_COMM_LEN`).
fn name_of(comm: &str) -> &[u8] {
    let bytes = comm.as_bytes();
    bytes.get(..bytes.len().min(15)).unwrap_or(bytes)
}

fn is_in_cgroup(of: &str, group: &str) -> bool {
    let group = group.trim_end_matches('/');
    of.strip_prefix(group)
        .is_some_and(|rest| !group.is_empty() && (rest.is_empty() || rest.starts_with('/')))
}

/// A process that was looked up.
#[derive(Debug)]
struct Seen {
    ignored: What,
    process: OwnedFd,
}

/// An ignored process that the agent has a descriptor of.
#[derive(Debug)]
struct Known {
    ignored: What,
    process: OwnedFd,
    /// How often the queue had been empty when it was looked up.
    since: u64,
    /// What it is now; none: not asked since the last buffer.
    now: Option<What>,
}

/// Processes that the agent knows by itself.
#[derive(Debug, Default)]
struct Acquaintances {
    by_number: FxHashMap<i32, Known>,
    /// Who is no ignored process; forgotten after each buffer of events.
    others: FxHashSet<i32>,
    /// How often the queue was empty so far.
    emptied: u64,
    /// How often it had been when the events at hand began to wait, at least.
    before: u64,
}

/// Processes of which descriptors are kept, at most: ignored ones that live.
const KNOWN_MAX: usize = 256;

/// The accessors of a volume, and what is known of the processes seen lately.
#[derive(Debug, Default)]
pub struct Accessors {
    ignored: Vec<Accessor>,
    /// By process number; forgotten after each buffer of events.
    seen: FxHashMap<i32, Seen>,
    /// Where events carry no descriptor of their process.
    known: Option<Acquaintances>,
}

impl Accessors {
    /// Those to ignore, where events carry a descriptor of their process.
    pub fn new(ignored: Vec<Accessor>) -> Self {
        Self {
            ignored,
            seen: FxHashMap::default(),
            known: None,
        }
    }

    /// Those to ignore, where events have numbers alone.
    pub fn without_descriptors(ignored: Vec<Accessor>) -> Self {
        Self {
            known: Some(Acquaintances::default()),
            ..Self::new(ignored)
        }
    }

    /// Whether there is no process to ignore.
    pub fn is_empty(&self) -> bool {
        self.ignored.is_empty()
    }

    /// A buffer of events was read; `emptied`: after the last of them the queue was empty. What is known of processes is forgotten: numbers are
    /// given to others, and processes change their names.
    pub fn begin(&mut self, emptied: bool) {
        self.seen.clear();
        let Some(known) = &mut self.known else { return };
        known.others.clear();
        known
            .by_number
            .values_mut()
            .for_each(|process| process.now = None);
        known.before = known.emptied;
        known.emptied = known.emptied.saturating_add(emptied.into());
    }

    /// Whether these acts of this process are no use. `process` stands for exactly the process that did them; without it they are a use, but
    /// for a process that was known before.
    pub fn ignores(&mut self, acts: Acts, by: By, process: Option<OwnedFd>) -> bool {
        let pid = by.number();
        if !What::Reads.covers(acts) || self.is_empty() {
            return false;
        }
        if self.known.is_some() {
            return self.ignored_as_known(pid).covers(acts);
        }
        let Some(process) = process else {
            return false;
        };
        let Some(seen) = self.seen.get(&pid) else {
            let ignored = self.looked_up(pid);
            // Alive after the look-up, so the number was its own, and what `/proc` said was said of it.
            let ignored = if is_alive(&process) {
                ignored
            } else {
                What::Nothing
            };
            self.seen.insert(pid, Seen { ignored, process });
            return ignored.covers(acts);
        };
        // A number belongs to one living process: if both are alive, they are the same.
        seen.ignored.covers(acts) && is_alive(&process) && is_alive(&seen.process)
    }

    /// What of the process does not count that had this number when an event of the buffer was made.
    fn ignored_as_known(&mut self, pid: i32) -> What {
        let Some(mut known) = self.known.take() else {
            return What::Nothing;
        };
        let ignored = match known.by_number.get_mut(&pid) {
            Some(process) => {
                let now = *process.now.get_or_insert_with(|| self.looked_up(pid));
                let is_it = process.since < known.before && is_alive(&process.process);
                Some(process.ignored.min(now)).filter(|_| is_it)
            }
            None => None,
        };
        if ignored.is_none() {
            self.make_known(pid, &mut known);
        }
        self.known = Some(known);
        ignored.unwrap_or_default()
    }

    /// Opens a descriptor of an ignored process, for events to come.
    fn make_known(&self, pid: i32, known: &mut Acquaintances) {
        let lives = known.by_number.get(&pid).is_some_and(|p| is_alive(&p.process));
        if lives || known.others.contains(&pid) {
            return;
        }
        known.by_number.remove(&pid);
        if known.by_number.len() >= KNOWN_MAX {
            known.by_number.retain(|_, process| is_alive(&process.process));
        }
        let process = Pid::from_raw(pid).filter(|_| known.by_number.len() < KNOWN_MAX);
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let found = process.map(|process| (self.looked_up(pid), process));
        match found.filter(|(ignored, process)| *ignored > What::Nothing && is_alive(process)) {
            Some((ignored, process)) => {
                let since = known.emptied;
                let now = Some(ignored);
                known.by_number.insert(
                    pid,
                    Known {
                        ignored,
                        process,
                        since,
                        now,
                    },
                );
            }
            None => {
                known.others.insert(pid);
            }
        }
    }

    fn looked_up(&self, pid: i32) -> What {
        look_up(pid).map_or(What::Nothing, |found| self.ignored_of(&found))
    }

    fn ignored_of(&self, process: &Process) -> What {
        let those = self.ignored.iter().filter(|accessor| accessor.is(process));
        those.map(|accessor| accessor.what).max().unwrap_or_default()
    }
}

fn is_alive(process: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&process, PollFlags::IN)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A process descriptor becomes readable when its process ends.
    rustix::event::poll(&mut asked, Some(&now)) == Ok(0)
}

fn look_up(pid: i32) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let mut comm = fs::read(dir.join("comm")).ok()?;
    comm.pop_if(|last| *last == b'\n');
    let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    Some(Process {
        comm,
        exe: fs::read_link(dir.join("exe")).map_or_else(|_| PathBuf::new(), without_deleted),
        uid: effective(&status, "Uid:"),
        gid: effective(&status, "Gid:"),
        cgroup: cgroup_of(&cgroup),
    })
}

/// A program that was upgraded while it ran is shown as "PATH (deleted)".
fn without_deleted(exe: PathBuf) -> PathBuf {
    match exe.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => PathBuf::from(std::ffi::OsStr::from_bytes(path)),
        None => exe,
    }
}

/// The second of the four ids of a line of `/proc/PID/status`.
fn effective(status: &str, key: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The path in the unified hierarchy (cgroups(7)): the line `0::PATH`.
fn cgroup_of(lines: &str) -> String {
    let line = lines.lines().find_map(|l| l.strip_prefix("0::"));
    line.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn everything_that_is_given_must_hold() {
        let restic = Process {
            comm: b"restic".to_vec(),
            exe: "/usr/bin/restic".into(),
            uid: Some(34),
            gid: Some(34),
            cgroup: "/system.slice/backup.service".into(),
        };
        let by = |accessor: Accessor| accessor.is(&restic);
        let comm = Some("restic".to_owned());
        assert!(by(Accessor {
            comm: comm.clone(),
            ..Accessor::default()
        }));
        assert!(by(Accessor {
            comm: comm.clone(),
            uid: Some(34),
            ..Accessor::default()
        }));
        assert!(!by(Accessor {
            comm,
            uid: Some(0),
            ..Accessor::default()
        }));
        assert!(by(Accessor {
            cgroup: Some("/system.slice".into()),
            ..Accessor::default()
        }));
        assert!(!by(Accessor {
            cgroup: Some("/system.sl".into()),
            ..Accessor::default()
        }));
        assert!(!by(Accessor {
            cgroup: Some("/".into()),
            ..Accessor::default()
        }));
        assert!(!by(Accessor::default()), "what says nothing names no process");
    }

    #[test]
    fn a_process_is_ignored_while_it_lives_and_a_user_once_it_exited() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let by = By::process(pid);
        let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let mut accessors = Accessors::new(vec![Accessor {
            exe: fs::read_link(format!("/proc/{pid}/exe")).ok(),
            what: What::Reads,
            ..Accessor::default()
        }]);
        // Between fork and exec the child still is this test.
        let process = || Some(process.try_clone().unwrap());
        while !accessors.ignores(Acts::READ, by, process()) {
            accessors = Accessors::new(vec![Accessor {
                exe: fs::read_link(format!("/proc/{pid}/exe")).ok(),
                what: What::Reads,
                ..Accessor::default()
            }]);
        }
        assert!(
            !accessors.ignores(Acts::READ, by, None),
            "it is unknown who it was"
        );
        assert!(
            !accessors.ignores(Acts::READ | Acts::WRITE, by, process()),
            "what is written counts"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!accessors.ignores(Acts::READ, by, process()));
    }

    /// A process that the test ends.
    fn sleeper() -> (std::process::Child, By, Vec<Accessor>) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let own = fs::read_link("/proc/self/exe").unwrap();
        let exe = loop {
            // Between fork and exec the child still is this test.
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
            if exe != own {
                break exe;
            }
        };
        let ignored = vec![Accessor {
            exe: Some(exe),
            what: What::Reads,
            ..Accessor::default()
        }];
        (child, By::process(pid), ignored)
    }

    #[test]
    fn without_descriptors_a_process_is_ignored_from_the_next_event_after_an_empty_queue_on() {
        let (mut child, by, ignored) = sleeper();
        let mut accessors = Accessors::without_descriptors(ignored);
        let mut reads = |emptied: bool| {
            accessors.begin(emptied);
            [(); 2].map(|()| accessors.ignores(Acts::READ, by, None))
        };
        assert_eq!(
            reads(true),
            [false; 2],
            "it was not known when the queue was empty last"
        );
        assert_eq!(
            reads(false),
            [false; 2],
            "these may have waited since before it was known"
        );
        assert_eq!(reads(false), [false; 2], "nor was the queue empty since");
        assert_eq!(
            reads(true),
            [false; 2],
            "it was empty after these, and not before"
        );
        assert_eq!(reads(true), [true; 2]);
        assert_eq!(reads(false), [true; 2]);
        accessors.begin(true);
        assert!(
            !accessors.ignores(Acts::WRITE, by, None),
            "what is written counts"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        for _ in 0..4 {
            accessors.begin(true);
            assert!(
                !accessors.ignores(Acts::READ, by, None),
                "its number may be another's"
            );
        }
    }

    #[test]
    fn whose_opens_are_ignored_is_a_user_once_it_reads() {
        let opens = What::Opens;
        assert!(opens.covers(Acts::OPEN) && opens.covers(Acts::OPEN | Acts::CLOSE_READER));
        for more in [Acts::READ, Acts::WRITE, Acts::EXEC, Acts::CLOSE_WRITER] {
            assert!(!opens.covers(more) && !opens.covers(Acts::OPEN | more));
        }
        let nfs = Process {
            comm: b"ganesha.nfsd".to_vec(),
            ..Process::default()
        };
        let of = |what| Accessor {
            comm: Some("ganesha.nfsd".into()),
            what,
            ..Accessor::default()
        };
        let ignored = |list: Vec<Accessor>| Accessors::new(list).ignored_of(&nfs);
        assert_eq!(ignored(vec![of(What::Opens)]), What::Opens);
        assert_eq!(ignored(vec![of(What::Reads), of(What::Opens)]), What::Reads);
        assert_eq!(ignored(Vec::new()), What::Nothing);
    }
}
