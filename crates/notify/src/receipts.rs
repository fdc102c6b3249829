//! What a sink has answered, noted where it outlives the process: in memory that systemd or the parent keeps, or a file's page, mapped. A store into memory takes nanoseconds, where
//! the notice's own file takes two system calls and a disk; a kill of the agent between the two does not make it send twice.
//!
//! ```text
//!   notices/answered    SLOTS slots of 64 bytes, each of a notice that a sender is sending
//!   slot                id: 32 bytes, zero-padded   mark: u32, little-endian   zeros
//! ```
//! A slot is taken before a notice is sent, which also makes its page writable, and is free again once the notice's own file says what
//! became of it. The mark is the checksum of the id: a slot that was torn by a power cut marks nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use purge_base::handover::{self, Handover};
use purge_sys::shared::SharedBuffer;

/// The file's name.
pub const FILE: &str = "answered";
/// Notices that are sent at once. Each sink sends one after another.
const SLOTS: usize = 256;
const SLOT_BYTES: usize = 64;
const ID_BYTES: usize = 32;

/// All slots.
#[derive(Debug)]
pub struct Receipts {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    buffer: SharedBuffer,
    taken: [bool; SLOTS],
}

/// What an earlier process left in a slot.
#[derive(Debug)]
pub struct Left {
    /// Of the notice: the slot stays as it is until this is settled.
    pub receipt: Receipt,
    /// Whether the sink took it; otherwise that is unknown.
    pub taken: bool,
}

impl Receipts {
    /// Opens the file in `dir`, and says what the process before was sending.
    ///
    /// # Errors
    /// When not even memory can be had. Without the file itself there are slots that end with the process.
    pub fn open(dir: &Path, handover: &mut Handover) -> io::Result<(Arc<Self>, Vec<Left>)> {
        let len = SLOTS.saturating_mul(SLOT_BYTES);
        let mut buffer = handover::memory(handover, "notices", &dir.join(FILE), len)?;
        let found: Vec<_> = buffer.bytes().chunks_exact(SLOT_BYTES).map(read).collect();
        let mut taken = [false; SLOTS];
        for (taken, found) in taken.iter_mut().zip(&found) {
            *taken = found.is_some();
        }
        let all = Arc::new(Self {
            inner: Mutex::new(Inner { buffer, taken }),
        });
        let left = found.into_iter().enumerate().filter_map(|(slot, found)| {
            let (id, taken) = found?;
            let all = Some((Arc::clone(&all), slot));
            let receipt = Receipt { all, id };
            Some(Left { receipt, taken })
        });
        let left = left.collect();
        Ok((all, left))
    }

    /// A slot for a notice that is about to be sent. Where all are taken, there is none to note anything in.
    pub fn begin(self: &Arc<Self>, id: &str) -> Receipt {
        let mut inner = self.inner.lock();
        let slot = inner.taken.iter().position(|taken| !taken);
        if let Some(slot) = slot.filter(|_| id.len() <= ID_BYTES) {
            inner.set(slot, id, None);
            return Receipt {
                all: Some((Arc::clone(self), slot)),
                id: id.to_owned(),
            };
        }
        Receipt::nowhere(id)
    }
}

impl Inner {
    fn set(&mut self, slot: usize, id: &str, mark: Option<u32>) {
        if let Some(taken) = self.taken.get_mut(slot) {
            *taken = !id.is_empty();
        }
        let start = slot.saturating_mul(SLOT_BYTES);
        let Some(bytes) = self
            .buffer
            .bytes()
            .get_mut(start..start.saturating_add(SLOT_BYTES))
        else {
            return;
        };
        let mut new = [0; SLOT_BYTES];
        let marked = id.bytes().chain(std::iter::repeat(0)).take(ID_BYTES);
        let marked = marked.chain(mark.unwrap_or(0).to_le_bytes());
        for (to, from) in new.iter_mut().zip(marked) {
            *to = from;
        }
        bytes.copy_from_slice(&new);
    }
}

/// Whose slot it is, and whether the sink took it. One that is unreadable is free.
fn read(slot: &[u8]) -> Option<(String, bool)> {
    let (id, rest) = slot.split_at_checked(ID_BYTES)?;
    let mark = u32::from_le_bytes(*rest.first_chunk()?);
    let end = id.iter().position(|b| *b == 0).unwrap_or(ID_BYTES);
    let id = std::str::from_utf8(id.get(..end)?).ok()?.to_owned();
    let taken = mark == mark_of(&id);
    (!id.is_empty()).then_some((id, taken))
}

/// Never 0: that is a slot without a mark.
fn mark_of(id: &str) -> u32 {
    crc32fast::hash(id.as_bytes()).max(1)
}

/// One notice that a sender is sending.
#[derive(Debug)]
pub struct Receipt {
    all: Option<(Arc<Receipts>, usize)>,
    id: String,
}

impl Receipt {
    /// One that is noted nowhere: a test's.
    pub fn nowhere(id: &str) -> Self {
        Self {
            all: None,
            id: id.to_owned(),
        }
    }

    /// Which notice.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The sink has said that it takes the notice. To be called before anything else is done with the answer.
    pub fn taken(&self) {
        if let Some((all, slot)) = &self.all {
            all.inner.lock().set(*slot, &self.id, Some(mark_of(&self.id)));
        }
    }

    /// The notice's own file says what became of it. A receipt that is only dropped keeps its slot for the next process.
    pub fn settled(self) {
        if let Some((all, slot)) = &self.all {
            all.inner.lock().set(*slot, "", None);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn open(dir: &Path) -> (Arc<Receipts>, Vec<Left>) {
        Receipts::open(dir, &mut Handover::default()).unwrap()
    }

    fn said(left: &[Left]) -> Vec<(&str, bool)> {
        left.iter().map(|l| (l.receipt.id(), l.taken)).collect()
    }

    #[test]
    fn what_was_being_sent_is_known_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let (receipts, found) = open(dir.path());
        assert!(found.is_empty());
        let [a, b, c] = ["na", "nb", "nc"].map(|id| receipts.begin(id));
        a.taken();
        a.settled();
        b.taken();
        drop((b, c));
        let (receipts, found) = open(dir.path());
        assert_eq!(said(&found), [("nb", true), ("nc", false)]);
        let other = receipts.begin("nd");
        assert_eq!(
            said(&open(dir.path()).1).len(),
            3,
            "no slot is used that is not settled"
        );
        other.settled();
        found.into_iter().for_each(|left| left.receipt.settled());
        assert!(open(dir.path()).1.is_empty());
    }

    #[test]
    fn a_slot_is_used_again_and_when_all_are_taken_nothing_breaks() {
        let dir = tempfile::tempdir().unwrap();
        let (receipts, _) = open(dir.path());
        for _ in 0..1000 {
            let one = receipts.begin("n");
            one.taken();
            one.settled();
        }
        let kept: Vec<Receipt> = (0..300).map(|n| receipts.begin(&format!("n{n}"))).collect();
        kept.iter().for_each(Receipt::taken);
        receipts.begin(&"x".repeat(ID_BYTES + 1)).taken();
        let (_, found) = open(dir.path());
        assert_eq!(found.len(), SLOTS);
        assert!(found.iter().all(|l| l.taken));
    }

    #[test]
    fn a_mark_of_another_notice_marks_nothing() {
        let mut slot = [0u8; SLOT_BYTES];
        slot[..2].copy_from_slice(b"na");
        slot[ID_BYTES..ID_BYTES + 4].copy_from_slice(&mark_of("nb").to_le_bytes());
        assert_eq!(read(&slot), Some(("na".into(), false)));
        slot[ID_BYTES..ID_BYTES + 4].copy_from_slice(&mark_of("na").to_le_bytes());
        assert_eq!(read(&slot), Some(("na".into(), true)));
        slot[..ID_BYTES].fill(0xff);
        assert_eq!(read(&slot), None);
    }
}
