//! Names, depths, sizes and times at the edges of what file systems take.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use purge_tests::ctl::{number, path_of, tally, text};
use purge_tests::files::{age, age_tree, assert_same, make_one, read, regular_files, set_times};
use purge_tests::wait::until_same;
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, mkdirat, openat, statat, utimensat};

fn odd_names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        "with\nnewline",
        "with\ttab",
        "\"quotes\"",
        "'single'",
        "$(touch harm)",
        "`touch harm`",
        "; rm -rf .",
        "--yes",
        "-0",
        " leading and trailing ",
        "back\\slash",
        "*",
        "?[a]{b}",
        "#hash",
        "!bang",
        "ünïcödé ☃ 漢字",
        "\u{1b}[31mred\u{1b}[0m",
        "...",
        "%s%n",
    ]
    .map(OsString::from)
    .to_vec();
    names.push(OsString::from_vec(vec![0xff, 0xfe, b'x', 0x80]));
    names.push(OsString::from_vec(b"half \xc3".to_vec()));
    names.push(OsString::from_vec(
        (1..=255).filter(|b| *b != b'/').take(200).collect(),
    ));
    names.push("n".repeat(255).into());
    names
}

#[test]
fn odd_names_are_planned_shown_used_and_removed_as_they_are() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let mut files = BTreeSet::new();
    for name in odd_names() {
        files.insert(make_one(&root.join(&name)));
        let dir = root.join("d").join(&name);
        fs::create_dir_all(&dir).unwrap();
        files.insert(make_one(&dir.join(&name)));
    }
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    assert_same("planned", &ctl.candidate_files(), &files);
    assert_same("found", &ctl.find(["--type", "f"]), &files);
    for file in &files {
        assert_eq!(path_of(&ctl.explain(file)), *file);
    }

    let used = root
        .join("d")
        .join(OsStr::from_bytes(b"half \xc3"))
        .join(OsStr::from_bytes(b"half \xc3"));
    read(&used);
    let held = root.join("with\nnewline");
    ctl.hold(&held, &[]);
    let renamed = root.join(OsStr::from_bytes(b"renamed \xf0\n"));
    fs::rename(root.join("d/*"), &renamed).unwrap();
    let plan = ctl.plan();
    // A terminal is not at the mercy of a file's name.
    let table = ctl.run(["show", &plan.id]).ok().stdout;
    assert!(!table.contains(&0x1b), "an escape sequence reaches the terminal");
    let run = ctl.apply(&plan).ok().json();
    tally(&plan, &run);
    assert_same(
        "what was used or held",
        &regular_files(&root),
        &BTreeSet::from([used, held]),
    );
    assert!(!Path::new("harm").exists() && !root.join("harm").exists());
}

/// A directory chain below `root` of `levels` names of 200 bytes: too long for one path. Returns its lowest.
fn dig(root: &Path, levels: usize) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut dir = openat(CWD, root, flags, Mode::empty()).unwrap();
    for level in 0..levels {
        let name = format!("{level:03}{}", "x".repeat(197));
        mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    dir
}

#[test]
fn a_path_longer_than_path_max_is_planned_and_removed() {
    const LEVELS: usize = 30;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let deep = dig(&root, LEVELS);
    let make_deep = |name: &str| {
        drop(
            openat(
                &deep,
                name,
                OFlags::CREATE | OFlags::WRONLY,
                Mode::from_raw_mode(0o644),
            )
            .unwrap(),
        );
        let at = Timespec {
            tv_sec: 1_000_000_000,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: at,
            last_modification: at,
        };
        utimensat(&deep, name, &times, AtFlags::empty()).unwrap();
    };
    make_deep("unused");
    make_deep("used");
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    let reader = openat(&deep, "used", OFlags::RDONLY, Mode::empty()).unwrap();
    assert_eq!(rustix::io::read(&reader, &mut [0; 8]).unwrap(), 0);
    drop(reader);
    let plan = ctl.plan();
    let shown: Vec<PathBuf> = ctl.show(&plan).into_keys().collect();
    assert_eq!(shown.len(), 1, "{} candidates", shown.len());
    assert!(shown[0].as_os_str().len() > PATH_MAX && shown[0].ends_with("unused"));
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, 1, "{run}");
    assert!(statat(&deep, "unused", AtFlags::empty()).is_err());
    assert!(statat(&deep, "used", AtFlags::empty()).is_ok());
}

/// `PATH_MAX` of Linux.
const PATH_MAX: usize = 4096;

/// Without content, so that an image needs room for inodes only.
fn make_empty(dir: &Path, count: usize) -> Vec<PathBuf> {
    fs::create_dir(dir).unwrap();
    let files: Vec<PathBuf> = (0..count).map(|i| dir.join(format!("f{i:07}"))).collect();
    files.iter().for_each(|f| drop(fs::File::create(f).unwrap()));
    files
}

fn large_directory(files: usize) {
    let mib = 128 + files as u64 / 1000;
    let mount = need!(Mount::sized(Fs::Ext4, mib, files as u64 + 1000));
    let root = mount.path();
    let all = make_empty(&root.join("large"), files);
    all.iter().for_each(|f| age(f));
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    let used: BTreeSet<PathBuf> = all.iter().step_by(1000).cloned().collect();
    used.iter().for_each(|f| read(f));
    let plan = ctl.plan();
    assert_eq!(
        number(&plan.json, "/candidates/files"),
        (files - used.len()) as u64
    );
    assert_eq!(ctl.show(&plan).len(), files - used.len());
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, (files - used.len()) as u64);
    assert_same("what was used", &regular_files(&root), &used);
}

#[test]
fn a_directory_of_100_000_files_is_no_matter() {
    large_directory(100_000);
}

#[test]
fn a_directory_of_a_million_files_is_no_matter() {
    if std::env::var_os("PURGE_TESTS_LONG").is_none_or(|v| v != "1") {
        // Longer than CI has time for; asked for, not skipped.
        return;
    }
    large_directory(1_000_000);
}

#[test]
fn sizes_beyond_four_gigabytes_are_counted_whole() {
    const BYTES: u64 = 5 << 30;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let file = make_one(&root.join("sparse"));
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(BYTES + 1)
        .unwrap();
    age(&file);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    assert_eq!(number(&agent.status(), "/bytes"), BYTES + 1);
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/bytes"), BYTES + 1);
    assert_eq!(
        ctl.show(&plan).values().map(|c| number(c, "/bytes")).sum::<u64>(),
        BYTES + 1
    );
    assert_eq!(
        ctl.find(["--type", "f", "--min-size", "5GiB"]),
        BTreeSet::from([file.clone()])
    );
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/bytes"), BYTES + 1);
    assert!(!file.exists());
}

#[test]
fn times_before_1970_are_old_and_times_after_2106_are_young() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    // Seconds since 1970 of 1902, 1969, 1970, 2001; then of 2106-02-07, a little later, 2200, 2400.
    let old = [-2_145_916_800, -1, 0, 1_000_000_000];
    let future = [4_294_967_290, 4_294_967_400, 7_258_118_400, 13_569_465_600];
    let make_at = |at: &i64| {
        let file = make_one(&root.join(format!("at{at}")));
        set_times(&file, *at);
        file
    };
    let expected: BTreeSet<PathBuf> = old.iter().map(make_at).collect();
    let young: Vec<PathBuf> = future.iter().map(make_at).collect();
    let config = Config::new(&root, "baseline = \"mtime\"").rule(
        "cold",
        "ttl = \"1h\"\nclock = [\"modify\"]\nremove_empty_dirs = false",
    );
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    assert_same("what is old", &ctl.candidate_files(), &expected);
    for file in expected.iter().chain(&young) {
        assert!(text(&ctl.explain(file), "last_access").ends_with('Z'));
    }
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, old.len() as u64, "{run}");
    assert_same(
        "what is left",
        &regular_files(&root),
        &young.into_iter().collect(),
    );
}

#[test]
fn names_that_change_their_bytes_but_not_their_looks_are_told_apart() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let root = mount.path();
    // Both are shown as the same replacement character.
    let one = make_one(&root.join(OsStr::from_bytes(b"\xff")));
    let other = make_one(&root.join(OsStr::from_bytes(b"\xfe")));
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    read(&one);
    until_same("only the other", &BTreeSet::from([other]), || {
        ctl.candidate_files()
    });
}
