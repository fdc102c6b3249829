//! Some forty ways to use or change a file, and which of them each way of watching sees: the expected tables lie in `battery/`. A blind spot that
//! closes fails this test as well. `UPDATE_BATTERY=1` writes the tables again: read the difference before you commit it.

mod steps;

use std::any::Any;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use purge_tests::files::age_tree;
use purge_tests::skip::Unmet;
use purge_tests::wait::let_pass;
use purge_tests::ways::{Fuse, Overlay, Way};
use purge_tests::{Agent, Config, Fs, Mount, need};

use self::steps::{Place, STEPS};

/// A volume, a directory of the same file system outside of it, and what they lie on.
struct Ground {
    volume: PathBuf,
    outside: PathBuf,
    _on: Box<dyn Any + Send>,
}

impl Ground {
    fn of(root: &Path, on: impl Any + Send) -> Self {
        let (volume, outside) = (root.join("volume"), root.join("outside"));
        for dir in [&volume, &outside] {
            fs::create_dir(dir).unwrap();
        }
        Self {
            volume,
            outside,
            _on: Box::new(on),
        }
    }
}

/// Does all of them, each to a file of its own, and says which were seen: `+`, `-`, or `x` where it cannot be done.
fn battery(way: Way, on: &Ground, keys: &str) -> Vec<char> {
    let volume = on.volume.as_path();
    // Without windows it is not taken.
    let windows = match way {
        Way::Descriptors => "precision = \"3s\"",
        _ => "",
    };
    let config = Config::new(volume, &format!("baseline = \"mtime\"\n{windows}\n{keys}"));
    let config = config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    battery_at((volume, volume), &on.outside, || way.tracking(&config))
}

/// The same, where users see the volume at another place than the agent; `start` gives an agent that tracks.
pub(super) fn battery_at(
    (seen, volume): (&Path, &Path),
    outside: &Path,
    start: impl FnOnce() -> Agent,
) -> Vec<char> {
    let name = |n: usize| seen.join(format!("d{n:02}/f{n:02}"));
    let mut places: Vec<Place> = Vec::new();
    for (n, step) in STEPS.iter().enumerate() {
        let file = name(n);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, [b'x'; 4096]).unwrap();
        let outside = outside.join(format!("o{n:02}"));
        fs::create_dir_all(&outside).unwrap();
        places.push(step.begin(file, outside));
    }
    age_tree(volume);
    let agent = start();
    let ctl = agent.ctl();
    let behind = |at: &Place| volume.join(at.file.strip_prefix(seen).unwrap());
    let planned = ctl.candidate_files();
    let expired = places.iter().filter(|at| planned.contains(&behind(at))).count();
    assert_eq!(expired, STEPS.len(), "everything has expired before");
    let done: Vec<bool> = STEPS
        .iter()
        .zip(&mut places)
        .map(|(step, at)| {
            let done = step.act(at);
            if let Err(error) = &done {
                println!("{}: {error}", step.name);
            }
            done.is_ok()
        })
        .collect();
    // What may have been a change of metadata alone is settled.
    let_pass(4);
    if agent.status()["collector"] == "scan" {
        let _ = ctl.run(["rescan"]).ok();
    }
    let planned = ctl.candidate_files();
    let seen = places.iter().zip(done).map(|(at, done)| match done {
        false => 'x',
        true if planned.contains(&behind(at)) => '-',
        true => '+',
    });
    seen.collect()
}

/// `?` in a table stands for both: whether the number of a removed file is given to the next one at once is the server's choice.
fn agrees(was: &str, is: &str) -> bool {
    let same = |(was, is): (char, char)| was == is || was == '?';
    was.chars().count() == is.chars().count() && was.chars().zip(is.chars()).all(same)
}

/// Compares with the table that is checked in.
pub(super) fn compare_named(on: &str, heads: &[&str], columns: &[Vec<char>]) {
    let mut table = String::new();
    let _ = writeln!(
        table,
        "{:<50} {}",
        format!("on {on}: + seen, - not, x cannot be done"),
        heads.join(" ")
    );
    for (n, step) in STEPS.iter().enumerate() {
        let _ = write!(table, "{:<50}", step.name);
        for (head, column) in heads.iter().zip(columns) {
            let _ = write!(table, " {:^width$}", column.get(n).unwrap(), width = head.len());
        }
        while table.ends_with(' ') {
            table.pop();
        }
        table.push('\n');
    }
    println!("{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/collect/battery/{on}.txt"));
    if std::env::var_os("UPDATE_BATTERY").is_some() {
        fs::write(&path, &table).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs: Vec<(&str, &str)> = expected
        .lines()
        .zip(table.lines())
        .filter(|(was, is)| !agrees(was, is))
        .collect();
    assert!(
        differs.is_empty() && expected.lines().count() == table.lines().count(),
        "expected, found: {differs:#?}"
    );
}

/// Each way on a ground of its own, all at a time, beside the table that is checked in.
fn each_way(
    on: &str,
    ways: &[Way],
    keys: &str,
    ground: impl Fn(Way) -> Result<Ground, Unmet> + Sync,
) -> Result<(), Unmet> {
    let column = |way: Way| Ok(battery(way, &ground(way)?, keys));
    let columns = std::thread::scope(|scope| {
        let column = &column;
        let all: Vec<_> = ways.iter().map(|way| scope.spawn(move || column(*way))).collect();
        let all = all.into_iter().map(|one| one.join().unwrap());
        all.collect::<Result<Vec<_>, Unmet>>()
    })?;
    let heads: Vec<&str> = ways.iter().map(|way| way.name()).collect();
    compare_named(on, &heads, &columns);
    Ok(())
}

const ON_DISKS: [Way; 5] = [
    Way::FileSystem,
    Way::Directories,
    Way::Places,
    Way::Descriptors,
    Way::Inotify,
];
/// Where the kernel takes no mark of the whole, or no handle leads to a file.
const ELSEWHERE: [Way; 3] = [Way::Places, Way::Descriptors, Way::Inotify];

fn on_file_system(fs: Fs, on: &str, ways: &[Way]) -> Result<(), Unmet> {
    each_way(on, ways, "", |_| {
        let mount = Mount::new(fs)?;
        Ok(Ground::of(&mount.path(), mount))
    })
}

#[test]
fn each_way_sees_on_ext4_what_its_table_says() {
    need!(on_file_system(Fs::Ext4, "ext4", &ON_DISKS));
}

#[test]
fn each_way_sees_on_xfs_what_its_table_says() {
    need!(on_file_system(Fs::Xfs, "xfs", &ON_DISKS));
}

#[test]
fn each_way_sees_on_tmpfs_what_its_table_says() {
    need!(on_file_system(Fs::Tmpfs, "tmpfs", &ON_DISKS));
}

/// By access times, where reads move them.
#[test]
fn a_scan_sees_on_relatime_what_its_table_says() {
    need!(on_file_system(Fs::Ext4Relatime, "relatime", &[Way::Scan]));
}

#[test]
fn each_way_sees_on_an_overlay_what_its_table_says() {
    need!(each_way("overlay", &ELSEWHERE, "", |_| {
        let mount = Mount::new(Fs::Ext4)?;
        let overlay = Overlay::over(&mount.path())?;
        Ok(Ground::of(&overlay.path(), (overlay, mount)))
    }));
}

#[test]
fn each_way_sees_on_fuse_what_its_table_says() {
    need!(each_way("fuse", &ELSEWHERE, "sole_client = true", |_| {
        let mount = Mount::new(Fs::Ext4)?;
        let fuse = Fuse::of(&mount.path())?;
        Ok(Ground::of(&fuse.path(), (fuse, mount)))
    }));
}

/// Where `tests/kernels/nfsclient` has mounted it.
#[test]
#[ignore = "needs the kernel's NFS client: tests/run --with-kernels --only nfsclient 6.12"]
fn each_way_sees_on_an_nfs_client_what_its_table_says() {
    let root = PathBuf::from(std::env::var_os("PURGE_TESTS_NFS").unwrap());
    let ways = [Way::Directories, Way::Places, Way::Descriptors, Way::Inotify];
    need!(each_way("nfs", &ways, "sole_client = true", |way| {
        let root = root.join(way.name());
        fs::create_dir(&root).map_err(|e| Unmet(e.to_string()))?;
        Ok(Ground::of(&root, ()))
    }));
}
