//! What a source with a queue is to the collector's thread: a descriptor to wait for, bytes, and events in them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::CollectError;
use crate::event::Event;

/// What the descriptors of processes in events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processes {
    /// Open in this process.
    Known,
    /// Those of an agent that has ended. Events without a process count as a user's.
    Ended,
}

/// A queue that reports uses and changed names.
///
/// The thread is compiled for each source: nothing is decided again for each event.
pub trait Feed: AsFd + Send + Sync + 'static {
    /// How many events wait, or more. New events merge into those that wait or come after them, so once this many were read, everything that was
    /// queued before the call has been read. `u64::MAX` if the kernel does not say: the caller must not take that for none.
    fn queued(&self) -> u64;

    /// Reads what waits into a buffer, and returns how many bytes of it are events; 0 when nothing waits. Does not block.
    ///
    /// # Errors
    /// What `read(2)` says, except EAGAIN and EINTR.
    fn read(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Reports no names and no changes of metadata from now on, until [`Feed::report_names`]. `root` is the volume's root.
    ///
    /// # Errors
    /// When the kernel refuses: then they are reported.
    fn leave_names_out(&self, root: &OwnedFd) -> io::Result<()>;

    /// Reports names again.
    ///
    /// # Errors
    /// When the kernel refuses: then none are reported.
    fn report_names(&self, root: &OwnedFd) -> io::Result<()>;

    /// Whether reports of names say which file they are of, and a move is one report. Elsewhere the names of each file that changed are looked
    /// at: see [`crate::unnamed`].
    fn tells_whose_names(&self) -> bool;

    /// Whether reports name the process. Elsewhere the agent's own cannot be told from those of others.
    fn tells_who(&self) -> bool {
        true
    }

    /// The bytes of one read: at most [`super::BUFFER_BYTES`].
    fn bytes_at_once(&self) -> usize;

    /// The events in these bytes. Ends after the first error. Each event owns the descriptor of its process, and closes it.
    fn events<'a>(
        &self,
        bytes: &'a [u8],
        processes: Processes,
    ) -> impl Iterator<Item = Result<Event<'a>, CollectError>> + use<'a, Self>;

    /// The beginning of these bytes that holds whole events: a process that was killed while it read leaves zeros after them, or half an event.
    fn whole_events<'a>(&self, bytes: &'a [u8]) -> &'a [u8];
}
