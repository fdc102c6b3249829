//! Records of `inotify(7)` as values. Pure and bounds-checked: no bytes make it panic.
//!
//! ```text
//! wd:i32 mask:u32 cookie:u32 len:u32  name[len], padded with NUL
//! ```

/// What happened (`linux/inotify.h`).
pub mod mask {
    /// Data was read.
    pub const ACCESS: u32 = 0x1;
    /// Data was written, or the size changed.
    pub const MODIFY: u32 = 0x2;
    /// Metadata changed.
    pub const ATTRIB: u32 = 0x4;
    /// A descriptor that could write was closed.
    pub const CLOSE_WRITE: u32 = 0x8;
    /// A descriptor that could only read was closed.
    pub const CLOSE_NOWRITE: u32 = 0x10;
    /// It was opened.
    pub const OPEN: u32 = 0x20;
    /// A name left the directory.
    pub const MOVED_FROM: u32 = 0x40;
    /// A name came into the directory.
    pub const MOVED_TO: u32 = 0x80;
    /// An entry was made.
    pub const CREATE: u32 = 0x100;
    /// An entry was removed.
    pub const DELETE: u32 = 0x200;
    /// What is watched was removed.
    pub const DELETE_SELF: u32 = 0x400;
    /// Events were dropped.
    pub const OVERFLOW: u32 = 0x4000;
    /// The watch is no more.
    pub const IGNORED: u32 = 0x8000;
    /// It is of a directory.
    pub const ISDIR: u32 = 0x4000_0000;
}

const HEAD_BYTES: usize = 16;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The watch.
    pub wd: i32,
    /// What happened.
    pub mask: u32,
    /// The same of both sides of a move.
    pub cookie: u32,
    /// In the directory that is watched; empty for what is watched itself.
    pub name: &'a [u8],
}

/// A record that cannot be what the kernel writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an inotify record does not fit its buffer of {0} bytes")]
pub struct DecodeError(usize);

/// The records in `bytes`, as one `read(2)` filled it. Ends after the first error.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, DecodeError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((record, after)) = split(rest) else {
            let left = rest.len();
            rest = &[];
            return Some(Err(DecodeError(left)));
        };
        rest = after;
        Some(Ok(record))
    })
}

fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let word = |at: usize| {
        Some(u32::from_ne_bytes(
            bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    let len = usize::try_from(word(12)?).ok()?;
    let end = HEAD_BYTES.checked_add(len)?;
    let name = bytes.get(HEAD_BYTES..end)?;
    let record = Record {
        wd: word(0)?.cast_signed(),
        mask: word(4)?,
        cookie: word(8)?,
        name: name.split(|b| *b == 0).next().unwrap_or(&[]),
    };
    Some((record, bytes.get(end..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn record(wd: i32, mask: u32, cookie: u32, name: &[u8]) -> Vec<u8> {
        let mut padded = name.to_vec();
        if !name.is_empty() {
            padded.push(0);
            padded.resize(padded.len().next_multiple_of(16), 0);
        }
        let mut out = wd.to_ne_bytes().to_vec();
        out.extend(mask.to_ne_bytes());
        out.extend(cookie.to_ne_bytes());
        out.extend((padded.len() as u32).to_ne_bytes());
        out.extend(padded);
        out
    }

    #[test]
    fn records_and_their_names_are_read() {
        let mut bytes = record(1, mask::OPEN, 0, b"a\xff\nb");
        bytes.extend(record(2, mask::DELETE_SELF, 0, b""));
        let all: Vec<_> = records(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            (all[0].wd, all[0].mask, all[0].name),
            (1, mask::OPEN, &b"a\xff\nb"[..])
        );
        assert_eq!((all[1].wd, all[1].name), (2, &b""[..]));
        assert_eq!(all.len(), 2);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let errors = records(&bytes).filter(Result::is_err).count();
            prop_assert!(errors <= 1);
        }
    }
}
