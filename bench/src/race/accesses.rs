//! Threads that use files while they are purged, and what became of the files.

use std::fmt::{self, Display};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::timed;
use crate::stages::say;

const THREADS: u64 = 2;
const AGE: Duration = Duration::from_secs(200 * 86_400);
const FILES_A_DIRECTORY: usize = 20;
const CONTENT: [u8; 64] = [b'x'; 64];

/// How a file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Append,
    Map,
    Rename,
    Replace,
}

impl Use {
    /// Reads most often, as people do.
    fn draw(number: u64) -> Self {
        match number % 10 {
            0..=3 => Self::Read,
            4 | 5 => Self::Append,
            6 | 7 => Self::Map,
            8 => Self::Rename,
            _ => Self::Replace,
        }
    }
}

/// One file, and what is known of it.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    /// One thread at a time uses it: what a rename or a replacement does to another's access would be no purger's fault.
    busy: AtomicBool,
    /// It goes by its second name.
    renamed: AtomicBool,
    used: AtomicBool,
    gone: AtomicBool,
    /// How it was used, and when, in order: what explains a loss.
    uses: Mutex<Vec<(Use, SystemTime)>>,
}

impl Target {
    fn other_name(&self) -> PathBuf {
        self.path.with_extension("renamed")
    }

    fn now_at(&self) -> PathBuf {
        match self.renamed.load(SeqCst) {
            true => self.other_name(),
            false => self.path.clone(),
        }
    }
}

/// What an access was.
enum Access {
    /// The file had a name after it.
    Counted,
    /// The file went away meanwhile.
    OnDeleted,
    /// There was none.
    NotFound,
}

/// How long openers waited, by powers of two of microseconds in eighths.
#[derive(Debug, Clone)]
pub struct Waits {
    counts: Vec<u64>,
    longest: f64,
}

const STEPS_A_DOUBLING: f64 = 8.0;

impl Default for Waits {
    fn default() -> Self {
        Self {
            counts: vec![0; 320],
            longest: 0.0,
        }
    }
}

impl Waits {
    fn note(&mut self, seconds: f64) {
        let step = ((seconds * 1e6).max(1.0).log2() * STEPS_A_DOUBLING) as usize;
        if let Some(count) = self.counts.get_mut(step) {
            *count += 1;
        }
        self.longest = self.longest.max(seconds);
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.longest = self.longest.max(other.longest);
    }

    /// Seconds that a share of the openers did not exceed, to a tenth.
    pub fn quantile(&self, share: f64) -> f64 {
        let all: u64 = self.counts.iter().sum();
        let mut below = 0;
        for (step, count) in self.counts.iter().enumerate() {
            below += count;
            if below as f64 >= all as f64 * share {
                return ((step + 1) as f64 / STEPS_A_DOUBLING).exp2() / 1e6;
            }
        }
        self.longest
    }
}

/// What one or several races showed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Accesses that counted.
    pub accesses: u64,
    /// Accesses that failed otherwise than by ENOENT or ESTALE.
    pub errors: u64,
    pub files: u64,
    pub deleted: u64,
    /// Files with an access that counted.
    pub used: u64,
    /// Of these, those that were deleted.
    pub lost: u64,
    /// Files that no thread touched and that were deleted.
    pub untouched_deleted: u64,
    pub waits: Waits,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.accesses += other.accesses;
        self.errors += other.errors;
        self.files += other.files;
        self.deleted += other.deleted;
        self.used += other.used;
        self.lost += other.lost;
        self.untouched_deleted += other.untouched_deleted;
        self.waits.add(&other.waits);
    }

    /// Of the files that no thread touched, the share that was deleted.
    pub fn untouched_deleted_share(&self) -> f64 {
        self.untouched_deleted as f64 / (self.files - self.used).max(1) as f64
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10}{:>10}{:>10}{:>10}{:>8}{:>15.1}%{:>11.2} ms{:>9.2} ms",
            self.accesses,
            self.files,
            self.deleted,
            self.used,
            self.lost,
            self.untouched_deleted_share() * 100.0,
            self.waits.quantile(0.999) * 1e3,
            self.waits.longest * 1e3,
        )
    }
}

/// The files of a race.
pub struct Targets {
    tree: PathBuf,
    files: Vec<Target>,
}

impl Targets {
    /// Makes expired files below `root`.
    pub fn make(root: &Path, files: usize) -> Result<Self> {
        let tree = root.join("tree");
        let old = SystemTime::now() - AGE;
        let times = FileTimes::new().set_accessed(old).set_modified(old);
        let mut targets = Vec::with_capacity(files);
        let mut dir = tree.clone();
        for nth in 0..files {
            if nth % FILES_A_DIRECTORY == 0 {
                let number = nth / FILES_A_DIRECTORY;
                dir = tree
                    .join(format!("p{:03}", number / 10))
                    .join(format!("d{number:05}"));
                fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            }
            let path = dir.join(format!("f{nth:07}"));
            let made = File::create_new(&path).and_then(|mut file| {
                file.write_all(&CONTENT)?;
                file.set_times(times)
            });
            made.with_context(|| format!("cannot make {}", path.display()))?;
            targets.push(Target {
                path,
                busy: AtomicBool::new(false),
                renamed: AtomicBool::new(false),
                used: AtomicBool::new(false),
                gone: AtomicBool::new(false),
                uses: Mutex::default(),
            });
        }
        Ok(Self { tree, files: targets })
    }

    /// Where they lie.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Uses them while `purge` runs, `rate` times a second.
    pub fn race(&self, rate: u64, purge: impl FnOnce() -> Result<()>) -> Result<Outcome> {
        let stop = AtomicBool::new(false);
        let (purged, outcomes) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|seed| {
                    scope.spawn({
                        let stop = &stop;
                        move || self.use_until(stop, seed, rate)
                    })
                })
                .collect();
            let purged = purge();
            stop.store(true, SeqCst);
            let outcomes: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
            (purged, outcomes)
        });
        purged?;
        let mut all = Outcome::default();
        for outcome in outcomes {
            all.add(&outcome.map_err(|_| anyhow::anyhow!("a thread that uses files has failed"))?);
        }
        self.count(&mut all);
        Ok(all)
    }

    fn use_until(&self, stop: &AtomicBool, seed: u64, rate: u64) -> Outcome {
        static SERIES: AtomicU64 = AtomicU64::new(1);
        let mut random = SERIES.fetch_add(1, SeqCst).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed;
        let mut outcome = Outcome::default();
        let (began, mut done) = (Instant::now(), 0u64);
        while !stop.load(SeqCst) {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let nth = (random >> 20) as usize % self.files.len().max(1);
            let Some(target) = self.files.get(nth).filter(|t| !t.gone.load(SeqCst)) else {
                continue;
            };
            if target.busy.swap(true, SeqCst) {
                continue;
            }
            let how = Use::draw(random);
            let began_at = SystemTime::now();
            match access(target, how, &mut outcome.waits) {
                Ok(Access::Counted) => {
                    outcome.accesses += 1;
                    lock(&target.uses).push((how, began_at));
                    target.used.store(true, SeqCst);
                }
                Ok(Access::OnDeleted | Access::NotFound) => target.gone.store(true, SeqCst),
                Err(_) => outcome.errors += 1,
            }
            target.busy.store(false, SeqCst);
            done += 1;
            let due = Duration::from_secs_f64((done * THREADS) as f64 / rate.max(1) as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        outcome
    }

    fn count(&self, outcome: &mut Outcome) {
        for target in &self.files {
            let is_there = fs::symlink_metadata(target.now_at()).is_ok();
            let used = target.used.load(SeqCst);
            outcome.files += 1;
            outcome.deleted += u64::from(!is_there);
            outcome.used += u64::from(used);
            if used && !is_there {
                outcome.lost += 1;
                say(&format!(
                    "lost: {}, used {:?}",
                    target.path.display(),
                    lock(&target.uses)
                ));
            }
            outcome.untouched_deleted += u64::from(!used && !is_there);
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn access(target: &Target, how: Use, waits: &mut Waits) -> io::Result<Access> {
    let path = target.now_at();
    let done = match how {
        Use::Read | Use::Append | Use::Map => open_and(&path, how, waits),
        Use::Rename => {
            let renamed = !target.renamed.load(SeqCst);
            let to = if renamed {
                target.other_name()
            } else {
                target.path.clone()
            };
            fs::rename(&path, to).map(|()| {
                target.renamed.store(renamed, SeqCst);
                Access::Counted
            })
        }
        // A writer that never leaves half a file: what was there before, expired or not, is replaced.
        Use::Replace => {
            let draft = target.path.with_extension("draft");
            File::create(&draft)
                .and_then(|mut file| file.write_all(b"new content"))
                .and_then(|()| fs::rename(&draft, &path))
                .map(|()| Access::Counted)
        }
    };
    match done {
        Err(e) if matches!(e.raw_os_error(), Some(2 | 116)) => Ok(Access::NotFound),
        other => other,
    }
}

fn open_and(path: &Path, how: Use, waits: &mut Waits) -> io::Result<Access> {
    let (waited, file) = timed(|| match how {
        Use::Append => OpenOptions::new().append(true).open(path),
        _ => File::open(path),
    });
    waits.note(waited);
    let mut file = file?;
    match how {
        Use::Append => file.write_all(b"more\n")?,
        Use::Map => touch_mapped(&file)?,
        _ => file.read_exact(&mut [0; 8])?,
    }
    Ok(match file.metadata()?.nlink() {
        0 => Access::OnDeleted,
        _ => Access::Counted,
    })
}

/// Reads the first byte through a mapping.
#[allow(unsafe_code)]
fn touch_mapped(file: &File) -> io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    const PAGE: usize = 4096;
    // SAFETY: a fresh mapping at an address of the kernel's choice, of a file that has at least one byte and is never
    // truncated here.
    unsafe {
        let at = mmap(
            std::ptr::null_mut(),
            PAGE,
            ProtFlags::READ,
            MapFlags::SHARED,
            file,
            0,
        )?;
        at.cast::<u8>().read_volatile();
        munmap(at, PAGE)?;
    }
    Ok(())
}
