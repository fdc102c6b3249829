//! `purge-agent once`, and a file server that is far away.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use purge_bench::far::{Far, Like};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::skip::Unmet;

/// A command line of `purge-agent once` for a directory.
pub fn once(volume: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("purge-agent"));
    command.arg("once").arg("--volume").arg(volume).args(arguments);
    command.env("PURGE_AGENT_LOG", "json");
    command
}

/// What a job said.
#[derive(Debug)]
pub struct Job {
    /// Its exit code.
    pub code: i32,
    /// Its statistics; null if it had none.
    pub statistics: Value,
    /// Its log.
    pub log: String,
}

impl Job {
    /// Of a process that has ended.
    pub fn of(output: &Output) -> Self {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = output
            .stdout
            .split(|b| *b == b'\n')
            .rfind(|line| !line.is_empty());
        Self {
            code: output.status.code().unwrap_or(-1),
            statistics: last
                .and_then(|line| serde_json::from_slice(line).ok())
                .unwrap_or_default(),
            log,
        }
    }

    /// Runs one to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(volume: &Path, arguments: &[&str]) -> Self {
        Self::of(&once(volume, arguments).output().expect("purge-agent once"))
    }

    /// A number of the statistics.
    ///
    /// # Panics
    /// When there is none.
    pub fn number(&self, pointer: &str) -> u64 {
        let number = self.statistics.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no {pointer} in {}\n{}", self.statistics, self.log))
    }

    /// The same, of one that has done everything.
    ///
    /// # Panics
    /// When it has not.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.statistics, self.log);
        self
    }
}

/// A far file server in a temporary directory.
#[derive(Debug)]
pub struct FarMount {
    /// The server.
    pub far: Far,
    _dir: TempDir,
}

impl FarMount {
    /// Mounts one.
    ///
    /// # Errors
    /// Where FUSE cannot be mounted.
    pub fn new(like: Like) -> Result<Self, Unmet> {
        let dir = crate::files::temp_dir();
        let far = Far::mount(&dir.path().join("far"), like).map_err(|e| Unmet(format!("no FUSE: {e}")))?;
        Ok(Self { far, _dir: dir })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.far.path().to_owned()
    }
}
