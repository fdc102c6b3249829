//! The bytes of a checkpoint.

use super::remembered::{Clocks, Remembered};
use crate::PageView;
use crate::codec::{put_clocks, read_clocks};
use crate::journal::Identity;
use purge_format::Damaged;
use purge_format::frame::{Frames, put_frame};
use purge_format::integers::{Cursor, put_signed, put_varint};
use purge_model::Seconds;

const VERSION: u8 = 1;
const HEAD: u8 = 11;
pub(super) const PAGES: u8 = 12;
const END: u8 = 13;

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of which file system.
    pub identity: Identity,
    /// Grows with each checkpoint.
    pub number: u64,
    /// When it was begun.
    pub taken: Seconds,
    /// The last journal segment that it covers.
    pub journal: u64,
    /// What the store remembers of the volume, as it stands there.
    pub record: Vec<u8>,
}

pub(super) fn put_head(out: &mut Vec<u8>, head: &Head) {
    put_frame(out, |body| {
        body.extend_from_slice(&[HEAD, VERSION]);
        head.identity.put(body);
        put_varint(body, head.number);
        put_varint(body, head.taken.0.into());
        put_varint(body, head.journal);
        body.extend_from_slice(&head.record);
    });
}

pub(super) fn put_page(out: &mut Vec<u8>, before: &mut u64, page: &PageView<'_>, births: &[u32]) {
    put_signed(out, page.number().wrapping_sub(*before).cast_signed());
    *before = page.number();
    let mut birth = 0u32;
    let mut row = Vec::new();
    put_clocks(&mut row, page.present(), page.clocks(), page.sources());
    out.extend_from_slice(&row);
    for b in births {
        put_signed(out, i64::from(*b) - i64::from(birth));
        birth = *b;
    }
}

pub(super) fn put_end(out: &mut Vec<u8>, entries: u64) {
    put_frame(out, |body| {
        body.push(END);
        put_varint(body, entries);
    });
}

/// Reads a checkpoint. None unless it is whole.
pub fn read(bytes: &[u8]) -> Option<(Head, Remembered)> {
    let mut frames = Frames::new(bytes);
    let head = read_head(frames.next()?).ok()?;
    let (mut remembered, mut entries) = (Remembered::default(), 0u64);
    while let Some(body) = frames.next() {
        match body.split_first()? {
            (&PAGES, pages) => entries = entries.checked_add(read_pages(pages, &mut remembered).ok()?)?,
            (&END, end) => {
                let said = Cursor::new(end, "checkpoint").varint().ok()?;
                return (said == entries && frames.next().is_none() && !frames.is_torn())
                    .then_some((head, remembered));
            }
            _ => return None,
        }
    }
    None
}

/// Reads only what a checkpoint says of itself.
pub(super) fn read_head(body: &[u8]) -> Result<Head, Damaged> {
    let mut from = Cursor::new(body, "checkpoint");
    if (from.byte()?, from.byte()?) != (HEAD, VERSION) {
        return Err(Damaged {
            row: "checkpoint",
            at: 0,
        });
    }
    Ok(Head {
        identity: Identity::read(&mut from)?,
        number: from.varint()?,
        taken: Seconds(from.varint32()?),
        journal: from.varint()?,
        record: from.rest().to_vec(),
    })
}

fn read_pages(body: &[u8], into: &mut Remembered) -> Result<u64, Damaged> {
    let mut from = Cursor::new(body, "checkpoint");
    let (mut number, mut entries) = (0u64, 0u64);
    while !from.is_empty() {
        number = number.wrapping_add_signed(from.signed()?);
        let mut ahead = from.clone();
        let bits = ahead.take(8)?;
        let count = u64::from_le_bytes(bits.try_into().unwrap_or_default()).count_ones() as usize;
        let (present, clocks, sources) = read_clocks(from.take(8 + count * 5)?)?;
        let mut birth = 0i64;
        let mut births = Vec::with_capacity(count);
        for _ in 0..count {
            birth = birth.wrapping_add(from.signed()?);
            let b = u32::try_from(birth).map_err(|_| Damaged {
                row: "checkpoint",
                at: births.len(),
            })?;
            births.push(b);
        }
        entries = entries.saturating_add(count as u64);
        let page = Clocks {
            present,
            births: births.into(),
            clocks: clocks.into(),
            sources: sources.into(),
        };
        into.pages.insert(number, page);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        let identity = Identity {
            magic: 0xEF53,
            root: 2,
            birth: Seconds(7),
        };
        Head {
            identity,
            number: 1,
            taken: Seconds(100),
            journal: 3,
            record: vec![1, 2, 3],
        }
    }

    proptest! {

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let mut framed = Vec::new();
            put_head(&mut framed, &head());
            put_frame(&mut framed, |b| { b.push(PAGES); b.extend_from_slice(&bytes) });
            put_end(&mut framed, 1);
            let _ = read(&framed);
        }
    }
}
