//! What a mount of the agent's costs those who use files through it, beside the file system behind and, where it is installed, bindfs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{pause, run};
use crate::image::{Image, Tree};
use crate::measure::median_seconds;
use crate::report::{Report, Unit};
use crate::stages::Bench;

/// Small files, of one block each.
const FILES: usize = 2_000;
/// A large file, read and written in blocks of 1 MiB.
const LARGE_BLOCKS: u64 = 128;
const BLOCK: usize = 1 << 20;
/// A mount answers within.
const MOUNTED_WITHIN: Duration = Duration::from_secs(20);

/// Something mounted over the same directory; unmounted when dropped.
struct Mounted {
    at: PathBuf,
    child: Option<Child>,
}

impl Mounted {
    /// `purge-agent mount`, with these features taken for missing.
    fn ours(bench: &Bench, behind: &Path, without: &str) -> Result<Self> {
        let place = bench.place.join(format!("through-{without}"));
        let at = place.join("at");
        fs::create_dir_all(&at)?;
        let config = place.join("agent.toml");
        let text = format!(
            "state_dir = {:?}\n[listen]\nunix = {:?}\n[[volume]]\nname = \"v\"\npath = {behind:?}\ncollector = \"fuse\"\nmount = {at:?}\n",
            place.join("state"),
            place.join("agent.sock")
        );
        fs::write(&config, text)?;
        let mut command = Command::new(bench.programs.join("purge-agent"));
        command
            .args(["mount", "--volume", "v", "--config"])
            .arg(&config)
            .current_dir("/");
        command
            .env("PURGE_AGENT_SINGLE_PROCESS", "1")
            .env("PURGE_AGENT_WITHOUT", without);
        let child = command
            .stdin(Stdio::null())
            .stderr(File::create(place.join("log"))?)
            .spawn()?;
        let mounted = Self {
            at,
            child: Some(child),
        };
        let began = Instant::now();
        while !mounted.at.join("small").exists() {
            ensure!(
                began.elapsed() < MOUNTED_WITHIN,
                "the mount does not come up: {}",
                place.display()
            );
            pause(Duration::from_millis(20))?;
        }
        Ok(mounted)
    }

    /// bindfs, if it is installed.
    fn bindfs(bench: &Bench, behind: &Path) -> Result<Option<Self>> {
        let at = bench.place.join("bindfs");
        fs::create_dir_all(&at)?;
        let mut bindfs = Command::new("bindfs");
        bindfs.arg(behind).arg(&at).stderr(Stdio::null());
        let is_there = bindfs.status().is_ok_and(|status| status.success());
        Ok(is_there.then_some(Self { at, child: None }))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        match &mut self.child {
            Some(child) => {
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
                let _ = child.wait();
            }
            None => {
                let _ = Command::new("umount").arg(&self.at).status();
            }
        }
    }
}

/// What is done, and how often in one go.
type Work = (&'static str, f64, fn(&Path) -> Result<()>);

const WORK: [Work; 7] = [
    ("read, blocks of 1 MiB", LARGE_BLOCKS as f64, read_large),
    ("write, blocks of 1 MiB", LARGE_BLOCKS as f64, write_large),
    ("open, read 4 KiB, close", FILES as f64, read_small),
    ("stat, cached", FILES as f64, stat_small),
    ("create, write, close, unlink", FILES as f64, create_and_unlink),
    ("list", FILES as f64, list),
    ("list and stat", FILES as f64, list_and_stat),
];

/// Measures each piece of work on the file system itself and through each mount, and prints the table.
pub fn measure(bench: &Bench) -> Result<()> {
    println!("{FILES} files of 4 KiB and one of {LARGE_BLOCKS} MiB on ext4 (noatime)");
    let tree = Tree {
        files: 10_000,
        old_share: 0.0,
        seed: 4,
    };
    let image = Image::make(&bench.programs, &bench.place, "through", tree)?;
    let behind = image.root().join("volume");
    make(&behind)?;
    let mut report = Report::default();
    let direct: Vec<f64> = WORK
        .iter()
        .map(|work| each(work, &behind))
        .collect::<Result<_>>()?;
    let mounts = [
        ("passthrough", Some(Mounted::ours(bench, &behind, "")?)),
        (
            "by the mount's process",
            Some(Mounted::ours(bench, &behind, "fuse_passthrough")?),
        ),
        ("bindfs", Mounted::bindfs(bench, &behind)?),
    ];
    for (how, mounted) in &mounts {
        let Some(mounted) = mounted else {
            report.remark(format!("{how} is not installed"));
            continue;
        };
        for (work, direct) in WORK.iter().zip(&direct) {
            let through = each(work, &mounted.at)?;
            report.beside(
                &format!("{how}: {}", work.0),
                Unit::Seconds,
                through,
                "direct",
                *direct,
            );
        }
    }
    println!("\n{report}");
    Ok(())
}

/// Seconds of one.
fn each((what, times, work): &Work, at: &Path) -> Result<f64> {
    eprintln!("... {what} in {}", at.display());
    work(at)?;
    Ok(median_seconds(|| work(at))? / times)
}

fn make(at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("small"))?;
    for n in 0..FILES {
        fs::write(at.join(format!("small/{n}")), [b'x'; 4096])?;
    }
    let mut large = File::create(at.join("large"))?;
    for _ in 0..LARGE_BLOCKS {
        large.write_all(&vec![b'x'; BLOCK])?;
    }
    Ok(large.sync_all()?)
}

fn read_large(at: &Path) -> Result<()> {
    let (mut file, mut block) = (File::open(at.join("large"))?, vec![0; BLOCK]);
    for _ in 0..LARGE_BLOCKS {
        file.read_exact(&mut block)?;
    }
    Ok(())
}

fn write_large(at: &Path) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(at.join("large"))?;
    file.seek(SeekFrom::Start(0))?;
    let block = vec![b'y'; BLOCK];
    for _ in 0..LARGE_BLOCKS {
        file.write_all(&block)?;
    }
    Ok(())
}

fn read_small(at: &Path) -> Result<()> {
    let mut block = vec![0; 4096];
    for n in 0..FILES {
        File::open(at.join(format!("small/{n}")))?.read_exact(&mut block)?;
    }
    Ok(())
}

fn stat_small(at: &Path) -> Result<()> {
    for n in 0..FILES {
        fs::metadata(at.join(format!("small/{}", n % 200)))?;
    }
    Ok(())
}

fn create_and_unlink(at: &Path) -> Result<()> {
    for n in 0..FILES {
        let path = at.join(format!("small/new-{n}"));
        fs::write(&path, [b'x'; 4096])?;
        fs::remove_file(path)?;
    }
    Ok(())
}

fn list(at: &Path) -> Result<()> {
    let count = fs::read_dir(at.join("small"))?.count();
    ensure!(count == FILES, "{count} names are listed");
    Ok(())
}

fn list_and_stat(at: &Path) -> Result<()> {
    run(Command::new("find").arg(at.join("small")).args(["-size", "+1G"])).context("find")
}
