//! A volume whose file system was replaced on purpose. An operator says so once, for the file system that lies there now; the agent then begins a
//! new index and sets aside what it knew of the old one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::at_path::identity;
use super::beside::directory;
use purge_base::clock;
use purge_config::VolumeConfig;
use purge_index::journal::Identity;
use purge_sys::{private, stat};

/// Why a volume cannot be reset.
#[derive(Debug, thiserror::Error)]
pub enum NoReset {
    /// Nothing lies there.
    #[error("nothing that can be watched lies at {0}: mount the new file system first ({1})")]
    Nothing(String, io::Error),
    /// It was not replaced.
    #[error("the file system at {0} is the one in the index: there is nothing to reset")]
    Same(String),
    /// What lies there is a directory of another file system.
    #[error("{0} is not the root of a mounted file system: mount the new one first")]
    NotMounted(String),
    /// The state directory takes no changes.
    #[error("the state directory: {0}")]
    State(#[from] io::Error),
}

/// The file system that may take the volume's name.
///
/// # Errors
/// When there is none, or it has the name already.
pub fn candidate(config: &VolumeConfig, known: Option<Identity>) -> Result<Identity, NoReset> {
    let path = || private::shown(&config.path).display().to_string();
    let found = identity(&config.path).map_err(|e| NoReset::Nothing(path(), e))?;
    if known.is_none_or(|known| known.is(found)) {
        return Err(NoReset::Same(path()));
    }
    // A directory of its own on the same file system may be made again; a bare mount point is not what any operator means.
    let is_moved = known.is_some_and(|known| known.magic == found.magic);
    let is_mounted = stat::path(&config.path).is_ok_and(|root| root.mount_root);
    match is_moved || is_mounted {
        true => Ok(found),
        false => Err(NoReset::NotMounted(path())),
    }
}

/// Lets this file system take the volume's name at the next start.
///
/// # Errors
/// When that cannot be written.
pub fn approve(state_dir: &Path, volume: &str, found: Identity) -> Result<(), NoReset> {
    let text = words(found);
    Ok(private::write(&file(state_dir, volume), text.as_bytes())?)
}

/// Whether an operator has said so of this file system.
pub(super) fn is_approved(state_dir: &Path, volume: &str, found: Identity) -> bool {
    fs::read_to_string(file(state_dir, volume)).is_ok_and(|text| text == words(found))
}

/// It has the name: what was said is done.
pub(super) fn forget(state_dir: &Path, volume: &str) {
    match fs::remove_file(file(state_dir, volume)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(volume, %error, "that the volume was reset is still noted in the state directory");
        }
        _ => {}
    }
}

/// Where the files about the old file system are kept.
pub fn aside(state_dir: &Path, volume: &str) -> PathBuf {
    let dir = directory(state_dir, volume);
    dir.with_extension(format!("before-{}", clock::wall().unix()))
}

/// Keeps the files about the old file system under another name.
pub(super) fn set_aside(state_dir: &Path, volume: &str) -> io::Result<()> {
    let (dir, aside) = (directory(state_dir, volume), aside(state_dir, volume));
    match fs::rename(&dir, &aside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => {
            tracing::info!(volume, kept = %private::shown(&aside).display(), "the files about the old file system are set aside");
            Ok(())
        }
    }
}

fn file(state_dir: &Path, volume: &str) -> PathBuf {
    directory(state_dir, volume).with_extension("reset")
}

fn words(of: Identity) -> String {
    format!("{} {} {}\n", of.magic, of.root, of.birth.0)
}
