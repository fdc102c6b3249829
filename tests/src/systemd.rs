//! A machine with a real systemd: a Debian in a container, booted by systemd-nspawn.
//!
//! Its root is an overlay over a system that `debootstrap` makes once (beside the binaries). The kernel is this host's, so
//! fanotify, mounts and processes are what they are here; volumes are bound into it under their own paths.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::ctl::Ctl;
use crate::files::seen_by;
use crate::skip::Unmet;
use crate::wait::{LONG, until};
use crate::{binary, sh};

/// A booted machine; shut down when dropped.
#[derive(Debug)]
pub struct Machine {
    nspawn: Child,
    /// Its init, as this host numbers it.
    init: u32,
    /// Goes after it.
    _cgroup: Cgroup,
    dir: TempDir,
}

/// Where files lie that a machine was booted with.
pub const FILES_AT: &str = "/srv";

/// Where the agent of such a machine listens.
const SOCKET: &str = "run/purge-agent/agent.sock";

impl Machine {
    /// Boots a machine with the agent installed as its unit says, but not started, and `volumes` bound into it.
    ///
    /// # Errors
    /// When this host cannot do it: a reason to skip.
    pub fn boot(volumes: &[&Path]) -> Result<Self, Unmet> {
        Self::boot_with(volumes, &[], install)
    }

    /// Boots a machine that has never heard of the agent, with `files` in [`FILES_AT`].
    ///
    /// # Errors
    /// When this host cannot do it: a reason to skip.
    ///
    /// # Panics
    /// When a file cannot be copied.
    pub fn bare(volumes: &[&Path], files: &[&Path]) -> Result<Self, Unmet> {
        Self::boot_with(volumes, &[], |root| copy(files, root))
    }

    /// The same with a network of its own: no other test uses its addresses.
    ///
    /// # Errors
    /// When this host cannot do it: a reason to skip.
    ///
    /// # Panics
    /// When a file cannot be copied.
    pub fn alone(volumes: &[&Path], files: &[&Path]) -> Result<Self, Unmet> {
        Self::boot_with(volumes, &["--private-network"], |root| copy(files, root))
    }

    fn boot_with(volumes: &[&Path], more: &[&str], install: impl FnOnce(&Path)) -> Result<Self, Unmet> {
        let base = base_system()?;
        let dir = tempfile::Builder::new()
            .prefix("purge-machine-")
            .tempdir()
            .map_err(|e| Unmet(format!("no temporary directory: {e}")))?;
        let root = dir.path().join("root");
        for part in ["root", "changes", "work"] {
            fs::create_dir(dir.path().join(part)).map_err(|e| Unmet(e.to_string()))?;
        }
        // An overlay cannot lie on an overlay, which a temporary directory may be.
        let changes = dir.path().join("changes");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.display(),
            changes.display(),
            dir.path().join("work").display()
        );
        sh(Command::new("mount")
            .args(["-t", "overlay", "purge-machine", "-o", &options])
            .arg(&root))
        .map_err(Unmet)?;
        install(&root);
        let log = fs::File::create(dir.path().join("console")).map_err(|e| Unmet(e.to_string()))?;
        let cgroup = Cgroup::new(&dir)?;
        let mut nspawn = cgroup.command("systemd-nspawn");
        nspawn
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .env("SYSTEMD_NSPAWN_TMPFS_TMP", "0")
            .args([
                "--boot",
                "--register=no",
                "--keep-unit",
                "--capability=all",
                "--quiet",
            ])
            // Not among what systemd-nspawn allows by itself.
            .arg("--system-call-filter=fanotify_init fanotify_mark name_to_handle_at open_by_handle_at openat2")
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            .arg("--directory")
            .arg(&root)
            .args(volumes.iter().map(|v| format!("--bind={}", v.display())))
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| Unmet(e.to_string()))?)
            .stderr(log)
            // A signal for the test's terminal is none for the machine.
            .process_group(0);
        let nspawn = nspawn
            .spawn()
            .map_err(|e| Unmet(format!("systemd-nspawn: {e}")))?;
        let mut machine = Self {
            nspawn,
            init: 0,
            _cgroup: cgroup,
            dir,
        };
        machine.init = until("the machine has an init", LONG, || machine.find_init());
        until("the machine is up", LONG, || {
            let state = machine.run(&["systemctl", "is-system-running"]);
            let state = state.unwrap_or_else(|e| e);
            let is_up = |line: &str| matches!(line, "running" | "degraded");
            state.lines().any(is_up).then_some(())
        });
        Ok(machine)
    }

    /// Its first process calls itself systemd once it has taken over from systemd-nspawn.
    fn find_init(&self) -> Option<u32> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().find_map(|child| {
            let comm = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (comm.trim() == "systemd").then(|| child.parse().ok())?
        })
    }

    /// Runs a command in the machine and returns its stdout.
    ///
    /// # Errors
    /// When it cannot be started or ends with a failure; also with what it printed.
    pub fn run(&self, command: &[&str]) -> Result<String, String> {
        let out = Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "--all", "--"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        match out.status.success() {
            true => Ok(printed),
            false => {
                let complaint = String::from_utf8_lossy(&out.stderr);
                Err(format!("{printed}{complaint}({command:?}: {})", out.status))
            }
        }
    }

    /// A path of the machine, as this host reaches it.
    pub fn path(&self, below: &str) -> PathBuf {
        seen_by(self.init, below)
    }

    /// `purgectl` of this host, for the machine's agent.
    pub fn ctl(&self) -> Ctl {
        Ctl::new(&self.path(SOCKET))
    }

    /// Writes a file of the machine.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).expect("a file of the machine");
    }

    /// The process of a unit, as this host numbers it.
    pub fn main_pid(&self, unit: &str) -> Option<u32> {
        let inside = self
            .run(&["systemctl", "show", "--property=MainPID", "--value", unit])
            .ok()?;
        let inside: u32 = inside.trim().parse().ok().filter(|pid| *pid > 0)?;
        let of_machine = fs::read_link(format!("/proc/{}/ns/pid", self.init)).ok()?;
        fs::read_dir("/proc")
            .ok()?
            .filter_map(Result::ok)
            .find_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let same = fs::read_link(entry.path().join("ns/pid")).is_ok_and(|ns| ns == of_machine);
                let status = same.then(|| fs::read_to_string(entry.path().join("status")).ok())??;
                let numbers = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
                (numbers.split_whitespace().last()? == inside.to_string()).then_some(pid)
            })
    }

    /// The end of what the agent has logged, for a failing test.
    pub fn log(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--lines=60", "--unit=purge-agent"])
            .unwrap_or_else(|e| e)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the machine's agent\n{}\n---", self.log());
        }
        let pid = i32::try_from(self.nspawn.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..300 {
            if !matches!(self.nspawn.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        let _ = sh(Command::new("umount").arg("-l").arg(self.dir.path().join("root")));
    }
}

/// A control group for one machine. All that are started from one group would put their units into the same groups, where one
/// machine's systemd finds processes of another that it cannot name.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(machine: &TempDir) -> Result<Self, Unmet> {
        let read = |path: &str| fs::read_to_string(path).map_err(|e| Unmet(format!("{path}: {e}")));
        let missing = || Unmet("no cgroup2 is mounted".to_owned());
        let mounts = read("/proc/self/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(at)
        });
        let mine = read("/proc/self/cgroup")?;
        let mine = mine.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = Path::new(root.ok_or_else(missing)?).join(mine.ok_or_else(missing)?);
        let own = own.join(machine.path().file_name().unwrap_or_default());
        fs::create_dir(&own).map_err(|e| Unmet(format!("{}: {e}", own.display())))?;
        Ok(Self(own))
    }

    /// A command that is in the group before it becomes `program`.
    fn command(&self, program: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        shell.arg(self.0.join("cgroup.procs")).arg(program);
        shell
    }
}

/// With all that a machine has left in it.
impl Drop for Cgroup {
    fn drop(&mut self) {
        fn remove(group: &Path) {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(group);
        }
        remove(&self.0);
    }
}

/// A small Debian with systemd, made once.
fn base_system() -> Result<PathBuf, Unmet> {
    for program in ["debootstrap", "systemd-nspawn", "nsenter"] {
        sh(Command::new(program).arg("--version")).map_err(Unmet)?;
    }
    let beside = binary("purge-agent")
        .parent()
        .map(|d| d.join("debian"))
        .unwrap_or_default();
    fs::create_dir_all(&beside).map_err(|e| Unmet(e.to_string()))?;
    let (root, lock) = (beside.join("bookworm"), beside.join("lock"));
    let lock = fs::File::create(lock).map_err(|e| Unmet(e.to_string()))?;
    // Tests of several processes may come here at once.
    lock.lock().map_err(|e| Unmet(e.to_string()))?;
    // The last thing that was asked for.
    if root.join("usr/bin/openssl").exists() {
        return Ok(root);
    }
    remove(&root).map_err(|e| Unmet(e.to_string()))?;
    let fresh = beside.join("fresh");
    remove(&fresh).map_err(|e| Unmet(e.to_string()))?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args([
        "--variant=minbase",
        "--include=systemd,systemd-sysv,dbus,logrotate,openssl",
        "bookworm",
    ]);
    sh(debootstrap.arg(&fresh)).map_err(Unmet)?;
    fs::rename(&fresh, &root).map_err(|e| Unmet(e.to_string()))?;
    Ok(root)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Puts files into [`FILES_AT`] of the machine.
fn copy(files: &[&Path], root: &Path) {
    let place = root.join(FILES_AT.trim_start_matches('/'));
    fs::create_dir_all(&place).unwrap_or_else(|e| panic!("{}: {e}", place.display()));
    for file in files {
        let to = place.join(file.file_name().expect("a file's name"));
        fs::copy(file, to).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

/// Puts programs and unit where a package would.
fn install(root: &Path) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let files = [
        (binary("purge-agent"), "usr/sbin/purge-agent"),
        (binary("purgectl"), "usr/bin/purgectl"),
        (
            units.join("purge-agent.service"),
            "lib/systemd/system/purge-agent.service",
        ),
        (
            units.join("purge-agent-mount@.service"),
            "lib/systemd/system/purge-agent-mount@.service",
        ),
    ];
    for (from, to) in files {
        fs::copy(&from, root.join(to)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
    fs::create_dir_all(root.join("etc/purge-agent")).expect("/etc/purge-agent");
}
