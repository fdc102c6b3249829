//! A process that has found a file by its name before a run moved it, and opens it while the run processes it, finds it at its place.
//!
//! Between the last look and the removal there is a moment in which a process comes too late: the file that it opens is deleted. That must be the
//! exception among the processes that come.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, make, regular_files, trash_is_empty};
use purge_tests::scanner::Scanner;
use purge_tests::wait::Ends;
use purge_tests::{Agent, Config, Fs, Mount, Plan, need};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

const FILES: usize = 3000;
/// This many must have come before the result is judged.
const COMERS: usize = 50;
const ROUNDS: usize = 20;
const OPENERS: usize = 3;

/// A file that a process has found by its name and not opened yet.
struct Found {
    path: PathBuf,
    file: OwnedFd,
}

/// What a comer met.
enum Met {
    /// The file was there, or the run was still processing it.
    InTime,
    /// It was deleted.
    TooLate,
}

impl Found {
    fn all(files: Vec<PathBuf>) -> Vec<Self> {
        let found = |path: PathBuf| Self {
            file: open(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap(),
            path,
        };
        files.into_iter().map(found).collect()
    }

    /// Opens it if it is neither at its place nor removed: a run is processing it.
    fn open_while_processed(&self) -> Option<Met> {
        if self.links() == 0 || self.path.exists() {
            return None;
        }
        let opened = File::open(self.link()).unwrap();
        Some(match fstat(&opened).unwrap().st_nlink > 0 {
            true => Met::InTime,
            false => Met::TooLate,
        })
    }

    /// Comes to open it, if it is not at its place and under a lease: what stays in the trash is there to be opened for good.
    fn come_to_lease(&self) -> Option<Met> {
        if self.path.exists() {
            return None;
        }
        let no_wait = OFlags::RDONLY | OFlags::NONBLOCK;
        match open(self.link(), no_wait, Mode::empty()) {
            Err(rustix::io::Errno::AGAIN) => Some(Met::InTime),
            _ => None,
        }
    }

    fn links(&self) -> u64 {
        fstat(&self.file).unwrap().st_nlink
    }

    fn link(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// A plan that is about to be applied, and its files, each of which a process has found.
struct Ready {
    agent: Agent,
    plan: Plan,
    found: Vec<Found>,
}

impl Ready {
    fn new(root: &Path, files: Vec<PathBuf>, config: &Config) -> Self {
        age_tree(root);
        let agent = Agent::tracking(config);
        let plan = agent.ctl().plan();
        let found = Found::all(files);
        Self { agent, plan, found }
    }

    /// Applies the plan while `come` is tried on every file, and returns the run and what each process met.
    fn apply_beside(&self, come: impl Fn(&Found) -> Option<Met> + Sync) -> (Value, Vec<(&Found, Met)>) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Ends(&stop);
            let openers: Vec<_> = (0..OPENERS)
                .map(|nth| {
                    let (come, stop) = (&come, &stop);
                    scope.spawn(move || {
                        let mut met = Vec::new();
                        while !stop.load(Relaxed) {
                            let mine = self.found.iter().skip(nth).step_by(OPENERS);
                            met.extend(mine.filter_map(|one| Some((one, come(one)?))));
                        }
                        met
                    })
                })
                .collect();
            let run = self.agent.ctl().apply(&self.plan).json();
            drop(ends);
            let met = openers.into_iter().flat_map(|o| o.join().unwrap()).collect();
            (run, met)
        })
    }
}

/// Files only: the counts are those of the files then.
fn files_only(root: &Path, more: &str) -> Config {
    Config::backdated_with(root, &format!("remove_empty_dirs = false\n{more}"))
}

/// Room for a descriptor of every file.
fn raise_limit() {
    let limit = Some(20_000);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
}

fn is_lost(found: &Found) -> bool {
    !found.path.exists()
}

/// How many came in time and how many too late; fails if a process that came in time is without its file.
fn judge(met: &[(&Found, Met)], run: &Value) -> (usize, usize) {
    let (there, gone): (Vec<_>, Vec<_>) = met.iter().partition(|(_, met)| matches!(met, Met::InTime));
    let lost: Vec<_> = there
        .iter()
        .filter(|(f, _)| is_lost(f))
        .map(|(f, _)| &f.path)
        .collect();
    assert!(
        lost.is_empty(),
        "{lost:?} were there when they were opened: {run}"
    );
    (there.len(), gone.len())
}

/// A volume of its own for each round, until enough have come: how many did in time, and how many too late.
fn until_enough_came(mount: &Mount, round: impl Fn(&Path) -> (usize, usize)) {
    raise_limit();
    let (mut in_time, mut too_late) = (0, 0);
    for n in 0..ROUNDS {
        let root = mount.dir(&format!("v{n}"));
        let (there, gone) = round(&root);
        // The next needs its room.
        fs::remove_dir_all(&root).unwrap();
        in_time += there;
        too_late += gone;
        if in_time >= COMERS {
            assert!(
                too_late * 3 < in_time,
                "{too_late} came too late, {in_time} did not"
            );
            return;
        }
    }
    panic!("only {in_time} came in time while the agent was processing a file, and {too_late} too late");
}

fn a_late_opener_finds_its_file(filesystem: Fs, is_scanned: bool) {
    let mount = need!(Mount::new(filesystem));
    until_enough_came(&mount, |root| {
        let ready = Ready::new(root, make(&root.join("d"), FILES), &files_only(root, ""));
        let scanner = is_scanned.then(|| Scanner::of(root));
        let (run, met) = ready.apply_beside(Found::open_while_processed);
        drop(scanner);
        assert_eq!(number(&run, "/failed_total"), 0, "{run}");
        let deleted = tally(&ready.plan, &run).deleted as usize;
        assert_eq!(deleted + regular_files(root).len(), FILES, "{run}");
        assert!(trash_is_empty(root), "nothing is left behind");
        judge(&met, &run)
    });
}

#[test]
fn a_late_opener_finds_its_file_on_ext4() {
    a_late_opener_finds_its_file(Fs::Ext4, false);
}

#[test]
fn a_late_opener_finds_its_file_on_xfs() {
    a_late_opener_finds_its_file(Fs::Xfs, false);
}

#[test]
fn a_late_opener_finds_its_file_on_tmpfs() {
    a_late_opener_finds_its_file(Fs::Tmpfs, false);
}

/// The kernel asks a virus scanner before he comes to the lease, and he waits for the answer longer than a batch takes.
#[test]
fn an_opener_that_waits_for_a_virus_scanner_finds_its_file_on_ext4() {
    a_late_opener_finds_its_file(Fs::Ext4, true);
}

#[test]
fn an_opener_that_waits_for_a_virus_scanner_finds_its_file_on_xfs() {
    a_late_opener_finds_its_file(Fs::Xfs, true);
}

/// A directory of which some was removed when he came is named as failed, with the rest at its place.
#[test]
fn an_opener_that_waits_for_a_virus_scanner_finds_its_file_in_a_directory_that_goes_as_a_whole() {
    let mount = need!(Mount::new(Fs::Ext4));
    until_enough_came(&mount, |root| {
        let dirs = (0..60).map(|n| root.join(format!("d{n}")));
        let files = dirs.flat_map(|dir| make(&dir, 50)).collect();
        let config = Config::backdated_with(root, "target = \"directory\"\ndepth = 1");
        let ready = Ready::new(root, files, &config);
        let scanner = Scanner::of(root);
        let (run, met) = ready.apply_beside(Found::open_while_processed);
        drop(scanner);
        tally(&ready.plan, &run);
        assert!(trash_is_empty(root), "nothing is left behind");
        judge(&met, &run)
    });
}

#[test]
fn an_opener_that_meets_a_lease_finds_its_file_also_with_a_grace() {
    let mount = need!(Mount::new(Fs::Ext4));
    until_enough_came(&mount, |root| {
        let config = files_only(root, "grace = \"1h\"");
        let ready = Ready::new(root, make(&root.join("d"), FILES), &config);
        let (run, met) = ready.apply_beside(Found::come_to_lease);
        assert_eq!(number(&run, "/failed_total"), 0, "{run}");
        let left = ready.found.iter().filter(|f| !is_lost(f)).count();
        assert_eq!(number(&run, "/trashed/files") as usize + left, FILES, "{run}");
        let too_late = met.iter().filter(|(f, _)| is_lost(f)).count();
        (met.len() - too_late, too_late)
    });
}
