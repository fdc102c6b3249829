//! Another mount namespace, in which a process of the test's own lives.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::sh;
use crate::skip::Unmet;

/// A mount namespace with one process in it. Both end when this is dropped.
#[derive(Debug)]
pub struct Elsewhere(Child);

impl Elsewhere {
    /// Root's, after `script` has run in it.
    ///
    /// # Errors
    /// When this host does not let it: a reason to skip.
    pub fn new(script: &str) -> Result<Self, Unmet> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]);
        Self::begin(unshare, script)
    }

    /// The same for a user without privileges, in a user namespace where that user is root.
    ///
    /// # Errors
    /// When this host does not let it: a reason to skip.
    pub fn of_user(uid: u32, script: &str) -> Result<Self, Unmet> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "--propagation", "private"]);
        unshare.uid(uid).gid(uid).current_dir("/");
        Self::begin(unshare, script)
    }

    fn begin(mut unshare: Command, script: &str) -> Result<Self, Unmet> {
        let script = format!("set -e\n{script}\necho ready\nexec sleep 600");
        let child = unshare
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Unmet(format!("unshare: {e}")))?;
        let mut elsewhere = Self(child);
        let out = elsewhere.0.stdout.take().expect("its output");
        let ready = BufReader::new(out)
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "ready");
        match ready {
            true => Ok(elsewhere),
            false => Err(Unmet("no mount namespace can be made, or mounted in".into())),
        }
    }

    /// What a command says that runs in it.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn run(&self, line: &str) -> Result<String, String> {
        let pid = self.0.id().to_string();
        sh(Command::new("nsenter").args(["--mount", "--target", &pid, "sh", "-c", line]))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
