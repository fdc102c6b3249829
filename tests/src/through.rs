//! A volume that users come to through a mount of the agent's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::skip::Unmet;
use crate::wait::{SOON, until};
use crate::{Agent, Config, binary, files};

/// Where a mount is to be, before there is one.
#[derive(Debug)]
pub struct Point(TempDir);

impl Point {
    /// A directory for it.
    ///
    /// # Errors
    /// Where the kernel has no FUSE: a reason to skip.
    pub fn new() -> Result<Self, Unmet> {
        if !Path::new("/dev/fuse").exists() {
            return Err(Unmet("this kernel has no /dev/fuse".into()));
        }
        let dir = files::temp_dir();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).map_err(|e| Unmet(e.to_string()))?;
        Ok(Self(dir))
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// The keys of a volume that users see here.
    pub fn keys(&self) -> String {
        format!("collector = \"fuse\"\nmount = {:?}", self.0.path())
    }

    /// A configuration of the directory behind, with a rule like that of [`Config::backdated`].
    pub fn config(&self, behind: &Path) -> Config {
        let keys = format!("baseline = \"mtime\"\n{}", self.keys());
        Config::new(behind, &keys).rule(crate::config::OLD, "ttl = \"1h\"\nclock = [\"access\"]")
    }
}

/// Has an agent that does not run take what was told so far for recorded.
///
/// # Panics
/// When nothing was told.
pub fn hear(agent: &Agent) {
    let dir = agent.state_dir().join("volumes/v.d/told");
    let entries = fs::read_dir(&dir).expect("what was told");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let last = numbers.max().expect("a segment");
    let length = || {
        fs::metadata(dir.join(last.to_string()))
            .expect("its length")
            .len()
    };
    // The end of an open file is told a moment after the close.
    let length = until("nothing more is told", SOON, || {
        let before = length();
        std::thread::sleep(Duration::from_millis(300));
        (length() == before).then_some(before)
    });
    let read = [last.to_le_bytes(), length.to_le_bytes()].concat();
    fs::write(dir.join("read"), read).expect("how far it is read");
}

/// A mount. Unmounted when dropped.
#[derive(Debug)]
pub struct Through {
    child: Option<Child>,
    point: PathBuf,
    arguments: Vec<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Through {
    /// Mounts the volume of an agent, which need not run.
    ///
    /// # Panics
    /// When it is not mounted.
    pub fn of(agent: &Agent, point: &Point, environment: &[(&str, &str)]) -> Self {
        let config = agent.config_file();
        let mut through = Self {
            child: None,
            point: point.path(),
            arguments: ["mount", "--volume", "v", "--config"].map(PathBuf::from).to_vec(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        through.arguments.push(config);
        through.launch();
        through
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it is not mounted.
    pub fn launch(&mut self) {
        let mut command = Command::new(binary("purge-agent"));
        command
            .args(&self.arguments)
            .current_dir("/")
            .stdin(Stdio::null());
        command.env("PURGE_AGENT_SINGLE_PROCESS", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().expect("starting the mount"));
        let above = fs::metadata(self.point.parent().unwrap()).unwrap().dev();
        until("it is mounted", SOON, || {
            assert!(self.is_running(), "the mount has ended");
            let device = fs::metadata(&self.point).ok()?.dev();
            // A mount whose process was killed says this, and no more.
            fs::read_dir(&self.point).ok()?;
            (device != above).then_some(())
        });
    }

    /// Where users see the volume.
    pub fn path(&self) -> PathBuf {
        self.point.clone()
    }

    /// Its process, or its parent's if it has one.
    ///
    /// # Panics
    /// When it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a mount").id()
    }

    /// Its process where it has a parent.
    pub fn below_parent(&self) -> Option<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Whether its process, or its parent, runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("a mount");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("signalling the mount");
        let status = until("the mount ends after SIGTERM", SOON * 2, || {
            child.try_wait().ok().flatten()
        });
        assert!(status.success(), "after SIGTERM: {status}");
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a mount");
        child.kill().expect("killing the mount");
        child.wait().expect("waiting for the killed mount");
    }

    /// SIGKILL of the process that its parent starts again.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_below_parent(&self) -> u32 {
        let pid = until("the mount runs", SOON, || self.below_parent());
        let process = Pid::from_raw(pid.cast_signed()).expect("a process");
        kill_process(process, Signal::KILL).expect("killing the mount");
        pid
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            for _ in 0..300 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // No dead mount is left, also if the test has failed.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.point)
            .stderr(Stdio::null())
            .status();
    }
}
