//! What a volume keeps in files beside the store: journal, checkpoints.

use std::path::{Path, PathBuf};

/// Where the files beside the store lie.
pub(crate) fn directory(state_dir: &Path, name: &str) -> PathBuf {
    // A name has no slash; `.` and `..` would lead elsewhere.
    state_dir.join("volumes").join(format!("{name}.d"))
}
