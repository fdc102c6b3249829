//! Where a path from a client leads: the one way from a request to something of a volume.
//!
//! The volume is found by the path's words ([`crate::path`]). What lies there is then opened beneath the volume's root, and the kernel
//! itself refuses links, `..` and other mounts on the way. So no client learns anything of what lies outside of the volumes.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::{Host, HostError, shown};
use crate::path;
use crate::purge::trash;
use crate::sys::beneath;
use crate::sys::stat::{self, Located};
use crate::volume::Volume;

/// A place below a volume.
#[derive(Debug, Clone)]
pub struct Place {
    /// The volume.
    pub volume: Arc<Volume>,
    /// Names between slashes; empty for the volume's root.
    pub below: Vec<u8>,
}

impl Host {
    /// The place that a client's path names, by the path's words alone. `field` is the request's.
    ///
    /// # Errors
    /// [`HostError::Invalid`] for what is no clean absolute path, [`HostError::NotFound`] when it lies in no volume.
    pub fn locate(&self, field: &'static str, path: &[u8]) -> Result<Place, HostError> {
        let clean = path::clean(path).map_err(|why| HostError::Invalid { field, why })?;
        for volume in &self.volumes {
            let root = volume.config.path.as_os_str().as_bytes();
            if let Some(below) = path::below(root, &clean) {
                if path::is_within(trash::NAME.to_bytes(), &below) {
                    let why = format!(
                        "{} lies in the agent's own trash; see `purgectl restore`",
                        shown(path)
                    );
                    return Err(HostError::NotFound(why));
                }
                let volume = Arc::clone(volume);
                return Ok(Place { volume, below });
            }
        }
        Err(HostError::NotFound(format!(
            "no volume holds {}; `purgectl status` names the volumes",
            shown(path)
        )))
    }
}

impl Place {
    /// Its absolute path.
    pub fn path(&self) -> Vec<u8> {
        path::absolute(self.volume.config.path.as_os_str().as_bytes(), &self.below)
    }

    /// What lies there.
    ///
    /// # Errors
    /// When nothing does, or a link or another mount is on the way.
    pub fn look(&self) -> Result<Located, HostError> {
        let open = || {
            let root = self.volume.watched.open_root()?;
            stat::open_file(beneath::open_entry(&root, &self.below)?)
        };
        open().map_err(|e| HostError::NotFound(format!("{}: {}", shown(&self.path()), why_not(&e))))
    }

    /// What lies there, for somebody who may know of nothing but what is theirs; none if nothing does. Whether something lies there or
    /// not, the same calls are made in the same number: where a name is missing, the volume's root stands for what it would lead to.
    ///
    /// # Errors
    /// When the volume itself cannot be opened.
    pub fn look_evenly(&self) -> io::Result<(Located, bool)> {
        let root = self.volume.watched.open_root()?;
        let mut at = beneath::open_entry(&root, b"")?;
        let mut is_there = true;
        for name in self.below.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let stand_in = beneath::open_entry(&root, b"")?;
            at = match beneath::open_entry(&at, name) {
                Ok(next) => next,
                Err(_) => {
                    is_there = false;
                    stand_in
                }
            };
        }
        Ok((stat::open_file(&at)?, is_there))
    }
}

/// Why nothing can be opened at a place, and what to do.
fn why_not(error: &io::Error) -> String {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => "nothing lies there".into(),
        Some(Errno::LOOP) => {
            "a symbolic link is on the way, and links are not followed; give the path that the link leads to"
                .into()
        }
        Some(Errno::XDEV) => {
            "another file system is mounted there or on the way; it is not part of the volume".into()
        }
        _ => error.to_string(),
    }
}
