//! A network of two: this host, and a namespace at the other end of a cable that can be cut.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::sh;
use crate::skip::Unmet;

/// This host's address on the cable, one of those that are for documentation only (RFC 5737).
pub const HERE: &str = "203.0.113.1";
/// That of the other end.
pub const THERE: &str = "203.0.113.2";
const DEVICE: &str = "purge-tests0";
const FAR_DEVICE: &str = "purge-tests1";

/// A cable; removed when dropped.
#[derive(Debug)]
pub struct Cable {
    /// Keeps the namespace.
    holder: Child,
    /// One at a time: its addresses are the same for all.
    _lock: File,
}

impl Cable {
    /// Lays a cable.
    ///
    /// # Errors
    /// When this host cannot do it: a reason to skip.
    pub fn new() -> Result<Self, Unmet> {
        let unmet = |e: std::io::Error| Unmet(format!("a cable: {e}"));
        let lock = File::create(std::env::temp_dir().join("purge-tests-cable.lock")).map_err(unmet)?;
        lock.lock().map_err(unmet)?;
        let own = fs::read_link("/proc/self/ns/net").map_err(unmet)?;
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let cable = Self {
            holder: holder.spawn().map_err(unmet)?,
            _lock: lock,
        };
        let theirs = format!("/proc/{}/ns/net", cable.holder.id());
        for _ in 0..500 {
            if fs::read_link(&theirs).is_ok_and(|ns| ns != own) {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        let ip = |words: &str| sh(Command::new("ip").args(words.split(' '))).map_err(Unmet);
        // One that a killed test has left.
        let _ = ip(&format!("link delete {DEVICE}"));
        let pid = cable.holder.id();
        ip(&format!(
            "link add {DEVICE} type veth peer name {FAR_DEVICE} netns {pid}"
        ))?;
        ip(&format!("address add {HERE}/30 dev {DEVICE}"))?;
        ip(&format!("link set {DEVICE} up"))?;
        for words in [
            format!("ip address add {THERE}/30 dev {FAR_DEVICE}"),
            format!("ip link set {FAR_DEVICE} up"),
        ] {
            let mut words = words.split(' ');
            let mut far = cable.far(words.next().unwrap_or_default());
            sh(far.args(words)).map_err(Unmet)?;
        }
        Ok(cable)
    }

    /// A program at the other end.
    pub fn far(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut far = Command::new("nsenter");
        far.arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .arg("--")
            .arg(program);
        far
    }

    /// Cuts the cable, or joins it again. Neither end is told.
    ///
    /// # Panics
    /// When it cannot be done.
    pub fn mend(&self, whole: bool) {
        // The far end goes down: this one's connections stay as they are.
        let mut ip = self.far("ip");
        ip.args(["link", "set", FAR_DEVICE, if whole { "up" } else { "down" }]);
        sh(&mut ip).expect("ip link set");
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = Command::new("ip")
            .args(["link", "delete", DEVICE])
            .stderr(Stdio::null())
            .status();
    }
}
