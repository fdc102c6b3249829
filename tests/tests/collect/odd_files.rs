//! File systems and files that are unlike others: no birth times, inode numbers of 64 bits, an overlay on top, a swap file that is in use, an
//! image that is mounted. What is in use stays, and all else is purged as anywhere.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, read, set_times};
use purge_tests::skip::Unmet;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

/// Half of the files are used: the other half goes, and nothing else.
fn what_is_not_used_goes(agent: &mut Agent, files: &[PathBuf]) {
    files.iter().step_by(2).for_each(|file| read(file));
    agent.restart();
    let run = agent.ctl().apply(&agent.ctl().plan()).json();
    let unused = files.len() as u64 / 2;
    assert_eq!(number(&run, "/deleted/files"), unused, "{run}");
    assert_eq!(number(&run, "/failed_total"), 0, "{run}");
    let left: Vec<_> = files.iter().filter(|file| file.exists()).collect();
    let used: Vec<_> = files.iter().step_by(2).collect();
    assert_eq!(left, used);
    let status = agent.status();
    assert_eq!(text(&status, "state"), "tracking", "{status}");
}

#[test]
fn files_without_birth_times_and_with_whole_seconds_are_purged_as_others() {
    let mount = need!(Mount::made(Fs::Ext4, 64, 2000, &["-I", "128"]));
    let files = make(&mount.dir("d"), 40);
    age_tree(&mount.path());
    let mut agent = Agent::tracking(&Config::backdated(&mount.path()));
    what_is_not_used_goes(&mut agent, &files);
}

/// A sparse image so large that the inodes of its later groups have numbers of more than 32 bits.
#[test]
fn inode_numbers_of_more_than_32_bits_are_numbers_as_others() {
    let mount = need!(Mount::made(Fs::Xfs, 4 << 20, 0, &["-l", "size=64m", "-K"]));
    let mut files = Vec::new();
    // xfs puts each new directory into the next group.
    for n in 0..8 {
        files.extend(make(&mount.dir(&format!("d{n}")), 10));
    }
    let numbers = files.iter().map(|file| fs::metadata(file).unwrap().ino());
    let large = numbers.filter(|ino| *ino > u64::from(u32::MAX)).count();
    assert!(large > 0, "of {} files none has a large number", files.len());
    age_tree(&mount.path());
    let mut agent = Agent::tracking(&Config::backdated(&mount.path()));
    what_is_not_used_goes(&mut agent, &files);
}

/// Unmounted when dropped.
struct Over(PathBuf);

impl Drop for Over {
    fn drop(&mut self) {
        let _ = sh(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// An overlay at `at`.
fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Result<Over, Unmet> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    sh(Command::new("mount")
        .args(["-t", "overlay", "over", "-o", &options])
        .arg(at))
    .map_err(Unmet)?;
    Ok(Over(at.to_owned()))
}

#[test]
fn what_is_used_through_an_overlay_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let (lower, upper, work) = (mount.dir("lower"), mount.dir("upper"), mount.dir("work"));
    let at = purge_tests::files::temp_dir();
    let below = make(&lower, 20);
    let beside = make(&mount.dir("beside"), 20);
    age_tree(&mount.path());
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    let over = need!(overlay(&lower, &upper, &work, at.path()));
    let through = |file: &PathBuf| at.path().join(file.file_name().unwrap());
    for file in below.iter().step_by(2) {
        read(&through(file));
    }
    fs::write(at.path().join("new"), "x").unwrap();
    let run = agent.ctl().apply(&agent.ctl().plan()).json();
    let lost: Vec<_> = below.iter().step_by(2).filter(|file| !file.exists()).collect();
    assert!(lost.is_empty(), "{lost:?} {run}");
    assert!(beside.iter().all(|file| !file.exists()), "{run}");
    drop(over);
}

/// Switched off when dropped.
struct Swap(PathBuf);

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = sh(Command::new("swapoff").arg(&self.0));
    }
}

fn swap_on(file: &Path) -> Result<Swap, Unmet> {
    let blocks = vec![0; 1 << 20];
    let to = File::create(file).unwrap();
    (0..4).for_each(|n| to.write_all_at(&blocks, n << 20).unwrap());
    to.sync_all().unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    sh(Command::new("mkswap").arg(file)).map_err(Unmet)?;
    sh(Command::new("swapon").arg(file)).map_err(Unmet)?;
    Ok(Swap(file.to_owned()))
}

#[test]
fn a_swap_file_in_use_and_an_image_that_is_mounted_stay() {
    let mount = need!(Mount::sized(Fs::Ext4, 128, 2000));
    let root = mount.path();
    let files = make(&mount.dir("d"), 20);
    let (swap_file, image, whole) = (root.join("swap"), root.join("image"), mount.dir("whole"));
    let swap = need!(swap_on(&swap_file));
    let inside = purge_tests::files::temp_dir();
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    sh(Command::new("mkfs.ext4").arg("-qF").arg(&image)).unwrap();
    fs::copy(&image, whole.join("image")).unwrap();
    let images = [image, whole.join("image")];
    let places: Vec<_> = (0..2).map(|n| inside.path().join(n.to_string())).collect();
    let mounted = images.iter().zip(&places).map(|(image, place)| {
        fs::create_dir(place).unwrap();
        sh(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .arg(image)
            .arg(place))
        .unwrap();
        Over(place.clone())
    });
    let mounted: Vec<_> = mounted.collect();
    age_tree(&root);
    images.iter().for_each(|image| set_times(image, 1_600_000_000));
    // One rule for single files, one for whole directories.
    for grace in ["0s", "1h"] {
        let ttl =
            format!("ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false\ngrace = \"{grace}\"");
        let config = Config::new(&root, "baseline = \"mtime\"")
            .rule("files", &format!("{ttl}\nexclude = [\"whole/**\"]"))
            .rule(
                "trees",
                &format!("{ttl}\ntarget = \"directory\"\ndepth = 1\ninclude = [\"whole/\"]"),
            );
        let agent = Agent::tracking(&config);
        let plan = agent.ctl().plan();
        assert!(number(&plan.json, "/candidates/files") >= 2, "{}", plan.json);
        let run = agent.ctl().apply(&plan).json();
        println!("{grace}: {}", run.get("skipped").unwrap());
        assert_eq!(text(&run, "state"), "completed", "{run}");
        assert_eq!(number(&run, "/failed_total"), 0, "{run}");
        assert!(
            swap_file.exists() && images.iter().all(|image| image.exists()),
            "{run}"
        );
    }
    assert!(files.iter().all(|file| !file.exists()));
    fs::write(places[0].join("it-lives"), "x").unwrap();
    drop((swap, mounted));
}
