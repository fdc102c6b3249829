//! A group of the kernel's that is marked: made anew, or taken over from an earlier process.

use std::sync::Arc;

use super::CollectError;
use crate::handover::{self, Handover};
use crate::sys::fanotify::{Group, Who};

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
    pub fn arm(path: &std::path::Path, who: Who) -> Result<Self, CollectError> {
        let kernel = |doing| move |source| CollectError::Kernel { doing, source };
        let queue = Group::on_filesystem(path, who).map_err(kernel("watch it with fanotify"))?;
        let queue = Arc::new(queue);
        Ok(Self { queue })
    }

    /// Takes over what an earlier process of this service left, if it still watches the file system at `path`: since then
    /// nothing was missed.
    pub fn take_over(handover: &mut Handover, key: &str, path: &std::path::Path) -> Option<Self> {
        let left = handover.claim(&queue_name(key))?;
        let queue = Arc::new(Group::left(left, path).ok()??);
        Some(Self { queue })
    }

    /// Gives the queue into systemd's keeping.
    pub fn leave(&self, key: &str) {
        handover::keep(&queue_name(key), &*self.queue);
    }
}

/// The name of a queue in systemd's keeping.
fn queue_name(key: &str) -> String {
    format!("{key}.events")
}
