//! The content of files that were read, still to be checked against each other.

use std::path::PathBuf;

use super::VolumeConfig;
use super::access::Access;
use super::fault::Fault;
use super::listen::Listen;
use super::mentions::Mentions;
use super::origin::Shown;
use purge_archive::settings::Settings;
use purge_notify::settings::Notify;
use purge_policy::allowance::Limits;
use purge_policy::rule::Rule;

/// What all files together say.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) audit_log: Option<PathBuf>,
    pub(super) listen: Option<Listen>,
    pub(super) access: Option<Access>,
    pub(super) volumes: Vec<VolumeConfig>,
    pub(super) rules: Vec<Rule>,
    pub(super) faults: Vec<Fault>,
    pub(super) shown: Vec<Shown>,
    /// Where each rule named its volume, for the check of its patterns.
    pub(super) rule_places: Vec<Fault>,
    /// Where each rule without a ttl stands: only what a quota or a watermark triggers may do without.
    pub(super) without_ttl: Vec<(String, Fault)>,
    pub(super) limits: Limits,
    /// What tables are called and what they name, for the check that needs all files.
    pub(super) mentions: Mentions,
    /// Names of quotas, and volumes that have a watermark.
    pub(super) quotas: Vec<String>,
    pub(super) watermarks: Vec<String>,
    /// A file could not be read as TOML: what it says is not known.
    pub(super) is_partial: bool,
    pub(super) notify: Option<Notify>,
    pub(super) archives: Vec<Settings>,
    /// Where each of them stands.
    pub(super) archive_places: Vec<Fault>,
    /// The names of all archives, also of those with faults; whether one has none that can be read.
    pub(super) archive_names: Vec<String>,
    pub(super) nameless_archive: bool,
}
