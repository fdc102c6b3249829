//! A reboot by order, in a place where the boot and systemd's word are this test's own: forgiven only where the operator vouches for it, and
//! only if nothing speaks against it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, make, temp_dir};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// What the host says of itself.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(temp_dir());
        let systemctl = host.0.path().join("systemctl");
        let script = format!("#!/bin/sh\ncat {}\n", host.0.path().join("state").display());
        fs::write(&systemctl, script).unwrap();
        fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    /// systemd says this, in the boot of this number.
    fn is(&self, state: &str, boot: u8) {
        fs::write(self.0.path().join("state"), state).unwrap();
        let id = format!("11111111-2222-3333-4444-5555555555{boot:02}\n");
        fs::write(self.0.path().join("boot_id"), id).unwrap();
    }

    /// Begins the agent where the host is as this one says.
    fn launcher(&self) -> String {
        let here = self.0.path().display();
        format!(
            "mount --bind {here}/boot_id /proc/sys/kernel/random/boot_id && \
             mount --bind {here}/systemctl /usr/bin/systemctl && exec \"$@\""
        )
    }
}

/// How a stretch between two agents is different from a reboot by order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum But {
    /// Not at all.
    Not,
    NotVouchedFor,
    TheSameBoot,
    KilledAtTheEnd,
    /// `systemctl stop`.
    StoppedAlone,
    /// Begun by hand, when users had come in.
    BegunLate,
    OpenAtTheEnd,
    OpenAtTheBeginning,
    /// By a thread with descriptors of its own.
    OpenInAThread,
    /// By a thread that outlives the first of its process.
    OpenWithoutTheFirstThread,
    /// By a mount that is in no table.
    OpenByNoMount,
    /// One more process has run in the new boot.
    NotTheFirst,
}

/// Has a file open in a thread. Arguments: the file, and whether the thread has descriptors of its own ("own") or outlives the first ("last").
const THREAD: &str = r#"
import ctypes, os, platform, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
opened = threading.Event()
def hold():
    if sys.argv[2] == "own":
        assert libc.unshare(0x400) == 0, "CLONE_FILES"
    os.open(sys.argv[1], os.O_RDONLY)
    opened.set()
    time.sleep(0.2)
    print("open", flush=True)
    time.sleep(600)
threading.Thread(target=hold).start()
opened.wait()
if sys.argv[2] == "last":
    libc.syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
time.sleep(600)
"#;

/// Has a file open by a mount that was taken away from all tables. Argument: the file.
const NO_MOUNT: &str = r#"
import os, subprocess, sys, tempfile, time
where = tempfile.mkdtemp()
subprocess.run(["mount", "--bind", os.path.dirname(sys.argv[1]), where], check=True)
os.open(os.path.join(where, os.path.basename(sys.argv[1])), os.O_RDONLY)
subprocess.run(["umount", "--lazy", where], check=True)
os.rmdir(where)
print("open", flush=True)
time.sleep(600)
"#;

/// A process that has a file open; it ends with this value.
struct Holder(Child);

impl Holder {
    fn begin(program: &str, file: &Path, how: &str) -> Self {
        let mut python = Command::new("/usr/bin/python3");
        python
            .args(["-c", program])
            .arg(file)
            .arg(how)
            .stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "open\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What came of the stretch: its gap, and how many of 20 expired files are still candidates.
fn after_a_reboot(fs: Fs, but: But) -> Option<(Value, usize)> {
    let mount = Mount::new(fs).ok()?;
    let files = make(&mount.dir("d"), 20);
    age_tree(&mount.path());
    let vouched = match but {
        But::NotVouchedFor => "",
        _ => "reboots = \"ordered\"",
    };
    let keys = format!("baseline = \"mtime\"\n# gap_tolerance is not given\n{vouched}");
    let config = Config::new(&mount.path(), &keys).rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let host = Host::new();
    host.is("running", 1);
    let launcher = host.launcher();
    let mut agent = Agent::prepared(&config).under(&["unshare", "--mount", "sh", "-c", &launcher, "sh"]);
    agent.environment("NOTIFY_SOCKET", &host.0.path().join("none"));
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(agent.ctl().candidate_files().len(), 20);

    // It is asked after what is open when it ends; that a file is opened before is a use of that one.
    let held = (but == But::OpenAtTheEnd).then(|| File::open(&files[0]).unwrap());
    let _holder = match but {
        But::OpenInAThread => Some(Holder::begin(THREAD, &files[0], "own")),
        But::OpenWithoutTheFirstThread => Some(Holder::begin(THREAD, &files[0], "last")),
        But::OpenByNoMount => Some(Holder::begin(NO_MOUNT, &files[0], "")),
        _ => None,
    };
    host.is(
        if but == But::StoppedAlone {
            "running"
        } else {
            "stopping"
        },
        1,
    );
    match but {
        But::KilledAtTheEnd => agent.kill(),
        _ => agent.terminate(),
    }
    drop(held);
    host.is(
        if but == But::BegunLate {
            "running"
        } else {
            "starting"
        },
        if but == But::TheSameBoot { 1 } else { 2 },
    );
    if but == But::NotTheFirst {
        let others = Mount::new(Fs::Tmpfs).ok()?;
        let good = fs::read_to_string(agent.config_file()).unwrap();
        let other = Config::new(&others.path(), &keys).rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
        let text = other.text(&agent.state_dir(), &agent.socket());
        fs::write(agent.config_file(), text.replace("\"v\"", "\"w\"")).unwrap();
        agent.launch();
        agent.terminate();
        fs::write(agent.config_file(), good).unwrap();
    }
    let held = (but == But::OpenAtTheBeginning).then(|| File::open(&files[0]).unwrap());
    agent.launch();
    agent.wait_until_tracking();
    let status = agent.status();
    drop(held);
    let gap = status.pointer("/gaps/0").unwrap_or(&Value::Null).clone();
    let left = agent.ctl().candidate_files().len();
    println!("{but:?}: {left} candidates; {gap}; {}", why(&agent.said()));
    Some((gap, left))
}

fn why(said: &str) -> String {
    let line = said.lines().find(|line| line.contains("not taken for a reboot"));
    line.unwrap_or_default().to_owned()
}

#[test]
fn a_reboot_by_order_is_forgiven_where_the_operator_vouches_for_it() {
    for fs in [Fs::Ext4, Fs::Btrfs] {
        need!(Mount::new(fs));
        let (gap, left) = after_a_reboot(fs, But::Not).unwrap();
        assert_eq!((text(&gap, "cause"), left), ("reboot", 20), "{fs:?}: {gap}");
    }
}

#[test]
fn what_is_not_known_to_be_a_reboot_by_order_counts_as_a_use_of_every_file() {
    need!(Mount::new(Fs::Ext4));
    for but in [
        But::NotVouchedFor,
        But::TheSameBoot,
        But::KilledAtTheEnd,
        But::StoppedAlone,
        But::BegunLate,
        But::OpenAtTheEnd,
        But::OpenAtTheBeginning,
        But::NotTheFirst,
    ] {
        let (gap, left) = after_a_reboot(Fs::Ext4, but).unwrap();
        assert_eq!((text(&gap, "cause"), left), ("stopped", 0), "{but:?}: {gap}");
    }
}

#[test]
fn a_file_that_is_open_in_an_odd_way_is_in_use_at_a_reboot() {
    for (fs, but) in [
        (Fs::Ext4, But::OpenInAThread),
        (Fs::Ext4, But::OpenWithoutTheFirstThread),
        (Fs::Ext4, But::OpenByNoMount),
        // Each of its subvolumes has a device of its own, which no table of mounts tells.
        (Fs::Btrfs, But::OpenAtTheEnd),
    ] {
        need!(Mount::new(fs));
        let (gap, left) = after_a_reboot(fs, but).unwrap();
        assert_eq!(
            (text(&gap, "cause"), left),
            ("stopped", 0),
            "{fs:?}, {but:?}: {gap}"
        );
    }
}
