//! The kernel's queue, as the collector's thread reads it, and as precision windows use it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::decode::{records, whole_records};
use super::events::{Ids, event};
use crate::collector::{BUFFER_BYTES, CollectError, Feed, Processes};
use crate::event::Event;
use crate::precision::Hiding;
use purge_base::descriptors;
use purge_sys::fanotify::{Feature, Group};

/// With descriptors of processes at most this much: some 300 events, and as many descriptors open at a time.
const BUFFER_BYTES_WITH_PROCESSES: usize = 32 << 10;
/// An event with two of the longest names needs less than half of this.
const BUFFER_BYTES_MIN: usize = 2 << 10;
/// No event that carries a name and a process is shorter.
const EVENT_BYTES_MIN: usize = 64;

/// The queue of a group.
#[derive(Debug)]
pub(super) struct Queue<I> {
    group: Arc<Group>,
    ids: I,
    bytes_at_once: usize,
}

impl<I> Queue<I> {
    /// Of a group whose events carry descriptors of processes, or do not.
    pub fn new(group: Arc<Group>, ids: I, with_processes: bool) -> Self {
        let bytes_at_once = match with_processes {
            false => BUFFER_BYTES,
            true => bytes_with_processes(descriptors::shares().events),
        };
        Self {
            group,
            ids,
            bytes_at_once,
        }
    }
}

/// The bytes of one read that brings this number of descriptors of processes at most.
fn bytes_with_processes(descriptors: usize) -> usize {
    descriptors
        .saturating_mul(EVENT_BYTES_MIN)
        .clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_WITH_PROCESSES)
}

/// Another file system may lie at the volume's path by now.
fn by_descriptor(root: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()))
}

impl<I> AsFd for Queue<I> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

impl<I: Ids + Clone + Send + Sync + 'static> Feed for Queue<I> {
    fn queued(&self) -> u64 {
        self.group.queued()
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.group.read(into)
    }

    fn leave_names_out(&self, root: &OwnedFd) -> io::Result<()> {
        self.group.leave_names_out(&by_descriptor(root))
    }

    fn report_names(&self, root: &OwnedFd) -> io::Result<()> {
        self.group.mark_again(&by_descriptor(root))
    }

    fn tells_whose_names(&self) -> bool {
        self.group.features().tells_whose_names()
    }

    fn bytes_at_once(&self) -> usize {
        self.bytes_at_once
    }

    fn events<'a>(
        &self,
        bytes: &'a [u8],
        processes: Processes,
    ) -> impl Iterator<Item = Result<Event<'a>, CollectError>> + use<'a, I> {
        let ids = self.ids.clone();
        records(bytes).map(move |record| match record {
            Ok(record) => Ok(event(record, &ids, processes)),
            Err(error) => Err(CollectError::Decode(error.to_string())),
        })
    }

    fn whole_events<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        whole_records(bytes)
    }
}

impl Hiding for Group {
    fn keeps_what_it_hides(&self) -> bool {
        !self.features().has(Feature::Evictable)
    }

    fn hide(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.ignore(file)
    }

    fn show_all(&self) -> io::Result<()> {
        self.flush_ignored()
    }
}
