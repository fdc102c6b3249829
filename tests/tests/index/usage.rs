//! Usage: what the index has summed up equals what a walk finds, after any change on the volume.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use purge_tests::ctl::{number, text};
use purge_tests::files::{make, walk};
use purge_tests::wait::{LONG, let_pass};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need, sh};

/// Files, apparent bytes, bytes on disk.
type Totals = (u64, u64, u64);
type Rows = BTreeMap<String, Totals>;

fn told(ctl: &Ctl, words: &[&str]) -> Rows {
    let words = ["usage", "--output", "ndjson", "--by"]
        .iter()
        .chain(words)
        .copied();
    let answer = ctl.run(words).ok();
    let lines = answer.lines();
    let row = |r: &serde_json::Value| {
        let totals = (
            number(r, "/files"),
            number(r, "/bytes"),
            number(r, "/allocated_bytes"),
        );
        (text(r, "subject").to_owned(), totals)
    };
    lines.iter().map(row).collect()
}

/// The same from a walk; `subject` has the path below the root.
fn walked(root: &Path, subject: impl Fn(&Path, &fs::Metadata) -> String) -> Rows {
    let mut rows = Rows::new();
    let mut seen = BTreeSet::new();
    for entry in walk(root).iter().filter(|e| e.stat.is_file()) {
        if seen.insert(entry.stat.ino()) {
            let below = entry.path.strip_prefix(root).unwrap();
            let row = rows.entry(subject(below, &entry.stat)).or_default();
            *row = (
                row.0 + 1,
                row.1 + entry.stat.len(),
                row.2 + entry.stat.blocks() * 512,
            );
        }
    }
    rows
}

fn directory_at(depth: usize) -> impl Fn(&Path, &fs::Metadata) -> String {
    move |path, _| {
        let dir: PathBuf = path.parent().unwrap().components().take(depth).collect();
        match dir.as_os_str().is_empty() {
            true => ".".to_owned(),
            false => dir.to_str().unwrap().to_owned(),
        }
    }
}

/// The same rows, or the first few that differ, in words.
fn differing(told: &Rows, walked: &Rows) -> Vec<String> {
    let subjects: BTreeSet<&String> = told.keys().chain(walked.keys()).collect();
    let differing = subjects.into_iter().filter(|s| told.get(*s) != walked.get(*s));
    let in_words = |s: &String| format!("{s}: told {:?}, walked {:?}", told.get(s), walked.get(s));
    let mut words: Vec<String> = differing.map(in_words).collect();
    let more = words.len().saturating_sub(5);
    words.truncate(5);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words
}

fn assert_rows(told: &Rows, walked: &Rows, what: &str) {
    let differing = differing(told, walked);
    assert!(differing.is_empty(), "{what}: {differing:#?}");
}

/// Gives the last changes the time that they may take to reach the index, as far as they need it. Returns how long that was.
fn until_quiet(ctl: &Ctl, of_user: &Rows) -> Duration {
    let began = Instant::now();
    while !differing(&told(ctl, &["user"]), of_user).is_empty() && began.elapsed() < SETTLED_WITHIN {
        let_pass(1);
    }
    began.elapsed()
}

/// Hard links may lie in several directories: for those the walk cannot know which one the index counts.
fn compare_all(ctl: &Ctl, root: &Path, what: &str) {
    let of_user = walked(root, |_, s| s.uid().to_string());
    assert_rows(&told(ctl, &["user"]), &of_user, &format!("{what}: by user"));
    let of_group = walked(root, |_, s| s.gid().to_string());
    assert_rows(&told(ctl, &["group"]), &of_group, &format!("{what}: by group"));
    for depth in [1, 2, 5] {
        let of_dir = walked(root, directory_at(depth));
        let rows = told(ctl, &["directory", "--depth", &depth.to_string()]);
        assert_rows(&rows, &of_dir, &format!("{what}: by directory at depth {depth}"));
    }
}

#[test]
fn sparse_preallocated_and_linked_files_take_what_du_says() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    make(&root.join("a"), 3);
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_all_at(&[7; 5000], 40 << 20).unwrap();
    fs::write(root.join("full"), vec![7; 100_000]).unwrap();
    fs::hard_link(root.join("full"), root.join("again")).unwrap();
    // No name of this host.
    for entry in walk(&root) {
        chown(&entry.path, Some(41_000), Some(51_000)).unwrap();
    }
    let agent = Agent::tracking(&Config::backdated(&root));
    compare_all(&agent.ctl(), &root, "as found");
    sparse.write_all_at(&[7; 50_000], 10 << 20).unwrap();
    sh(Command::new("fallocate")
        .args(["-l", "3000000", "-n"])
        .arg(root.join("a/f000000")))
    .unwrap();
    File::options()
        .write(true)
        .open(root.join("full"))
        .unwrap()
        .set_len(10)
        .unwrap();
    fs::remove_file(root.join("again")).unwrap();
    until_quiet(&agent.ctl(), &walked(&root, |_, s| s.uid().to_string()));
    compare_all(&agent.ctl(), &root, "afterwards");
    let du = sh(Command::new("du").args(["-s", "--block-size=1"]).arg(&root)).unwrap();
    let dirs: u64 = walk(&root)
        .iter()
        .filter(|e| e.stat.is_dir())
        .map(|e| e.stat.blocks() * 512)
        .sum();
    let own = fs::metadata(&root).unwrap().blocks() * 512;
    let files: u64 = told(&agent.ctl(), &["user"]).values().map(|t| t.2).sum();
    let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(files + dirs + own, du, "du counts directories as well");
}

/// xorshift64*: the same steps every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// A volume that many owners change at random.
struct Bustle {
    random: Random,
    root: PathBuf,
    /// The directory above, and the name there; the root is its own.
    dirs: Vec<(usize, String)>,
    files: Vec<(usize, String)>,
    /// No more than this many, however fast the machine: the file system has blocks and inodes for these.
    files_max: usize,
    made: usize,
}

/// How long the last changes may take to reach the index.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);
const OWNERS: usize = 500;
const FIRST_UID: u32 = 40_000;
/// What is longer is cut off instead of growing on.
const APPENDED_UP_TO: u64 = 20_000;

impl Bustle {
    fn begin(root: &Path, files: usize) -> Self {
        let mut bustle = Self {
            random: Random(0x5EED),
            root: root.to_owned(),
            dirs: vec![(0, String::new())],
            files: Vec::new(),
            files_max: files + files / 4,
            made: 0,
        };
        for i in 0..files / 40 {
            let above = bustle.random.below(bustle.dirs.len().min(200));
            bustle.dirs.push((above, format!("d{i}")));
            fs::create_dir(bustle.dir(i + 1)).unwrap();
        }
        (0..files).for_each(|_| bustle.create());
        bustle
    }

    fn dir(&self, dir: usize) -> PathBuf {
        match dir {
            0 => self.root.clone(),
            _ => self.dir(self.dirs[dir].0).join(&self.dirs[dir].1),
        }
    }

    fn path(&self, file: &(usize, String)) -> PathBuf {
        self.dir(file.0).join(&file.1)
    }

    fn place(&mut self, kind: char) -> (usize, String) {
        self.made += 1;
        (self.random.below(self.dirs.len()), format!("{kind}{}", self.made))
    }

    fn create(&mut self) {
        let place = self.place('f');
        let path = self.path(&place);
        let len = self.random.below(9000);
        // Most are holes: a million files must fit.
        let file = File::create(&path).unwrap();
        match self.random.below(8) {
            0 => (&file).write_all(&vec![1; len]).unwrap(),
            _ => file.set_len(len as u64).unwrap(),
        }
        let (uid, gid) = (self.random.below(OWNERS) as u32, self.random.below(9) as u32);
        chown(&path, Some(FIRST_UID + uid), Some(50_000 + gid)).unwrap();
        self.files.push(place);
    }

    fn step(&mut self) {
        let what = match self.random.below(10) {
            _ if self.files.is_empty() => 0,
            0 | 1 | 6 if self.files.len() >= self.files_max => 7,
            what => what,
        };
        if what < 2 {
            return self.create();
        }
        let (i, n) = (
            self.random.below(self.files.len()),
            self.random.below(20_000) as u64,
        );
        let path = self.path(&self.files[i]);
        let open = || File::options().append(what == 2).write(true).open(&path).unwrap();
        match what {
            2 if fs::metadata(&path).unwrap().len() < APPENDED_UP_TO => {
                open().write_all(&vec![2; n as usize / 4]).unwrap();
            }
            2 => open().set_len(0).unwrap(),
            3 => open().set_len(n).unwrap(),
            4 => {
                let to = self.place('f');
                fs::rename(&path, self.path(&to)).unwrap();
                self.files[i] = to;
            }
            5 => chown(&path, Some(FIRST_UID + n as u32 % OWNERS as u32), None).unwrap(),
            6 => {
                let to = (self.files[i].0, self.place('l').1);
                fs::hard_link(&path, self.path(&to)).unwrap();
                self.files.push(to);
            }
            7 | 8 => {
                fs::remove_file(&path).unwrap();
                self.files.swap_remove(i);
            }
            _ => self.move_directory(),
        }
    }

    fn move_directory(&mut self) {
        let (dir, (above, name)) = (self.random.below(self.dirs.len()), self.place('d'));
        let (old, new) = (self.dir(dir), self.dir(above).join(&name));
        // No path becomes too long for the system.
        if dir != 0 && !new.starts_with(&old) && new.as_os_str().len() < 400 {
            fs::rename(old, new).unwrap();
            self.dirs[dir] = (above, name);
        }
    }

    fn go_on(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            (0..50).for_each(|_| self.step());
        }
    }
}

fn totals_follow_random_changes(files: usize, time: Duration, mib: u64) {
    let mount = need!(Mount::sized(Fs::Ext4, mib, files as u64 * 3));
    let root = mount.dir("volume");
    let mut bustle = Bustle::begin(&root, files);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let part = time / 5;
    bustle.go_on(part);
    agent.terminate();
    bustle.go_on(part);
    agent.launch();
    bustle.go_on(part);
    agent.kill();
    bustle.go_on(part);
    let launched = std::time::SystemTime::now();
    agent.launch();
    bustle.go_on(part);
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    let of_user = walked(&root, |_, s| s.uid().to_string());
    assert!(of_user.len() > OWNERS * 9 / 10, "{} owners", of_user.len());
    // What events of directories that moved to and fro could not tell is looked at again when all is quiet.
    let took = until_quiet(&ctl, &of_user);
    println!("the totals are right {took:.1?} after the last change");
    if !differing(&told(&ctl, &["user"]), &of_user).is_empty() {
        let answer = ctl.run(["find", "--output", "ndjson", "--limit", "1000000"]).ok();
        let mut known = BTreeMap::new();
        for l in answer.lines() {
            known.insert(text(&l, "path").to_owned(), l.clone());
        }
        println!("DEBUG known {} launched {:?}", known.len(), launched);
        for e in walk(&root).iter().filter(|e| e.stat.is_file()) {
            match known.get(e.path.to_str().unwrap()) {
                None => println!("DEBUG unknown {:?} {:?}", e.path, e.stat.ino()),
                Some(l) if number(l, "/bytes") != e.stat.len() => {
                    println!("DEBUG stale {l} now {:?}", e.stat)
                }
                _ => {}
            }
        }
    }
    assert_rows(&told(&ctl, &["user"]), &of_user, "by user");
    let of_group = walked(&root, |_, s| s.gid().to_string());
    assert_rows(&told(&ctl, &["group"]), &of_group, "by group");
    for depth in [1, 3] {
        let mut wrong = None;
        let quiet = Instant::now();
        while quiet.elapsed() < SETTLED_WITHIN {
            wrong = misplaced(&root, &ctl, depth);
            if wrong.is_none() {
                break;
            }
            let_pass(1);
        }
        println!("at depth {depth} after another {:.1?}", quiet.elapsed());
        assert_eq!(wrong, None, "depth {depth}");
    }
}

/// What directories of this depth hold other than what a walk finds there, if any. Linked files that were moved apart may lie in either
/// place; everything else lies where it lies.
fn misplaced(root: &Path, ctl: &Ctl, depth: usize) -> Option<String> {
    let dir = directory_at(depth);
    let mut rows = Rows::new();
    let mut linked: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for entry in walk(root).iter().filter(|e| e.stat.is_file()) {
        let subject = dir(entry.path.strip_prefix(root).unwrap(), &entry.stat);
        if entry.stat.nlink() == 1 {
            let row = rows.entry(subject).or_default();
            *row = (
                row.0 + 1,
                row.1 + entry.stat.len(),
                row.2 + entry.stat.blocks() * 512,
            );
        } else {
            linked.entry(entry.stat.ino()).or_default().insert(subject);
        }
    }
    let mut slack: BTreeMap<String, u64> = BTreeMap::new();
    for subject in linked.values().flatten() {
        *slack.entry(subject.clone()).or_default() += 1;
    }
    let told = told(ctl, &["directory", "--depth", &depth.to_string()]);
    let total: u64 = told.values().map(|t| t.0).sum();
    let expected = rows.values().map(|t| t.0).sum::<u64>() + linked.len() as u64;
    if total != expected {
        return Some(format!("{total} files instead of {expected}"));
    }
    told.iter().find_map(|(subject, row)| {
        let least = rows.get(subject).copied().unwrap_or_default();
        let most = least.0 + slack.get(subject).copied().unwrap_or_default();
        let fits = (least.0..=most).contains(&row.0)
            && row.1 >= least.1
            && row.2 >= least.2
            && (most > least.0 || *row == least);
        (!fits).then(|| format!("{subject}: {row:?}, {least:?} to {most} files"))
    })
}

#[test]
fn totals_equal_a_recount_after_random_changes_and_two_restarts() {
    let long = std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1");
    match long {
        true => totals_follow_random_changes(1_000_000, Duration::from_secs(600), 12_000),
        false => totals_follow_random_changes(20_000, Duration::from_secs(15), 1000),
    }
}

#[test]
fn sizes_are_right_of_files_that_changed_while_the_first_scan_read_them() {
    const FILES: usize = 30_000;
    const PER_DIR: usize = 1_000;
    let mount = need!(Mount::sized(Fs::Ext4, 400, FILES as u64 * 2));
    let root = mount.dir("volume");
    let path = |i: usize| root.join(format!("d{}/f{i}", i / PER_DIR));
    for i in 0..FILES {
        if i % PER_DIR == 0 {
            fs::create_dir(path(i).parent().unwrap()).unwrap();
        }
        File::create(path(i)).unwrap().set_len(1000).unwrap();
        chown(path(i), Some(FIRST_UID), None).unwrap();
    }
    let mut agent = Agent::prepared(&Config::backdated(&root));
    agent.launch();
    // One change each, so that no later event repairs what an earlier one left.
    let began = Instant::now();
    let changed = (0..FILES).take_while(|i| {
        File::options()
            .write(true)
            .open(path(*i))
            .unwrap()
            .set_len(2000)
            .unwrap();
        began.elapsed() < LONG
    });
    println!("{} of {FILES} files changed", changed.count());
    agent.wait_until_tracking();
    let ctl = agent.ctl();
    let of_user = walked(&root, |_, s| s.uid().to_string());
    until_quiet(&ctl, &of_user);
    assert_rows(&told(&ctl, &["user"]), &of_user, "by user");
}
