//! A group of the kernel's that is marked: made anew, or taken over from an earlier process.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::CollectError;
use purge_base::handover::{self, Handover};
use purge_sys::fanotify::{Group, Who};
use purge_sys::shared::SharedBuffer;

/// A marked group: from now on no access is lost.
#[derive(Debug)]
pub struct Armed {
    /// Its queue, of accesses and of changed names.
    pub queue: Arc<Group>,
}

impl Armed {
    /// Marks the file system that holds the volume.
    ///
    /// # Errors
    /// See [`Group::on_filesystem`].
    pub fn arm(path: &Path, who: Who) -> Result<Self, CollectError> {
        let kernel = |doing| move |source| CollectError::Kernel { doing, source };
        let queue = Group::on_filesystem(path, who).map_err(kernel("watch it with fanotify"))?;
        let queue = Arc::new(queue);
        Ok(Self { queue })
    }

    /// Takes over what an earlier process of this service left, if it still watches the file system at `path`: since then
    /// nothing was missed.
    pub fn take_over(handover: &mut Handover, key: &str, path: &Path) -> Option<Self> {
        let left = handover.claim(&queue_name(key))?;
        let queue = Arc::new(Group::left(left, path).ok()??);
        Some(Self { queue })
    }

    /// Gives the queue into systemd's keeping.
    pub fn leave(&self, key: &str) {
        handover::keep(&queue_name(key), &*self.queue);
    }
}

/// One `read(2)` takes at most this much: some 2,500 events.
pub const BUFFER_BYTES: usize = 256 << 10;

/// What events are read into: what a killed process had read and not recorded is found there by the next one ([`handover::memory`]).
///
/// # Errors
/// ENOMEM.
pub fn buffer(handover: &mut Handover, key: &str, beside: &Path) -> io::Result<SharedBuffer> {
    handover::memory(handover, key, &beside.join("accesses"), BUFFER_BYTES)
}

/// The name of a queue in systemd's keeping.
fn queue_name(key: &str) -> String {
    format!("{key}.events")
}
