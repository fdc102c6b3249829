//! What is expensive to make, and the same for every test: made by the first that needs it. Each test is a process of its own, so this is
//! kept in files, under a lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::binary;

/// The file `name`, made by `make` at the path that it is given, unless there is one that is younger than all of `sources` (files, or
/// directories with what is in them).
///
/// # Errors
/// What `make` says, or why nothing can be kept.
pub fn once(
    name: &str,
    sources: &[PathBuf],
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let says = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    // Beside the programs that the tests use: those of another profile have fixtures of their own.
    let dir = binary("purge-agent").with_file_name("fixtures");
    fs::create_dir_all(&dir).map_err(says(&dir))?;
    let lock = dir.join(format!("{name}.lock"));
    let held = File::create(&lock).map_err(says(&lock))?;
    held.lock().map_err(says(&lock))?;
    let (made, fresh) = (dir.join(name), dir.join(format!("{name}.fresh")));
    let newest = sources.iter().filter_map(|source| youngest(source)).max();
    if modified(&made).is_some_and(|at| Some(at) > newest) {
        return Ok(made);
    }
    make(&fresh)?;
    fs::rename(&fresh, &made).map_err(says(&made))?;
    Ok(made)
}

/// Whether a file server runs on this host is told by its name (nfs-ganesha), and where one does, no volume is watched by its directories: tests of the
/// one and of the other wait for each other. Held until the test's process ends.
///
/// # Panics
/// When the lock cannot be had.
pub fn with_file_server(runs: bool) {
    static HELD: OnceLock<File> = OnceLock::new();
    HELD.get_or_init(|| {
        let dir = binary("purge-agent").with_file_name("fixtures");
        fs::create_dir_all(&dir).expect("a place for locks");
        let lock = File::create(dir.join("file-server.lock")).expect("a lock");
        match runs {
            true => lock.lock().expect("the lock"),
            false => lock.lock_shared().expect("the lock"),
        }
        lock
    });
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// When the youngest file below was written.
fn youngest(path: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| youngest(&entry.path()))
        .chain(modified(path))
        .max()
}
