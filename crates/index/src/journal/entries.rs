//! What a segment holds, to the byte.

use purge_format::Damaged;
use purge_format::frame::{Frames, put_frame};
use purge_format::integers::{Cursor, put_signed, put_varint};
use purge_model::{Inode, Seconds};

/// The part of [`Identity::magic`] that names the type.
const LOW: u64 = 0xffff_ffff;

const VERSION: u8 = 1;
const HEAD: u8 = 1;
const USES: u8 = 2;
const GAP: u8 = 3;
const SEEN: u8 = 4;

/// Which file system a file beside the store speaks of: its type, its own id, and its root's inode and birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Magic number of the type: 32 bits. Above them the file system's own id ([`fold`](Self::fold)); 0: not known, as earlier agents
    /// wrote it.
    pub magic: u64,
    /// Inode of the volume's root.
    pub root: Inode,
    /// Its birth; [`Seconds::MIN`]: the file system keeps none.
    pub birth: Seconds,
}

impl Identity {
    /// The type and the file system's own id, as they lie in [`Identity::magic`].
    pub fn fold(magic: u64, id: u64) -> u64 {
        let folded = (id ^ (id >> 32)) & LOW;
        (magic & LOW) | (folded << 32)
    }

    /// The type alone.
    pub fn kind(self) -> u64 {
        self.magic & LOW
    }

    /// Whether `found` is the file system that this was written of. What one of them does not know tells nothing.
    pub fn is(self, found: Self) -> bool {
        let agree = |a: u64, b: u64| a == b || a == 0 || b == 0;
        self.kind() == found.kind()
            && self.root == found.root
            && agree(self.magic >> 32, found.magic >> 32)
            && agree(self.birth.0.into(), found.birth.0.into())
    }

    pub(crate) fn put(self, out: &mut Vec<u8>) {
        put_varint(out, self.magic);
        put_varint(out, self.root);
        put_varint(out, self.birth.0.into());
    }

    pub(crate) fn read(from: &mut Cursor<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            magic: from.varint()?,
            root: from.varint()?,
            birth: Seconds(from.varint32()?),
        })
    }
}

/// One entry of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// These files were used then.
    Uses(Seconds, Vec<Inode>),
    /// Uses were lost up to then.
    Gap(Seconds, String),
    /// Every use before then is in this segment, an earlier one or the index.
    Seen(Seconds),
}

/// The entries of a segment of the volume `identity`, as far as they can be read. Whether that was all of it. A segment of
/// another volume has none.
pub fn read_segment(bytes: &[u8], identity: Identity) -> (Vec<Entry>, bool) {
    let mut frames = Frames::new(bytes);
    let mut entries = Vec::new();
    let Some(head) = frames.next() else {
        // Killed before the head was there: nothing was recorded.
        return (entries, bytes.is_empty());
    };
    if read_head(head).is_none_or(|i| !i.is(identity)) {
        return (entries, false);
    }
    for body in frames.by_ref() {
        match read_entry(body) {
            Ok(entry) => entries.push(entry),
            Err(_) => return (entries, false),
        }
    }
    (entries, !frames.is_torn())
}

fn read_head(body: &[u8]) -> Option<Identity> {
    let mut from = Cursor::new(body, "journal");
    let head = (from.byte().ok()?, from.byte().ok()?) == (HEAD, VERSION);
    let identity = Identity::read(&mut from).ok()?;
    (head && from.is_empty()).then_some(identity)
}

/// Reads one entry, the body of a frame.
///
/// # Errors
/// [`Damaged`] when it is none.
pub fn read_entry(body: &[u8]) -> Result<Entry, Damaged> {
    let mut from = Cursor::new(body, "journal");
    let kind = from.byte()?;
    let at = Seconds(from.varint32()?);
    match kind {
        USES => {
            let (mut inodes, mut before) = (Vec::new(), 0u64);
            while !from.is_empty() {
                before = before.wrapping_add_signed(from.signed()?);
                inodes.push(before);
            }
            Ok(Entry::Uses(at, inodes))
        }
        GAP => Ok(Entry::Gap(at, String::from_utf8_lossy(from.rest()).into_owned())),
        SEEN if from.is_empty() => Ok(Entry::Seen(at)),
        _ => Err(Damaged {
            row: "journal",
            at: 0,
        }),
    }
}

/// Appends an entry as a frame.
pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Uses(at, inodes) => put_uses(out, *at, inodes),
        Entry::Gap(at, cause) => put_frame(out, |body| {
            body.push(GAP);
            put_varint(body, at.0.into());
            body.extend_from_slice(cause.as_bytes());
        }),
        Entry::Seen(at) => put_frame(out, |body| {
            body.push(SEEN);
            put_varint(body, at.0.into());
        }),
    }
}

pub(super) fn put_uses(out: &mut Vec<u8>, at: Seconds, inodes: &[Inode]) {
    put_frame(out, |body| {
        body.push(USES);
        put_varint(body, at.0.into());
        let mut before = 0u64;
        for ino in inodes {
            put_signed(body, ino.wrapping_sub(before).cast_signed());
            before = *ino;
        }
    });
}

/// Appends a segment's head as a frame.
pub(super) fn put_head(out: &mut Vec<u8>, identity: Identity) {
    put_frame(out, |body| {
        body.extend_from_slice(&[HEAD, VERSION]);
        identity.put(body);
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const ME: Identity = Identity {
        magic: 0xEF53,
        root: 2,
        birth: Seconds(7),
    };

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (any::<u32>(), prop::collection::vec(any::<u64>(), 0..40))
                .prop_map(|(at, inodes)| Entry::Uses(Seconds(at), inodes)),
            (any::<u32>(), ".{0,20}").prop_map(|(at, cause)| Entry::Gap(Seconds(at), cause)),
            any::<u32>().prop_map(|at| Entry::Seen(Seconds(at))),
        ]
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were_put(entries in prop::collection::vec(entry(), 0..10)) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|e| put_entry(&mut bytes, e));
            let read: Vec<_> = Frames::new(&bytes).map(|b| read_entry(b).unwrap()).collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_entry(&bytes);
            let _ = read_segment(&bytes, ME);
        }
    }
}
