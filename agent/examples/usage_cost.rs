//! What usage costs with ten million files in half a million directories: takes a gigabyte and half a minute, prints figures.
//!
//! `cargo run --release -p purge-agent --example usage_cost`

use std::error::Error;
use std::time::Instant;

use parking_lot::RwLock;
use prost::Message;
use purge_agent::serve::usage::Report;
use purge_index::{DirId, Found, Index, Store, VolumeId};
use purge_model::{Kind, LastUse, Seconds, Source, Stat};
use purge_query::snapshot::Snapshot;
use purge_query::usage::{By, recount};

const FILES: u64 = 10_000_000;
const DIRS: u64 = FILES / 20;
const DAY: u32 = 86_400;
const NOW: u32 = 900 * DAY;
/// Inodes from here on are files.
const FIRST_FILE: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut index = Index::new(Store::temporary()?, VolumeId(1));
    index.set_root(&stat(2, Kind::Directory, Seconds(NOW)));
    let ids = make_directories(&mut index)?;
    make_files(&mut index, &ids)?;
    println!("{} MiB with the names that wait", resident_mib()?);
    let index = RwLock::new(index);
    for moment in [NOW, NOW + 1] {
        let began = Instant::now();
        recount(&index, (Seconds(moment), None))?;
        println!("count all again: {:?}, {} MiB", began.elapsed(), resident_mib()?);
    }
    let subjects = [By::User, By::Group, By::Project];
    let directories = [By::Directory(1), By::Directory(3), By::Directory(99)];
    for by in subjects.into_iter().chain(directories) {
        for (most, with_ages) in [(1000, false), (1000, true), (0, false), (0, true)] {
            let began = Instant::now();
            let held = Snapshot::of(&index.read(), by, most, None, with_ages);
            let taken = began.elapsed();
            let mut report = Report::of(by, vec![("scratch".into(), held)], most);
            let first = report.part(0..512.min(report.len())).encode_to_vec().len();
            let answered = began.elapsed();
            let (count, mut bytes) = (report.len(), 0);
            for begin in (0..count).step_by(512) {
                bytes += report.part(begin..count.min(begin + 512)).encode_to_vec().len();
            }
            println!(
                "{by:?}, ages {with_ages}: {} rows; the index is let go after {taken:?}, the first {first} bytes are there after {answered:?}, \
                 all {bytes} bytes after {:?}, {} MiB",
                count,
                began.elapsed(),
                resident_mib()?
            );
        }
    }
    Ok(())
}

/// The ids of the root and of all directories below it.
fn make_directories(index: &mut Index) -> Result<Vec<DirId>, Box<dyn Error>> {
    let mut ids = vec![DirId::ROOT];
    for i in 0..DIRS {
        let above = if i < 100 { 0 } else { usize::try_from(i / 7)? };
        let name = format!("directory{i}");
        let found = Found {
            stat: stat(100 + i, Kind::Directory, Seconds(NOW)),
            parent: ids.get(above).copied().unwrap_or(DirId::ROOT),
            name: name.as_bytes(),
            first_use: used(Seconds(NOW)),
        };
        index.upsert_scanned(&mut [found])?;
        ids.push(index.dirs().of_inode(100 + i).ok_or("a directory is missing")?);
    }
    Ok(ids)
}

fn make_files(index: &mut Index, ids: &[DirId]) -> Result<(), Box<dyn Error>> {
    for start in (0..FILES).step_by(64) {
        let mut found = Vec::with_capacity(64);
        for i in start..(start + 64).min(FILES) {
            // Of every age in every directory: the most that ages can cost.
            let at = Seconds(NOW - u32::try_from(i * 37 % 400)? * DAY);
            found.push(Found {
                stat: Stat {
                    size: i / 640 * 1000,
                    uid: u32::try_from(i / 5000 % 500)?,
                    ..stat(FIRST_FILE + i, Kind::File, at)
                },
                parent: ids.get(usize::try_from(i / 20)?).copied().unwrap_or(DirId::ROOT),
                name: b"f",
                first_use: used(at),
            });
        }
        index.upsert_scanned(&mut found)?;
        // Names are not what is measured: let them go now and then.
        if start % (64 * 20_000) == 0 {
            index.start_write_back(true);
            index.written_back(true);
        }
    }
    Ok(())
}

fn stat(ino: u64, kind: Kind, at: Seconds) -> Stat {
    Stat {
        ino,
        kind,
        size: 0,
        allocated: 0,
        project: 0,
        uid: 0,
        gid: 1,
        links: 1,
        atime: at,
        mtime: at,
        ctime: at,
        ctime_nanos: 0,
        birth: at,
    }
}

fn used(at: Seconds) -> LastUse {
    LastUse {
        at,
        source: Source::Observed,
    }
}

fn resident_mib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmRSS"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? >> 10)
}
