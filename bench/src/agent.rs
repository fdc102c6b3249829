//! The agent under measurement, and its command line.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::{self, pause};

/// Between two looks at the agent's state: what a first scan's time is rounded up to.
const POLL: Duration = Duration::from_millis(20);
/// Robinhood needs two minutes for a million files; an agent that needs longer than this hangs.
const SCAN_MAX: Duration = Duration::from_secs(1_800);
/// From SIGTERM to the end.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A volume for the agent to watch, with a rule of the same name that expires after 90 days without a read.
pub struct Volume<'a> {
    /// Name of volume and rule.
    pub name: &'a str,
    /// Its mount point.
    pub path: &'a Path,
    /// Further lines of its table.
    pub keys: &'a str,
    /// Further lines of its rule's table.
    pub rule: &'a str,
}

/// A running agent. Stopped when dropped.
pub struct Agent {
    child: Child,
    programs: PathBuf,
    state_dir: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    /// What purgectl said last on stderr.
    complaints: PathBuf,
}

impl Agent {
    /// Starts an agent that has never seen these volumes; its state lies in `place/name`.
    pub fn start(programs: &Path, place: &Path, name: &str, volumes: &[Volume<'_>]) -> Result<Self> {
        Self::start_without(programs, place, name, volumes, "")
    }

    /// The same, and it takes these features of the kernel for missing (`PURGE_AGENT_WITHOUT`).
    pub fn start_without(
        programs: &Path,
        place: &Path,
        name: &str,
        volumes: &[Volume<'_>],
        without: &str,
    ) -> Result<Self> {
        let dir = place.join(name);
        let state_dir = dir.join("state");
        fs::create_dir_all(&state_dir).with_context(|| format!("cannot make {}", state_dir.display()))?;
        let complaints = dir.join("purgectl.err");
        let (socket, log, config) = (
            dir.join("agent.sock"),
            dir.join("agent.log"),
            dir.join("agent.toml"),
        );
        fs::write(&config, configuration(&state_dir, &socket, volumes)?)?;
        let child = Command::new(programs.join("purge-agent"))
            .args(["run", "--config"])
            .arg(&config)
            // What is measured is the process that was started.
            .env("PURGE_AGENT_SINGLE_PROCESS", "1")
            .env("PURGE_AGENT_WITHOUT", without)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            // Its own group: the terminal's SIGINT is for the bench, which then stops the agent.
            .process_group(0)
            .spawn()
            .context("cannot run purge-agent")?;
        Ok(Self {
            child,
            programs: programs.into(),
            state_dir,
            socket,
            log,
            complaints,
        })
    }

    /// Waits until it logs that it is ready: every access from then on is recorded.
    pub fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        while !fs::read_to_string(&self.log)?.contains("\"ready\"") {
            ensure!(start.elapsed() < SCAN_MAX, "not ready\n{}", self.last_words());
            pause(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Waits until every volume is tracked: armed and scanned.
    pub fn wait_tracking(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("purge-agent ended: {status}\n{}", self.last_words());
            }
            // Until it listens there is nothing to ask.
            if let Ok(status) = self.json(&["status"])
                && let Some(volumes) = status["volumes"].as_array()
                && !volumes.is_empty()
            {
                if let Some(volume) = volumes.iter().find(|volume| volume["state"] == "degraded") {
                    bail!("volume {} is degraded: {}", volume["name"], volume["reason"]);
                }
                if volumes.iter().all(|volume| volume["state"] == "tracking") {
                    return Ok(());
                }
            }
            ensure!(
                start.elapsed() < SCAN_MAX,
                "no end of the first scan\n{}",
                self.last_words()
            );
            pause(POLL)?;
        }
    }

    /// The status of its volume `name`.
    pub fn volume(&self, name: &str) -> Result<Value> {
        let status = self.json(&["status"])?;
        let volumes = status["volumes"].as_array().context("status without volumes")?;
        let volume = volumes.iter().find(|volume| volume["name"] == name);
        volume
            .cloned()
            .with_context(|| format!("status without volume {name}"))
    }

    /// Runs a command of purgectl and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let printed = self.ctl(&[&["--output", "json"], args].concat())?;
        serde_json::from_slice(&printed).with_context(|| format!("purgectl {args:?} printed no JSON"))
    }

    /// Runs a command of purgectl and returns what it printed.
    pub fn ctl(&self, args: &[&str]) -> Result<Vec<u8>> {
        let mut endpoint = std::ffi::OsString::from("unix:");
        endpoint.push(&self.socket);
        let (status, printed) = command::output(
            Command::new(self.programs.join("purgectl"))
                .env("PURGECTL_ENDPOINT", endpoint)
                .arg("--quiet")
                .args(args)
                .stderr(File::create(&self.complaints)?),
        )?;
        ensure!(
            status.success(),
            "purgectl {args:?}: {status}\n{}\n{}",
            fs::read_to_string(&self.complaints)?.trim(),
            self.last_words()
        );
        Ok(printed)
    }

    /// How long its last scan took, as its log says; none when the log does not say.
    pub fn logged_scan_seconds(&self) -> Option<f64> {
        let log = fs::read_to_string(&self.log).ok()?;
        let mut newest_first = log
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let finished = newest_first.find(|event| event["message"] == "scan finished")?;
        finished["seconds"].as_f64()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and returns where it keeps its index.
    pub fn stop(mut self) -> Result<PathBuf> {
        ensure!(
            self.end()?,
            "purge-agent did not end within {} s of SIGTERM",
            STOP_MAX.as_secs()
        );
        Ok(self.state_dir.clone())
    }

    /// Asks it to end; whether it did in time.
    fn end(&mut self) -> Result<bool> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
            && self.child.try_wait()?.is_none()
        {
            kill_process(pid, Signal::TERM)?;
        }
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > STOP_MAX {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or(&[])
            .join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.end().unwrap_or(false) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn configuration(state_dir: &Path, socket: &Path, volumes: &[Volume<'_>]) -> Result<String> {
    // A path in quotes for TOML; debug quoting escapes as TOML does for every path that tempfile makes.
    let mut text = format!("state_dir = {state_dir:?}\n[listen]\nunix = {socket:?}\n");
    for Volume {
        name,
        path,
        keys,
        rule,
    } in volumes
    {
        // Birth and change times cannot be set back, so a tree of today can be old by atime and mtime only.
        write!(
            text,
            "[[volume]]\nname = {name:?}\npath = {path:?}\nbaseline = \"mtime\"\n{keys}\n\
             [[rule]]\nname = {name:?}\nvolume = {name:?}\nclock = [\"access\"]\nttl = \"90d\"\n\
             remove_empty_dirs = false\nmax_fraction = 1.0\n{rule}\n"
        )?;
    }
    Ok(text)
}
