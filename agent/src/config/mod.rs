//! TOML -> checked, typed configuration. What is wrong with it is found here, once, with file, line and column.
//!
//! - [`fault`]     what is wrong, where, and how to mend it
//! - `section`     one TOML table, read key by key; what is left over is unknown
//! - `check`       sections -> typed configuration
//! - `volume`, `rule`, `scope` their tables
//! - `unsupported` what the contract knows and this version does not do yet
//! - `exposed`     places that others than root can change
//! - `limit`       quota and watermark tables -> [`limits`]
//! - [`access`]    who may ask what
//! - [`listen`]    where clients come in
//! - [`subject`]   names in certificates
//! - [`secret`]    where secrets are
//! - [`url`]       addresses that may hold a secret
//! - [`environment`] what the environment says instead of a file
//! - `command_line` what the command line puts in force
//! - [`origin`]    where every value comes from
//! - `notify`      the notify table -> [`sinks`]; `means` its tables
//! - `accessor`    whose reads do not count
//! - `accounts`    user and group names -> ids; `whom` whom an override means
//!
//! What may never happen: a rule that selects everything because something was left out or mistyped.

pub mod access;
mod accessor;
mod accounts;
mod check;
mod command_line;
pub mod environment;
mod exposed;
pub mod fault;
mod limit;
pub mod limits;
pub mod listen;
mod means;
mod notify;
pub mod origin;
mod rule;
mod scope;
pub mod secret;
mod section;
pub mod sinks;
pub mod subject;
mod unsupported;
pub mod url;
mod volume;
mod whom;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use access::{Access, Members};
pub use accounts::{
    Membership, Unclear, expect_names, group_ids, group_name, group_names, know_group_names, know_user_names,
    membership, user_account, user_gecos, user_id, user_ids, user_name, user_names,
};
pub use fault::Fault;
pub use limits::{Limits, Quota, QuotaSubject, Watermark};
pub use listen::{Listen, TlsFiles};
pub use origin::Shown;
pub use sinks::{Addresses, Amqp, Exec, Means, Notify, Sink, Smtp, Tls, Webhook};
pub use subject::Subject;
pub use url::Url;
pub use whom::Whom;

use crate::collect::accessors::Accessor;
use crate::model::Clocks;
use crate::policy::schedule::Schedule;
use crate::policy::scope::Scope;
use crate::sys::stat;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/purge-agent/agent.toml";
/// Where the index is unless the configuration says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/purge-agent";

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
    /// Who is told.
    pub notify: Notify,
    /// Every value, and where it comes from.
    pub shown: Vec<Shown>,
}

/// The audit log's name in the state directory, unless the configuration says otherwise.
pub const AUDIT_LOG: &str = "audit.jsonl";

/// One watched directory tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// Its name.
    pub name: String,
    /// Its root: absolute, normalised, not `/`.
    pub path: PathBuf,
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
    /// Nothing is removed there, and nothing made: a demonstration.
    pub only_looks: bool,
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

/// What a rule takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Single files.
    File,
    /// Directories at this depth below the root (1: the root's own), as a whole.
    Directory {
        /// At least 1.
        depth: u32,
    },
}

/// What becomes of symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// They stay.
    Keep,
    /// One that was not changed within the ttl goes when its target goes by the same rule, or does not exist.
    WithTarget,
    /// One that was neither changed nor followed within the ttl goes, also if its target exists.
    Expired,
}

/// What is taken first where not everything may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// The oldest last use; among equals the largest.
    Oldest,
    /// The largest; among equals the oldest last use.
    Largest,
    /// The largest size x days present.
    ByteDays,
}

/// What may go, and when.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// The volume it speaks of.
    pub volume: String,
    /// What it takes.
    pub target: Target,
    /// Seconds since the last use after which it takes it.
    pub ttl: Option<u64>,
    /// The clocks among whose latest the last use is found.
    pub clocks: Clocks,
    /// Globs, owners, sizes.
    pub scope: Scope,
    /// Directories that are empty, or become so, go as well.
    pub remove_empty_dirs: bool,
    /// But for those whose users could not make them again.
    pub spares_dirs: bool,
    /// And but for those of this number of levels below the root.
    pub keep_depth: u32,
    /// So many of them a run; 0: unlimited.
    pub max_empty_dirs: u64,
    /// What becomes of symbolic links.
    pub symlinks: Symlinks,
    /// What is taken first where not everything may be.
    pub sequence: Sequence,
    /// It only plans and tells: its plans cannot be applied.
    pub tells_only: bool,
    /// When its plans are made; none: only on request.
    pub schedule: Option<Schedule>,
    /// What came due while the agent was not running is caught up, once.
    pub catches_up: bool,
    /// Plans made on schedule are applied.
    pub auto_apply: bool,
    /// Seconds for which a list must have named what it takes; 0: it is taken without an announcement.
    pub announce: u64,
    /// Where each owner finds a file that names what of theirs will be taken.
    pub announce_to: Option<PathBuf>,
    /// Seconds for which what it takes stays in the trash; 0: it is freed at once.
    pub grace: u64,
    /// Files a run; 0: unlimited.
    pub max_files: u64,
    /// Bytes a run; 0: unlimited.
    pub max_bytes: u64,
    /// A run stops when more than this share of its candidates fails.
    pub max_errors: f64,
    /// A plan that would take more than this share of the volume's files or bytes is refused. Unset: no such limit
    /// for a person who has seen the plan, [`AUTO_MAX_FRACTION`] where the agent applies it by itself.
    pub max_fraction: Option<f64>,
}

/// The share that a plan which nobody has seen may take, unless its rule says otherwise.
pub const AUTO_MAX_FRACTION: f64 = 0.25;

impl Rule {
    /// A rule for everything on a volume that has not been used for `ttl` seconds.
    pub fn everything_older(volume: &str, ttl: u64) -> Self {
        Self {
            name: "ttl".into(),
            volume: volume.into(),
            target: Target::File,
            ttl: Some(ttl),
            clocks: Clocks::ALL,
            scope: Scope::all(),
            remove_empty_dirs: true,
            spares_dirs: true,
            keep_depth: 0,
            max_empty_dirs: 500,
            symlinks: Symlinks::WithTarget,
            sequence: Sequence::Oldest,
            tells_only: false,
            schedule: None,
            catches_up: false,
            auto_apply: false,
            max_files: 0,
            max_bytes: 0,
            announce: 0,
            announce_to: None,
            grace: 0,
            max_errors: 0.05,
            max_fraction: None,
        }
    }
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
                    .map(|c| if check::is_name_char(c) { c } else { '_' })
                    .collect()
            })
            .unwrap_or_default();
        let volume = VolumeConfig {
            name: name.clone(),
            path,
            baseline: Baseline::Auto,
            precision: volume::DEFAULT_PRECISION,
            ignore_accessors: Vec::new(),
            gap_tolerance: volume::DEFAULT_GAP_TOLERANCE,
            flush_interval: volume::DEFAULT_FLUSH_INTERVAL,
            checkpoint_interval: volume::DEFAULT_CHECKPOINT_INTERVAL,
            sweep_interval: volume::DEFAULT_SWEEP_INTERVAL,
            sweep_rate: volume::DEFAULT_SWEEP_RATE,
            adopt: false,
            reboots_are_ordered: false,
            only_looks: false,
        };
        let shown = command_line::shown(&volume, ttl, &state_dir, &socket);
        let rules = ttl
            .map(|ttl| Rule::everything_older(&name, ttl))
            .into_iter()
            .collect();
        Ok(Self {
            audit_log: state_dir.join(AUDIT_LOG),
            state_dir,
            listen: Listen::at(socket),
            access: Access::default(),
            volumes: vec![volume],
            rules,
            limits: Limits::default(),
            shown,
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

    /// What is no fault of the configuration but will not work as things are now.
    pub fn warnings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.shares_a_disk().collect();
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
