//! `storm DIR SEED SECONDS`: one process that makes, links, renames, exchanges and removes files and directories below DIR, as fast as it can. Of
//! several at a time each meets the others' names. Prints how many calls it made.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, linkat, mkdirat, open, renameat, renameat_with, unlinkat};

/// Another process may have been there before.
fn tried<T>(_: rustix::io::Result<T>) {}

const TOPS: u64 = 6;
const DIRECTORIES: u64 = 20;
const NAMES: u64 = 200;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn directory(&mut self, base: &Path) -> PathBuf {
        base.join(format!("k{}/d{}", self.roll(TOPS), self.roll(DIRECTORIES)))
    }

    /// Most often a file's place in a directory that stays.
    fn place(&mut self, base: &Path) -> PathBuf {
        let name = format!("n{}", self.roll(NAMES));
        match self.roll(10) {
            0..=6 => base.join(format!("k{}", self.roll(TOPS))).join(name),
            7 | 8 => self.directory(base).join(name),
            _ => self.directory(base),
        }
    }
}

fn make(path: &Path) {
    tried(open(
        path,
        OFlags::CREATE | OFlags::WRONLY,
        Mode::from_raw_mode(0o644),
    ));
}

/// One step. What cannot be done because of another process is not done.
fn step(base: &Path, dice: &mut Dice) {
    let remove = |path: &Path| tried(unlinkat(CWD, path, rustix::fs::AtFlags::empty()));
    let remove_dir = |path: &Path| tried(unlinkat(CWD, path, rustix::fs::AtFlags::REMOVEDIR));
    let make_dir = |path: &Path| tried(mkdirat(CWD, path, Mode::from_raw_mode(0o755)));
    let (one, two) = (dice.place(base), dice.place(base));
    match dice.roll(12) {
        0..=2 => make(&one),
        3 => tried(linkat(CWD, &one, CWD, &two, rustix::fs::AtFlags::empty())),
        4 | 5 => tried(renameat(CWD, &one, CWD, &two)),
        6 => tried(renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE)),
        7 | 8 => remove(&one),
        9 => make_dir(&dice.directory(base)),
        10 if dice.roll(2) == 0 => remove_dir(&dice.directory(base)),
        10 => tried(renameat(CWD, dice.directory(base), CWD, dice.directory(base))),
        // One name again and again: its reports merge.
        _ => {
            for _ in 0..4 {
                make(&one);
                remove(&one);
            }
            make_dir(&one);
            remove_dir(&one);
            make(&one);
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, seed, seconds] = arguments.as_slice() else {
        eprintln!("storm DIR SEED SECONDS");
        std::process::exit(2);
    };
    let number = |text: &str| text.parse::<u64>().unwrap_or(1);
    let (base, ends) = (
        Path::new(base),
        Instant::now() + Duration::from_secs(number(seconds)),
    );
    for top in 0..TOPS {
        let _ = std::fs::create_dir(base.join(format!("k{top}")));
    }
    let mut dice = Dice(number(seed));
    let mut steps = 0u64;
    while Instant::now() < ends {
        step(base, &mut dice);
        steps += 1;
    }
    println!("{steps}");
}
