//! `purge-agent once`: scans a directory, plans, applies and ends, as a job in a container does. Nothing is watched, and nothing is kept.
//!
//! - `judge` when a file was used last (pure)
//! - `scan`  finds what goes
//! - `tree`  directories and files that were found
//! - `take`  removes files
//! - `held`  what processes of this host have open
//! - `empty` removes directories that are empty by now
//! - `tally` statistics
//!
//! What may never happen: a file goes whose last use is not known, or that was used since the scan saw it. Reads are known only where a read
//! moves the access time, which is tried with a file of our own. Where it does not, the job says so and ends, unless it was told which
//! clocks to believe.

mod empty;
mod held;
mod judge;
mod scan;
mod take;
mod tally;
mod tree;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use clap::Args;
use purge_base::descriptors;
use purge_collect::atimes;
use purge_model::{Clocks, Kind};
use purge_proto::units::{format_duration, parse_duration};
use purge_removal::trash::TRASH;
use purge_sys::beneath;
use purge_sys::exact::{self, Exact, Fresh, Moment};
use purge_sys::stat::{self, Mount, magic};
use purge_sys::trying::{self, Traces};

use self::judge::Rule;
use self::scan::{Ground, Linked};
use self::tally::{Skip, Tally, Times, get};

/// Exit codes, as those of purgectl.
mod exit {
    pub const DONE: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const PARTLY: u8 = 5;
    pub const INTERRUPTED: u8 = 130;
}

/// Removals at a time on a file server, unless the command line says otherwise.
const FAR_REMOVALS: usize = 512;
/// And on a disk.
const LOCAL_REMOVALS: usize = 32;
/// A token of an agent that is older is left over.
const AGENT_ENDED_AFTER: i64 = 150;

/// Arguments of `once`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The log and the statistics are JSON on stderr, and the statistics also on stdout.\n\
    Exit codes: 0 done; 1 error; 2 usage error; 3 refused; 5 partly done; 130 interrupted."
)]
pub struct Once {
    /// The directory.
    #[arg(long)]
    pub volume: PathBuf,
    /// What was not used for longer goes.
    #[arg(long, value_parser = ttl)]
    pub ttl: u64,
    /// Say what would go, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove directories that are empty, or become so.
    #[arg(long)]
    pub remove_empty_dirs: bool,
    /// At most this number of them; 0: all.
    #[arg(long, default_value_t = 500)]
    pub max_empty_dirs: u64,
    /// Removals at a time [default: 512 on a file server, 32 on a disk].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub max_concurrency: Option<u64>,
    /// Last use is the latest of these: access, modify, change, birth. Without access, files that are only read go.
    #[arg(long, value_delimiter = ',', value_name = "CLOCKS")]
    pub clock: Vec<Clock>,
    /// What is logged.
    #[arg(long, value_enum, default_value_t = Level::Info, ignore_case = true)]
    pub log_level: Level,
}

/// A clock of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Clock {
    /// The access time.
    Access,
    /// The modification time.
    Modify,
    /// The change time.
    Change,
    /// The birth time.
    Birth,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Nothing but errors.
    Error,
    /// And warnings.
    #[value(alias = "warn")]
    Warning,
    /// And what is done.
    Info,
    /// And details.
    Debug,
    /// And everything.
    Trace,
}

impl Level {
    /// For the log's filter.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

fn ttl(text: &str) -> Result<u64, String> {
    match parse_duration(text) {
        Ok(0) => Err("everything would go: write a time such as 30d".into()),
        other => other.map_err(|e| e.to_string()),
    }
}

/// Why a job removes nothing.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unsafe(String),
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Unsafe(_) => exit::REFUSED,
            Self::Failed(_) => exit::ERROR,
        }
    }
}

impl Once {
    /// Does it, and returns the exit code.
    pub fn run(&self) -> u8 {
        let stop = stopped_by_signals();
        match self.job(&stop) {
            Ok(code) => code,
            Err(refusal) => {
                tracing::error!(why = %refusal, "nothing was removed");
                refusal.code()
            }
        }
    }

    fn clocks(&self) -> Clocks {
        if self.clock.is_empty() {
            return Clocks::ALL;
        }
        let has = |clock| self.clock.contains(&clock);
        Clocks {
            access: has(Clock::Access),
            modify: has(Clock::Modify),
            change: has(Clock::Change),
            birth: has(Clock::Birth),
        }
    }

    fn job(&self, stop: &AtomicBool) -> Result<u8, Refusal> {
        let began = Instant::now();
        let place = Place::open(&self.volume)?;
        let tried = place.try_out(self.clocks().access && !self.dry_run)?;
        let mut rule = Rule {
            ttl: self.ttl,
            clocks: self.clocks(),
            traces: tried.traces,
        };
        tracing::info!(
            volume = %self.volume.display(), filesystem = place.mount.filesystem, ttl = format_duration(self.ttl),
            reads = reads(tried.traces), guard = if tried.leases { "leases" } else { "comparison" }, dry_run = self.dry_run, "begins"
        );
        let is_blind = rule.is_blind();
        if is_blind {
            let refusal = Refusal::Unsafe(format!(
                "reads leave no access time on {} ({}), so the last use of its files is not known; to purge by the last change alone, which \
                 removes files that are still read: --clock modify,change",
                self.volume.display(),
                place.mount.filesystem
            ));
            if !self.dry_run {
                return Err(refusal);
            }
            // Nothing is removed: what that would mean is shown.
            tracing::warn!(why = %refusal, "what follows goes by the last change alone, as with --clock modify,change");
            (rule.clocks.access, rule.clocks.birth) = (false, false);
            (rule.clocks.modify, rule.clocks.change) = (true, true);
        }
        let shares = descriptors::shares();
        let ground = Ground {
            root: &place.root,
            device: place.found.device,
            rule,
            now: tried.now.min(Moment::now()),
            stop,
            lent_max: shares.scan,
            workers_max: shares.scan_workers,
        };
        let mut times = Times::default();
        let tally = self.rounds(&ground, &place, tried.leases, &mut times);
        times.whole = began.elapsed().as_secs_f64();
        self.tell(&tally, times);
        let failed = get(&tally.failed) > 0 || get(&tally.unreadable) > 0;
        Ok(match (stop.load(Relaxed), failed) {
            (true, _) => exit::INTERRUPTED,
            _ if is_blind => exit::REFUSED,
            (_, true) => exit::PARTLY,
            _ => exit::DONE,
        })
    }

    /// Scans and removes, again where a plan had no room for all.
    fn rounds(&self, on: &Ground<'_>, place: &Place, leases: bool, times: &mut Times) -> Tally {
        let tally = Tally::default();
        let mut first = true;
        loop {
            let round = Tally::default();
            let counted = if first { &tally } else { &round };
            first = false;
            let began = Instant::now();
            let found = scan::scan(on, &place.found, counted);
            times.scan += began.elapsed().as_secs_f64();
            let more = found.more && !self.dry_run;
            let before = get(&tally.removed);
            let (linked, stay) = whole(found.linked, &tally);
            let mut tree = found.tree;
            stay.into_iter().for_each(|dir| tree.keep(dir));
            tracing::info!(
                files = get(&counted.files),
                directories = get(&counted.directories),
                expired = get(&tally.expired),
                expired_bytes = get(&tally.expired_bytes),
                seconds = began.elapsed().as_secs_f64(),
                "planned"
            );
            if self.dry_run || on.stop.load(Relaxed) {
                return tally;
            }
            let began = Instant::now();
            let most = self.max_concurrency.and_then(|n| usize::try_from(n).ok());
            let most = most.unwrap_or(if leases { LOCAL_REMOVALS } else { FAR_REMOVALS });
            let taking = take::Taking::new(on, &tally, tree, leases);
            taking.run(found.parts, linked, most);
            times.purge += began.elapsed().as_secs_f64();
            let ended = taking.has_failed_too_often() || on.stop.load(Relaxed);
            if !more && !ended && self.remove_empty_dirs {
                empty::remove(on, &tally, taking.into_tree(), self.max_empty_dirs, most);
            }
            if ended || !more || get(&tally.removed) == before {
                return tally;
            }
        }
    }

    fn tell(&self, tally: &Tally, times: Times) {
        let statistics = tally.statistics(times);
        tracing::info!(
            files_scanned = get(&tally.files),
            files_to_purge = get(&tally.expired),
            files_purged = get(&tally.removed),
            bytes_purged = get(&tally.removed_bytes),
            empty_dirs_removed = get(&tally.removed_dirs),
            skipped = tally.skipped.total(),
            errors = get(&tally.failed),
            unreadable = get(&tally.unreadable),
            seconds = times.whole,
            scan_files_per_second = tally::rate(get(&tally.files), times.scan),
            purge_files_per_second = tally::rate(get(&tally.removed), times.purge),
            dry_run = self.dry_run,
            "done"
        );
        let mut all = serde_json::Map::new();
        all.insert("message".into(), "done".into());
        all.insert("volume".into(), self.volume.to_string_lossy().into());
        all.insert("dry_run".into(), self.dry_run.into());
        if let serde_json::Value::Object(statistics) = statistics {
            all.extend(statistics);
        }
        println!("{}", serde_json::Value::Object(all));
    }
}

/// Files of which all names were found; the directories of the others stay.
fn whole(
    linked: std::collections::HashMap<purge_model::Inode, Linked>,
    tally: &Tally,
) -> (Vec<Linked>, Vec<tree::DirNo>) {
    let is_whole = |file: &Linked| file.names.len() == file.item.links as usize;
    let (whole, parts): (Vec<Linked>, Vec<Linked>) = linked.into_values().partition(is_whole);
    for file in &whole {
        tally.expired.fetch_add(1, Relaxed);
        tally.expired_bytes.fetch_add(file.item.size, Relaxed);
    }
    parts.iter().for_each(|_| tally.skipped.count(Skip::Hardlinked));
    let stay = parts.into_iter().flat_map(|file| file.names).map(|(dir, _)| dir);
    (whole, stay.collect())
}

fn reads(traces: Traces) -> &'static str {
    match traces {
        Traces::Each => "each read moves the access time",
        Traces::Daily => "a read moves the access time once a day",
        Traces::None => "reads leave no access time",
    }
}

/// What lies at the path.
struct Place {
    root: OwnedFd,
    found: Exact,
    mount: Mount,
}

impl Place {
    fn open(path: &Path) -> Result<Self, Refusal> {
        let unusable = |why: String| Refusal::Failed(format!("{}: {why}", path.display()));
        let seen = stat::path(path).map_err(|e| unusable(format!("cannot be read: {e}")))?;
        match seen.stat.kind {
            Kind::Directory => {}
            Kind::Symlink => {
                let why = "is a symbolic link, which is not followed: write the path that it leads to";
                return Err(unusable(why.into()));
            }
            Kind::File | Kind::Special => return Err(unusable("is no directory".into())),
        }
        if std::fs::canonicalize(path).is_ok_and(|path| path == Path::new("/")) {
            return Err(Refusal::Usage("--volume is the whole system".into()));
        }
        let read = |e: io::Error| unusable(format!("cannot be read: {e}"));
        let root = beneath::open_root(path).map_err(read)?;
        let found = exact::open(&root, Fresh::Now).map_err(read)?;
        let mount = stat::mount(path).map_err(read)?;
        if mount.read_only {
            return Err(Refusal::Unsafe(format!(
                "{} is mounted read-only",
                path.display()
            )));
        }
        Ok(Self { root, found, mount })
    }

    /// What the file system does, and whether an agent works here.
    fn try_out(&self, is_needed: bool) -> Result<trying::Tried, Refusal> {
        let tried = match trying::try_in(&self.root) {
            Ok(tried) => tried,
            // The kernel of this host answers for its own disks, also where they are full.
            Err(error) if self.mount.is_local() => self.as_mounted(&error),
            Err(error) if !is_needed => self.as_mounted(&error),
            Err(error) => {
                return Err(Refusal::Failed(format!(
                    "no file can be made in the volume to try whether reads move access times: {error}; to purge by the last change alone, \
                     which removes files that are still read: --clock modify,change"
                )));
            }
        };
        if self.has_agent(tried.now) {
            return Err(Refusal::Unsafe(
                "an agent watches this volume, and knows of uses and holds that a job does not: purgectl apply, or stop the agent first".into(),
            ));
        }
        // NFS answers for the leases of this host alone, and so may every other server.
        let leases = tried.leases && self.mount.is_local() && self.mount.magic != magic::NFS;
        // A reader at another mount of the same disk may leave none.
        let traces = match self.mount.is_local() && atimes::some_mount_keeps_none(&self.root) {
            true => Traces::None,
            false => tried.traces,
        };
        Ok(trying::Tried {
            leases,
            traces,
            ..tried
        })
    }

    /// What the options of the mount say, where no file can be made.
    fn as_mounted(&self, error: &io::Error) -> trying::Tried {
        tracing::warn!(%error, "no file can be made in the volume to try what its file system does");
        trying::Tried {
            traces: match self.mount.is_local() && self.mount.keeps_atime {
                true => Traces::Daily,
                false => Traces::None,
            },
            leases: self.mount.is_local(),
            now: Moment::now(),
        }
    }

    /// Whether the token of an agent that runs lies in the trash.
    fn has_agent(&self, now: Moment) -> bool {
        let token = beneath::open_dir(&self.root, TRASH.as_bytes())
            .and_then(|trash| exact::entry(trash, c"agent", Fresh::Now));
        token.is_ok_and(|token| now.seconds.saturating_sub(token.ctime.seconds) < AGENT_ENDED_AFTER)
    }
}

/// Is set when the job is to end.
fn stopped_by_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let wait = move || {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
            if let (Ok(mut term), Ok(mut int)) = (term, int) {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                told.store(true, Relaxed);
            }
        });
    };
    // Without it a signal ends the job at once, which leaves nothing behind either.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
    stop
}
