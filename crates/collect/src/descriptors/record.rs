//! What stands in the buffer for each event: first what the kernel has written, then which file it is of. Pure.
//!
//! ```text
//!   READING                a read is under way: the kernel may have taken events from the queue
//!   the kernel's event     its descriptor ends with the process, and with it what is known of the file
//!   USED, OTHER, LOST      what it told
//! ```
//! A process that is killed leaves one of these at each place, and zeros after the last. From the first two the next process learns that uses
//! are unknown.

use std::io;

use rustix::io::Errno;

use purge_model::Inode;
use purge_sys::fanotify::mask;

use crate::error::CollectError;
use crate::event::{Acts, By, Event, Used};

/// What each takes: the kernel's `struct fanotify_event_metadata`.
pub const BYTES: usize = purge_sys::fanotify::EVENT_BYTES;

/// The kernel's event begins with its length.
const KERNELS: u32 = 24;
const READING: u32 = 0x7c01;
const USED: u32 = 0x7c02;
const OTHER: u32 = 0x7c03;
const LOST: u32 = 0x7c04;

/// An event as the kernel has written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    /// What happened.
    pub mask: u64,
    /// The number of the file's descriptor; below zero an error.
    pub fd: i32,
    /// The process.
    pub pid: i32,
}

/// What an event told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// This file was used.
    Used(Inode),
    /// Nothing that is of interest: a directory, or what lies outside the volume's device.
    Other,
    /// Something was used and it is not known what, for this reason.
    Lost(Errno),
    /// The kernel has dropped events.
    Overflow,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let part = bytes.get(at..).and_then(|rest| rest.first_chunk());
    part.copied().unwrap_or([0; N])
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    let place = into.get_mut(at..).into_iter().flatten();
    place.zip(bytes).for_each(|(to, from)| *to = *from);
}

impl Raw {
    /// Reads one; none for what the kernel does not write.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let is_whole = u32::from_ne_bytes(number(bytes, 0)) == KERNELS && bytes.len() >= BYTES;
        is_whole.then(|| Self {
            mask: u64::from_ne_bytes(number(bytes, 8)),
            fd: i32::from_ne_bytes(number(bytes, 16)),
            pid: i32::from_ne_bytes(number(bytes, 20)),
        })
    }
}

/// Marks a place into which the kernel is about to write.
pub fn begin(into: &mut [u8]) {
    put(into, 0, &READING.to_ne_bytes());
}

/// Nothing was read into this place.
pub fn nothing(into: &mut [u8]) {
    into.iter_mut().take(BYTES).for_each(|byte| *byte = 0);
}

/// Writes what an event told.
pub fn write(into: &mut [u8], told: Told, raw: Raw) {
    let (tag, value) = match told {
        Told::Used(ino) => (USED, ino),
        Told::Other => (OTHER, 0),
        Told::Lost(error) => (LOST, u64::from(error.raw_os_error().unsigned_abs())),
        Told::Overflow => (OTHER, 0),
    };
    put(into, 4, &raw.pid.to_ne_bytes());
    put(into, 8, &raw.mask.to_ne_bytes());
    put(into, 16, &value.to_ne_bytes());
    // Last: until then it is the kernel's, of which the file is unknown.
    put(into, 0, &tag.to_ne_bytes());
}

/// The beginning of these bytes that holds records.
pub fn whole(bytes: &[u8]) -> &[u8] {
    let records = bytes.chunks_exact(BYTES);
    let count = records.take_while(|record| number(record, 0) != [0; 4]).count();
    bytes.get(..count.saturating_mul(BYTES)).unwrap_or(&[])
}

/// What the records tell, in the values that all sources share.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Result<Event<'_>, CollectError>> {
    bytes.chunks_exact(BYTES).map(event)
}

fn event<'a>(record: &[u8]) -> Result<Event<'a>, CollectError> {
    let bits = u64::from_ne_bytes(number(record, 8));
    let value = u64::from_ne_bytes(number(record, 16));
    let access = match u32::from_ne_bytes(number(record, 0)) {
        USED => Some((acts(bits), Used::by_number(value))),
        OTHER => None,
        LOST => {
            let errno = i32::try_from(value).unwrap_or(0);
            return Err(CollectError::Unopened(io::Error::from_raw_os_error(errno)));
        }
        _ => return Err(CollectError::HalfRead),
    };
    Ok(Event {
        is_loss: bits & mask::OVERFLOW != 0,
        by: By::process(i32::from_ne_bytes(number(record, 4))),
        process: None,
        change: None,
        access,
    })
}

fn acts(bits: u64) -> Acts {
    crate::fanotify::acts(bits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const READ: Raw = Raw {
        mask: mask::OPEN | mask::ACCESS,
        fd: 9,
        pid: 7,
    };

    fn kernels(raw: Raw) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        put(&mut bytes, 0, &KERNELS.to_ne_bytes());
        put(&mut bytes, 4, &[3, 0, 24, 0]);
        put(&mut bytes, 8, &raw.mask.to_ne_bytes());
        put(&mut bytes, 16, &raw.fd.to_ne_bytes());
        put(&mut bytes, 20, &raw.pid.to_ne_bytes());
        bytes
    }

    fn of(told: Told, raw: Raw) -> Result<Event<'static>, CollectError> {
        let mut bytes = kernels(raw);
        assert_eq!(Raw::of(&bytes), Some(raw));
        write(&mut bytes, told, raw);
        assert_eq!(Raw::of(&bytes), None);
        event(&bytes)
    }

    #[test]
    fn an_event_says_which_file_was_used_how_and_by_which_process() {
        let told = of(Told::Used(1 << 40), READ).unwrap();
        let (acts, used) = told.access.unwrap();
        assert!(acts.any(Acts::READ) && acts.any(Acts::OPEN) && !acts.any(Acts::WRITE));
        assert_eq!((used.ino, used.handle), (1 << 40, None));
        assert_eq!((told.by, told.is_loss), (By::process(7), false));
        let told = of(Told::Other, READ).unwrap();
        assert!(told.access.is_none() && !told.is_loss && told.by == By::process(7));
    }

    #[test]
    fn what_is_lost_is_told() {
        let error = of(Told::Lost(Errno::ACCESS), READ).unwrap_err();
        assert!(error.to_string().contains("Permission denied"), "{error}");
        let overflow = Raw {
            mask: mask::OVERFLOW,
            fd: -1,
            pid: 0,
        };
        assert!(of(Told::Overflow, overflow).unwrap().is_loss);
    }

    #[test]
    fn what_a_killed_process_leaves_is_half_read_or_whole_and_never_nothing() {
        let mut bytes = [0; 4 * BYTES];
        assert_eq!(whole(&bytes).len(), 0);
        begin(&mut bytes);
        assert_eq!(whole(&bytes).len(), BYTES);
        assert!(matches!(
            events(whole(&bytes)).next().unwrap(),
            Err(CollectError::HalfRead)
        ));
        nothing(&mut bytes);
        assert_eq!(whole(&bytes).len(), 0);
        for at in [0, 1, 2] {
            put(&mut bytes, at * BYTES, &kernels(READ));
        }
        write(&mut bytes, Told::Used(5), READ);
        let told: Vec<_> = events(whole(&bytes)).collect();
        assert_eq!(told.len(), 3);
        assert!(told[0].is_ok() && told[1].is_err() && told[2].is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let records = whole(&bytes).len() / BYTES;
            prop_assert_eq!(events(whole(&bytes)).count(), records);
        }
    }
}
