//! A group of the kernel's that is marked: made anew, or taken over from an earlier process.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::CollectError;
use crate::handover::{self, Handover};
use crate::sys::fanotify::{Group, Who};
use crate::sys::shared::{self, SharedBuffer};

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

/// What events are read into: what a killed process had read and not recorded is found there by the next one. It lies in memory that systemd or
/// the parent keeps; where neither does, in the file `accesses` of the directory `beside`.
///
/// # Errors
/// ENOMEM.
pub fn buffer(handover: &mut Handover, key: &str, beside: &Path) -> io::Result<SharedBuffer> {
    let (name, file) = (format!("{key}{}", handover::BUFFER), beside.join("accesses"));
    if let Some(left) = handover.claim(&name) {
        match SharedBuffer::of_memory(left, BUFFER_BYTES) {
            Ok(buffer) => return Ok(buffer),
            Err(error) => tracing::warn!(%error, "the kept buffer of accesses cannot be used"),
        }
    }
    let in_file = || SharedBuffer::of_file(&file, BUFFER_BYTES);
    let made = match handover::has_keeper() {
        true => kept(&name, &file),
        false => in_file(),
    };
    made.or_else(|error| {
        tracing::warn!(%error, "the buffer of accesses cannot be kept: what is in it is lost if the agent is killed");
        SharedBuffer::private(BUFFER_BYTES)
    })
}

/// New memory, with what a process left that had it in a file.
fn kept(name: &str, file: &Path) -> io::Result<SharedBuffer> {
    let memory = shared::memory("accesses", BUFFER_BYTES)?;
    handover::keep(name, &memory);
    let mut buffer = SharedBuffer::of_memory(memory, BUFFER_BYTES)?;
    match fs::read(file) {
        Ok(left) => {
            let room = buffer.bytes().iter_mut();
            room.zip(left).for_each(|(to, from)| *to = from);
            fs::remove_file(file)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(buffer)
}

/// The name of a queue in systemd's keeping.
fn queue_name(key: &str) -> String {
    format!("{key}.events")
}
