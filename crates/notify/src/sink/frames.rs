//! The frames of AMQP as a broker sends them, looked at before the client library reads them. It reads a table inside a table by calling
//! itself, without a bound: a frame of 100 kB that holds nothing but the beginnings of tables would take the stack of the process.

use std::io;

/// The head of a frame: its type, its channel and the size of its payload.
const HEAD_BYTES: usize = 7;
/// The types of frames that hold tables: a method, and the head of a content.
const WITH_TABLES: [u8; 2] = [1, 2];
/// And those that hold none: a part of a content, and a sign of life.
const WITHOUT_TABLES: [u8; 2] = [3, 8];
/// What a table and an array begin with. Behind it comes the size in four bytes.
const BEGIN: [u8; 2] = [b'F', b'A'];
/// A broker of good will puts tables into a table, but no more than this number in a frame.
const TABLES_MAX: usize = 64;
/// A larger one is none of those that were agreed on; the first byte of the size of any table in it is 0.
const PAYLOAD_BYTES_MAX: u32 = 1 << 20;

/// Where in a frame the next byte lies.
#[derive(Debug, Default)]
pub struct Frames {
    head: Vec<u8>,
    /// Of the payload, and the byte that ends it; none: within the head.
    left: Option<usize>,
    begins: usize,
    last: u8,
}

impl Frames {
    /// Reads on.
    ///
    /// # Errors
    /// When this is no frame, is too large or holds too many tables.
    pub fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            self.next(*byte)?;
        }
        Ok(())
    }

    fn next(&mut self, byte: u8) -> io::Result<()> {
        match self.left {
            None => {
                self.head.push(byte);
                if self.head.len() == HEAD_BYTES {
                    self.left = Some(payload(&self.head)?);
                    self.begins = 0;
                    self.last = 0;
                }
            }
            Some(left) => {
                // Each table inside another has these two bytes of its own: so there are at least as many as levels.
                let begins = BEGIN.contains(&self.last) && byte == 0;
                self.begins = self.begins.saturating_add(usize::from(begins));
                self.last = byte;
                let has_tables = self.head.first().is_some_and(|t| WITH_TABLES.contains(t));
                if has_tables && self.begins > TABLES_MAX {
                    return Err(refused("the broker sent a frame with too many tables".into()));
                }
                self.left = left.checked_sub(1).filter(|left| *left > 0);
                if self.left.is_none() {
                    self.head.clear();
                }
            }
        }
        Ok(())
    }
}

/// The bytes behind this head, with the one that ends the frame.
fn payload(head: &[u8]) -> io::Result<usize> {
    let [kind, _, _, size @ ..] = head else {
        return Err(refused("the broker sent no whole frame".into()));
    };
    let size = size
        .first_chunk()
        .map_or(u32::MAX, |size| u32::from_be_bytes(*size));
    if !WITH_TABLES.contains(kind) && !WITHOUT_TABLES.contains(kind) {
        return Err(refused(format!("the broker sent a frame of unknown type {kind}")));
    }
    if size > PAYLOAD_BYTES_MAX {
        return Err(refused(format!("the broker sent a frame of {size} bytes")));
    }
    Ok(usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1))
}

/// An error for what a server sent.
pub fn refused(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1][..], &size, payload, b"\xce"].concat()
    }

    /// Tables in tables.
    fn nested(depth: usize, begin: u8) -> Vec<u8> {
        (0..depth).fold(Vec::new(), |inner, _| {
            let size = u32::try_from(inner.len()).unwrap().to_be_bytes();
            [&[begin][..], &size, &inner].concat()
        })
    }

    #[test]
    fn tables_in_tables_have_a_bound_and_the_text_of_a_message_has_none() {
        for begin in BEGIN {
            for kind in WITH_TABLES {
                Frames::default().look(&frame(kind, &nested(8, begin))).unwrap();
                let deep = frame(kind, &nested(1000, begin));
                assert!(Frames::default().look(&deep).is_err());
            }
            Frames::default().look(&frame(3, &nested(1000, begin))).unwrap();
        }
    }

    #[test]
    fn what_is_no_frame_or_too_large_is_refused() {
        for bytes in [
            &b"AMQP\0\0\x09\x01"[..],
            b"HTTP/1.1 400",
            b"\x01\0\0\xff\xff\xff\xf0",
        ] {
            assert!(Frames::default().look(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn frames_are_followed_however_they_are_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1usize..20,
        ) {
            let mut frames = Frames::default();
            let bytes: Vec<u8> = payloads.iter().flat_map(|p| frame(3, p)).collect();
            for part in bytes.chunks(cut) {
                frames.look(part).unwrap();
            }
            prop_assert!(frames.head.is_empty() && frames.left.is_none());
        }
    }
}
