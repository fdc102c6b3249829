//! Makes a reproducible tree of sparse files with set access and modification times.
//!
//! ```text
//! gentree ROOT FILES [--seed S] [--old-share 0.3] [--times same|split] [--per-dir 20] [--manifest FILE]
//! ```
//! - **Tree**: about FILES / per-dir directories over seven levels, most files five or six deep; the number of files
//!   of a directory is geometric.
//! - **Sizes**: log-normal (median 16 KiB, sigma 2.4, at most 1 GiB), set with `ftruncate(2)`: no data blocks.
//! - **Ages**: a share `old-share` was last read 92 to 400 days ago, the rest 0 to 88 days. Nothing lies between, so
//!   that "older than 90 days" means the same files to tools that round days differently.
//! - **`--times same`**: mtime = atime. **`split`**: mtime is older than atime by an exponential time (mean 90 days,
//!   never older than 400 days): a file that is read is not written, so an mtime rule chooses more files.
//! - **Manifest**: a line a file, `atime-age-seconds TAB mtime-age-seconds TAB size TAB path`.

use std::fmt::Display;
use std::fs::{self, File, FileTimes};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use purge_bench::random::Random;

const USAGE: &str = "usage: gentree ROOT FILES [--seed S] [--old-share F] [--times same|split] [--per-dir K] \
                     [--manifest FILE]";

const DAY_SECONDS: f64 = 86_400.0;
const YOUNG_DAYS_MAX: f64 = 88.0;
const OLD_DAYS_MIN: f64 = 92.0;
const OLD_DAYS_MAX: f64 = 400.0;
const EXPIRY_DAYS: f64 = 90.0;
const SPLIT_DAYS_MEAN: f64 = 90.0;

const SIZE_MEDIAN: f64 = 16_384.0;
const SIZE_SIGMA: f64 = 2.4;
const SIZE_MAX: u64 = 1 << 30;

/// The share of all directories on each level below the root; the last level takes what is left.
const LEVEL_SHARES: [f64; 7] = [0.005, 0.02, 0.07, 0.18, 0.315, 0.27, 0.14];
const EXTENSIONS: [&str; 8] = ["dat", "log", "parquet", "png", "txt", "npy", "json", "tmp"];

fn main() -> ExitCode {
    let wish = match Wish::parse(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("gentree: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match grow(&wish) {
        Ok(made) => {
            println!("{made}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gentree: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Wish {
    root: PathBuf,
    files: usize,
    seed: u64,
    old_share: f64,
    split_times: bool,
    per_dir: usize,
    manifest: Option<PathBuf>,
}

impl Wish {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut positional = vec![];
        let (mut seed, mut old_share, mut split_times, mut per_dir, mut manifest) = (1, 0.3, false, 20, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| anyhow!("{arg} needs a value"));
            match arg.as_str() {
                "--seed" => seed = number(&arg, &value()?)?,
                "--old-share" => old_share = number(&arg, &value()?)?,
                "--times" => split_times = times(&value()?)?,
                "--per-dir" => per_dir = number(&arg, &value()?)?,
                "--manifest" => manifest = Some(value()?.into()),
                option if option.starts_with("--") => bail!("{option} is not an option"),
                _ => positional.push(arg),
            }
        }
        let [root, files] = positional.as_slice() else {
            bail!(
                "ROOT and FILES are needed, {} arguments were given",
                positional.len()
            );
        };
        if !(0.0..=1.0).contains(&old_share) {
            bail!("--old-share is a share from 0 to 1, not {old_share}");
        }
        if per_dir == 0 {
            bail!("--per-dir is at least 1");
        }
        Ok(Self {
            root: root.into(),
            files: number("FILES", files)?,
            seed,
            old_share,
            split_times,
            per_dir,
            manifest,
        })
    }
}

/// Whether `--times` asks for an mtime of its own.
fn times(value: &str) -> Result<bool> {
    match value {
        "same" => Ok(false),
        "split" => Ok(true),
        other => bail!("--times is same or split, not '{other}'"),
    }
}

fn number<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|error| anyhow!("{what}: '{text}' is no number that fits: {error}"))
}

/// What was made, as the last line says it.
#[derive(Default)]
struct Made {
    dirs: usize,
    files: usize,
    old_by_atime: usize,
    old_by_mtime: usize,
    bytes: u64,
}

impl Display for Made {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            dirs,
            files,
            old_by_atime,
            old_by_mtime,
            bytes,
        } = self;
        write!(
            out,
            "dirs {dirs} files {files} atime>90d {old_by_atime} mtime>90d {old_by_mtime} apparent_bytes {bytes}"
        )
    }
}

fn grow(wish: &Wish) -> Result<Made> {
    let mut random = Random::new(wish.seed);
    let mut manifest = match &wish.manifest {
        Some(path) => Some(BufWriter::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => None,
    };
    let dirs = make_dirs(wish, &mut random)?;
    let mut made = Made {
        dirs: dirs.len(),
        ..Made::default()
    };
    let now = SystemTime::now();
    for (nth, dir) in dirs.iter().enumerate() {
        let left = wish.files - made.files;
        let is_last = nth + 1 == dirs.len();
        let here = if is_last {
            left
        } else {
            (random.exponential(wish.per_dir as f64).round() as usize).min(left)
        };
        for _ in 0..here {
            let file = NewFile::draw(wish, &mut random);
            let extension = EXTENSIONS
                .get(random.below(EXTENSIONS.len()))
                .copied()
                .unwrap_or("dat");
            let path = dir.join(format!("f{:07}.{extension}", made.files));
            file.create(&path, now)
                .with_context(|| format!("cannot make {}", path.display()))?;
            if let Some(manifest) = &mut manifest {
                file.write_line(manifest, &path)
                    .context("cannot write the manifest")?;
            }
            made.files += 1;
            made.bytes += file.bytes;
            made.old_by_atime += usize::from(file.atime_age > EXPIRY_DAYS * DAY_SECONDS);
            made.old_by_mtime += usize::from(file.mtime_age > EXPIRY_DAYS * DAY_SECONDS);
        }
    }
    if let Some(mut manifest) = manifest {
        manifest.flush().context("cannot write the manifest")?;
    }
    Ok(made)
}

/// Makes the directories level by level, each below a random one of the level above.
fn make_dirs(wish: &Wish, random: &mut Random) -> Result<Vec<PathBuf>> {
    let make = |path: &Path| fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()));
    fs::create_dir_all(&wish.root).with_context(|| format!("cannot make {}", wish.root.display()))?;
    let wanted = (wish.files / wish.per_dir).max(1);
    let mut all = vec![];
    let mut above = vec![wish.root.clone()];
    for (level, share) in LEVEL_SHARES.iter().enumerate() {
        let left = wanted - all.len();
        let is_last = level + 1 == LEVEL_SHARES.len();
        let count = if is_last {
            left
        } else {
            ((wanted as f64 * share) as usize).max(1).min(left)
        };
        let mut here = Vec::with_capacity(count);
        for nth in 0..count {
            let Some(parent) = above.get(random.below(above.len())) else {
                break;
            };
            let path = parent.join(format!("d{level}_{nth:05}"));
            make(&path)?;
            here.push(path);
        }
        if here.is_empty() {
            break;
        }
        all.extend(here.iter().cloned());
        above = here;
    }
    Ok(all)
}

/// One file before it is made; ages in seconds.
struct NewFile {
    atime_age: f64,
    mtime_age: f64,
    bytes: u64,
}

impl NewFile {
    fn draw(wish: &Wish, random: &mut Random) -> Self {
        let days = if random.unit() < wish.old_share {
            OLD_DAYS_MIN + (OLD_DAYS_MAX - OLD_DAYS_MIN) * random.unit()
        } else {
            YOUNG_DAYS_MAX * random.unit()
        };
        let atime_age = days * DAY_SECONDS;
        let mtime_age = if wish.split_times {
            (atime_age + random.exponential(SPLIT_DAYS_MEAN) * DAY_SECONDS).min(OLD_DAYS_MAX * DAY_SECONDS)
        } else {
            atime_age
        };
        let bytes = ((SIZE_MEDIAN.ln() + SIZE_SIGMA * random.normal()).exp() as u64).min(SIZE_MAX);
        Self {
            atime_age,
            mtime_age,
            bytes,
        }
    }

    fn create(&self, path: &Path, now: SystemTime) -> std::io::Result<()> {
        let file = File::options().write(true).create_new(true).open(path)?;
        file.set_len(self.bytes)?;
        file.set_times(
            FileTimes::new()
                .set_accessed(now - Duration::from_secs(self.atime_age as u64))
                .set_modified(now - Duration::from_secs(self.mtime_age as u64)),
        )
    }

    fn write_line(&self, manifest: &mut impl Write, path: &Path) -> std::io::Result<()> {
        let (atime_age, mtime_age) = (self.atime_age as u64, self.mtime_age as u64);
        writeln!(
            manifest,
            "{atime_age}\t{mtime_age}\t{}\t{}",
            self.bytes,
            path.display()
        )
    }
}
