//! A look at a path that may lie on a file system whose server answers no more: it has a bound.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

use super::stat::{self, Located};

/// So long is waited.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Paths that are waited for: a thread each, which ends when the kernel answers.
static WAITED_FOR: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// [`stat::path`], within some seconds.
///
/// # Errors
/// ETIMEDOUT, and what `statx(2)` says.
pub fn path(path: &Path) -> io::Result<Located> {
    let silent = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "does not answer: the server or the device of its file system, or of one above it, is down",
        )
    };
    if !WAITED_FOR.lock().insert(path.to_owned()) {
        return Err(silent());
    }
    let (tell, told) = mpsc::channel();
    let asked = path.to_owned();
    let asking = std::thread::Builder::new().name("look".into()).spawn(move || {
        let found = stat::path(&asked);
        WAITED_FOR.lock().remove(&asked);
        let _ = tell.send(found);
    });
    if let Err(error) = asking {
        WAITED_FOR.lock().remove(path);
        return Err(error);
    }
    told.recv_timeout(ANSWERS_WITHIN)
        .unwrap_or_else(|_| Err(silent()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_that_answers_is_told_as_it_is() {
        assert_eq!(
            path(Path::new("/")).unwrap().stat.ino,
            stat::path(Path::new("/")).unwrap().stat.ino
        );
        assert!(path(Path::new("/nothing has this name")).is_err());
        assert!(WAITED_FOR.lock().is_empty());
    }
}
