//! The proof of a copy, as a whole: what others write while a run archives is either still at its place, or in a copy that the catalogue names.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_tests::archive::Store;
use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make};
use purge_tests::sys::Mapping;
use purge_tests::{Agent, Fs, Mount, need};
use rustix::fs::{Timespec, Timestamps, futimens};

/// Files of a round. `PURGE_TESTS_ACCESSES` has another number.
const FILES: usize = 6000;
/// This share of them is mapped when the agent starts.
const MAPPED_PERCENT: usize = 20;
const PAUSE: Duration = Duration::from_millis(4);

/// A file, and the bytes that it had when it was last written.
type Wrote = (PathBuf, Vec<u8>);

fn files_wanted() -> usize {
    let wanted = std::env::var("PURGE_TESTS_ACCESSES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(FILES)
}

fn pause() {
    let since = Instant::now();
    while since.elapsed() < PAUSE {
        std::thread::sleep(PAUSE / 8);
    }
}

/// In an order that is not that of the run.
fn shuffled<T>(all: Vec<T>) -> Vec<T> {
    let mut slots: Vec<Option<T>> = all.into_iter().map(Some).collect();
    let count = slots.len();
    (0..count)
        .filter_map(|n| slots[n * 7919 % count].take())
        .collect()
}

/// Writes a byte of a file, by one way or another, and puts its times back.
fn write_and_hide(path: &Path, n: usize) -> Option<Wrote> {
    let byte = [b'A' + u8::try_from(n % 26).unwrap()];
    let file = File::options().read(true).write(true).open(path).ok()?;
    let was = file.metadata().unwrap();
    match n % 3 {
        0 => file.write_all_at(&byte, 3).unwrap(),
        1 => Mapping::writable(file.try_clone().unwrap()).write_first_byte(byte[0]),
        _ => {
            file.set_len(0).unwrap();
            file.write_all_at(b"all of it is new 20.", 0).unwrap();
        }
    }
    let mut bytes = vec![0; 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let back = |at: std::time::SystemTime| {
        let since = at.duration_since(std::time::UNIX_EPOCH).unwrap();
        Timespec {
            tv_sec: since.as_secs().try_into().unwrap(),
            tv_nsec: since.subsec_nanos().into(),
        }
    };
    let times = Timestamps {
        last_access: back(was.accessed().unwrap()),
        last_modification: back(was.modified().unwrap()),
    };
    futimens(&file, &times).unwrap();
    Some((path.to_owned(), bytes))
}

fn write_on(files: &[PathBuf], over: &AtomicBool) -> Vec<Wrote> {
    let mut wrote = Vec::new();
    for (n, path) in files.iter().enumerate() {
        if over.load(Relaxed) {
            break;
        }
        wrote.extend(write_and_hide(path, n));
        pause();
    }
    wrote
}

/// Writes through mappings that were made before the agent began, and ends them: the files have been closed long ago, and no time stamp moves
/// for a page that is dirty.
fn write_through_old_mappings(mapped: Vec<(PathBuf, Mapping)>, over: &AtomicBool) -> Vec<Wrote> {
    let mut wrote = Vec::new();
    for (path, mapping) in mapped {
        if over.load(Relaxed) {
            break;
        }
        mapping.write_first_byte(b'M');
        drop(mapping);
        wrote.push((path, b"Mo user reads me: 20".to_vec()));
        pause();
    }
    wrote
}

/// What the run did, and how many files were written meanwhile.
fn what_is_written_is_at_its_place_or_in_a_copy(filesystem: Fs, keys: &str) {
    let count = files_wanted();
    let mount = need!(Mount::sized(filesystem, 512, count as u64 * 3 + 4000));
    let (root, store) = (mount.path(), Store::new());
    let files = make(&root.join("d"), count);
    let (for_mappings, for_writers) = files.split_at(count * MAPPED_PERCENT / 100);
    let mut mapped = Vec::new();
    for path in for_mappings {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mapping = Mapping::writable(file);
        // The page is dirty from here on, so that no later write through the mapping moves a time stamp.
        mapping.write_first_byte(b'n');
        mapped.push((path.clone(), mapping));
    }
    age_tree(&root);
    let mapped = shuffled(mapped);
    let writers = shuffled(for_writers.to_vec());
    let config = store.config(&root, &format!("remove_empty_dirs = false\n{keys}"));
    let agent = Agent::tracking(&config);
    let plan = agent.ctl().plan();
    assert_eq!(
        number(&plan.json, "/candidates/files"),
        count as u64,
        "{}",
        plan.json
    );
    let over = AtomicBool::new(false);
    let (run, wrote) = std::thread::scope(|scope| {
        let over = &over;
        let (one, two) = writers.split_at(writers.len() / 2);
        let first = scope.spawn(move || write_on(one, over));
        let second = scope.spawn(move || write_on(two, over));
        let third = scope.spawn(move || write_through_old_mappings(mapped, over));
        let run = agent.ctl().apply(&plan).json();
        over.store(true, Relaxed);
        let wrote = [first, second, third].map(|user| user.join().unwrap());
        (run, wrote.concat())
    });
    let copies = store.contents();
    let mut lost = Vec::new();
    for (path, bytes) in &wrote {
        let below = path.strip_prefix(&root).unwrap().as_os_str().as_encoded_bytes();
        let is_here = fs::read(path).is_ok_and(|now| &now == bytes);
        let is_copied = copies.get(below).is_some_and(|all| all.contains(bytes));
        if !is_here && !is_copied {
            lost.push(path);
        }
    }
    assert!(
        lost.is_empty(),
        "{} of {} lost: {:?}\n{run}",
        lost.len(),
        wrote.len(),
        lost.first()
    );
    // Every file that was taken has a copy.
    let gone = files.iter().filter(|path| !path.exists()).count() as u64;
    let taken = number(&run, "/deleted/files") + number(&run, "/trashed/files");
    assert_eq!(gone, taken, "{run}");
    assert!(copies.len() as u64 >= gone, "{run}");
    // Both had their share.
    assert!(wrote.len() > 100 && taken > 100, "{} written\n{run}", wrote.len());
}

#[test]
fn what_is_written_while_it_is_archived_is_at_its_place_or_in_a_copy() {
    for filesystem in [Fs::Ext4, Fs::Xfs, Fs::Tmpfs] {
        what_is_written_is_at_its_place_or_in_a_copy(filesystem, "");
    }
}

#[test]
fn what_is_written_while_it_goes_to_the_trash_after_its_copy_is_at_its_place_or_in_a_copy() {
    what_is_written_is_at_its_place_or_in_a_copy(Fs::Ext4, "grace = \"1d\"");
}
