//! A file server far away: a FUSE file system in memory that answers each request late, and counts them.
//!
//! Made for tests and measurements: its files can have any times, and what it leaves out (access times, listings that tell of entries, leases)
//! is chosen when it is mounted. Mounting needs root.

mod server;
mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

pub use self::server::Requests;
use self::server::{Gate, Server};
use self::tree::Tree;

/// What reads leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atimes {
    /// Each read moves the access time.
    Strict,
    /// As relatime does.
    Relative,
    /// None.
    Off,
}

/// What the server is like.
#[derive(Debug, Clone, Copy)]
pub struct Like {
    /// Each answer comes so much later.
    pub delay: Duration,
    /// A listing tells of the entries as well (READDIRPLUS).
    pub plus: bool,
    /// What reads leave behind.
    pub atimes: Atimes,
    /// The kernel checks who may do what (`default_permissions`): it asks for a directory again before each name that it changes there. Else
    /// the server decides, as file servers do.
    pub kernel_checks: bool,
}

impl Default for Like {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            plus: true,
            atimes: Atimes::Strict,
            kernel_checks: true,
        }
    }
}

/// A mounted one. Dropping it unmounts it.
#[derive(Debug)]
pub struct Far {
    at: PathBuf,
    tree: Arc<Tree>,
    requests: Arc<Requests>,
    gate: Arc<Gate>,
    session: Option<BackgroundSession>,
}

impl Far {
    /// Mounts one.
    ///
    /// # Errors
    /// Without root, or without FUSE.
    pub fn mount(at: &Path, like: Like) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let tree = Arc::new(Tree::new());
        let requests = Arc::new(Requests::default());
        let gate = Arc::new(Gate::default());
        let server = Server::new(Arc::clone(&tree), Arc::clone(&requests), Arc::clone(&gate), like);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("far".into()),
            MountOption::Subtype("far".into()),
        ];
        if like.kernel_checks {
            config.mount_options.push(MountOption::DefaultPermissions);
        }
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(server, at, &config)?;
        Ok(Self {
            at: at.to_owned(),
            tree,
            requests,
            gate,
            session: Some(session),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// What it was asked.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Has it answer to nothing from now on, or answer again: what was asked meanwhile as well.
    pub fn answer(&self, answers: bool) {
        self.gate.answer(answers);
    }

    /// Makes a file with all its times at `used`, and the directories above it, without a request. The path is below the root.
    pub fn make(&self, path: &str, bytes: u64, used: SystemTime) {
        self.tree.make(path, bytes, used);
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.tree.files()
    }

    /// Whether something lies there.
    pub fn has(&self, path: &str) -> bool {
        self.tree.has(path)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.gate.answer(true);
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.at).stderr(Stdio::null());
        let _ = umount.status();
        // Its thread ends with the mount.
        drop(self.session.take());
    }
}
