//! What an operator's rule says: which entries of which volume, when, and how many of them at a time.

use std::path::PathBuf;

use super::schedule::Schedule;
use super::scope::Scope;
use purge_model::Clocks;

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

/// What happens to the candidates of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Action {
    /// They are deleted.
    #[default]
    Delete,
    /// Owners get a notice. Plans of the rule cannot be applied.
    Notify,
    /// They are copied to a store, the copies are compared, and then they are deleted.
    Archive(Destination),
}

/// The store to which a rule archives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
}

impl Action {
    /// Whether plans of the rule can be applied, so that its candidates leave the volume.
    pub fn is_applied(&self) -> bool {
        match self {
            Self::Delete | Self::Archive(_) => true,
            Self::Notify => false,
        }
    }

    /// Where the rule copies what it takes; none: it makes no copies.
    pub fn destination(&self) -> Option<&Destination> {
        match self {
            Self::Archive(to) => Some(to),
            Self::Delete | Self::Notify => None,
        }
    }
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
    /// At most this many of them a run; 0: unlimited.
    pub max_empty_dirs: u64,
    /// What becomes of symbolic links.
    pub symlinks: Symlinks,
    /// What is taken first where not everything may be.
    pub sequence: Sequence,
    /// What happens to the candidates.
    pub action: Action,
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

/// The share that a plan may take which no person has seen, unless its rule says otherwise.
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
            action: Action::Delete,
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

/// Rules with their positions.
pub(crate) fn numbered(rules: &[Rule]) -> impl Iterator<Item = (u16, &Rule)> {
    rules
        .iter()
        .enumerate()
        .map(|(i, r)| (u16::try_from(i).unwrap_or(u16::MAX), r))
}
