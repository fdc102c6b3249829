//! Small files that are there whole or not at all.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How the name of one ends that is being written.
pub(super) const UNFINISHED: &str = "new";

/// When a file is made to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before it takes the old one's place.
    First,
    /// After: others see it sooner.
    After,
}

/// Puts a file in place of another, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let new = path.with_extension(UNFINISHED);
    let mut file = BufWriter::new(purge_sys::private::create(&new)?);
    file.write_all(bytes)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if sync == Sync::First {
        file.sync_all()?;
    }
    fs::rename(&new, path)?;
    if sync == Sync::After {
        file.sync_all()?;
    }
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
