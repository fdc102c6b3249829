//! The agent's configuration as a test writes it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A configuration with one volume, `v`.
#[derive(Debug, Clone)]
pub struct Config {
    volume: PathBuf,
    volume_keys: String,
    listen_keys: String,
    access: String,
    rules: String,
    first: String,
}

/// The volume's name.
pub const VOLUME: &str = "v";
/// The name of the rule of [`Config::backdated`].
pub const OLD: &str = "old";

impl Config {
    /// A volume at `path`, with further lines of its table. Uses are told apart by the second.
    pub fn new(path: &Path, volume_keys: &str) -> Self {
        Self {
            volume: path.to_owned(),
            volume_keys: volume_keys.to_owned(),
            listen_keys: String::new(),
            access: String::new(),
            rules: String::new(),
            first: String::new(),
        }
    }

    /// Unused files whose mtime is older than an hour are expired at once: no waiting. Rule
    /// `old`, which looks at accesses only, because ctime and birth cannot be set back.
    pub fn backdated(path: &Path) -> Self {
        Self::new(path, "baseline = \"mtime\"").rule(OLD, "ttl = \"1h\"\nclock = [\"access\"]")
    }

    /// [`Config::backdated`] with further lines in the rule.
    pub fn backdated_with(path: &Path, keys: &str) -> Self {
        let keys = format!("ttl = \"1h\"\nclock = [\"access\"]\n{keys}");
        Self::new(path, "baseline = \"mtime\"").rule(OLD, &keys)
    }

    /// A rule of the volume. Nothing but `keys` is set, so the agent's own defaults hold: what goes is deleted, at
    /// once, and all of the volume may go.
    #[must_use]
    pub fn rule(mut self, name: &str, keys: &str) -> Self {
        let _ = write!(
            self.rules,
            "\n[[rule]]\nname = \"{name}\"\nvolume = \"{VOLUME}\"\n{keys}\n"
        );
        self
    }

    /// With further lines in the table `listen`.
    #[must_use]
    pub fn listening(mut self, keys: &str) -> Self {
        self.listen_keys = keys.to_owned();
        self
    }

    /// With these lines in the table `access`.
    #[must_use]
    pub fn access(mut self, keys: &str) -> Self {
        self.access = format!("\n[access]\n{keys}\n");
        self
    }

    /// A `[[quota]]` or `[[watermark]]` of the volume.
    #[must_use]
    pub fn table(mut self, kind: &str, keys: &str) -> Self {
        let _ = write!(self.rules, "\n[[{kind}]]\nvolume = \"{VOLUME}\"\n{keys}\n");
        self
    }

    /// A further volume, as backdated as [`Config::backdated`], with a rule of the same name.
    #[must_use]
    pub fn and_volume(mut self, name: &str, path: &Path) -> Self {
        let _ = write!(
            self.rules,
            "\n[[volume]]\nname = \"{name}\"\npath = {path:?}\nbaseline = \"mtime\"\n\
             gap_tolerance = \"10m\"\n\n[[rule]]\nname = \"{name}\"\n\
             volume = \"{name}\"\nttl = \"1h\"\nclock = [\"access\"]\n"
        );
        self
    }

    /// With the lines of the table `notify`.
    #[must_use]
    pub fn notifying(mut self, keys: &str) -> Self {
        let _ = write!(self.rules, "\n[notify]\n{keys}\n");
        self
    }

    /// With further tables.
    #[must_use]
    pub fn tables(mut self, text: &str) -> Self {
        let _ = write!(self.rules, "\n{text}\n");
        self
    }

    /// With further lines before all tables.
    #[must_use]
    pub fn first(mut self, keys: &str) -> Self {
        self.first = keys.to_owned();
        self
    }

    /// As TOML.
    pub fn text(&self, state_dir: &Path, socket: &Path) -> String {
        let precision = if self.volume_keys.contains("precision") {
            ""
        } else {
            "precision = \"1s\"\n"
        };
        // A restart is no gap under systemd, and is to be none here, unless a test looks at just that.
        let tolerance = match self.volume_keys.contains("gap_tolerance") {
            true => "",
            false => "gap_tolerance = \"10m\"\n",
        };
        format!(
            "state_dir = {state_dir:?}\n{}\n[listen]\nunix = {socket:?}\n{}\n{}\n[[volume]]\nname = \"{VOLUME}\"\npath = {:?}\n\
             {precision}{tolerance}{}\n{}",
            self.first, self.listen_keys, self.access, self.volume, self.volume_keys, self.rules
        )
    }
}
