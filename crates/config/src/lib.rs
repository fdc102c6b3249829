//! TOML -> checked, typed configuration. What is wrong with it is found here, once, with file, line and column.
//!
//! - [`keys`]      every key, defined once: name, form, default, when a change takes effect, and what it means
//! - [`fault`]     what is wrong, where, and how to fix it
//! - `section`     one TOML table, read key by key
//! - `check`       sections -> typed configuration; `parts` is what it has read so far
//! - `volume`, `rule`, `scope` their tables; `names` of them
//! - `mentions`    what tables name, and whether it is there
//! - `exposed`     places that others than root can change
//! - `limit`       quota and watermark tables -> [`Limits`]
//! - `archive`     archive tables, and the stores that rules name
//! - [`access`]    who may ask what
//! - [`listen`]    where clients come in
//! - [`subject`]   names in certificates
//! - [`environment`] what the environment says instead of a file
//! - `command_line` what the command line puts in force
//! - [`origin`]    where every value comes from
//! - `notify`      the notify table -> [`Notify`]; `means` its tables
//! - `accessor`    whose reads do not count
//!
//! What may never happen: a rule that selects everything because something was left out or mistyped.

pub mod access;
mod accessor;
mod archive;
mod check;
mod command_line;
pub mod environment;
mod exposed;
pub mod fault;
pub mod keys;
mod limit;
pub mod listen;
mod means;
mod mentions;
mod names;
mod notify;
pub mod origin;
mod parts;
mod rule;
mod scope;
mod section;
pub mod subject;
mod volume;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use access::{Access, Members};
pub use fault::Fault;
pub use keys::file::DEFAULT_STATE_DIR;
pub use listen::{Listen, TlsFiles};
pub use origin::Shown;
pub use subject::Subject;

use purge_archive::settings::Settings;
use purge_collect::accessors::Accessor;
use purge_notify::settings::Notify;
use purge_policy::allowance::Limits;
use purge_policy::rule::Rule;
use purge_sys::stat;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/purge-agent/agent.toml";

/// Everything the agent is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the index lives.
    pub state_dir: PathBuf,
    /// Where it is told what was deleted, trashed, restored and left alone.
    pub audit_log: PathBuf,
    /// Where clients come in.
    pub listen: Listen,
    /// Who may ask what.
    pub access: Access,
    /// What is watched.
    pub volumes: Vec<VolumeConfig>,
    /// What may go.
    pub rules: Vec<Rule>,
    /// How much there may be.
    pub limits: Limits,
    /// Where rules archive to.
    pub archives: Vec<Settings>,
    /// Who is told.
    pub notify: Notify,
    /// Every value, and where it comes from.
    pub shown: Vec<Shown>,
}

/// One watched directory tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// Its name.
    pub name: String,
    /// Its root: absolute, normalised, not `/`.
    pub path: PathBuf,
    /// What watches it.
    pub collector: Collector,
    /// Where users see it, with [`Collector::Fuse`].
    pub mount: Option<PathBuf>,
    /// Seconds between two scans, where scans watch it.
    pub scan_interval: u64,
    /// The operator vouches that no other host uses its file system.
    pub sole_client: bool,
    /// What to believe of the time before observation.
    pub baseline: Baseline,
    /// Seconds within which repeated accesses of a file need not be told apart: times may be late by as much.
    pub precision: u64,
    /// Whose reads do not count.
    pub ignore_accessors: Vec<Accessor>,
    /// An unobserved stretch of more seconds than this counts as an access of every file; 0: each one does, however short.
    pub gap_tolerance: u64,
    /// Seconds between two write-backs of the index: what a power cut may lose at most.
    pub flush_interval: u64,
    /// Seconds between two checkpoints of the clocks beside the index.
    pub checkpoint_interval: u64,
    /// Seconds between two slow scans that compare index and file system; 0: none.
    pub sweep_interval: u64,
    /// Entries that a slow scan looks at in a second; 0: as many as it can.
    pub sweep_rate: u64,
    /// Another file system than the one in the index is taken in its place.
    pub adopt: bool,
    /// The operator vouches that no process uses the volume in a reboot before the agent begins, or after it ends.
    pub reboots_are_ordered: bool,
    /// The operator vouches that each read of a file of the volume moves its access time, as the mount option says.
    pub access_times_are_complete: bool,
    /// Nothing is removed there, and nothing made: a demonstration.
    pub only_looks: bool,
}

/// What watches a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collector {
    /// The best that can be had there.
    Auto,
    /// Events of fanotify.
    Fanotify,
    /// Events of inotify.
    Inotify,
    /// A mount of the agent's, by which users come.
    Fuse,
    /// Scans alone.
    Scan,
}

/// What to believe of the time before observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The access time where the mount keeps it, else nothing.
    Auto,
    /// Nothing: clocks start with observation.
    Observed,
    /// The access time.
    Atime,
    /// The modification time.
    Mtime,
}

impl Config {
    /// Reads a configuration file and the `rules.d/*.toml` beside it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        check::load(path)
    }

    /// Reads texts as if they were files: the configuration, then those of `rules.d`, each with the name that faults give. What the
    /// environment says instead, `variable` tells.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn of_texts(
        texts: &[(&str, &str)],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Vec<Fault>> {
        check::of_texts(texts, variable)
    }

    /// What `purge-agent run --volume PATH [--ttl DUR]` means: one volume, and with a TTL one rule for all of it.
    ///
    /// # Errors
    /// When the path cannot be a volume.
    pub fn for_volume(
        path: &Path,
        ttl: Option<u64>,
        state_dir: PathBuf,
        socket: PathBuf,
    ) -> Result<Self, Vec<Fault>> {
        let fault = |what: String, mend: &str| vec![Fault::elsewhere("--volume", what, mend)];
        let path = std::path::absolute(path).map_err(|e| fault(e.to_string(), "name a directory"))?;
        // A trailing slash is how people write directories; it is no part of the path.
        let path: PathBuf = path.components().collect();
        volume::volume_path(&path.to_string_lossy()).map_err(|(what, mend)| fault(what, mend))?;
        if ttl == Some(0) {
            return Err(vec![Fault::elsewhere(
                "--ttl",
                "is 0: everything would go",
                "give a time such as 28d",
            )]);
        }
        let name: String = path
            .file_name()
            .map(|n| {
                n.to_string_lossy()
                    .chars()
                    .map(|c| if names::is_name_char(c) { c } else { '_' })
                    .collect()
            })
            .unwrap_or_default();
        let mut parts = command_line::parts(&name, &path, ttl, &state_dir, &socket);
        if parts.volumes.is_empty() {
            return Err(parts.faults);
        }
        // As they are, also where they are not UTF-8.
        parts.volumes.iter_mut().for_each(|v| v.path.clone_from(&path));
        Ok(Self {
            audit_log: check::audit_log_of(&state_dir),
            state_dir,
            listen: Listen::at(socket),
            access: parts.access.unwrap_or_default(),
            volumes: parts.volumes,
            rules: parts.rules,
            limits: Limits::default(),
            archives: Vec::new(),
            shown: parts.shown,
            notify: Notify::default(),
        })
    }

    /// Volumes on whose file system the state directory lies.
    fn shares_a_disk(&self) -> impl Iterator<Item = String> {
        // It may not have been made yet.
        let mut above = self.state_dir.ancestors();
        let found = above.find_map(|dir| stat::path(dir).ok());
        let shares = move |v: &&VolumeConfig| {
            let volume = stat::path(&v.path).ok();
            found.is_some_and(|state| volume.is_some_and(|v| v.device == state.device))
        };
        self.volumes.iter().filter(shares).map(|v| {
            format!(
                "volume {}: THE STATE DIRECTORY {} LIES ON THE FILE SYSTEM OF THIS VOLUME. When users fill it, the agent cannot write what it \
                 needs to purge it: move state_dir to another file system",
                v.name,
                self.state_dir.display()
            )
        })
    }

    /// Volumes of which the operator says that reads leave access times.
    fn vouched_access_times(&self) -> impl Iterator<Item = String> {
        let vouched = self.volumes.iter().filter(|v| v.access_times_are_complete);
        vouched.map(|v| {
            format!(
                "volume {}: access_times = \"complete\": after a stop of the agent, files that were read meanwhile without an access time may \
                 be deleted. Reads with O_NOATIME leave none (git, many backup programs), and neither do reads through a mapping that a \
                 process made before the stop; remove the key if the volume has such readers",
                v.name
            )
        })
    }

    /// What is no fault of the configuration but will not work as things are now.
    pub fn warnings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.shares_a_disk().collect();
        all.extend(self.vouched_access_times());
        for quota in &self.limits.quotas {
            all.extend(quota.shared_limit());
            let unknown = quota
                .overrides
                .iter()
                .filter_map(|o| o.whom.unknown(quota.subject));
            all.extend(unknown.map(|name| {
                format!(
                    "quota {}: override match {name:?} is no account of this host, so its limits are not used; \
                     correct the name, or write its number in quotes",
                    quota.name
                )
            }));
        }
        all
    }
}
