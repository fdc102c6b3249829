//! The ways in which an agent may watch a volume, and what a test does to have one of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::once::with_file_server;
use crate::skip::Unmet;
use crate::{Agent, Config, files, sh};

/// A way to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// fanotify, one mark on the file system.
    FileSystem,
    /// fanotify, a mark on each directory.
    Directories,
    /// The same where file handles lead nowhere: names say what an event is of.
    Places,
    /// fanotify, events that carry a descriptor.
    Descriptors,
    /// inotify.
    Inotify,
    /// Scans, which compare access times.
    Scan,
}

impl Way {
    /// What it is called in the tables of tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::FileSystem => "filesystem",
            Self::Directories => "directories",
            Self::Places => "places",
            Self::Descriptors => "descriptors",
            Self::Inotify => "inotify",
            Self::Scan => "scan",
        }
    }

    /// What the kernel is taken to lack, so that the agent takes this way by itself.
    pub fn without(self) -> &'static str {
        with_file_server(false);
        match self {
            Self::FileSystem => "",
            Self::Directories => "filesystem_marks",
            Self::Places => "filesystem_marks,open_handles",
            Self::Descriptors => "ids",
            Self::Inotify => "filesystem_marks,directory_marks,descriptors",
            Self::Scan => "filesystem_marks,directory_marks,descriptors,inotify",
        }
    }

    /// What `status` says: collector and mode.
    pub fn status(self) -> (&'static str, &'static str) {
        match self {
            Self::FileSystem => ("fanotify", "filesystem"),
            Self::Directories | Self::Places => ("fanotify", "directories"),
            Self::Descriptors => ("fanotify", "descriptors"),
            Self::Inotify => ("inotify", ""),
            Self::Scan => ("scan", ""),
        }
    }

    /// An agent that watches in this way, and has finished its first scan.
    ///
    /// # Panics
    /// When it does not get there, or watches in another way.
    pub fn tracking(self, config: &Config) -> Agent {
        let agent = Agent::tracking_in(
            config,
            None,
            &[("PURGE_AGENT_WITHOUT", Path::new(self.without()))],
        );
        self.assert_is(&agent);
        agent
    }

    /// The same, and no scan need have finished.
    ///
    /// # Panics
    /// When it does not start, or watches in another way.
    pub fn start(self, config: &Config) -> Agent {
        let agent = Agent::start_in(
            config,
            None,
            &[("PURGE_AGENT_WITHOUT", Path::new(self.without()))],
        );
        self.assert_is(&agent);
        agent
    }

    /// # Panics
    /// When an agent watches in another way.
    pub fn assert_is(self, agent: &Agent) {
        let status = agent.status();
        let (collector, mode) = self.status();
        assert_eq!(status["collector"], collector, "{status}");
        assert_eq!(status["collector_mode"], mode, "{status}");
    }
}

/// An overlay of two directories of a file system that is mounted.
#[derive(Debug)]
pub struct Overlay {
    at: TempDir,
}

impl Overlay {
    /// With an empty upper directory over `lower`; both lie in `base`.
    ///
    /// # Errors
    /// When this host does not let it: a reason to skip.
    pub fn over(base: &Path) -> Result<Self, Unmet> {
        let at = files::temp_dir();
        for part in ["lower", "upper", "work"] {
            std::fs::create_dir_all(base.join(part)).map_err(|e| Unmet(e.to_string()))?;
        }
        let options = format!(
            "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
            base.display()
        );
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(at.path());
        sh(&mut mount).map_err(Unmet)?;
        Ok(Self { at })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.at.path().to_owned()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(self.at.path());
    }
}

/// A directory seen through a FUSE file system that passes all on (bindfs).
#[derive(Debug)]
pub struct Fuse {
    at: TempDir,
}

impl Fuse {
    /// # Errors
    /// When there is no bindfs: a reason to skip.
    pub fn of(directory: &Path) -> Result<Self, Unmet> {
        let at = files::temp_dir();
        let mut bindfs = Command::new("bindfs");
        sh(bindfs.arg(directory).arg(at.path())).map_err(Unmet)?;
        Ok(Self { at })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.at.path().to_owned()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        unmount(self.at.path());
    }
}

fn unmount(path: &Path) {
    for _ in 0..50 {
        if sh(Command::new("umount").arg(path)).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let _ = sh(Command::new("umount").arg("-l").arg(path));
}
