//! A fresh ext4 on a loop device, mounted noatime as scratch file systems are, with a tree on it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::run;

/// Bytes of the image for each file: an inode of 256, its share of directories and journal, and room.
const BYTES_PER_FILE: u64 = 2_048;
/// Journal, and room for the store's neighbours on small trees.
const BYTES_BASE: u64 = 256 << 20;
/// Inodes for each file: directories are a twentieth.
const INODES_PER_FILE: f64 = 1.2;

/// What the tree is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    /// Number of files.
    pub files: usize,
    /// Share of them that was last used more than 90 days ago.
    pub old_share: f64,
    /// Equal seeds make equal trees.
    pub seed: u64,
}

/// A mounted image. Unmounted and removed when dropped.
pub struct Image {
    root: PathBuf,
    file: PathBuf,
    files: usize,
    /// The paths of the files, with ages and sizes, as gentree writes them.
    pub manifest: PathBuf,
}

impl Image {
    /// Makes and mounts the image `name` below `place` and grows `tree` on it.
    pub fn make(programs: &Path, place: &Path, name: &str, tree: Tree) -> Result<Self> {
        let inodes = (tree.files as f64 * INODES_PER_FILE) as u64 + 1_024;
        let mut mkfs = Command::new("mkfs.ext4");
        // Tables are written now: the kernel's thread that does it later would disturb what is measured.
        mkfs.args([
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            "-N",
        ])
        .arg(inodes.to_string());
        let bytes = BYTES_BASE + BYTES_PER_FILE * tree.files as u64;
        let mut image = Self::mounted(place, name, bytes, &mut mkfs)?;
        image.files = tree.files;
        run(Command::new(programs.join("gentree"))
            .arg(image.tree())
            .arg(tree.files.to_string())
            .args(["--old-share", &tree.old_share.to_string()])
            .args(["--seed", &tree.seed.to_string()])
            .arg("--manifest")
            .arg(&image.manifest))?;
        Ok(image)
    }

    /// An empty xfs, of which a file may have more names than ext4 allows.
    pub fn xfs(place: &Path, name: &str, bytes: u64) -> Result<Self> {
        Self::mounted(place, name, bytes, Command::new("mkfs.xfs").args(["-q", "-f"]))
    }

    fn mounted(place: &Path, name: &str, bytes: u64, mkfs: &mut Command) -> Result<Self> {
        let image = Self {
            root: place.join(name),
            file: place.join(format!("{name}.img")),
            files: 0,
            manifest: place.join(format!("{name}.manifest")),
        };
        fs::create_dir(&image.root).with_context(|| format!("cannot make {}", image.root.display()))?;
        File::create_new(&image.file)
            .and_then(|file| file.set_len(bytes))
            .with_context(|| format!("cannot make {}", image.file.display()))?;
        run(mkfs.arg(&image.file))?;
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .arg(&image.file)
            .arg(&image.root))?;
        Ok(image)
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A manifest of about this many of its files, evenly spread over all.
    pub fn spread(&self, files: usize) -> Result<PathBuf> {
        let manifest = File::open(&self.manifest).map(BufReader::new);
        let manifest = manifest.with_context(|| format!("cannot read {}", self.manifest.display()))?;
        let path = self.manifest.with_extension("spread");
        let mut spread = BufWriter::new(File::create(&path)?);
        let step = (self.files / files.max(1)).max(1);
        for line in manifest.lines().step_by(step) {
            writeln!(spread, "{}", line?)?;
        }
        spread.flush()?;
        Ok(path)
    }

    /// Where the tree begins.
    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let umount = |options: &[&str]| {
            Command::new("umount")
                .args(options)
                .arg(&self.root)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        // Busy where a process looks on: then at least no other process finds it. The loop device is freed with the mount.
        if !umount(&[]) {
            umount(&["--lazy"]);
        }
        // What cannot be removed here goes with the temporary directory, or is named by it.
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.manifest);
        let _ = fs::remove_dir(&self.root);
    }
}
