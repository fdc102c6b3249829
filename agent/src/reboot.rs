//! What can be known of a reboot by order: that systemd was shutting the host down when the agent ended, that it was starting the host when the
//! agent began, and that no process had a file of the volume open then.
//!
//! That is not proof. A read-only mount of the file system by another host or another system between the two leaves no trace on the disk, and
//! neither does a process that is over in a moment. So a reboot is a gap unless the operator vouches for the order of this host's units
//! (`reboots = "ordered"`), and counts all the same when any of this was not so.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::io::Errno;

use purge_base::handover;
use purge_sys::descriptor;
use purge_sys::stat::{self, Device};
use purge_sys::superblock;
use purge_sys::time::{self, BootId};

/// What is open is looked for this long. A user may have any number of threads and open files.
const LOOKED_FOR_MAX: Duration = Duration::from_secs(10);
/// Where systemd's program is; nothing else answers for it.
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// It asks the first process by a socket.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a reboot counts as a gap.
pub type Why = String;

/// To be asked as the last act, when nothing is watched any more. `root` is the volume's. Returns the boot that ends.
///
/// # Errors
/// Why what follows is no reboot by order, or may have had a use before it.
pub fn is_ending(root: io::Result<OwnedFd>) -> Result<BootId, Why> {
    let state = state_of_host()?;
    if state != "stopping" {
        return Err(format!("systemd was not shutting the host down, but {state}"));
    }
    is_unused(root)?;
    match time::boot_id() {
        none if none == BootId::default() => Err("the kernel does not tell which boot this is".into()),
        boot => Ok(boot),
    }
}

/// To be asked when the volume is watched again. `ended` is what [`is_ending`] said; `is_first`: no agent has run in this boot before.
///
/// # Errors
/// Why it was no reboot by order, or may have had a use after it.
pub fn has_begun(ended: &[u8], is_first: bool, root: io::Result<OwnedFd>) -> Result<(), Why> {
    let now = time::boot_id();
    if ended == now || now == BootId::default() {
        return Err("the host was not booted since".into());
    }
    if !is_first {
        return Err("another agent has run since the host was booted".into());
    }
    let state = state_of_host()?;
    if !matches!(state.as_str(), "initializing" | "starting") {
        return Err(format!("the agent began when the host was {state} already"));
    }
    is_unused(root)
}

/// As systemd says it of the whole host.
fn state_of_host() -> Result<String, Why> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() || handover::parent().is_some() {
        return Err("the agent does not run under systemd".into());
    }
    let mut command = Command::new(SYSTEMCTL);
    command
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    descriptor::keep_standard_only(&mut command);
    let unknown = |why: String| format!("systemd does not tell the state of the host: {why}");
    let mut child = command.spawn().map_err(|e| unknown(e.to_string()))?;
    let began = Instant::now();
    // Its answer is a word, so that it never waits for the pipe to be read.
    while child.try_wait().map_err(|e| unknown(e.to_string()))?.is_none() {
        if began.elapsed() > ANSWERS_WITHIN {
            let _ = child.kill();
            let _ = child.wait();
            return Err(unknown(format!("no answer within {ANSWERS_WITHIN:?}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // Any state but "running" is a failure for it.
    let out = child.wait_with_output().map_err(|e| unknown(e.to_string()))?;
    let state = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    match state.is_empty() {
        true => Err(unknown("no answer".into())),
        false => Ok(state),
    }
}

/// No other process has a file of the volume's file system open or mapped. What is open is told by its mount, so that no file is touched.
fn is_unused(root: io::Result<OwnedFd>) -> Result<(), Why> {
    let device = root
        .and_then(superblock::of)
        .map_err(|e| format!("which file system the volume lies on cannot be told: {e}"))?;
    let unreadable = |e: io::Error| format!("/proc cannot be read: {e}");
    // In a process namespace of its own the agent does not see who else uses the volume.
    if fs::read_to_string("/proc/2/comm").map_or(true, |comm| comm.trim() != "kthreadd") {
        return Err("not all processes of the host can be seen".into());
    }
    let own = std::process::id().to_string();
    let until = Instant::now() + LOOKED_FOR_MAX;
    for process in fs::read_dir("/proc").map_err(unreadable)? {
        let name = process.map_err(unreadable)?.file_name();
        let is_number = |n: &&str| n.bytes().all(|b| b.is_ascii_digit());
        // The first process is systemd, on whose word this rests.
        let is_other = |pid: &&str| *pid != own && *pid != "1";
        let Some(pid) = name.to_str().filter(is_number).filter(is_other) else {
            continue;
        };
        let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        match uses(pid, device, until) {
            Ok(false) => {}
            Ok(true) => {
                return Err(format!(
                    "process {pid} ({}) had a file of the volume open",
                    comm().trim()
                ));
            }
            Err(e) if has_ended(&e) => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                return Err(format!(
                    "what all processes have open could not be seen within {LOOKED_FOR_MAX:?}; process {pid} ({}) came last",
                    comm().trim()
                ));
            }
            Err(e) => {
                return Err(format!(
                    "what process {pid} ({}) has open cannot be seen: {e}; give the unit CAP_SYS_PTRACE",
                    comm().trim()
                ));
            }
        }
    }
    Ok(())
}

fn has_ended(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

/// Whether a process has a file of the device open or mapped. A thread may have descriptors and mounts of its own, and may outlive the first.
fn uses(pid: &str, device: Device, until: Instant) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        in_time(until)?;
        match thread_uses(&thread?.path(), device, until) {
            Ok(false) => {}
            Err(e) if has_ended(&e) => {}
            found => return found,
        }
    }
    Ok(false)
}

fn in_time(until: Instant) -> io::Result<()> {
    match Instant::now() > until {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(()),
    }
}

fn thread_uses(thread: &Path, device: Device, until: Instant) -> io::Result<bool> {
    let read = |what: &Path| {
        let bytes = fs::read(thread.join(what))?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    if has_no_files(&read(Path::new("stat"))?) {
        return Ok(false);
    }
    if maps(&read(Path::new("maps"))?, device) {
        return Ok(true);
    }
    let mountinfo = match read(Path::new("mountinfo")) {
        // It is ending, and leaves its mounts after its files (do_exit in kernel/exit.c, mounts_open_common in fs/proc_namespace.c).
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => return Ok(false),
        read => read?,
    };
    let (fd, fdinfo) = (thread.join("fd"), Path::new("fdinfo"));
    for entry in fs::read_dir(&fd)? {
        in_time(until)?;
        let file = entry?.file_name();
        let info = match read(&fdinfo.join(&file)) {
            Ok(info) => info,
            // It was closed meanwhile.
            Err(e) if has_ended(&e) => continue,
            Err(e) => return Err(e),
        };
        let is_of_device = match mount_of(&info).and_then(|id| device_of(&mountinfo, id)) {
            Some(of) => of == device,
            None => is_elsewhere(&fd.join(&file), device)?,
        };
        if is_of_device {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an open file that is in none of its process's mounts is of the device: of a mount of another namespace, or of none.
fn is_elsewhere(file: &Path, device: Device) -> io::Result<bool> {
    // Sockets, pipes and their like have no path.
    if fs::read_link(file).is_ok_and(|to| !to.has_root()) {
        return Ok(false);
    }
    match stat::behind(file) {
        Ok(found) => Ok(found.device == device),
        Err(e) if has_ended(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A thread of the kernel's, or a process that has ended and is not waited for yet, by its line of `/proc/PID/stat`.
fn has_no_files(stat: &str) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    // The name in parentheses may hold anything; what follows it begins with the state.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let is_over = matches!(fields.next(), Some("Z" | "X"));
    let flags: u64 = fields.nth(5).and_then(|flags| flags.parse().ok()).unwrap_or(0);
    is_over || flags & PF_KTHREAD != 0
}

/// Whether a line of `/proc/PID/maps` is of the device: `from-to perms offset major:minor inode path`, the numbers in hexadecimal.
fn maps(maps: &str, device: Device) -> bool {
    let wanted = format!("{:02x}:{:02x}", device.major, device.minor);
    let mut devices = maps.lines().filter_map(|line| line.split_whitespace().nth(3));
    devices.any(|of| of == wanted)
}

/// Of which device a mount is: `id parent major:minor root mountpoint ...`.
fn device_of(mountinfo: &str, id: &str) -> Option<Device> {
    let of_line = |line: &str| {
        let mut fields = line.split(' ');
        let is_it = fields.next()? == id;
        let (major, minor) = fields.nth(1).filter(|_| is_it)?.split_once(':')?;
        Some(Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    };
    mountinfo.lines().find_map(of_line)
}

fn mount_of(fdinfo: &str) -> Option<&str> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    Some(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_of_a_device_is_told_without_touching_it() {
        let device = Device { major: 7, minor: 18 };
        let info = "36 35 7:18 / /mnt/a rw,noatime shared:1 - ext4 /dev/loop1 rw\n\
                    37 35 7:1 / /mnt/b rw - ext4 /dev/loop1 rw\n";
        assert_eq!(device_of(info, "36"), Some(device));
        assert_eq!(device_of(info, "37"), Some(Device { major: 7, minor: 1 }));
        assert_eq!(device_of(info, "35"), None);
        assert_eq!(
            mount_of("pos:\t0\nflags:\t0100000\nmnt_id:\t36\nino:\t12\n"),
            Some("36")
        );
        assert!(has_no_files("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"));
        assert!(has_no_files("9 (a) b) Z 1 9 9 0 -1 4194560 0 0"));
        assert!(!has_no_files("9 (a Z) S 1 9 9 0 -1 4194560 0 0"));
        assert!(maps("7f00-7f01 r--p 00000000 07:12 131 /mnt/a/x\n", device));
        assert!(!maps(
            "7f00-7f01 r--p 00000000 07:13 131 /mnt/a/x\n7f02-7f03 rw-p 0 00:00 0\n",
            device
        ));
    }
}
