//! Why a volume cannot be watched.

use std::io;
use std::path::PathBuf;

use purge_collect::arming::NEEDS;
use purge_collect::error::CollectError;
use purge_config::VolumeConfig;
use purge_index::StoreError;
use purge_sys::stat::Mount;

impl VolumeError {
    /// Nothing can be watched at the volume's path.
    pub(super) fn missing(config: &VolumeConfig, why: String) -> Self {
        Self::Missing {
            name: config.name.clone(),
            path: config.path.display().to_string(),
            why,
        }
    }

    /// The kernel cannot watch what lies there.
    pub(super) fn collect(config: &VolumeConfig, mount: &Mount, source: CollectError) -> Self {
        Self::Collect {
            name: config.name.clone(),
            filesystem: mount.filesystem.clone(),
            source,
        }
    }

    /// What was found, without the volume's name and the cure.
    pub fn found(&self) -> String {
        match self {
            Self::Missing { path, why, .. } => format!("{path} {why}"),
            Self::Replaced { path, .. } => format!("{path} is another file system than the one in the index"),
            other => other.to_string(),
        }
    }

    /// What an operator does about it.
    pub fn cure(&self) -> String {
        const THEN: &str =
            "the agent then watches the volume by itself, and what happened meanwhile counts as use";
        match self {
            Self::Replaced { name, path } => format!(
                "mount its file system at {path}: {THEN}; if it was replaced on purpose: purgectl volume reset {name}"
            ),
            Self::Missing { path, .. } => {
                format!("mount its file system at {path}, or correct `path` in the configuration: {THEN}")
            }
            _ => format!("correct that: the agent tries again every minute; {THEN}"),
        }
    }

    /// The file system that the configuration means does not lie there now; it may come.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Replaced { .. })
    }
}

/// Why a volume cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Nothing there.
    #[error("volume {name}: {path} {why}; mount it, or correct its path")]
    Missing {
        /// The volume.
        name: String,
        /// Its root.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another file system than the one that was indexed.
    #[error(
        "volume {name}: {path} is another file system than the one in the index (is it mounted?); if it was replaced \
         on purpose, run `purgectl volume reset {name}`, or write adopt = true in its [[volume]]"
    )]
    Replaced {
        /// The volume.
        name: String,
        /// Its root.
        path: String,
    },
    /// The kernel cannot watch it.
    #[error("volume {name} on {filesystem}: {source}; {NEEDS}")]
    Collect {
        /// The volume.
        name: String,
        /// Type of its file system.
        filesystem: String,
        /// What is wrong.
        source: CollectError,
    },
    /// The journal cannot be opened.
    #[error("volume {name}: cannot open its journal in {}: {source}", path.display())]
    Journal {
        /// The volume.
        name: String,
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The index cannot be read or written.
    #[error("volume {name}: {source}")]
    Store {
        /// The volume.
        name: String,
        /// What is wrong.
        source: StoreError,
    },
}
