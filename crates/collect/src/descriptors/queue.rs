//! The kernel's queue, as the collector's thread reads it, and as precision windows use it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::record::{self, BYTES, Raw, Told};
use crate::collector::{CollectError, Feed, Processes};
use crate::event::Event;
use crate::precision::Hiding;
use purge_base::descriptors;
use purge_model::Kind;
use purge_sys::descriptor;
use purge_sys::fanotify::{Feature, OpenGroup, is_deleted, is_of_one_file, mask};
use purge_sys::stat::{self, Device};

/// One pass takes this number of events at most.
const EVENTS_AT_ONCE: usize = 256;

/// The queue of a group whose events carry descriptors.
#[derive(Debug)]
pub(super) struct Queue {
    group: Arc<OpenGroup>,
    device: Device,
    /// Events of one `read(2)`: each has a descriptor open until it was asked which file it is.
    events_of_a_read: usize,
}

impl Queue {
    /// Of a volume on this device.
    pub fn new(group: Arc<OpenGroup>, device: Device) -> Self {
        let events_of_a_read = match group.features().has(Feature::FdError) {
            true => descriptors::shares().files.max(1),
            // An error behind the first event is not told.
            false => 1,
        };
        Self {
            group,
            device,
            events_of_a_read,
        }
    }

    /// Has the kernel write events into `part`, and finds out which files they are of. Whether more may wait.
    fn read_some(&self, part: &mut [u8]) -> io::Result<(usize, bool)> {
        record::begin(part);
        let read = match self.group.read(part) {
            Ok(0) => {
                record::nothing(part);
                return Ok((0, false));
            }
            Ok(read) => read,
            // The kernel has taken an event from the queue.
            Err(error) => {
                let unknown = Raw {
                    mask: 0,
                    fd: -error.raw_os_error(),
                    pid: 0,
                };
                record::write(part, self.what(unknown), unknown);
                return Ok((BYTES, is_of_one_file(error)));
            }
        };
        let is_full = read >= part.len();
        for place in part.get_mut(..read).unwrap_or(&mut []).chunks_exact_mut(BYTES) {
            match Raw::of(place) {
                Some(raw) => record::write(place, self.what(raw), raw),
                None => return Err(io::Error::other("the kernel writes events of another kind")),
            }
        }
        Ok((read, is_full || self.events_of_a_read == 1))
    }

    /// Which file an event is of. Its descriptor is closed when this returns.
    fn what(&self, raw: Raw) -> Told {
        if raw.mask & mask::OVERFLOW != 0 {
            return Told::Overflow;
        }
        if raw.fd < 0 {
            let error = Errno::from_raw_os_error(raw.fd.saturating_neg());
            return match is_deleted(error) {
                true => Told::Other,
                false => Told::Lost(error),
            };
        }
        // A number of a standard stream is none that the kernel gives to this process: those are open.
        let Some(file) = descriptor::adopt(raw.fd) else {
            return Told::Lost(Errno::BADF);
        };
        match stat::which(&file) {
            Ok(found) if found.kind == Kind::File && found.device == self.device => Told::Used(found.ino),
            Ok(_) => Told::Other,
            Err(error) => Told::Lost(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

impl Feed for Queue {
    fn queued(&self) -> u64 {
        self.group.queued()
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let most = self.events_of_a_read.saturating_mul(BYTES);
        let (mut filled, mut goes_on) = (0usize, true);
        while goes_on {
            let rest = into.get_mut(filled..).unwrap_or(&mut []);
            let room = rest.len().min(most) / BYTES * BYTES;
            let Some(part) = rest.get_mut(..room).filter(|part| !part.is_empty()) else {
                break;
            };
            let (read, more) = self.read_some(part)?;
            (filled, goes_on) = (filled.saturating_add(read), more);
        }
        Ok(filled)
    }

    // No names are reported.
    fn leave_names_out(&self, _: &OwnedFd) -> io::Result<()> {
        Ok(())
    }

    fn report_names(&self, _: &OwnedFd) -> io::Result<()> {
        Ok(())
    }

    // There is no name of which it would not be told.
    fn tells_whose_names(&self) -> bool {
        true
    }

    fn bytes_at_once(&self) -> usize {
        EVENTS_AT_ONCE.saturating_mul(BYTES)
    }

    fn events<'a>(
        &self,
        bytes: &'a [u8],
        _: Processes,
    ) -> impl Iterator<Item = Result<Event<'a>, CollectError>> + use<'a> {
        record::events(bytes)
    }

    fn whole_events<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        record::whole(bytes)
    }
}

/// The group, and the root that it is to tell of.
#[derive(Debug)]
pub(super) struct Hidden {
    pub group: Arc<OpenGroup>,
    pub root: PathBuf,
}

impl Hiding for Hidden {
    fn keeps_what_it_hides(&self) -> bool {
        !self.group.features().has(Feature::Evictable)
    }

    fn hide(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.group.ignore(file)
    }

    fn show_all(&self) -> io::Result<()> {
        // Once nothing is hidden the window is over; that the root is told of only shows that events come.
        self.group.flush_ignored(&self.root)
    }

    // The file is opened once more for each event.
    fn costs_each_use(&self) -> bool {
        true
    }
}
