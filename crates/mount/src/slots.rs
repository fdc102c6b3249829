//! Memory that outlives this process, in slots of one size: what the kernel knows of files, so that a successor answers for them.
//!
//! ```text
//! 0   head: version:u32 0:u32 flags:u64 (what was agreed with the kernel) next:u32 (no slot from here on was ever used)
//!     lacks:u8 (a file was open that has no slot), zeros
//! n   number:u64 times:u64 opens:u32 backing:i32 kind:i32 length:u8 used:u8 0:u16 handle:32 bytes
//! ```
//! A slot is in use only when its last byte to be written says so: a process that was killed in between leaves none.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use purge_sys::handle::Handle;
use purge_sys::shared::{self, SharedBuffer};

const SLOT_BYTES: usize = 64;
/// The memory of a file more than these is not kept: after the end of this process the kernel looks for it by its name. Pages that are not used
/// take no memory.
const SLOTS_MAX: usize = 1 << 20;
const VERSION: u32 = 1;
/// Where the head says which slots were never used.
const NEXT_AT: usize = 16;
/// Where the head says that there was no slot for an open file.
const LACKS_AT: usize = 20;
/// Where a slot says that it is in use.
const USED_AT: usize = 29;
const HANDLE_AT: usize = 32;
const HANDLE_BYTES: usize = SLOT_BYTES - HANDLE_AT;

/// What is kept of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub number: u64,
    /// How often the kernel was told of it.
    pub times: u64,
    /// Open files of it.
    pub opens: u32,
    /// By which number the kernel reads and writes it; 0: it does not.
    pub backing: i32,
    /// How it is found.
    pub handle: Handle,
}

/// The slots; without memory nothing is kept.
#[derive(Debug)]
pub struct Slots {
    memory: Option<SharedBuffer>,
    free: Vec<u32>,
    next: u32,
}

impl Slots {
    /// Nothing is kept.
    pub fn none() -> Self {
        Self {
            memory: None,
            free: Vec::new(),
            next: 1,
        }
    }

    /// Memory for them, which lives as long as a process has the descriptor.
    ///
    /// # Errors
    /// What `memfd_create(2)` says.
    pub fn memory() -> io::Result<OwnedFd> {
        shared::memory("nodes", SLOT_BYTES * SLOTS_MAX)
    }

    /// Those in such memory.
    ///
    /// # Errors
    /// What `mmap(2)` says.
    pub fn of(memory: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            memory: Some(SharedBuffer::of_memory(memory, SLOT_BYTES * SLOTS_MAX)?),
            ..Self::none()
        })
    }

    fn bytes(&mut self, place: u32) -> Option<&mut [u8]> {
        let at = usize::try_from(place).ok()?.checked_mul(SLOT_BYTES)?;
        self.memory
            .as_mut()?
            .bytes()
            .get_mut(at..at.checked_add(SLOT_BYTES)?)
    }

    /// What was agreed with the kernel, as an earlier process has noted it.
    pub fn agreed(&mut self) -> Option<u64> {
        let head = self.bytes(0)?;
        let version = u32::from_ne_bytes(head.get(..4)?.try_into().ok()?);
        let flags = u64::from_ne_bytes(head.get(8..16)?.try_into().ok()?);
        (version == VERSION).then_some(flags)
    }

    /// Notes what was agreed.
    pub fn agree(&mut self, flags: u64) {
        let Some(head) = self.bytes(0) else { return };
        put(head, 8, &flags.to_ne_bytes());
        put(head, 0, &VERSION.to_ne_bytes());
    }

    /// There is no slot for an open file.
    pub fn lack(&mut self) {
        if let Some(head) = self.bytes(0) {
            put(head, LACKS_AT, &[1]);
        }
    }

    /// Whether there was none for one.
    pub fn lacks(&mut self) -> bool {
        self.bytes(0).is_some_and(|head| head.get(LACKS_AT) == Some(&1))
    }

    /// A slot that is not in use; none: there is no more.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(place) = self.free.pop() {
            return Some(place);
        }
        let place = self.next;
        let is_there = usize::try_from(place).is_ok_and(|place| place < SLOTS_MAX) && self.memory.is_some();
        if !is_there {
            return None;
        }
        let next = place.saturating_add(1);
        self.next = next;
        // Before the slot is used.
        put(self.bytes(0)?, NEXT_AT, &next.to_ne_bytes());
        Some(place)
    }

    /// Nothing is in a slot any more.
    pub fn free(&mut self, place: u32) {
        if let Some(bytes) = self.bytes(place) {
            put(bytes, USED_AT, &[0]);
            self.free.push(place);
        }
    }

    /// Writes a slot.
    pub fn put(&mut self, place: u32, slot: &Slot) {
        let Some(bytes) = self.bytes(place) else { return };
        let handle = slot.handle.content();
        if handle.len() > HANDLE_BYTES {
            return;
        }
        put(bytes, 0, &slot.number.to_ne_bytes());
        put(bytes, 8, &slot.times.to_ne_bytes());
        put(bytes, 16, &slot.opens.to_ne_bytes());
        put(bytes, 20, &slot.backing.to_ne_bytes());
        put(bytes, 24, &slot.handle.kind().to_ne_bytes());
        put(bytes, 28, &[u8::try_from(handle.len()).unwrap_or(0)]);
        put(bytes, HANDLE_AT, handle);
        put(bytes, USED_AT, &[1]);
    }

    fn next_left(&mut self) -> Option<u32> {
        let head = self.bytes(0)?;
        let next = head.get(NEXT_AT..NEXT_AT.saturating_add(4))?;
        Some(u32::from_ne_bytes(next.try_into().ok()?))
    }

    /// What an earlier process left, and where.
    pub fn left(&mut self) -> Vec<(u32, Slot)> {
        let mut left = Vec::new();
        self.next = self.next_left().unwrap_or(1).max(1);
        for place in 1..self.next {
            let found = self.bytes(place).and_then(|bytes| read(bytes));
            left.extend(found.map(|slot| (place, slot)));
        }
        let used: std::collections::BTreeSet<u32> = left.iter().map(|(place, _)| *place).collect();
        self.free = (1..self.next).filter(|place| !used.contains(place)).collect();
        left
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(what.len())) {
        place.copy_from_slice(what);
    }
}

fn read(bytes: &[u8]) -> Option<Slot> {
    if *bytes.get(USED_AT)? != 1 {
        return None;
    }
    let length = usize::from(*bytes.get(28)?);
    let content = bytes.get(HANDLE_AT..HANDLE_AT.checked_add(length)?)?;
    let kind = i32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
    Some(Slot {
        number: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
        times: u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?),
        opens: u32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?),
        backing: i32::from_ne_bytes(bytes.get(20..24)?.try_into().ok()?),
        handle: Handle::new(kind, content)?,
    })
}
