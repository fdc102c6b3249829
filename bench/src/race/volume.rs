//! A fresh file system of each kind, mounted so that every read moves the access time: peers know of uses in no other way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::run;

/// Enough for the smallest xfs and for every round.
const BYTES: u64 = 2 << 30;

/// Kinds of file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// A mounted file system. Unmounted and removed when dropped.
pub struct Scratch {
    root: PathBuf,
    image: PathBuf,
}

impl Scratch {
    /// Makes and mounts one below `place`.
    pub fn make(place: &Path, kind: Kind) -> Result<Self> {
        let scratch = Self {
            root: place.join("race"),
            image: place.join("race.img"),
        };
        fs::create_dir(&scratch.root).with_context(|| format!("cannot make {}", scratch.root.display()))?;
        if kind == Kind::Tmpfs {
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", "strictatime", "purge-bench"])
                .arg(&scratch.root))?;
            return Ok(scratch);
        }
        File::create_new(&scratch.image)
            .and_then(|file| file.set_len(BYTES))
            .with_context(|| format!("cannot make {}", scratch.image.display()))?;
        let quietly: &[&str] = match kind {
            Kind::Ext4 => &[
                "-q",
                "-F",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0",
            ],
            _ => &["-q", "-f"],
        };
        run(Command::new(format!("mkfs.{}", kind.name()))
            .args(quietly)
            .arg(&scratch.image))?;
        run(Command::new("mount")
            .args(["-o", "loop,strictatime"])
            .arg(&scratch.image)
            .arg(&scratch.root))?;
        Ok(scratch)
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let umount = |options: &[&str]| {
            let mut umount = Command::new("umount");
            let done = umount
                .args(options)
                .arg(&self.root)
                .stderr(Stdio::null())
                .status();
            done.is_ok_and(|status| status.success())
        };
        if !umount(&[]) {
            umount(&["--lazy"]);
        }
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.root);
    }
}
